/** The head of the page: the model, the language, the colours, and all numbers as a file. */

import { choose, h, say } from "../dom.js";
import { LANGUAGES } from "../strings.js";

/** Show the choices that hold for the whole page. */
export function mount(root, app) {
  const choice = (name, change) => {
    const id = `head-${name}`;
    const select = h("select", { id, onchange: () => change(select.value) });
    return { select, field: h("label.field", { for: id }, h("span", { t: `page.${name}` }), select) };
  };
  const facts = h("p.facts");
  const model = choice("model", (id) => app.set({ model: id }));
  const language = choice("language", (name) => app.set({ language: name }));
  const theme = choice("theme", (name) => app.set({ theme: name === "system" ? null : name }));
  root.append(
    h("h1", "minigen"), model.field, facts, language.field, theme.field,
    h("button", { t: "page.export", onclick: () => download(app) }),
  );

  return {
    update(changed) {
      if (!changed.has("model", "language", "theme")) return;
      const { config, n_vocab: vocab, n_parameters: n } = app.model;
      choose(model.select, app.models.map(({ id }) => id), app.state.model);
      choose(language.select, Object.entries(LANGUAGES), app.state.language);
      const themes = ["system", "light", "dark"].map((name) => [name, app.t(`theme.${name}`)]);
      choose(theme.select, themes, app.state.theme ?? "system");
      const step = app.state.step ?? app.model.step;
      const about = step === null ? "" : `, ${app.t("page.checkpoint")} ${app.number(step, 0)}`;
      const counts = { n, vocab, layers: config.n_layer, heads: config.n_head };
      say(facts, app.t("page.parameters", app.counts(counts)) + about);
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
