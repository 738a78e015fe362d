/** The key-value cache: which positions were there already, and which this prediction computed. */

import { cacheBytes, cells } from "../cells.js";
import { h, say } from "../dom.js";
import { codeButton } from "../heading.js";

const KINDS = ["lost", "reused", "computed", "free"];

/** Show a cell for each position of the context. */
export function mount(root, app) {
  const t = app.words("cache");
  const strip = h("div.cells", { role: "img" });
  const legend = h("dl.cells-legend");
  const [again, size, limit] = [h("p.hint"), h("p"), h("p.hint")];
  root.append(h("div.stack",
    h("p.hint", { t: "cache.about" }), strip, legend, again, size, limit, codeButton(app, "KVCache")));

  return {
    update() {
      if (!app.prediction) return;
      const { facts, ids } = app.prediction;
      const { config } = app.model;
      const kinds = cells(facts, config.block_size);
      strip.replaceChildren(...kinds.map((kind, i) => {
        const title = i < ids.length ? app.piece(ids[i]) : t("free");
        return h(`span.cell.cell-${kind}`, { title });
      }));
      const counts = KINDS.map((kind) => [kind, kinds.filter((each) => each === kind).length]);
      const values = app.counts(Object.fromEntries(counts));
      strip.setAttribute("aria-label", t("summary", values));
      legend.replaceChildren(...KINDS.map((kind) => h("div",
        h("dt", h(`span.cell.cell-${kind}`, { "aria-hidden": "true" }), t(kind)),
        h("dd", { "data-kind": kind }, values[kind]))));
      say(again, facts.computed ? "" : t("again"));
      const n = facts.reused + facts.computed;
      const { n_layer: layers, n_kv_head: heads, head_dim: width, block_size: block } = config;
      const kib = cacheBytes(config, n, facts.bytes) / 1024;
      say(size, t("size", { ...app.counts({ kib, n }), layers, heads, width, bytes: facts.bytes }));
      say(limit, t("limit", app.counts({ n: block, half: Math.max(1, Math.floor(block / 2)) })));
    },
  };
}
