/** The key-value cache: which positions were there already, and which this prediction computed. */

import { cacheBytes, cells } from "../cells.js";
import { h, say } from "../dom.js";

const KINDS = ["lost", "reused", "computed", "free"];

/** Show a cell for each position of the context. */
export function mount(root, app) {
  const t = (key, values) => app.t(`cache.${key}`, values);
  const about = h("p", { class: "hint" });
  const strip = h("div", { class: "cells", role: "img" });
  const legend = h("dl", { class: "cells-legend" });
  const again = h("p", { class: "hint" });
  const size = h("p", {});
  const limit = h("p", { class: "hint" });
  const code = h("button", { type: "button", onclick: () => app.showCode("KVCache") });
  root.append(h("div", { class: "cache-part" }, about, strip, legend, again, size, limit, code));

  function draw() {
    if (!app.prediction) return;
    const { facts, ids } = app.prediction;
    const { config } = app.model;
    const kinds = cells(facts, config.block_size);
    const counts = { lost: facts.truncated, reused: facts.reused, computed: facts.computed, free: 0 };
    counts.free = kinds.length - counts.lost - counts.reused - counts.computed;
    strip.replaceChildren(...kinds.map((kind, i) => {
      const title = i < ids.length ? app.piece(ids[i]) : t("free");
      return h("span", { class: `cell cell-${kind}`, title });
    }));
    const values = Object.fromEntries(KINDS.map((kind) => [kind, app.number(counts[kind], 0)]));
    strip.setAttribute("aria-label", t("summary", values));
    legend.replaceChildren(...KINDS.map((kind) => h("div", {},
      h("dt", {}, h("span", { class: `cell cell-${kind}`, "aria-hidden": "true" }), t(kind)),
      h("dd", { "data-kind": kind }, values[kind]))));
    say(again, facts.computed ? "" : t("again"));
    const used = cacheBytes(config, facts.reused + facts.computed, facts.bytes);
    const { n_layer: layers, n_kv_head: heads, head_dim: width } = config;
    say(size, t("size", {
      kib: app.number(used / 1024, 0), layers, heads, width, n: app.number(facts.reused + facts.computed, 0),
      bytes: facts.bytes,
    }));
    say(limit, t("limit", {
      n: app.number(config.block_size, 0), half: app.number(Math.max(1, Math.floor(config.block_size / 2)), 0),
    }));
  }

  return {
    update(changed) {
      if (changed.has("language")) {
        say(about, t("about"));
        say(code, app.t("show_code"));
        code.setAttribute("aria-label", app.t("show_code.of", { name: "KVCache" }));
      }
      draw();
    },
  };
}
