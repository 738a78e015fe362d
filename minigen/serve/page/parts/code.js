/** The code: the function that computes each stage, with the shapes of this very call. */

import { h, row, say } from "../dom.js";
import { latest } from "../latest.js";
import { lines } from "../python.js";

// The stages in the order of a token, and the names of their code at the server.
const STAGES = {
  "play.tokenise": ["Tokenizer.encode", "naive_encode", "next_merge"],
  "play.predict": [
    "GPT.forward", "Block.forward", "Attention.forward", "naive_weights", "naive_attention", "apply_rope",
    "RMSNorm.forward", "MLP.forward", "GPT.head",
  ],
  "code.filter": ["filter_steps", "repetition_penalty", "temperature", "top_k", "top_p", "min_p"],
  "play.draw": ["uniform", "inverse_cdf"],
  "play.append": ["naive_generate", "context_length", "KVCache"],
  "code.learn": ["next_token_loss", "naive_train", "train", "Optimizer"],
};
const FIRST = "GPT.forward";

/** Show the choice of a function, its source and its shapes. */
export function mount(root, app) {
  const t = app.words("code");
  const select = h("select", { id: "code-name", onchange: () => app.showCode(select.value) });
  const place = h("p.code-place");
  const source = h("pre.source", { tabindex: 0, role: "region" });
  const letters = h("p.hint");
  const shapes = h("table.shapes");
  root.append(h("div.stack", h("p.hint", { t: "code.about" }),
    h("label.field", { for: select.id }, h("span", { t: "code.name" }), select),
    place, source, letters, shapes));

  const ask = latest((wish) => app.api("/api/code", wish), (answer) => {
    say(place, t("place", answer));
    source.setAttribute("aria-label", t("source", answer));
    source.replaceChildren(h("code", lines(answer.source).map((pieces) =>
      h("span.line", pieces.map(({ kind, text }) => h(`span.py-${kind}`, text)), "\n"))));
    source.style.setProperty("--first", answer.line - 1);
    const T = app.text.ids.length;
    const { n_embd: C, n_head: H, n_kv_head: Hk, head_dim: D, vocab_size: V, n_ffn: M } = app.model.config;
    const numbers = app.counts({ T, C, H, Hk, D, V, M });
    say(letters, t("letters", numbers));
    shapes.hidden = answer.shapes.length === 0;
    shapes.replaceChildren(
      h("caption", t("shapes", numbers)),
      h("tbody", answer.shapes.map(({ name, shape }) =>
        row(name, `(${shape.join(", ")})`))),
    );
  });

  return {
    update(changed) {
      select.replaceChildren(...Object.entries(STAGES).map(([stage, names]) =>
        h("optgroup", { label: app.t(stage) }, names.map((name) => h("option", { value: name }, name)))));
      select.value = app.state.code ?? FIRST;
      if (!select.value) select.value = FIRST;
      if (changed.has("text", "model", "code", "language") && app.text.ids.length) {
        ask({ ...app.question, name: select.value });
      }
    },
  };
}
