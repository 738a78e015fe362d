/** The tokens of the text as chips, and how byte-pair encoding made each. */

import { arrows, h, say } from "../dom.js";
import { heading } from "../heading.js";
import { wordAround } from "../words.js";
import { hexBytes, shortened, spelt, visible } from "../vocabulary.js";

const N_COLOURS = 6;
const MAX_SHOWN = 600; // chips of the end of a long text

/** Show the chips, and the details of the one that is chosen. */
export function mount(root, app) {
  const strip = h("ol.chips", { named: "tokens.strip" });
  const details = h("div.token-details", { role: "status" });
  root.append(
    heading(app, "tokens.title", "Tokenizer.encode").element, h("p.hint", { t: "tokens.about" }), strip, details,
  );
  arrows(strip);
  let chosen = null; // index of the token whose details are shown
  let shown = 0; // index of the first chip's token

  function draw() {
    const { ids, nPrompt, path } = app.text;
    const first = Math.max(0, ids.length - MAX_SHOWN);
    const focused = [...strip.querySelectorAll("button")].indexOf(document.activeElement);
    const held = focused < 0 ? null : shown + focused;
    shown = first;
    strip.replaceChildren(
      ...(first ? [h("li", `… ${app.number(first)}`)] : []),
      ...ids.slice(first).map((id, i) => chip(id, first + i, nPrompt, path[first + i - nPrompt])),
    );
    const all = strip.querySelectorAll("button");
    const reached = all[(held ?? chosen ?? ids.length) - first] ?? all[all.length - 1];
    if (reached) reached.tabIndex = 0;
    if (held === null) strip.scrollTop = strip.scrollHeight;
    else reached?.focus();
  }

  function chip(id, at, nPrompt, node) {
    const piece = app.piece(id);
    const kind = `${node ? ".new" : ""}${node?.forced ? ".forced" : ""}`;
    return h("li", h(`button.chip.colour-${at % N_COLOURS}${kind}`, {
      tabindex: -1, "aria-pressed": String(at === chosen),
      "aria-label": app.t("tokens.chip", { piece, id }), onclick: () => choose(at),
    }, h("span.piece", piece), h("span.id", id)));
  }

  async function choose(at) {
    chosen = chosen === at ? null : at;
    draw();
    if (chosen === null) return details.replaceChildren();
    const { ids, nPrompt, path } = app.text;
    const id = ids[at];
    details.replaceChildren(h("p",
      h("b.token", app.piece(id)), ` id ${id}, ${app.t("tokens.bytes")} `,
      h("code", shortened(spelt(app.vocabulary.bytes[id]))), `, ${origin(path[at - nPrompt])} `,
      h("button", { onclick: () => goBack(at) }, app.t("tokens.back"))));
    await replay(at);
  }

  function origin(node) {
    if (!node) return app.t("tokens.from_prompt");
    if (node.p === null) return app.t("tokens.earlier");
    const p = app.percent(node.p);
    if (node.forced) return app.t("tokens.forced", { p });
    return app.t("tokens.drawn", { p, u: app.number(node.u, 4) });
  }

  function goBack(at) {
    const { nPrompt, path, root } = app.text;
    chosen = null;
    details.replaceChildren();
    app.text.goTo(path[at - nPrompt] ?? root);
    app.textChanged();
    strip.querySelector('button[tabindex="0"]')?.focus();
  }

  /** Show the merges that made the word around a token, with a slider through their steps. */
  async function replay(at) {
    const { bytes, controls } = app.vocabulary;
    const { from, to } = wordAround(app.text.ids, at, bytes, controls);
    if (from === to) return;
    const word = app.decode(app.text.ids.slice(from, to));
    const { steps } = await app.api("/api/merges", { model: app.state.model, word });
    if (chosen !== at) return;
    if (steps.length < 2) {
      details.append(h("p.hint", app.t("tokens.no_merges")));
      return;
    }
    const pieces = h("p.merge-pieces");
    const said = h("output");
    const last = steps.length - 1;
    const slider = h("input", {
      type: "range", min: 0, max: last, step: 1, value: last, "aria-label": app.t("tokens.replay"), oninput: show,
    });
    function show() {
      const n = Number(slider.value);
      say(said, app.t("tokens.merge_step", { n, of: last }));
      const before = new Set(n ? steps[n - 1] : []);
      pieces.replaceChildren(...steps[n].map((hex) => {
        const isNew = n > 0 && !before.has(hex);
        return h(isNew ? "span.piece.merged" : "span.piece", visible(hexBytes(hex)));
      }));
    }
    details.append(h("h3", app.t("tokens.merges")), h("div.row", slider, said), pieces);
    show();
  }

  return {
    update(changed) {
      if (!changed.has("text", "model", "language")) return;
      if (changed.has("text", "model")) {
        chosen = null;
        details.replaceChildren();
      }
      draw();
    },
  };
}
