// Training live: the loss curve of a run, its samples, and its predictions at each checkpoint.

import { h, svg } from "../dom.js";
import { softmax } from "../sampling.js";
import { hexBytes, visible } from "../vocabulary.js";
import {
  RunLog, decimals, duration, lossRange, path, scale, smoothed, spread, ticks,
} from "../curve.js";
import { candidates, decodeLogits, nextCheckpoint } from "../replay.js";

const POLL = 1000; // milliseconds between two looks at a run that trains
const IDLE = 5000; // and at one that does not, and at the list of runs
const N_REPLAYED = 24; // checkpoints of which the predictions are drawn
const THUMB = 8; // pixels from the end of a slider to the middle of its thumb at that end
const MAX_DRAWN = 1200; // points of the unsmoothed line
const MAX_CHARS = 20_000; // of a text that the server predicts

export function mount(root, app) {
  const panel = new TrainingPanel(root, app);
  return { update: (changed) => panel.update(changed) };
}

class TrainingPanel {
  constructor(root, app) {
    Object.assign(this, { root, app, runs: [], log: null, isLog: true, chosen: null });
    this.predictions = new Map(); // by step: {p, bytes}
    this.replayKey = "";
    this.hovered = null;
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.figure);
    this.timer = 0;
    this.listedAt = 0;
  }

  get isVisible() {
    return this.root.offsetParent !== null && !document.hidden;
  }

  // ---- the skeleton, whose words change with the language ----

  build() {
    this.select = h("select", { id: "training-run" });
    this.select.addEventListener("change", () => this.choose(this.select.value));
    this.status = h("p", { class: "training-status" });
    this.axis = h("button", { type: "button", class: "training-axis" });
    this.axis.addEventListener("click", () => {
      this.isLog = !this.isLog;
      this.words();
      this.draw();
    });
    this.drawing = svg("svg", { class: "training-chart", "aria-hidden": "true" });
    this.summary = h("div", { class: "visually-hidden" });
    this.figure = h("figure", { class: "training-figure" }, this.drawing, this.summary);
    this.drawing.addEventListener("pointermove", (event) => this.hover(event));
    this.drawing.addEventListener("pointerleave", () => this.hover(null));
    this.drawing.addEventListener("click", (event) => this.seek(event));
    this.slider = h("input", { type: "range", id: "training-step", min: "0", step: "1" });
    this.slider.addEventListener("input", () => this.slide(Number(this.slider.value)));
    this.stepShown = h("output", { for: "training-step" });
    this.sliderRow = h("div", { class: "training-slider" }, this.slider, this.stepShown);
    this.kept = h("p", { class: "training-note" });
    this.replayTitle = h("h3", {});
    this.replayNote = h("p", { class: "training-note" });
    this.table = h("table", { class: "training-replay" });
    this.samplesTitle = h("h3", {});
    this.samples = h("ol", { class: "training-samples", tabindex: "0" });
    this.live = h("p", { class: "visually-hidden", "aria-live": "polite" });
    this.runLabel = h("label", { for: "training-run" });
    this.empty = h("p", { class: "training-note" });
    this.body = h(
      "div", { class: "training-body" },
      this.figure, this.sliderRow, this.kept,
      h("div", { class: "training-columns" },
        h("section", {}, this.replayTitle, this.replayNote, this.table),
        h("section", {}, this.samplesTitle, this.samples)),
    );
    this.root.append(
      h("div", { class: "training" },
        h("div", { class: "training-head" }, this.runLabel, this.select, this.status, this.axis),
        this.empty, this.body, this.live),
    );
    this.words();
  }

  words() {
    const t = (key, values) => this.app.t(`training.${key}`, values);
    this.runLabel.textContent = t("run");
    this.axis.textContent = t("axis");
    this.axis.setAttribute("aria-pressed", String(this.isLog));
    this.slider.setAttribute("aria-label", t("checkpoint"));
    this.kept.textContent = t("few_checkpoints");
    this.samplesTitle.textContent = t("samples");
    this.samples.setAttribute("aria-label", t("samples"));
    this.empty.textContent = t("no_runs");
  }

  // ---- following ----

  update(changed) {
    if (changed.has("language")) this.words();
    if (changed.has("model") && this.app.model?.is_run) this.wanted = this.app.state.model;
    if (!this.timer) this.poll();
    else if (this.wanted) this.list();
    if (this.log) {
      this.draw();
      this.showSamples();
      this.replay();
    }
  }

  async poll() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), this.log?.state.running ? POLL : IDLE);
    if (!this.isVisible || this.isPolling) return;
    this.isPolling = true;
    try {
      if (Date.now() - this.listedAt > IDLE - 100) await this.list();
      if (this.log) await this.read();
    } catch {
      // the page says so in its own line; the next look may succeed
    } finally {
      this.isPolling = false;
    }
  }

  async list() {
    this.listedAt = Date.now();
    const { runs } = await this.app.api("/api/runs");
    this.runs = runs;
    const t = (key, values) => this.app.t(`training.${key}`, values);
    const options = runs.map((run) =>
      h("option", { value: run.id }, run.running ? t("run_running", { id: run.id }) : run.id));
    this.select.replaceChildren(...options);
    this.empty.hidden = runs.length > 0;
    this.body.hidden = !runs.length;
    const known = runs.map((run) => run.id);
    const started = runs.find((run) => run.running)?.id;
    const id = [this.wanted, this.log?.id, started, this.app.state.model, known[0]].find((name) =>
      known.includes(name));
    this.wanted = null;
    if (id !== undefined && id !== this.log?.id) await this.choose(id);
    if (this.log) this.select.value = this.log.id;
  }

  async choose(id) {
    this.log = new RunLog(id);
    this.chosen = null;
    this.predictions.clear();
    this.replayKey = "";
    this.select.value = id;
    await this.read();
    this.draw();
  }

  async read() {
    const log = this.log;
    const id = log.id.split("/").map(encodeURIComponent).join("/");
    let more = true;
    let isChanged = false;
    while (more && log === this.log) {
      const answer = await this.app.api(`/api/runs/${id}?after=${encodeURIComponent(log.cursor)}`);
      if (log !== this.log) return;
      const wasRunning = log.state.running;
      const nSamples = log.state.samples.length;
      isChanged = log.take(answer) || isChanged;
      more = answer.more;
      this.announce(wasRunning, nSamples);
    }
    if (isChanged) {
      this.draw();
      this.showSamples();
      this.replay();
    }
  }

  /** Say politely what a person who does not see the curve would miss: evaluations, the end. */
  announce(wasRunning, nSamples) {
    const { state, validation } = this.log;
    const t = (key, values) => this.app.t(`training.${key}`, values);
    if (wasRunning && !state.running) this.live.textContent = t("said_end", { id: this.log.id });
    else if (state.running && wasRunning && state.samples.length > nSamples && validation.length) {
      const [step, loss] = validation.at(-1);
      this.live.textContent = t("said_evaluation", {
        step: this.app.number(step, 0), loss: this.app.number(loss, 3),
      });
    }
  }

  // ---- the curve ----

  showStatus() {
    const { state } = this.log;
    const t = (key, values) => this.app.t(`training.${key}`, values);
    const n = (x) => this.app.number(x, 0);
    const parts = [
      t(state.running ? "running" : state.ended ? "ended" : "stopped"),
      state.max_steps
        ? t("step_of", { step: n(state.step), last: n(state.max_steps) })
        : t("step", { step: n(state.step) }),
    ];
    if (state.eta_seconds !== null && state.eta_seconds !== undefined) {
      const [number, unit] = duration(state.eta_seconds);
      parts.push(t(`left_${unit}`, { n: n(number) }));
    }
    this.status.replaceChildren(
      h("span", { class: state.running ? "training-dot is-running" : "training-dot" }),
      parts.join(" · "),
    );
  }

  draw() {
    if (!this.log || !this.figure.clientWidth) return;
    this.showStatus();
    this.showSlider();
    const { app, log } = this;
    const t = (key, values) => app.t(`training.${key}`, values);
    const width = this.figure.clientWidth;
    const height = Math.round(Math.min(340, Math.max(220, width * 0.4)));
    const isNarrow = width < 520;
    const margin = { left: 40, right: isNarrow ? 10 : 138, top: 22, bottom: 26 };
    const right = width - margin.right;
    const bottom = height - margin.bottom;
    const range = lossRange(log, this.isLog);
    const x = scale([0, log.lastStep], [margin.left, right]);
    const y = scale(range, [bottom, margin.top], this.isLog);
    this.slider.style.setProperty("margin-inline-start", `${margin.left - THUMB}px`);
    this.slider.style.setProperty("width", `${right - margin.left + 2 * THUMB}px`);
    Object.assign(this, { plot: { left: margin.left, right, top: margin.top, bottom } });
    const parts = [];
    const line = (cls, x1, y1, x2, y2) => svg("line", { class: cls, x1, y1, x2, y2 });
    const text = (cls, at, up, content, anchor = "start") =>
      svg("text", { class: cls, x: at, y: up, "text-anchor": anchor }, content);

    for (const tick of ticks(...range, 4, this.isLog)) {
      parts.push(line("training-grid", margin.left, y(tick), right, y(tick)));
      parts.push(text("training-tick", margin.left - 6, y(tick) + 4, app.number(tick, decimals(tick)), "end"));
    }
    parts.push(text("training-tick", 2, 11, t("nats")));
    for (const tick of ticks(0, log.lastStep, isNarrow ? 3 : 6).filter(Number.isInteger)) {
      parts.push(text("training-tick", x(tick), height - 8, app.number(tick, 0), "middle"));
    }
    parts.push(line("training-base", margin.left, bottom, right, bottom));
    for (const step of log.state.checkpoints) {
      parts.push(line("training-mark", x(step), bottom, x(step), bottom + 4));
    }

    // A label stands at the end of its line, in its colour, and moves aside for others.
    const labels = [];
    const limits = [["know", log.knowNothing], ["floor", log.floor]];
    for (const [name, value] of limits) {
      if (value === null || value < range[0] || value > range[1]) continue;
      parts.push(line(`training-${name}`, margin.left, y(value), right, y(value)));
      labels.push([`training-limit`, value, t(name, {
        n: app.number(log.state.n_vocab, 0), loss: app.number(value, 2),
      })]);
    }
    const every = Math.ceil(log.training.length / MAX_DRAWN);
    const raw = log.training.filter((_, n) => n % every === 0);
    parts.push(svg("path", { class: "training-raw", d: path(raw, x, y) }));
    const means = smoothed(log.training);
    parts.push(svg("path", { class: "training-line", d: path(means, x, y) }));
    if (means.length) {
      labels.push(["training-line", means.at(-1)[1],
        t("label_training", { loss: app.number(means.at(-1)[1], 3) })]);
    }
    for (const [step, loss] of log.validation) {
      parts.push(svg("circle", { class: "training-point", cx: x(step), cy: y(loss), r: 3.5 }));
    }
    if (log.validation.length) {
      labels.push(["training-point", log.validation.at(-1)[1],
        t("label_validation", { loss: app.number(log.validation.at(-1)[1], 3) })]);
    }
    for (const [step, loss] of log.final) {
      const [a, b] = [x(step), y(loss)];
      const d = `M${a} ${b - 6}L${a + 6} ${b}L${a} ${b + 6}L${a - 6} ${b}Z`;
      parts.push(svg("path", { class: "training-final", d }));
    }
    const gap = 15;
    const places = spread(labels.map(([, value]) => y(value)), gap, margin.top + 4, bottom - 4);
    labels.forEach(([cls, , content], n) => {
      const up = isNarrow ? places[n] - 6 : places[n] + 4;
      const at = isNarrow ? right - 4 : right + 8;
      parts.push(text(`training-label of-${cls}`, at, up, content, isNarrow ? "end" : "start"));
    });

    if (this.chosen !== null) {
      parts.push(line("training-cursor", x(this.chosen), margin.top, x(this.chosen), bottom));
    }
    if (this.hovered !== null) parts.push(...this.readout(x, text, line));
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.setAttribute("width", width);
    this.drawing.setAttribute("height", height);
    this.drawing.replaceChildren(...parts);
    this.figure.setAttribute("aria-label", t("figure", { id: log.id }));
    this.figure.setAttribute("role", "figure");
    this.summarise();
  }

  /** Return the losses at the step under the pointer, in words above the curve. */
  readout(x, text, line) {
    const { app, log, plot, hovered } = this;
    const nearest = (points) => points.reduce(
      (best, point) =>
        best && Math.abs(best[0] - hovered) <= Math.abs(point[0] - hovered) ? best : point, null);
    const words = [app.t("training.step", { step: app.number(Math.round(hovered), 0) })];
    for (const [name, points] of [["training", log.training], ["validation", log.validation]]) {
      const point = nearest(points);
      if (point) words.push(app.t(`training.label_${name}`, { loss: app.number(point[1], 3) }));
    }
    const at = x(hovered);
    return [
      line("training-hover", at, plot.top, at, plot.bottom),
      text("training-label", plot.right, 11, words.join(" · "), "end"),
    ];
  }

  /** The curve as words and a table, for people who do not see it. */
  summarise() {
    const { app, log } = this;
    const t = (key, values) => app.t(`training.${key}`, values);
    const rows = log.validation.slice(-20).map(([step, loss]) =>
      h("tr", {}, h("td", {}, app.number(step, 0)), h("td", {}, app.number(loss, 4))));
    this.summary.replaceChildren(
      h("p", {}, this.status.textContent),
      h("table", {},
        h("caption", {}, t("table")),
        h("tr", {}, h("th", { scope: "col" }, t("column_step")), h("th", { scope: "col" }, t("column_loss"))),
        ...rows),
    );
  }

  hover(event) {
    const box = this.drawing.getBoundingClientRect();
    const at = event ? event.clientX - box.left : -1;
    const isInside = this.plot && at >= this.plot.left && at <= this.plot.right;
    const before = this.hovered;
    this.hovered = isInside ? this.stepAt(at) : null;
    if (this.hovered !== before) this.draw();
  }

  stepAt(at) {
    const { left, right } = this.plot;
    return ((at - left) / (right - left)) * this.log.lastStep;
  }

  seek(event) {
    const at = this.stepAt(event.clientX - this.drawing.getBoundingClientRect().left);
    if (this.log.state.checkpoints.length) this.slide(at);
  }

  // ---- the slider over the checkpoints ----

  showSlider() {
    const { app, log } = this;
    const steps = log.state.checkpoints;
    this.sliderRow.hidden = steps.length === 0;
    this.kept.hidden = steps.length === 0 || steps.length >= Math.min(5, log.validation.length - 1);
    if (!steps.length) return;
    // A slider at its end stays at its end, so that it follows a run that trains.
    if (this.chosen === null || !steps.includes(this.chosen) || this.isAtEnd) this.chosen = steps.at(-1);
    this.isAtEnd = this.chosen === steps.at(-1);
    this.slider.max = String(log.lastStep); // so that its thumb is below its step of the curve
    this.slider.value = String(this.chosen);
    const step = app.number(this.chosen, 0);
    this.stepShown.textContent = app.t("training.at_checkpoint", { step });
    this.slider.setAttribute("aria-valuetext", app.t("training.step", { step }));
    this.slider.disabled = steps.length < 2;
  }

  /** Choose the checkpoint that is nearest to a step, or at least the next in its direction. */
  slide(step) {
    const steps = this.log.state.checkpoints;
    this.chosen = nextCheckpoint(steps, this.chosen, step);
    this.isAtEnd = this.chosen === steps.at(-1);
    this.draw();
    this.showSamples();
    this.replay();
  }

  // ---- the predictions of each checkpoint ----

  /** Return what the checkpoints shall continue: tokens if the run is the present model's. */
  get question() {
    const { app, log } = this;
    if (log.id === app.state.model) return { ids: app.text.ids };
    const text = app.decode(app.text.ids);
    return text.length <= MAX_CHARS ? { text } : null;
  }

  async replay() {
    const { log, question } = this;
    const steps = log.state.checkpoints;
    const key = JSON.stringify([log.id, question]);
    if (key !== this.replayKey) {
      this.replayKey = key;
      this.predictions.clear();
    }
    this.showReplay();
    if (!steps.length || !question || this.isReplaying || !this.isVisible) return;
    this.isReplaying = true;
    for (let step = this.nextStep(); step !== undefined; step = this.nextStep()) {
      const asked = this.replayKey;
      try {
        const answer = await this.app.api("/api/replay", { run: this.log.id, step, ...this.question });
        if (asked !== this.replayKey) continue;
        this.predictions.set(step, { p: softmax(decodeLogits(answer.logits)), bytes: answer.bytes });
      } catch {
        this.predictions.set(step, null); // the page has said why; the next text asks again
        break;
      }
      this.showReplay();
    }
    this.isReplaying = false;
  }

  /** Return the checkpoint to ask next: the chosen one, then others, evenly over the run. */
  nextStep() {
    if (!this.isVisible || !this.question) return undefined;
    const steps = this.log.state.checkpoints;
    const every = Math.max(1, (steps.length - 1) / (N_REPLAYED - 1));
    const even = Array.from({ length: Math.min(steps.length, N_REPLAYED) }, (_, n) =>
      steps[Math.round(n * every)]);
    return [this.chosen, ...even].find(
      (step) => steps.includes(step) && !this.predictions.has(step));
  }

  nameOf(id) {
    if (this.log.id === this.app.state.model) return this.app.piece(id);
    for (const each of this.predictions.values()) {
      if (each?.bytes[id] !== undefined) return visible(hexBytes(each.bytes[id]));
    }
    return `#${id}`;
  }

  showReplay() {
    const { app } = this;
    const t = (key, values) => app.t(`training.${key}`, values);
    const { controls, end_of_text: end } = app.vocabulary;
    const document = app.decode(app.text.ids).split(controls[end] ?? "\0").at(-1);
    const tail = [...document].slice(-40).join("").replaceAll("\n", "↵");
    this.replayTitle.textContent = t("replay", { step: app.number(this.chosen ?? 0, 0) });
    this.replayNote.textContent = this.log.state.checkpoints.length ? `… ${tail}` : t("no_checkpoint");
    const present = this.predictions.get(this.chosen);
    if (!present) {
      if (!this.log.state.checkpoints.length) this.table.replaceChildren();
      return;
    }
    const steps = [...this.predictions.keys()].sort((a, b) => a - b);
    const known = steps.filter((step) => this.predictions.get(step));
    const ids = candidates(known.map((step) => this.predictions.get(step)), present);
    const histories = ids.map((id) => known.map((step) => [step, this.predictions.get(step).p[id]]));
    const sum = (points) => points.reduce((total, [, p]) => total + p, 0);
    histories.push(known.map((step, n) => [step, Math.max(0, 1 - sum(histories.map((h) => h[n])))]));
    const top = Math.max(...histories.flat().map(([, p]) => p));
    const rows = histories.map((history, n) => {
      const [, p] = history[known.indexOf(this.chosen)];
      const isOthers = n === ids.length;
      const name = isOthers ? t("others") : this.nameOf(ids[n]);
      const bar = h("span", { class: "training-bar" });
      bar.style.setProperty("--share", String(p));
      return h("tr", { class: isOthers ? "training-others" : "" },
        h("th", { scope: "row" }, h("span", { class: isOthers ? "" : "training-token" }, name)),
        h("td", { class: "training-spark-cell" }, this.sparkline(history, top)),
        h("td", { class: "training-bar-cell" }, bar),
        h("td", { class: "training-p" }, app.percent(p)));
    });
    this.table.replaceChildren(
      h("caption", { class: "visually-hidden" }, t("replay_table")),
      h("thead", { class: "visually-hidden" },
        h("tr", {}, ...["token", "history", "bar", "p"].map((name) =>
          h("th", { scope: "col" }, t(`column_${name}`))))),
      h("tbody", { "data-step": this.chosen }, ...rows),
    );
  }

  /** Return a small line: a probability over the checkpoints, with a dot at the chosen one. */
  sparkline(points, top) {
    const [width, height] = [96, 22];
    const x = scale([0, this.log.lastStep], [3, width - 3]);
    const y = scale([0, top], [height - 3, 3]);
    const now = points.find(([step]) => step === this.chosen);
    const label = points.map(([, p]) => this.app.percent(p)).join(", ");
    return svg("svg", { class: "training-spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      svg("path", { d: path(points, x, y) }),
      svg("circle", { cx: x(now[0]), cy: y(now[1]), r: 2.5 }));
  }

  // ---- the samples ----

  showSamples() {
    const { app, log } = this;
    const latest = log.state.samples.filter(({ step }) => step <= (this.chosen ?? Infinity)).at(-1);
    const items = [...log.state.samples].reverse().map((sample) =>
      h("li", { class: sample === latest ? "is-chosen" : "" },
        h("span", { class: "training-sample-step" },
          app.t("training.step", { step: app.number(sample.step, 0) })),
        h("p", {}, sample.text)));
    this.samples.replaceChildren(...items);
    this.samples.hidden = !items.length;
    this.samplesTitle.hidden = !items.length;
  }
}
