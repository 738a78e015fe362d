/** The logit lens: the token that each layer would predict, at each position. */

import { h, say, svg } from "../dom.js";
import { latest } from "../latest.js";
import { move } from "../grid.js";

const WIDTH = 320; // of the chart of norms, in its own units
const HEIGHT = 120;

/** Show the grid of layers and positions, the candidates of one cell, and the norms. */
export function mount(root, app) {
  const t = (key, values) => app.t(`lens.${key}`, values);
  const about = h("p", { class: "hint" });
  const table = h("table", { class: "lens", role: "grid" });
  const scroll = h("div", { class: "sideways", tabindex: 0, role: "region" }, table);
  const details = h("div", { class: "lens-details", role: "status" });
  const chart = h("figure", { class: "norms" });
  const code = h("button", { type: "button", onclick: () => app.showCode("GPT.head") });
  root.append(h("div", { class: "lens-part" }, about, scroll, details, chart, code));
  let answer = null; // of /api/lens, with `ids`: the tokens at its positions
  let at = { layer: 0, position: 0 };
  let cells = [];

  const ask = latest(
    ({ model, step, ids }) => app.api("/api/lens", { model, step, ids }),
    (got, { ids }) => {
      answer = { ...got, ids: ids.slice(got.n_truncated + got.first) };
      at = { layer: got.layers - 1, position: answer.ids.length - 1 };
      draw();
    },
  );

  function draw() {
    const { layers, top, ids } = answer;
    const name = (layer) => (layer === 0 ? t("embedding") : t("layer", { n: layer }));
    cells = top.map((positions, layer) => positions.map((candidates, position) => {
      const [id, p] = candidates[0];
      const cell = h("td", { role: "gridcell", tabindex: -1, class: "lens-cell" }, app.piece(id));
      cell.style.setProperty("--share", p.toFixed(3));
      cell.classList.toggle("sure", p > 0.5);
      cell.setAttribute("aria-label", `${name(layer)}, ${app.piece(ids[position])}: ${app.piece(id)} ${app.percent(p)}`);
      for (const event of ["pointerenter", "focus", "click"]) {
        cell.addEventListener(event, () => choose(layer, position));
      }
      cell.addEventListener("keydown", (pressed) => {
        // The last layer stands at the top, as the tokens rise through the layers.
        const to = move(pressed, layers - 1 - layer, position, layers, ids.length);
        if (!to) return;
        pressed.preventDefault();
        cells[layers - 1 - to[0]][to[1]].focus();
      });
      return cell;
    }));
    const rows = cells.map((row, layer) =>
      h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, name(layer)), row)).reverse();
    const read = h("tr", { role: "row", class: "lens-read" }, h("th", { scope: "row", role: "rowheader" }, t("read")),
      ids.map((id) => h("th", { scope: "col", role: "columnheader", class: "token" }, app.piece(id))));
    table.replaceChildren(h("caption", { class: "visually-hidden" }, t("grid")), h("tbody", { role: "rowgroup" }, rows, read));
    choose(at.layer, at.position);
    scroll.scrollLeft = scroll.scrollWidth;
    drawNorms();
  }

  function choose(layer, position) {
    cells[at.layer]?.[at.position]?.setAttribute("tabindex", -1);
    at = { layer, position };
    const cell = cells[layer][position];
    for (const other of table.querySelectorAll(".chosen")) other.classList.remove("chosen");
    cell.classList.add("chosen");
    cell.tabIndex = 0;
    const after = answer.next[layer][position];
    const facts = { token: app.piece(answer.ids[position]), layer: layer === 0 ? t("embedding") : t("layer", { n: layer }) };
    const follows = after && t("follows", {
      token: app.piece(answer.ids[position + 1]), p: app.percent(after[0]), rank: app.number(after[1], 0),
    });
    details.replaceChildren(
      h("p", {}, t("after", facts)),
      h("ol", { class: "lens-candidates" }, answer.top[layer][position].map(([id, p]) => {
        const bar = h("span", { class: "source-bar", "aria-hidden": "true" });
        bar.style.setProperty("--share", p);
        return h("li", {}, h("b", { class: "token" }, app.piece(id)), " ", h("span", { class: "p" }, app.percent(p)), bar);
      })),
      follows ? h("p", {}, follows) : h("p", { class: "hint" }, t("unknown")),
    );
    if (answer) drawNorms();
  }

  /** Draw the sizes at the chosen position: of the stream, and of what each part adds. */
  function drawNorms() {
    const { norms, layers } = answer;
    const of = (name) => norms[name].map((row) => row[at.position]);
    const lines = { stream: of("stream"), attention: of("attention"), mlp: of("mlp") };
    const most = Math.max(...lines.stream, ...lines.attention, ...lines.mlp) || 1;
    const x = (layer) => 30 + (layer / Math.max(1, layers - 1)) * (WIDTH - 40);
    const y = (value) => HEIGHT - 16 - (value / most) * (HEIGHT - 28);
    // An addition of block n leads to the stream after block n: it stands at that place.
    const points = (name) => lines[name].map((value, i) => [x(name === "stream" ? i : i + 1), y(value)]);
    const drawn = Object.keys(lines).map((name) => svg("g", { class: `norm-${name}` },
      svg("polyline", { points: points(name).map((each) => each.join()).join(" "), fill: "none" }),
      points(name).map(([cx, cy]) => svg("circle", { cx, cy, r: 2.2 }))));
    const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" },
      svg("line", { x1: 30, x2: WIDTH - 10, y1: y(0), y2: y(0), class: "axis-line" }), drawn,
      svg("text", { x: 26, y: y(most) + 4, "text-anchor": "end" }, app.number(most, 1)),
      svg("text", { x: 26, y: y(0) + 4, "text-anchor": "end" }, "0"));
    const legend = h("figcaption", {}, t("norms", { token: app.piece(answer.ids[at.position]) }), " ",
      Object.keys(lines).map((name) => h("span", { class: `key key-${name}` }, t(`norm_${name}`))));
    const numbers = h("table", { class: "visually-hidden" }, h("tbody", {}, Object.entries(lines).map(([name, values]) =>
      h("tr", {}, h("th", { scope: "row" }, t(`norm_${name}`)), values.map((value) => h("td", {}, app.number(value, 2)))))));
    chart.replaceChildren(legend, drawing, numbers);
  }

  return {
    update(changed) {
      if (changed.has("language")) {
        say(about, t("about"));
        say(code, app.t("show_code"));
        code.setAttribute("aria-label", app.t("show_code.of", { name: "GPT.head" }));
        scroll.setAttribute("aria-label", t("grid"));
      }
      const { model, step } = app.state;
      if (["text", "model"].some((name) => changed.has(name)) && app.text.ids.length) {
        ask({ model, step, ids: app.text.ids });
      } else if (answer && changed.has("language")) draw();
    },
  };
}
