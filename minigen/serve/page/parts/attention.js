/** Attention: a wall of all heads, and one head large, computed by the written formula. */

import { arrows, bar, context, h, imageOf, property, row as line, say } from "../dom.js";
import { HABITS, habit, sources, strongest, wall, withoutFirst } from "../heads.js";
import { codeButton } from "../heading.js";
import { latest } from "../latest.js";
import { move } from "../grid.js";
import { pixels, pool, ramp } from "../shades.js";

const LARGE = 384; // the most rows of the large matrix that are drawn each by itself
const READABLE = 12; // pixels of a row with a label of its own
const MARGIN = 84; // pixels beside the matrix for the labels

/** Show the wall, the matrix of the chosen head, and the sources of the chosen token. */
export function mount(root, app) {
  const t = app.words("attention");
  const grid = h("div.wall", { role: "grid", named: "attention.wall" });
  const title = h("h3");
  const sink = h("input", { type: "checkbox", id: "attention-sink", onchange: redraw });
  const matrix = h("canvas.matrix", { role: "img", onpointermove: pickRow, onclick: pickRow });
  const reading = h("p.reading", { role: "status" });
  const strip = h("ol.chips.sources-strip", { named: "attention.strip" });
  const list = h("table.sources");
  const cut = h("p.hint");
  // One button for each habit, to the head that has it most clearly.
  const jumps = HABITS.map((kind) => h("button", { onclick: () => {
    const { layer, head } = strongest(all.scores, kind);
    chooseHead(layer, head);
  } }));
  root.append(h("div.stack",
    h("p.hint", { t: "attention.about" }), grid,
    h("p.hint.shades", { "aria-hidden": "true" }, "0 %", h("span"), "100 %"), cut, h("div.row", jumps),
    h("div.row", title, codeButton(app, "naive_weights")),
    h("div.row", sink, h("label", { for: sink.id, t: "attention.sink" })), h("p.hint", { t: "attention.why" }),
    h("div.attention-large", matrix, h("div", reading, list)), strip));
  arrows(strip);

  let all = null; // the answer for the wall, with `ids`, the tokens that the model sees
  let chosen = { layer: 0, head: 0 };
  let weights = null; // of the chosen head, T * T
  let row = 0; // the token whose sources are shown
  let cells = []; // [layer][head] buttons
  let image = null; // the matrix as pixels; null: it must be drawn again

  const askWall = latest(
    (wish) => app.api("/api/attention", wish),
    (answer, wish) => {
      all = { ...answer, ids: wish.ids.slice(answer.n_truncated), heads_: wall(answer) };
      chosen.layer = Math.min(chosen.layer, answer.layers - 1);
      chosen.head = Math.min(chosen.head, answer.heads - 1);
      row = all.T - 1;
      weights = image = null; // until those of this text are here
      chooseHead(chosen.layer, chosen.head);
    },
  );
  const askHead = latest((wish) => app.api("/api/attention", wish), (buffer, wish) => {
    const isPresent = wish.layer === chosen.layer && wish.head === chosen.head;
    if (!isPresent || buffer.byteLength !== 4 * all.T ** 2) return;
    weights = new Float32Array(buffer);
    redraw();
  });
  new ResizeObserver(() => weights && drawMatrix(shownWeights())).observe(matrix);

  const shades = () => ramp([0, 1, 2, 3, 4].map((i) => property(`--scale-${i}`)));
  const piece = (i) => app.piece(all.ids[i]);
  const shownWeights = () => (sink.checked ? withoutFirst(weights, all.T) : weights);

  // ---- the wall ----

  function drawWall() {
    const { layers, heads, pooled } = all;
    if (cells.length !== layers || cells[0]?.length !== heads) {
      cells = Array.from({ length: layers }, (_, layer) =>
        Array.from({ length: heads }, (_, head) => cell(layer, head)));
      grid.replaceChildren(...cells.map((each, layer) => h("div.wall-row", { role: "row" },
        h("span.wall-layer", { role: "rowheader" }, t("layer", { n: layer + 1 })), each)));
    }
    const colours = shades();
    cells.forEach((each, layer) => each.forEach((button, head) => {
      const isChosen = layer === chosen.layer && head === chosen.head;
      button.tabIndex = isChosen ? 0 : -1;
      button.setAttribute("aria-selected", isChosen);
      button.setAttribute("aria-label", headName(layer, head));
      button.title = headName(layer, head);
      const values = Float32Array.from(all.heads_[layer][head], (byte, i) =>
        i % pooled > Math.floor(i / pooled) ? -1 : byte / 255);
      const canvas = Object.assign(button.firstChild, { width: pooled, height: pooled });
      canvas.getContext("2d").drawImage(imageOf(pixels(values, colours), pooled), 0, 0);
    }));
    HABITS.forEach((kind, i) => {
      const found = strongest(all.scores, kind);
      jumps[i].hidden = !found;
      if (found) say(jumps[i], t(`most_${kind}`, { p: app.percent(found.score) }));
    });
    say(cut, all.n_truncated ? t("cut", { n: app.number(all.n_truncated) }) : "");
  }

  function cell(layer, head) {
    return h("button.wall-cell", {
      role: "gridcell",
      onclick: () => chooseHead(layer, head),
      onkeydown: (event) => {
        const to = move(event, layer, head, all.layers, all.heads);
        if (!to) return;
        event.preventDefault();
        chooseHead(...to);
        cells[to[0]][to[1]].focus();
      },
    }, h("canvas"));
  }

  function chooseHead(layer, head) {
    chosen = { layer, head };
    drawWall();
    askHead({ ...app.question, layer, head });
  }

  /** Return the name of a head, with its habit if its score shows one. */
  function headName(layer, head) {
    const found = habit(all.scores, layer, head);
    const name = t("head", { layer: layer + 1, head: head + 1 });
    return found ? `${name}: ${t(found.kind, { p: app.percent(found.score) })}` : name;
  }

  // ---- the chosen head ----

  /** Draw the chosen head, of which the weights, the colours or the words are others. */
  function redraw() {
    image = null;
    if (!weights) return;
    say(title, headName(chosen.layer, chosen.head));
    if (strip.dataset.ids !== all.ids.join()) {
      strip.dataset.ids = all.ids.join();
      strip.replaceChildren(...all.ids.map((_, i) => {
        const choose = () => show(i);
        return h("li", h("button.chip",
          { tabindex: -1, onclick: choose, onfocus: choose, onpointerenter: choose }, piece(i)));
      }));
    }
    show(Math.min(row, all.T - 1));
  }

  /** Return the place of the matrix on its canvas: its left and upper end, and the size of a token. */
  function layout(width) {
    const margin = Math.min(MARGIN, Math.round(width / 4));
    return { margin, side: (width - margin) / all.T };
  }

  function pickRow(event) {
    if (!weights) return;
    const { top, width } = matrix.getBoundingClientRect();
    const { margin, side } = layout(width);
    show(Math.min(all.T - 1, Math.max(0, Math.floor((event.clientY - top - margin) / side))));
  }

  function drawMatrix(shown) {
    if (!image) {
      const size = Math.min(all.T, LARGE);
      image = imageOf(pixels(pool(shown, all.T, size), shades()), size);
    }
    const { drawing, width } = context(matrix);
    const { margin, side } = layout(width);
    drawing.imageSmoothingEnabled = false;
    drawing.drawImage(image, margin, margin, width - margin, width - margin);
    drawing.strokeStyle = property("--second");
    drawing.lineWidth = 1.5;
    drawing.strokeRect(margin + 0.75, margin + row * side, (row + 1) * side - 1, Math.max(2, side));
    drawLabels(drawing, margin, side, sources(shown, all.T, row, 1).sources[0]?.position);
  }

  /** Write the tokens beside the rows and over the columns; of small ones, only the chosen pair. */
  function drawLabels(drawing, margin, side, column) {
    const [ink, muted] = ["--ink", "--muted"].map(property);
    drawing.font = `11px ${property("--mono")}`;
    drawing.textBaseline = "middle";
    const write = (i, isChosen) => {
      drawing.fillStyle = isChosen ? ink : muted;
      const words = piece(i);
      drawing.fillText(words.length > 11 ? `${words.slice(0, 10)}…` : words, 0, 0, margin - 6);
    };
    for (let i = 0; i < all.T; i++) {
      const isAll = side >= READABLE;
      drawing.textAlign = "right";
      drawing.save();
      drawing.translate(margin - 4, margin + (i + 0.5) * side);
      if (isAll || i === row) write(i, i === row);
      drawing.restore();
      drawing.textAlign = "left";
      drawing.save();
      drawing.translate(margin + (i + 0.5) * side, margin - 4);
      drawing.rotate(-Math.PI / 2);
      if (isAll || i === column) write(i, i === column);
      drawing.restore();
    }
  }

  /** Show from which tokens the token at `at` takes its information. */
  function show(at) {
    if (!weights) return; // those of another text are still on their way
    row = at;
    const shown = shownWeights();
    const { sources: found, rest } = sources(shown, all.T, row);
    const token = piece(row);
    const [best] = found;
    say(reading, best ? t("reading", {
      token, source: piece(best.position), p: app.percent(best.weight), back: app.number(row - best.position),
    }) : t("nothing", { token }));
    list.replaceChildren(
      h("caption", t("sources", { token })),
      h("tbody",
        found.map(({ position, weight }) => line(h("span.token", piece(position)),
          app.number(position), h("td.p", app.percent(weight)), h("td.wide", bar(weight)))),
        rest > 0.0005 && line(t("rest"), "", h("td.p", app.percent(rest)), "")),
    );
    strip.querySelectorAll("button").forEach((button, i) => {
      const weight = i <= row ? shown[row * all.T + i] : 0;
      button.style.setProperty("--share", Math.sqrt(weight));
      button.classList.toggle("reader", i === row);
      button.classList.toggle("future", i > row);
      button.tabIndex = i === row ? 0 : -1;
      button.setAttribute("aria-label",
        i > row ? t("future", { token: piece(i) }) : `${piece(i)}: ${app.percent(weight)}`);
    });
    matrix.setAttribute("aria-label", `${title.textContent}. ${reading.textContent}`);
    drawMatrix(shown);
  }

  return {
    update(changed) {
      if (changed.has("text", "model") && app.text.ids.length) askWall(app.question);
      else if (all && changed.has("theme", "language")) {
        drawWall();
        redraw();
      }
    },
  };
}
