// The document that the model writes: a picture that is drawn, a tune that is played, a verdict.

import { lastDocument, rgba } from "../document.js";
import { h } from "../dom.js";
import { due, pluck, roll } from "../tune.js";

const AHEAD = 0.25; // seconds of sound that are handed to the loudspeaker in advance
const LEAST_SECONDS = 8; // of a piano roll, so that the first notes are not as wide as all of it
const MAX_CHARS = 10_000; // of a document that the server judges

export function mount(root, app) {
  const panel = new DocumentPanel(root, app);
  return { update: (changed) => panel.update(changed) };
}

/** A player of a tune that may still grow: it waits at the end until further notes are there. */
class Player {
  constructor(changed) {
    Object.assign(this, { changed, tune: null, isComplete: false, tempo: 1, position: 0 });
    this.timer = 0;
  }

  get isPlaying() {
    return this.timer !== 0;
  }

  play() {
    this.context ??= new AudioContext();
    this.context.resume();
    this.output = this.context.createGain();
    this.output.gain.value = 0.35;
    this.output.connect(this.context.destination);
    this.buffers = new Map();
    this.position = 0;
    this.scheduled = 0;
    this.clock = this.context.currentTime;
    this.timer = setInterval(() => this.tick(), 40);
    this.changed();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.output?.disconnect();
    this.changed();
  }

  tick() {
    const now = this.context.currentTime;
    const seconds = this.tune?.seconds ?? 0;
    this.position = Math.min(seconds, this.position + (now - this.clock) * this.tempo);
    this.clock = now;
    const until = this.position + AHEAD * this.tempo;
    for (const note of due(this.tune?.notes ?? [], this.scheduled, until)) {
      const source = this.context.createBufferSource();
      source.buffer = this.bufferOf(note);
      source.connect(this.output);
      source.start(Math.max(now, now + (note.start - this.position) / this.tempo));
    }
    this.scheduled = Math.max(this.scheduled, Math.min(until, seconds + 1e-6));
    if (this.isComplete && this.position >= seconds) this.stop();
    else this.changed();
  }

  bufferOf(note) {
    const seconds = note.seconds / this.tempo;
    const key = [note.midi, note.voice, note.loudness, seconds].join();
    if (!this.buffers.has(key)) {
      const samples = pluck({ ...note, seconds }, this.context.sampleRate);
      const buffer = this.context.createBuffer(1, samples.length, this.context.sampleRate);
      buffer.copyToChannel(samples, 0);
      this.buffers.set(key, buffer);
    }
    return this.buffers.get(key);
  }
}

class DocumentPanel {
  constructor(root, app) {
    Object.assign(this, { root, app, tasks: [], noun: "", seed: 0, answer: null, asked: null });
    this.player = new Player(() => this.showPlayer());
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  build() {
    this.fields = h("div", { class: "document-fields", role: "group" });
    this.canvas = h("canvas", { class: "document-canvas", "aria-hidden": "true" });
    this.caption = h("figcaption", { class: "document-caption" });
    this.figure = h("figure", { class: "document-figure", role: "figure" }, this.canvas, this.caption);
    this.playButton = h("button", { type: "button", class: "document-play" });
    this.playButton.addEventListener("click", () =>
      this.player.isPlaying ? this.player.stop() : this.player.play());
    this.tempo = h("input", { type: "range", id: "document-tempo", min: "50", max: "200", step: "5", value: "100" });
    this.tempo.addEventListener("input", () => {
      this.player.tempo = Number(this.tempo.value) / 100;
      this.showPlayer();
    });
    this.tempoLabel = h("label", { for: "document-tempo" });
    this.tempoShown = h("output", { for: "document-tempo" });
    this.controls = h("div", { class: "document-player" },
      this.playButton, this.tempoLabel, this.tempo, this.tempoShown);
    this.verdict = h("section", { class: "document-verdict" });
    this.note = h("p", { class: "document-note" });
    this.root.append(
      h("div", { class: "document" }, this.fields, this.note,
        h("div", { class: "document-columns" },
          h("div", {}, this.figure, this.controls), this.verdict)));
  }

  t(key, values) {
    return this.app.t(`document.${key}`, values);
  }

  async update(changed) {
    if (changed.has("model") || !this.model) await this.learnTasks();
    else if (changed.has("language")) this.showFields();
    if (changed.has("language") || changed.has("theme")) this.show();
    await this.judge();
  }

  // ---- the chips of conditions ----

  async learnTasks() {
    const model = this.app.state.model;
    this.model = model;
    const { tasks } = await this.app.api("/api/tasks", { model });
    if (model !== this.app.state.model) return;
    this.tasks = tasks;
    this.noun = tasks[0]?.noun ?? "";
    this.chosen = {};
    this.showFields();
  }

  showFields() {
    const task = this.tasks.find(({ noun }) => noun === this.noun);
    this.fields.hidden = !task;
    if (!task) return;
    this.fields.setAttribute("aria-label", this.t("conditions"));
    const chips = [];
    if (this.tasks.length > 1) {
      chips.push(this.chip(this.t("kind"), this.tasks.map(({ noun }) => [noun, this.t(noun)]), this.noun,
        (noun) => {
          this.noun = noun;
          this.chosen = {};
          this.showFields();
        }));
    }
    for (const [field, words] of Object.entries(task.fields)) {
      const options = [["", this.t("any")], ...words.map((word) => [word, word])];
      chips.push(this.chip(field.replaceAll("_", " "), options, this.chosen[field] ?? "", (word) => {
        this.chosen[field] = word;
        this.showFields();
      }));
    }
    const start = h("button", { type: "button", class: "document-start" }, this.t(`start_${this.noun}`));
    start.addEventListener("click", () => this.start());
    const focused = this.fields.contains(document.activeElement) ? document.activeElement.id : "";
    this.fields.replaceChildren(...chips, start);
    if (focused) document.getElementById(focused)?.focus();
  }

  chip(name, options, value, choose) {
    const id = `document-${name.replaceAll(/\W/g, "-")}`;
    const select = h("select", { id },
      ...options.map(([word, shown]) => h("option", { value: word }, shown)));
    select.value = value;
    select.addEventListener("change", () => choose(select.value));
    return h("span", { class: value ? "document-chip is-chosen" : "document-chip" },
      h("label", { for: id }, name), select);
  }

  async start() {
    const conditions = Object.fromEntries(Object.entries(this.chosen).filter(([, word]) => word));
    const asked = { model: this.app.state.model, noun: this.noun, conditions, seed: this.seed };
    this.seed += 1;
    const { text } = await this.app.api("/api/first_line", asked);
    this.app.set({ prompt: text });
  }

  // ---- the document and its verdict ----

  async judge() {
    if (this.isJudging) return;
    this.isJudging = true;
    try {
      for (let found = this.found(); found.key !== this.asked; found = this.found()) {
        this.asked = found.key;
        this.isComplete = found.isComplete;
        const isLong = found.text.length > MAX_CHARS;
        this.answer = isLong ? null : await this.app.api("/api/document", { text: found.text });
        this.text = found.text;
        this.show();
      }
    } catch {
      this.answer = null; // the page has said why
    } finally {
      this.isJudging = false;
    }
  }

  found() {
    const { ids, isComplete } = lastDocument(this.app.text.ids, this.app.vocabulary.end_of_text);
    const text = this.app.decode(ids);
    return { text, isComplete, key: `${isComplete} ${text}` };
  }

  show() {
    const { answer } = this;
    const isDocument = Boolean(answer?.task);
    this.note.hidden = isDocument;
    this.note.textContent = this.t(this.tasks.length ? "no_document" : "no_task");
    this.figure.hidden = !answer?.picture && !answer?.tune;
    this.player.tune = answer?.tune ?? null;
    this.player.isComplete = this.isComplete;
    if (!answer?.tune && this.player.isPlaying) this.player.stop();
    this.showPlayer();
    this.showVerdict();
    this.draw();
  }

  showVerdict() {
    const verdict = this.answer?.verdict;
    this.verdict.hidden = !verdict;
    if (!verdict) return;
    const mark = (isTrue) => (isTrue ? "yes" : this.isComplete ? "no" : "open");
    const signs = { yes: "✓", no: "✗", open: "…" };
    const rows = ["well_formed", "follows_prompt", "valid"].map((name) => {
      const state = mark(verdict[name]);
      return h("li", { class: `document-mark is-${state}` },
        h("span", { class: "document-sign", "aria-hidden": "true" }, signs[state]),
        h("span", {}, this.t(name)),
        h("span", { class: "visually-hidden" }, `: ${this.t(`mark_${state}`)}`));
    });
    const words = Object.entries(verdict.conditions).map(([field, word]) =>
      h("li", {}, h("span", {}, `${field.replaceAll("_", " ")} `), h("strong", {}, word)));
    const bits = verdict.bits === null ? [] : [
      h("p", { class: "document-bits" }, this.t("bits", { bits: this.app.number(verdict.bits, 1) }))];
    const rest = verdict.n_complaints - verdict.complaints.length;
    const complaints = verdict.complaints.map((complaint) => h("li", {}, complaint));
    if (rest > 0) complaints.push(h("li", {}, this.t("more", { n: this.app.number(rest, 0) })));
    this.verdict.replaceChildren(
      h("h3", {}, this.t(this.isComplete ? "verdict" : "verdict_so_far")),
      h("ul", { class: "document-marks" }, ...rows),
      ...bits,
      h("ul", { class: "document-conditions", "aria-label": this.t("conditions") }, ...words),
      h("ul", { class: "document-complaints", "aria-label": this.t("complaints") }, ...complaints),
    );
  }

  showPlayer() {
    const { player } = this;
    this.controls.hidden = !player.tune?.notes.length;
    this.playButton.textContent = this.t(player.isPlaying ? "stop" : "play");
    this.tempoLabel.textContent = this.t("tempo");
    this.tempoShown.textContent = `${this.app.number(100 * player.tempo, 0)} %`;
    if (player.isPlaying && this.root.offsetParent === null) player.stop(); // another tab
    if (player.tune) this.drawRoll();
  }

  draw() {
    if (this.answer?.picture) this.drawPicture();
    else if (this.answer?.tune) this.drawRoll();
  }

  /** Return the canvas's context, scaled so that a unit is a pixel of the page. */
  paper(width, height) {
    const ratio = devicePixelRatio || 1;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== size[0]) this.canvas.width = size[0];
    if (this.canvas.height !== size[1]) this.canvas.height = size[1];
    this.canvas.style.setProperty("width", `${width}px`);
    this.canvas.style.setProperty("height", `${height}px`);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.figure);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    return { context, colour };
  }

  drawPicture() {
    const { picture } = this.answer;
    const columns = Math.max(picture.side, picture.width / picture.cell);
    const rows = Math.max(picture.side, picture.height / picture.cell);
    const side = Math.max(4, Math.floor(Math.min(this.figure.clientWidth || 320, 364) / columns));
    const { context, colour } = this.paper(side * columns, side * rows);
    context.fillStyle = colour("document-grid");
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        context.fillRect(column * side + side / 2 - 1, row * side + side / 2 - 1, 2, 2);
      }
    }
    if (picture.width) {
      const image = new OffscreenCanvas(picture.width, picture.height);
      const pixels = new ImageData(rgba(picture), picture.width, picture.height);
      image.getContext("2d").putImageData(pixels, 0, 0);
      context.imageSmoothingEnabled = false;
      const scale = side / picture.cell;
      context.drawImage(image, 0, 0, picture.width * scale, picture.height * scale);
    }
    const [line] = this.text.split("\n");
    const nRows = picture.filled.filter((n) => n >= picture.side).length;
    this.caption.textContent = line.replace(/^picture:\s*/, "");
    this.figure.setAttribute("aria-label", this.t("picture_label", {
      caption: this.caption.textContent, n: this.app.number(nRows, 0), of: this.app.number(picture.side, 0),
    }));
  }

  drawRoll() {
    const { tune } = this.answer ?? {};
    const width = this.figure.clientWidth;
    if (!tune || !width) return;
    const height = Math.max(180, Math.min(260, Math.round(width * 0.5)));
    const { context, colour } = this.paper(width, height);
    const { rows, bars, notes, x } = roll(tune, width, height, LEAST_SECONDS);
    context.fillStyle = colour("document-key");
    for (const row of rows) if (row.isBlack) context.fillRect(0, row.y, width, row.height);
    context.fillStyle = colour("document-grid");
    for (const bar of bars) context.fillRect(Math.round(bar), 0, 1, height);
    for (const note of notes) {
      context.fillStyle = colour(note.voice === "melody" ? "document-melody" : "document-chords");
      context.beginPath();
      context.roundRect(note.x, note.y, note.width, note.height, Math.min(3, note.height / 2));
      context.fill();
    }
    if (this.player.isPlaying) {
      context.fillStyle = colour("document-playhead");
      context.fillRect(x(this.player.position), 0, 1.5, height);
    }
    const melody = tune.notes.filter(({ voice }) => voice === "melody").length;
    this.caption.textContent = [tune.title, tune.key, tune.metre].filter(Boolean).join(" · ");
    this.figure.setAttribute("aria-label", this.t("tune_label", {
      title: this.caption.textContent, n: this.app.number(melody, 0),
      bars: this.app.number(tune.bars.length, 0),
    }));
  }
}
