/** The code: the function that computes each stage, with the shapes of this very call. */

import { h, say } from "../dom.js";
import { latest } from "../latest.js";
import { lines } from "../python.js";

// The stages in the order of a token, and the names of their code at the server.
const STAGES = {
  tokenise: ["Tokenizer.encode", "naive_encode", "next_merge"],
  predict: [
    "GPT.forward", "Block.forward", "Attention.forward", "naive_weights", "naive_attention", "apply_rope",
    "RMSNorm.forward", "MLP.forward", "GPT.head",
  ],
  filter: ["filter_steps", "repetition_penalty", "temperature", "top_k", "top_p", "min_p"],
  draw: ["uniform", "inverse_cdf"],
  append: ["naive_generate", "context_length", "KVCache"],
  learn: ["next_token_loss", "naive_train", "train", "Optimizer"],
};
const FIRST = "GPT.forward";

/** Show the choice of a function, its source and its shapes. */
export function mount(root, app) {
  const t = (key, values) => app.t(`code.${key}`, values);
  const about = h("p", { class: "hint" });
  const label = h("span", {});
  const select = h("select", { id: "code-name" });
  const place = h("p", { class: "code-place" });
  const source = h("pre", { class: "source", tabindex: 0, role: "region" });
  const letters = h("p", { class: "hint" });
  const shapes = h("table", { class: "shapes" });
  root.append(h("div", { class: "code-part" },
    about, h("label", { class: "field", for: select.id }, label, select), place, source, letters, shapes));
  select.addEventListener("change", () => app.showCode(select.value));

  const ask = latest((wish) => app.api("/api/code", wish), draw);

  function draw(answer) {
    say(place, t("place", { file: answer.file, line: answer.line }));
    source.setAttribute("aria-label", t("source", { name: answer.name }));
    const numbered = lines(answer.source).map((pieces) => h("span", { class: "line" },
      pieces.map(({ kind, text }) => h("span", { class: `py-${kind}` }, text)), "\n"));
    source.replaceChildren(h("code", {}, numbered));
    source.style.setProperty("--first", answer.line - 1);
    const T = app.text.ids.length;
    const { n_embd: C, n_head: H, n_kv_head: Hk, head_dim: D, vocab_size: V, n_ffn: M } = app.model.config;
    const numbers = Object.entries({ T, C, H, Hk, D, V, M }).map(([name, n]) => [name, app.number(n, 0)]);
    say(letters, t("letters", Object.fromEntries(numbers)));
    shapes.hidden = answer.shapes.length === 0;
    shapes.replaceChildren(
      h("caption", {}, t("shapes", { T: app.number(T, 0) })),
      h("tbody", {}, answer.shapes.map(({ name, shape }) =>
        h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, `(${shape.join(", ")})`)))),
    );
  }

  function options() {
    select.replaceChildren(...Object.entries(STAGES).map(([stage, names]) =>
      h("optgroup", { label: t(stage) }, names.map((name) => h("option", { value: name }, name)))));
    select.value = app.state.code ?? FIRST;
    if (!select.value) select.value = FIRST;
  }

  return {
    update(changed) {
      if (changed.has("language")) {
        say(about, t("about"));
        say(label, t("name"));
      }
      options();
      const { model, step } = app.state;
      if (["text", "model", "code", "language"].some((name) => changed.has(name)) && app.text.ids.length) {
        ask({ model, step, ids: app.text.ids, name: select.value });
      }
    },
  };
}
