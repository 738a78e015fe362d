/** The head of the page: the model, the language, the colours, and all numbers as a file. */

import { h, say } from "../dom.js";
import { LANGUAGES } from "../strings.js";

/** Show the choices that hold for the whole page. */
export function mount(root, app) {
  const choice = (name, onchange) => {
    const label = h("span", {});
    const select = h("select", { id: `head-${name}`, onchange: () => onchange(select.value) });
    root.append(h("label", { class: "field", for: select.id }, label, select));
    return { label, select };
  };
  root.append(h("h1", {}, "minigen"));
  const facts = h("p", { class: "facts" });
  const model = choice("model", (id) => app.set({ model: id }));
  root.append(facts);
  const language = choice("language", (name) => app.set({ language: name }));
  const theme = choice("theme", (name) => app.set({ theme: name === "system" ? null : name }));
  const save = h("button", { type: "button", onclick: () => download(app) });
  root.append(save);

  const options = (select, entries, chosen) => {
    select.replaceChildren(...entries.map(([value, text]) => h("option", { value }, text)));
    select.value = chosen;
  };

  return {
    update(changed) {
      if (!["model", "language", "theme"].some((name) => changed.has(name))) return;
      const { config, n_vocab: vocab, n_parameters: n } = app.model;
      say(model.label, app.t("model"));
      say(language.label, app.t("language"));
      say(theme.label, app.t("theme"));
      say(save, app.t("export"));
      options(model.select, app.models.map(({ id }) => [id, id]), app.state.model);
      options(language.select, Object.entries(LANGUAGES), app.state.language);
      const themes = ["system", "light", "dark"].map((name) => [name, app.t(`theme.${name}`)]);
      options(theme.select, themes, app.state.theme ?? "system");
      const counts = { n, vocab, layers: config.n_layer, heads: config.n_head };
      const shown = Object.entries(counts).map(([name, count]) => [name, app.number(count, 0)]);
      const step = app.state.step ?? app.model.step;
      const about = step === null ? "" : `, ${app.t("checkpoint")} ${app.number(step, 0)}`;
      say(facts, app.t("parameters", Object.fromEntries(shown)) + about);
    },
  };
}

/** Save the text, its tree and all numbers of the present draw as a JSON file. */
function download(app) {
  const { prompt, model, step, settings, seed, sample } = app.state;
  const node = (at) => ({
    token: at.token, text: at.token === null ? null : app.piece(at.token), forced: at.forced,
    u: at.u, p: at.p, next: app.text.children(at).map(node),
  });
  const draw = app.draw();
  const content = {
    format: "minigen playground 1",
    model, step: step ?? app.model.step, prompt, seed, sample, settings,
    prompt_ids: app.text.prompt, ids: app.text.ids, text: app.decode(app.text.ids),
    tree: node(app.text.root),
    next: draw && {
      u: app.prediction.u, token: draw.token,
      predicted: [...draw.raw], after_filters: [...draw.final],
    },
  };
  const file = new Blob([JSON.stringify(content)], { type: "application/json" });
  const link = h("a", { href: URL.createObjectURL(file), download: `minigen-${model}.json` });
  link.click();
  URL.revokeObjectURL(link.href);
}
