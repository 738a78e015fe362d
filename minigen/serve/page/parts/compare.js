// Two models, two steps of a run, or two settings: the same text, and the same random numbers.

import { fits } from "../address.js";
import {
  candidates, firstBytes, firstDifference, firstDifferentBytes, jensenShannon, kullbackLeibler,
  sameVocabulary, scaleEnd,
} from "../divergence.js";
import { columns, h, row, select } from "../dom.js";
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
  const t = app.words("compare");

  const wordOf = (name) => app.t({ model: "page.model", step: "page.checkpoint" }[name] ?? `settings.${name}`);

  const form = h("form.compare-form", {
    onsubmit: (event) => event.preventDefault(), onchange: (event) => choose(event.target),
  });
  const [next, texts] = [h("section"), h("section")];

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

  /** Return the probabilities of a side's next token: after all filters, or after the temperature. */
  async function predict({ model, step, settings, ids }, signal) {
    const isPages = model === app.state.model && step === app.state.step;
    const known = app.prediction;
    let logits = isPages && known?.ids.join() === ids.join() ? known.logits : null;
    logits ??= new Float32Array(await app.api("/api/predict", { model, step, ids }, { signal }));
    const steps = filterSteps(logits, ids, settings);
    const own = steps.find(({ name }) => name === "temperature");
    return { final: softmax(steps.at(-1).logits), own: softmax(own.logits) };
  }

  function build() {
    const facts = app.models.find((each) => each.id === other.model);
    const field = (name, control) => h("label", h("span", wordOf(name)), control);
    const fields = [];
    if (app.models.length > 1) {
      fields.push(field("model", select({ name: "model" }, app.models.map(({ id }) => id), other.model)));
    }
    const steps = stepsOf.get(other.model) ?? [];
    if (steps.length > 1) {
      const options = steps.map((step) => [step, app.number(step)]);
      fields.push(field("step", select({ name: "step" }, options, other.step ?? facts.step)));
    }
    for (const [name, limits] of Object.entries(SETTINGS)) {
      fields.push(field(name, h("input", { type: "number", name, value: other.settings[name] ?? "", ...limits })));
    }
    form.replaceChildren(
      h("p", mark("A"), nameOf(app.state), h("span.hint", t("above"))),
      h("fieldset", h("legend", mark("B"), " ", t("choose")), fields),
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
    const [p, q] = [await predict(a, signal), await predict(b, signal)];
    if (signal.aborted) return;
    const rows = candidates(p.final, q.final, a.vocabulary, b.vocabulary, SHOWN);
    const spread = (x, { vocabulary }) => (same ? x : firstBytes(x, vocabulary));
    next.replaceChildren(
      h("h3", t("next")),
      h("p.hint", t("after", { text: latest(app.decode(a.ids)) })),
      ...(same ? [] : [h("p", t("vocabularies"))]),
      table(rows, a, b),
      distances([spread(p.final, a), spread(q.final, b)], [spread(p.own, a), spread(q.own, b)]),
    );
    drawTexts(null);
  }

  function table(rows, a, b) {
    const end = scaleEnd(Math.max(...rows.flatMap(({ p, q }) => [p, q])));
    const chance = (id, p) => h("td", id === null ? [h("span.visually-hidden", t("none")), "–"] : app.percent(p));
    const wide = (...content) => h("td.wide", { "aria-hidden": "true" }, ...content);
    const heads = columns(app.t("ladder.token"), mark("A"), mark("B"));
    heads.append(wide(h("span.axis", h("span", "0"), h("span", app.percent(end)))));
    return h("table.compare-next",
      h("caption.visually-hidden", t("table")),
      h("thead", heads),
      h("tbody", rows.map(({ a: idA, b: idB, p, q }) => row(
        idA === null ? app.piece(idB, b.vocabulary) : app.piece(idA, a.vocabulary),
        chance(idA, p), chance(idB, q),
        wide(h("span.dumbbell", {
          "--least": Math.min(p, q) / end, "--p": p / end, "--q": q / end, "--width": Math.abs(p - q) / end,
        }, h("i"), idA !== null && h("i.a"), idB !== null && h("i.b")))))));
  }

  /** Return the distances: of what both may write, and of the predictions before tokens are cut. */
  function distances([p, q], [ownP, ownQ]) {
    const shown = (x) => (x === Infinity ? "∞" : app.number(x, 3));
    const [ab, ba] = [kullbackLeibler(ownP, ownQ), kullbackLeibler(ownQ, ownP)].map(shown);
    return h("dl.compare-distances",
      h("dt", t("js"), " ", h("b", t("bits", { x: shown(jensenShannon(p, q)) }))), h("dd", t("js_means")),
      h("dt", t("kl"), " ", h("b", t("kl_both", { ab, ba }))), h("dd", t("kl_means")));
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
        const id = inverseCdf((await predict(side, signal)).final, numbers[n]);
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
    const onclick = () => {
      if (!writing) return run(write, (writing = new AbortController()));
      stop();
      drawTexts(written);
    };
    const button = h("button", { onclick }, t(writing ? "stop" : "write", { n: WRITTEN }));
    const had = texts.contains(document.activeElement);
    texts.replaceChildren(h("h3", t("texts")), button);
    if (had) button.focus();
    if (!written) return;
    const { both, same, numbers } = written;
    const bytes = both.map((side) => side.new.map((id) => side.vocabulary.bytes[id]));
    const at = same ? firstDifference(both[0].new, both[1].new) : firstDifferentBytes(...bytes);
    texts.append(
      h("div.side-by-side", both.map((side, i) =>
        h("div", h("h4", mark("AB"[i]), nameOf(side)), pieces(side, at?.[i] ?? null)))),
      h("p", { role: "status" }, verdict()),
    );

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
    return h("p.compare-text", ids.map((id, i) => {
      const shown = id in vocabulary.controls ? app.piece(id, vocabulary) : texts[i];
      if (i === differs) return h("mark", shown.replaceAll("\n", "↵\n"));
      return h(differs === null || i < differs ? "span.same" : "span", shown);
    }));
  }

  /** Return the label of a side: a letter in a shape of its own. */
  function mark(letter) {
    return h(`span.side.side-${letter.toLowerCase()}`, letter);
  }

  /** Return the name of a side: its model, its step, and the settings that differ from the page's. */
  function nameOf({ model, step, settings }) {
    const facts = app.models.find((each) => each.id === model);
    const at = step ?? facts.step;
    const parts = [model];
    if (at !== null) parts.push(t("at_step", { step: app.number(at) }));
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
      if (changed.has("settings", "model", "language")) build();
      if (changed.has("settings", "model", "language", "prediction")) show();
    },
  };
}

/** Return the last characters of a text, in one line. */
function latest(text) {
  return (text.length > 40 ? `…${text.slice(-40)}` : text).replaceAll("\n", "↵");
}
