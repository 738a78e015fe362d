/** The document that the model writes: a picture that is drawn, a tune that is played, a verdict. */

import { lastDocument, rgba } from "../document.js";
import { context, h, imageOf, property, say, select } from "../dom.js";
import { Player } from "../player.js";
import { roll } from "../tune.js";

const LEAST_SECONDS = 8; // of a piano roll, so that the first notes are not as wide as all of it
const MAX_CHARS = 10_000; // of a document that the server judges
const SIGNS = { yes: "✓", no: "✗", open: "…" };

/** Show the conditions of a document to begin, the document of the present text, and its verdict. */
export function mount(root, app) {
  const t = app.words("document");
  const player = new Player(showPlayer);
  const fields = h("div.document-fields", { role: "group", named: "document.conditions" });
  const canvas = h("canvas.document-canvas", { "aria-hidden": "true" });
  const caption = h("figcaption.hint");
  const figure = h("figure.document-figure", { role: "figure" }, canvas, caption);
  const play = h("button", { onclick: () => (player.isPlaying ? player.stop() : player.play()) });
  const tempo = h("input", {
    type: "range", id: "document-tempo", min: 50, max: 200, step: 5, value: 100, oninput: () => {
      player.tempo = Number(tempo.value) / 100;
      showPlayer();
    },
  });
  const tempoShown = h("output");
  const controls = h("div.row.document-player",
    play, h("label", { for: tempo.id, t: "document.tempo" }), tempo, tempoShown);
  const judged = h("section.document-verdict");
  const note = h("p.hint");
  root.append(fields, note, h("div.columns", h("div", figure, controls), judged));
  new ResizeObserver(draw).observe(figure);

  let model = null; // of which the genres are known
  let genres = [];
  let noun = ""; // the kind of the document to begin
  let chosen = {}; // its conditions: field -> word
  let seed = 0; // of the next first line
  let found = {}; // the document that is shown: {text, isComplete, key}
  let answer = null; // of /api/document
  let isJudging = false;

  // ---- the chips of conditions ----

  async function learnGenres() {
    model = app.state.model;
    const asked = model;
    const { genres: known } = await app.api("/api/genres", { model });
    if (asked !== app.state.model) return;
    genres = known;
    noun = genres[0]?.noun ?? "";
    chosen = {};
    showFields();
  }

  function showFields() {
    const genre = genres.find((each) => each.noun === noun);
    fields.hidden = !genre;
    if (!genre) return;
    const chips = Object.entries(genre.fields).map(([field, words]) =>
      chip(field.replaceAll("_", " "), [["", t("any")], ...words], chosen[field] ?? "", (word) => {
        chosen[field] = word;
      }));
    if (genres.length > 1) {
      chips.unshift(chip(t("kind"), genres.map((each) => [each.noun, t(each.noun)]), noun, (other) => {
        noun = other;
        chosen = {};
      }));
    }
    const focused = fields.contains(document.activeElement) ? document.activeElement.id : "";
    fields.replaceChildren(...chips, h("button", { onclick: start }, t(`start_${noun}`)));
    if (focused) document.getElementById(focused)?.focus();
  }

  function chip(name, options, value, choose) {
    const id = `document-${name.replaceAll(/\W/g, "-")}`;
    const onchange = ({ target }) => {
      choose(target.value);
      showFields();
    };
    return h(value ? "span.document-chip.is-chosen" : "span.document-chip",
      h("label", { for: id }, name), select({ id, onchange }, options, value));
  }

  async function start() {
    const conditions = Object.fromEntries(Object.entries(chosen).filter(([, word]) => word));
    const asked = { model: app.state.model, noun, conditions, seed: seed++ };
    app.set({ prompt: (await app.api("/api/first_line", asked)).text });
  }

  // ---- the document and its verdict ----

  async function judge() {
    if (isJudging) return;
    isJudging = true;
    try {
      for (let next = present(); next.key !== found.key; next = present()) {
        found = next;
        answer = next.text.length > MAX_CHARS ? null : await app.api("/api/document", { text: next.text });
        show();
      }
    } catch {
      answer = null; // the page has said why
    } finally {
      isJudging = false;
    }
  }

  function present() {
    const { ids, isComplete } = lastDocument(app.text.ids, app.vocabulary.end_of_text);
    const text = app.decode(ids);
    return { text, isComplete, key: `${isComplete} ${text}` };
  }

  function show() {
    note.hidden = Boolean(answer?.genre);
    say(note, t(genres.length ? "no_document" : "no_genre"));
    figure.hidden = !answer?.picture && !answer?.tune;
    player.tune = answer?.tune ?? null;
    player.isComplete = found.isComplete;
    if (!player.tune && player.isPlaying) player.stop();
    showPlayer();
    showVerdict();
    draw();
  }

  function showVerdict() {
    const verdict = answer?.verdict;
    judged.hidden = !verdict;
    if (!verdict) return;
    const { isComplete } = found;
    const rows = ["well_formed", "follows_prompt", "valid"].map((name) => {
      const state = verdict[name] ? "yes" : isComplete ? "no" : "open";
      return h(`li.is-${state}`, h("span.document-sign", { "aria-hidden": "true" }, SIGNS[state]),
        h("span", t(name)), h("span.visually-hidden", `: ${t(`mark_${state}`)}`));
    });
    const rest = verdict.n_complaints - verdict.complaints.length;
    judged.replaceChildren(
      h("h3", t(isComplete ? "verdict" : "verdict_so_far")),
      h("ul", rows),
      verdict.bits === null ? "" : h("p.document-bits", t("bits", { bits: app.number(verdict.bits, 1) })),
      h("ul.document-conditions", { "aria-label": t("conditions") },
        Object.entries(verdict.conditions).map(([field, word]) =>
          h("li", h("span", `${field.replaceAll("_", " ")} `), h("strong", word)))),
      isComplete ? h("ul.hint.document-complaints", { "aria-label": t("complaints") },
        verdict.complaints.map((complaint) => h("li", complaint)),
        rest > 0 && h("li", t("more", { n: app.number(rest) }))) : "",
    );
  }

  function showPlayer() {
    controls.hidden = !player.tune?.notes.length;
    say(play, t(player.isPlaying ? "stop" : "play"));
    say(tempoShown, `${app.number(100 * player.tempo)} %`);
    if (player.isPlaying && root.offsetParent === null) player.stop(); // another tab
    if (player.tune) drawRoll();
  }

  function draw() {
    if (answer?.picture) drawPicture();
    else if (answer?.tune) drawRoll();
  }

  /** Return the drawing context of the canvas, which gets a size. */
  function paper(width, height) {
    canvas.style.setProperty("width", `${width}px`);
    canvas.style.setProperty("height", `${height}px`);
    return context(canvas).drawing;
  }

  function drawPicture() {
    const { picture } = answer;
    const columns = Math.max(picture.side, picture.width / picture.cell);
    const rows = Math.max(picture.side, picture.height / picture.cell);
    const side = Math.max(4, Math.floor(Math.min(figure.clientWidth || 320, 364) / columns));
    const drawing = paper(side * columns, side * rows);
    drawing.fillStyle = property("--line");
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        drawing.fillRect((column + 0.5) * side - 1, (row + 0.5) * side - 1, 2, 2);
      }
    }
    if (picture.width) {
      const image = imageOf(rgba(picture), picture.width, picture.height);
      const scale = side / picture.cell;
      drawing.imageSmoothingEnabled = false;
      drawing.drawImage(image, 0, 0, picture.width * scale, picture.height * scale);
    }
    const [line] = found.text.split("\n");
    const n = picture.filled.filter((each) => each >= picture.side).length;
    say(caption, line.replace(/^picture:\s*/, ""));
    figure.setAttribute("aria-label", t("picture_label", {
      caption: caption.textContent, ...app.counts({ n, of: picture.side }),
    }));
  }

  function drawRoll() {
    const { tune } = answer ?? {};
    const width = figure.clientWidth;
    if (!tune || !width) return;
    const height = Math.max(180, Math.min(260, Math.round(width * 0.5)));
    const drawing = paper(width, height);
    const { rows, bars, notes, x } = roll(tune, width, height, LEAST_SECONDS);
    drawing.fillStyle = property("--panel");
    for (const row of rows) if (row.isBlack) drawing.fillRect(0, row.y, width, row.height);
    drawing.fillStyle = property("--line");
    for (const bar of bars) drawing.fillRect(Math.round(bar), 0, 1, height);
    for (const note of notes) {
      drawing.fillStyle = property(note.voice === "melody" ? "--accent" : "--muted");
      drawing.beginPath();
      drawing.roundRect(note.x, note.y, note.width, note.height, Math.min(3, note.height / 2));
      drawing.fill();
    }
    if (player.isPlaying) {
      drawing.fillStyle = property("--ink");
      drawing.fillRect(x(player.position), 0, 1.5, height);
    }
    const n = tune.notes.filter(({ voice }) => voice === "melody").length;
    say(caption, [tune.title, tune.key, tune.metre].filter(Boolean).join(" · "));
    figure.setAttribute("aria-label", t("tune_label", {
      title: caption.textContent, ...app.counts({ n, bars: tune.bars.length }),
    }));
  }

  return {
    async update(changed) {
      if (changed.has("model") || model === null) await learnGenres();
      else if (changed.has("language")) showFields();
      if (changed.has("language", "theme")) show();
      await judge();
    },
  };
}
