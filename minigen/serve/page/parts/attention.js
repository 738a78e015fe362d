/** Attention: a wall of all heads, and one head large, computed by the written formula. */

import { arrows, context, h, property, say } from "../dom.js";
import { HABITS, habit, sources, strongest, wall, withoutFirst } from "../heads.js";
import { latest } from "../latest.js";
import { move } from "../grid.js";
import { pixels, pool, ramp } from "../shades.js";

const LARGE = 384; // the most rows of the large matrix that are drawn each by itself

/** Show the wall, the matrix of the chosen head, and the sources of the chosen token. */
export function mount(root, app) {
  const t = (key, values) => app.t(`attention.${key}`, values);
  const about = h("p", { class: "hint" });
  const grid = h("div", { class: "wall", role: "grid" });
  const title = h("h3", { class: "head-title" });
  const sink = h("input", { type: "checkbox", id: "attention-sink" });
  const sinkLabel = h("label", { for: sink.id });
  const why = h("p", { class: "hint" });
  const matrix = h("canvas", { class: "matrix", role: "img" });
  const line = h("p", { class: "reading", role: "status" });
  const strip = h("ol", { class: "chips sources-strip" });
  const list = h("table", { class: "sources" });
  const cut = h("p", { class: "hint" });
  const legend = h("p", { class: "hint shades", "aria-hidden": "true" }, "0 %", h("span", {}), "100 %");
  // One button for each habit, to the head that has it most clearly.
  const jumps = HABITS.map((kind) => h("button", { type: "button", onclick: () => {
    const { layer, head } = strongest(all.scores, kind);
    chooseHead(layer, head);
  } }));
  const code = h("button", { type: "button", onclick: () => app.showCode("naive_weights") });
  root.append(
    h("div", { class: "attention" },
      about, grid, legend, cut, h("div", { class: "row" }, jumps), h("div", { class: "row" }, title, code),
      h("div", { class: "row" }, sink, sinkLabel), why,
      h("div", { class: "attention-large" }, matrix, h("div", {}, line, list)), strip),
  );
  arrows(strip, () => [...strip.querySelectorAll("button")]);

  let all = null; // the answer for the wall, with `ids`, the tokens that the model sees
  let chosen = { layer: 0, head: 0 };
  let weights = null; // of the chosen head, T * T
  let row = 0; // the token whose sources are shown
  let cells = []; // [layer][head] canvases
  let image = null; // the matrix as pixels; null: it must be drawn again

  const askWall = latest(
    ({ model, step, ids }) => app.api("/api/attention", { model, step, ids }),
    (answer, wish) => {
      all = { ...answer, ids: wish.ids.slice(answer.n_truncated), heads_: wall(answer) };
      chosen.layer = Math.min(chosen.layer, answer.layers - 1);
      chosen.head = Math.min(chosen.head, answer.heads - 1);
      row = all.T - 1;
      weights = image = null; // until those of this text are here
      drawWall();
      askHead(headWish());
    },
  );
  const askHead = latest(
    (wish) => app.api("/api/attention", wish),
    (buffer, wish) => {
      const isPresent = wish.layer === chosen.layer && wish.head === chosen.head;
      if (!isPresent || buffer.byteLength !== 4 * all.T ** 2) return;
      weights = new Float32Array(buffer);
      image = null;
      drawHead();
    },
  );
  const headWish = () => ({ model: app.state.model, step: app.state.step, ids: app.text.ids, ...chosen });

  sink.addEventListener("change", () => {
    image = null;
    drawHead();
  });
  matrix.addEventListener("pointermove", (event) => pickRow(event));
  matrix.addEventListener("click", (event) => pickRow(event));
  new ResizeObserver(() => weights && drawMatrix(shownWeights())).observe(matrix);

  function pickRow(event) {
    if (!weights) return;
    const { top, height } = matrix.getBoundingClientRect();
    const at = Math.floor(((event.clientY - top) / height) * all.T);
    choose(Math.min(all.T - 1, Math.max(0, at)));
  }

  // ---- the wall ----

  function drawWall() {
    const { layers, heads } = all;
    if (cells.length !== layers || cells[0]?.length !== heads) {
      cells = Array.from({ length: layers }, (_, layer) =>
        Array.from({ length: heads }, (_, head) => cell(layer, head)),
      );
      grid.replaceChildren(...cells.map((each, layer) =>
        h("div", { role: "row", class: "wall-row" },
          h("span", { role: "rowheader", class: "wall-layer" }, t("layer", { n: layer + 1 })), each),
      ));
    }
    const shades = ramp([0, 1, 2, 3, 4].map((i) => property(`--scale-${i}`)));
    cells.forEach((each, layer) => each.forEach((button, head) => {
      const isChosen = layer === chosen.layer && head === chosen.head;
      button.tabIndex = isChosen ? 0 : -1;
      button.setAttribute("aria-selected", isChosen);
      button.setAttribute("aria-label", headName(layer, head));
      button.title = headName(layer, head);
      const canvas = button.firstChild;
      const size = all.pooled;
      Object.assign(canvas, { width: size, height: size });
      const values = Float32Array.from(all.heads_[layer][head], (byte, i) => {
        return i % size > Math.floor(i / size) ? -1 : byte / 255;
      });
      canvas.getContext("2d").putImageData(new ImageData(pixels(values, shades), size, size), 0, 0);
    }));
    HABITS.forEach((kind, i) => {
      const found = strongest(all.scores, kind);
      jumps[i].hidden = !found;
      if (found) say(jumps[i], t(`most_${kind}`, { p: app.percent(found.score) }));
    });
    say(cut, all.n_truncated ? t("cut", { n: app.number(all.n_truncated, 0) }) : "");
  }

  function cell(layer, head) {
    const button = h("button", { type: "button", role: "gridcell", class: "wall-cell" }, h("canvas", {}));
    button.addEventListener("click", () => chooseHead(layer, head));
    button.addEventListener("keydown", (event) => {
      const to = move(event, layer, head, all.layers, all.heads);
      if (!to) return;
      event.preventDefault();
      chooseHead(...to);
      cells[to[0]][to[1]].focus();
    });
    return button;
  }

  function chooseHead(layer, head) {
    chosen = { layer, head };
    drawWall();
    askHead(headWish());
  }

  /** Return the name of a head, with its habit if its score shows one. */
  function headName(layer, head) {
    const found = habit(all.scores, layer, head);
    const name = t("head", { layer: layer + 1, head: head + 1 });
    return found ? `${name}: ${t(found.kind, { p: app.percent(found.score) })}` : name;
  }

  // ---- the chosen head ----

  function shownWeights() {
    return sink.checked ? withoutFirst(weights, all.T) : weights;
  }

  function drawHead() {
    if (!weights || !all) return;
    say(title, headName(chosen.layer, chosen.head));
    drawMatrix(shownWeights());
    const shown = strip.childElementCount === all.T && strip.dataset.ids === all.ids.join();
    if (!shown) {
      strip.dataset.ids = all.ids.join();
      strip.replaceChildren(...all.ids.map((id, i) => {
        const button = h("button", { type: "button", class: "chip", tabindex: -1 }, app.piece(id));
        for (const event of ["click", "focus", "pointerenter"]) {
          button.addEventListener(event, () => choose(i));
        }
        return h("li", {}, button);
      }));
    }
    choose(Math.min(row, all.T - 1));
  }

  function drawMatrix(shown) {
    if (!image) {
      const size = Math.min(all.T, LARGE);
      const shades = ramp([0, 1, 2, 3, 4].map((i) => property(`--scale-${i}`)));
      image = new OffscreenCanvas(size, size);
      const data = new ImageData(pixels(pool(shown, all.T, size), shades), size, size);
      image.getContext("2d").putImageData(data, 0, 0);
    }
    const { drawing, width } = context(matrix);
    drawing.imageSmoothingEnabled = false;
    drawing.drawImage(image, 0, 0, width, width);
    const side = width / all.T;
    drawing.strokeStyle = property("--second");
    drawing.lineWidth = 1.5;
    drawing.strokeRect(0.75, row * side, (row + 1) * side - 1, Math.max(2, side));
  }

  /** Show from which tokens the token at `at` takes its information. */
  function choose(at) {
    if (!weights) return; // those of another text are still on their way
    row = at;
    const shown = shownWeights();
    const found = sources(shown, all.T, row);
    const name = (i) => app.piece(all.ids[i]);
    const best = found.sources[0];
    say(line, best
      ? t("reading", { token: name(row), source: name(best.position), p: app.percent(best.weight), back: app.number(row - best.position, 0) })
      : t("nothing", { token: name(row) }));
    list.replaceChildren(
      h("caption", {}, t("sources", { token: name(row) })),
      h("tbody", {}, found.sources.map(({ position, weight }) => {
        const bar = h("span", { class: "source-bar", "aria-hidden": "true" });
        bar.style.setProperty("--share", weight);
        return h("tr", {}, h("th", { scope: "row", class: "token" }, name(position)),
          h("td", {}, app.number(position, 0)), h("td", { class: "p" }, app.percent(weight)), h("td", { class: "wide" }, bar));
      }), found.rest > 0.0005 && h("tr", {}, h("th", { scope: "row" }, t("rest")), h("td", {}), h("td", { class: "p" }, app.percent(found.rest)), h("td", {}))),
    );
    [...strip.querySelectorAll("button")].forEach((button, i) => {
      const weight = i <= row ? shown[row * all.T + i] : 0;
      button.style.setProperty("--share", Math.sqrt(weight));
      button.classList.toggle("reader", i === row);
      button.classList.toggle("future", i > row);
      button.tabIndex = i === row ? 0 : -1;
      button.setAttribute("aria-label", i > row ? t("future", { token: name(i) }) : `${name(i)}: ${app.percent(weight)}`);
    });
    matrix.setAttribute("aria-label", `${title.textContent}. ${line.textContent}`);
    drawMatrix(shown);
  }

  return {
    update(changed) {
      if (changed.has("language")) {
        say(about, t("about"));
        say(sinkLabel, t("sink"));
        say(why, t("why"));
        say(code, app.t("show_code"));
        code.setAttribute("aria-label", app.t("show_code.of", { name: "naive_weights" }));
        grid.setAttribute("aria-label", t("wall"));
        strip.setAttribute("aria-label", t("strip"));
      }
      const { model, step } = app.state;
      if (["text", "model"].some((name) => changed.has(name)) && app.text.ids.length) {
        askWall({ model, step, ids: app.text.ids });
      } else if (all && (changed.has("theme") || changed.has("language"))) {
        image = null; // of other colours
        drawWall();
        drawHead();
      }
    },
  };
}
