/** The logit lens: the token that each layer would predict, at each position. */

import { bar, h, row, svg } from "../dom.js";
import { codeButton } from "../heading.js";
import { latest } from "../latest.js";
import { move } from "../grid.js";

const WIDTH = 320; // of the chart of norms, in its own units
const HEIGHT = 120;

/** Show the grid of layers and positions, the candidates of one cell, and the norms. */
export function mount(root, app) {
  const t = app.words("lens");
  const table = h("table.lens", { role: "grid" });
  const scroll = h("div.sideways", { tabindex: 0, role: "region", named: "lens.grid" }, table);
  const details = h("div.lens-details", { role: "status" });
  const chart = h("figure.norms");
  root.append(h("div.stack", h("p.hint", { t: "lens.about" }), scroll, details, chart, codeButton(app, "GPT.head")));
  let answer = null; // of /api/lens, with `ids`: the tokens at its positions
  let at = { layer: 0, position: 0 };
  let cells = [];

  const ask = latest(
    (wish) => app.api("/api/lens", wish),
    (got, { ids }) => {
      answer = { ...got, ids: ids.slice(got.n_truncated + got.first) };
      at = { layer: got.layers - 1, position: answer.ids.length - 1 };
      draw();
    },
  );

  const layerName = (n) => (n === 0 ? t("embedding") : app.t("attention.layer", { n }));
  const piece = (position) => app.piece(answer.ids[position]);

  function draw() {
    const { layers, top, ids } = answer;
    cells = top.map((positions, layer) => positions.map(([[id, p]], position) => {
      const choose = () => show(layer, position);
      return h(p > 0.5 ? "td.lens-cell.sure" : "td.lens-cell", {
        role: "gridcell", tabindex: -1, "--share": p.toFixed(3),
        "aria-label": `${layerName(layer)}, ${piece(position)}: ${app.piece(id)} ${app.percent(p)}`,
        onpointerenter: choose, onfocus: choose, onclick: choose,
        onkeydown: (event) => {
          // The last layer stands at the top, as the tokens rise through the layers.
          const to = move(event, layers - 1 - layer, position, layers, ids.length);
          if (!to) return;
          event.preventDefault();
          cells[layers - 1 - to[0]][to[1]].focus();
        },
      }, app.piece(id));
    }));
    const line = (kind, name, ...others) =>
      h(`tr${kind}`, { role: "row" }, h("th", { scope: "row", role: "rowheader" }, name), ...others);
    table.replaceChildren(h("caption.visually-hidden", t("grid")), h("tbody", { role: "rowgroup" },
      cells.map((each, layer) => line("", layerName(layer), each)).reverse(),
      line(".lens-read", t("read"), ids.map((id) =>
        h("th.token", { scope: "col", role: "columnheader" }, app.piece(id))))));
    show(at.layer, at.position);
    scroll.scrollLeft = scroll.scrollWidth;
  }

  function show(layer, position) {
    const before = cells[at.layer]?.[at.position];
    before?.setAttribute("tabindex", -1);
    before?.classList.remove("chosen");
    at = { layer, position };
    cells[layer][position].classList.add("chosen");
    cells[layer][position].tabIndex = 0;
    const after = answer.next[layer][position];
    details.replaceChildren(
      h("p", t("after", { token: piece(position), layer: layerName(layer) })),
      h("ol.lens-candidates", answer.top[layer][position].map(([id, p]) =>
        h("li", h("b.token", app.piece(id)), " ", h("span.p", app.percent(p)), bar(p)))),
      after ? h("p", t("follows", {
        token: piece(position + 1), p: app.percent(after[0]), rank: app.number(after[1]),
      })) : h("p.hint", t("unknown")),
    );
    drawNorms();
  }

  /** Draw the sizes at the chosen position: of the stream, and of what each part adds. */
  function drawNorms() {
    const names = ["stream", "attention", "mlp"];
    const lines = names.map((name) => answer.norms[name].map((row) => row[at.position]));
    const most = Math.max(...lines.flat()) || 1;
    const x = (layer) => 30 + (layer / Math.max(1, answer.layers - 1)) * (WIDTH - 40);
    const y = (value) => HEIGHT - 16 - (value / most) * (HEIGHT - 28);
    const drawn = names.map((name, n) => {
      // An addition of block n leads to the stream after block n: it stands at that place.
      const points = lines[n].map((value, i) => [x(name === "stream" ? i : i + 1), y(value)]);
      return svg(`g.norm-${name}`, svg("polyline", { points: points.join(" "), fill: "none" }),
        points.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.2 })));
    });
    const text = (value, words) => svg("text", { x: 26, y: y(value) + 4, "text-anchor": "end" }, words);
    chart.replaceChildren(
      h("figcaption", t("norms", { token: piece(at.position) }), " ",
        names.map((name) => h(`span.key.key-${name}`, t(`norm_${name}`)))),
      svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" },
        svg("line.axis-line", { x1: 30, x2: WIDTH - 10, y1: y(0), y2: y(0) }), drawn,
        text(most, app.number(most, 1)), text(0, "0")),
      h("table.visually-hidden", h("tbody", names.map((name, n) =>
        row(t(`norm_${name}`), lines[n].map((value) => app.number(value, 2)))))),
    );
  }

  return {
    update(changed) {
      if (changed.has("text", "model") && app.text.ids.length) ask(app.question);
      else if (answer && changed.has("language")) draw();
    },
  };
}
