// Two models, two steps of a run, or two settings: the same text, and the same random numbers.

import { fits } from "../address.js";
import {
  candidates,
  firstBytes,
  firstDifference,
  firstDifferentBytes,
  jensenShannon,
  kullbackLeibler,
  sameVocabulary,
  scaleEnd,
} from "../divergence.js";
import { h } from "../dom.js";
import { completed } from "../surprisal.js";
import { filterSteps, inverseCdf, softmax } from "../sampling.js";

const SHOWN = 12; // candidates in the table
const WRITTEN = 40; // tokens of each continuation
const SETTINGS = {
  temperature: { min: 0, step: 0.1 },
  top_k: { min: 1, step: 1 },
  top_p: { min: 0.01, max: 1, step: 0.01 },
  min_p: { min: 0, max: 1, step: 0.01 },
  repetition_penalty: { min: 0.01, max: 100, step: 0.05 },
};

/** Show the page's model (A) beside another one (B): the next token, and a continuation of each. */
export function mount(root, app) {
  const stepsOf = new Map(); // the checkpoints of each model's run
  let other = null; // B: {model, step, settings}
  let comparing = null; // the AbortController of the table's request
  let writing = null; // the AbortController of the continuations
  const t = (key, values) => app.t(`compare.${key}`, values);

  const wordOf = (name) => app.t({ model: "model", step: "checkpoint" }[name] ?? `settings.${name}`);

  const form = h("form", { class: "compare-form" });
  const next = h("section", {});
  const texts = h("section", {});
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => choose(event.target));

  /** Return A and B: {model, step, settings, vocabulary, ids}, with the present text as ids. */
  async function sides(signal) {
    const { model, step, settings } = app.state;
    const ids = [...app.text.ids];
    const a = { model, step, settings, ids, vocabulary: app.vocabulary };
    const b = { ...other, ids, vocabulary: await app.loadVocabulary(other.model) };
    const same = sameVocabulary(a.vocabulary, b.vocabulary);
    if (!same) {
      const body = { model: b.model, text: app.decode(ids) };
      b.ids = (await app.api("/api/tokens", body, { signal })).ids;
    }
    return { a, b, same };
  }

  /** Return the probabilities of a side's next token, after all of its filters. */
  async function predict({ model, step, settings, ids }, signal) {
    const isPages = model === app.state.model && step === app.state.step;
    const known = app.prediction;
    let logits = isPages && known?.ids.join() === ids.join() ? known.logits : null;
    logits ??= new Float32Array(await app.api("/api/predict", { model, step, ids }, { signal }));
    return softmax(filterSteps(logits, ids, settings).at(-1).logits);
  }

  function build() {
    const facts = app.models.find((each) => each.id === other.model);
    const option = (value, label, chosen) => {
      const made = h("option", { value }, label);
      made.selected = value === chosen;
      return made;
    };
    const field = (name, control) => {
      control.name = name;
      return h("label", {}, h("span", {}, wordOf(name)), control);
    };
    const fields = [];
    if (app.models.length > 1) {
      const options = app.models.map(({ id }) => option(id, id, other.model));
      fields.push(field("model", h("select", {}, ...options)));
    }
    const steps = stepsOf.get(other.model) ?? [];
    if (steps.length > 1) {
      const options = steps.map((step) => option(String(step), app.number(step, 0), String(other.step ?? facts.step)));
      fields.push(field("step", h("select", {}, ...options)));
    }
    for (const [key, limits] of Object.entries(SETTINGS)) {
      const input = h("input", { type: "number", ...limits });
      input.value = other.settings[key] ?? "";
      fields.push(field(key, input));
    }
    form.replaceChildren(
      h("p", {}, mark("A"), name({ ...app.state }), h("span", { class: "hint" }, t("above"))),
      h("fieldset", {}, h("legend", {}, mark("B"), " ", t("choose")), ...fields),
    );
  }

  function choose({ name, value, validity }) {
    const number = value === "" ? null : Number(value);
    if (!validity.valid || (name in SETTINGS && !fits(name, number))) return;
    if (name === "model") other = { ...other, model: value, step: null };
    else if (name === "step") other = { ...other, step: Number(value) };
    else other = { ...other, settings: { ...other.settings, [name]: number } };
    app.set({ compare: other });
    if (name === "model") build();
    show();
  }

  /** Run a task with a controller that can abort it; `app.api` has shown each refusal already. */
  async function run(task, controller) {
    try {
      await task(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted && error.status === undefined) throw error;
    }
  }

  function show() {
    comparing?.abort();
    run(compare, (comparing = new AbortController()));
  }

  function stop() {
    writing?.abort();
    writing = null;
  }

  /** Predict the next token by A and B, and show both predictions. */
  async function compare(signal) {
    if (!app.prediction) return;
    stop();
    const { a, b, same } = await sides(signal);
    const p = await predict(a, signal);
    const q = await predict(b, signal);
    if (signal.aborted) return;
    const rows = candidates(p, q, a.vocabulary, b.vocabulary, SHOWN);
    const end = scaleEnd(Math.max(...rows.map((row) => Math.max(row.p, row.q))));
    const [x, y] = same ? [p, q] : [firstBytes(p, a.vocabulary), firstBytes(q, b.vocabulary)];
    next.replaceChildren(
      h("h3", {}, t("next")),
      h("p", { class: "hint" }, t("after", { text: latest(app.decode(a.ids)) })),
      ...(same ? [] : [h("p", {}, t("vocabularies"))]),
      table(rows, end, a, b),
      distances(x, y),
    );
    drawTexts(null);
  }

  function table(rows, end, a, b) {
    const chance = (id, p) =>
      id === null ? [h("span", { class: "visually-hidden" }, t("none")), "–"] : [app.percent(p)];
    const head = (...content) => h("th", { scope: "col" }, ...content);
    const axis = h("span", { class: "axis" }, h("span", {}, "0"), h("span", {}, app.percent(end)));
    const lines = rows.map(({ a: idA, b: idB, p, q }) => {
      const ends = [idA === null ? "" : h("i", { class: "a" }), idB === null ? "" : h("i", { class: "b" })];
      const chart = h("span", { class: "dumbbell" }, h("i", {}), ...ends);
      chart.style.setProperty("--least", Math.min(p, q) / end);
      chart.style.setProperty("--p", p / end);
      chart.style.setProperty("--q", q / end);
      chart.style.setProperty("--width", Math.abs(p - q) / end);
      const piece = idA === null ? app.piece(idB, b.vocabulary) : app.piece(idA, a.vocabulary);
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, piece),
        h("td", {}, ...chance(idA, p)),
        h("td", {}, ...chance(idB, q)),
        h("td", { class: "wide", "aria-hidden": "true" }, chart),
      );
    });
    return h(
      "table",
      { class: "compare-next" },
      h("caption", { class: "visually-hidden" }, t("table")),
      h("thead", {}, h("tr", {}, head(app.t("ladder.token")), head(mark("A")), head(mark("B")), h("td", { class: "wide", "aria-hidden": "true" }, axis))),
      h("tbody", {}, ...lines),
    );
  }

  function distances(p, q) {
    const shown = (x) => (x === Infinity ? "∞" : app.number(x, 3));
    return h(
      "dl",
      { class: "compare-distances" },
      h("dt", {}, t("js"), " ", h("b", {}, t("bits", { x: shown(jensenShannon(p, q)) }))),
      h("dd", {}, t("js_means")),
      h(
        "dt",
        {},
        t("kl"),
        " ",
        h("b", {}, t("kl_both", { ab: shown(kullbackLeibler(p, q)), ba: shown(kullbackLeibler(q, p)) })),
      ),
      h("dd", {}, t("kl_means")),
    );
  }

  /** Write both continuations, token by token, each pair with the same random number. */
  async function write(signal) {
    const { a, b, same } = await sides(signal);
    const both = [a, b].map((side) => ({ ...side, ids: [...side.ids], new: [], ended: false }));
    const first = app.text.ids.length - app.text.nPrompt;
    const numbers = [];
    for (let n = 0; n < WRITTEN && !both.every((side) => side.ended); n++) {
      numbers.push(await app.uniform(first + n));
      for (const side of both) {
        if (side.ended) continue;
        const id = inverseCdf(await predict(side, signal), numbers[n]);
        side.ids.push(id);
        side.new.push(id);
        side.ended = id === side.vocabulary.end_of_text;
      }
      if (signal.aborted) return;
      drawTexts({ both, same, numbers });
    }
    writing = null;
    drawTexts({ both, same, numbers });
  }

  function drawTexts(written) {
    const button = h("button", { type: "button" }, t(writing ? "stop" : "write", { n: WRITTEN }));
    button.addEventListener("click", () => {
      if (!writing) return run(write, (writing = new AbortController()));
      stop();
      drawTexts(written);
    });
    const had = texts.contains(document.activeElement);
    texts.replaceChildren(h("h3", {}, t("texts")), button);
    if (had) button.focus();
    if (!written) return;
    const { both, same, numbers } = written;
    const bytes = both.map((side) => side.new.map((id) => side.vocabulary.bytes[id]));
    const at = same ? firstDifference(both[0].new, both[1].new) : firstDifferentBytes(...bytes);
    const columns = both.map((side, i) =>
      h("div", {}, h("h4", {}, mark("AB"[i]), name(side)), pieces(side, at?.[i] ?? null)),
    );
    texts.append(h("div", { class: "side-by-side" }, ...columns), h("p", { role: "status" }, verdict()));

    function verdict() {
      if (!at) return writing ? "" : t("equal");
      const [i, j] = at;
      const [x, y] = both.map((side, k) => app.piece(side.new[at[k]], side.vocabulary));
      if (i !== j) return t("differ_text", { a: x, b: y });
      return t("differ", { n: i + 1, u: app.number(numbers[i], 4), a: x, b: y });
    }
  }

  /** Return the tokens of a continuation; the first one that differs is marked. */
  function pieces({ vocabulary, new: ids }, differs) {
    const texts = completed(ids.map((id) => vocabulary.bytes[id]));
    const made = ids.map((id, i) => {
      const shown = id in vocabulary.controls ? app.piece(id, vocabulary) : texts[i];
      if (i === differs) return h("mark", {}, shown.replaceAll("\n", "↵\n"));
      return h("span", { class: differs === null || i < differs ? "same" : "" }, shown);
    });
    return h("p", { class: "compare-text" }, ...made);
  }

  /** Return the label of a side: a letter in a shape of its own. */
  function mark(letter) {
    return h("span", { class: `side side-${letter.toLowerCase()}` }, letter);
  }

  /** Return the name of a side: its model, its step, and the settings that differ from the page's. */
  function name({ model, step, settings }) {
    const facts = app.models.find((each) => each.id === model);
    const at = step ?? facts.step;
    const parts = [model];
    if (at !== null) parts.push(t("at_step", { step: app.number(at, 0) }));
    for (const key of Object.keys(SETTINGS)) {
      if (key === "temperature" || settings[key] !== app.state.settings[key]) {
        parts.push(`${wordOf(key)} ${settings[key] ?? app.t("settings.off")}`);
      }
    }
    return ` ${parts.join(", ")} `;
  }

  async function start() {
    const { runs } = await app.api("/api/runs");
    for (const { model, checkpoints } of runs) if (model !== null) stepsOf.set(model, checkpoints);
    other = usable(app.state.compare) ?? proposal();
  }

  /** Return the B that the address names, or null if it is none of this server. */
  function usable(named) {
    const { model, step = null, settings = {} } = named ?? {};
    if (!app.models.some(({ id }) => id === model)) return null;
    const isStep = step === null || (stepsOf.get(model) ?? []).includes(step);
    const all = { ...app.state.settings, ...settings };
    const isFit = Object.keys(SETTINGS).every((key) => fits(key, all[key]));
    return isStep && isFit ? { model, step, settings: all } : null;
  }

  /** Return the first B: the first step of the page's run, or the page's model at temperature 1.5. */
  function proposal() {
    const { model, step, settings } = app.state;
    const [first] = stepsOf.get(model) ?? [];
    if (first !== undefined && first !== (step ?? app.model.step)) return { model, step: first, settings };
    return { model, step, settings: { ...settings, temperature: 1.5 } };
  }

  root.append(form, next, texts);
  const started = start();
  return {
    async update(changed) {
      await started;
      if (["settings", "model", "language"].some((each) => changed.has(each))) build();
      if (["settings", "model", "language", "prediction"].some((each) => changed.has(each))) show();
    },
  };
}

/** Return the last characters of a text, in one line. */
function latest(text) {
  return (text.length > 40 ? `…${text.slice(-40)}` : text).replaceAll("\n", "↵");
}
