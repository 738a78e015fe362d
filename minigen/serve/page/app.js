/**
 * What all parts of the page share: the state, the present text and its prediction.
 *
 * The state stands in the address bar, so that a copied address shows the same. A part gets told
 * what has changed: "model", "text", "prediction", "settings", "language", "theme".
 */

import { decodeAddress, encodeAddress } from "./address.js";
import { insist, makeApi, unlessAborted } from "./api.js";
import { DEFAULTS, filterSteps, inverseCdf, softmax } from "./sampling.js";
import { LANGUAGES, STRINGS } from "./strings.js";
import { Text } from "./text.js";
import { hexBytes, joined, named, visible } from "./vocabulary.js";

const N_UNIFORM = 64; // random numbers that the server sends at once
const ADDRESS_DELAY = 400; // milliseconds: browsers refuse more than 100 new addresses in 30 seconds
const CHANGES = { // what the parts of the page are told of a change of the state
  model: ["model", "step"], prediction: ["seed", "sample"],
  settings: ["settings"], language: ["language"], theme: ["theme"],
};
const ALL = [...Object.keys(CHANGES), "text"]; // as for a part that is new

/** The state of a first visit. */
function initialState() {
  const language = navigator.language.slice(0, 2);
  return {
    model: null, // the id of the model
    step: null, // the checkpoint of its run; null: the one that is served
    prompt: null, // null: one that the page chooses for the model
    settings: { ...DEFAULTS },
    seed: 1337, // as of sample.py
    sample: 0,
    language: language in LANGUAGES ? language : "en",
    theme: null, // "light" or "dark"; null: as the system
    tab: "tree",
    compare: null, // the other model of the panel that compares
    code: null, // the function that the panel with the code shows
  };
}

/** A set of changes, at first of all that there are; `has` says whether it has one of several. */
export class Changes extends Set {
  constructor(names = ALL) {
    super(names);
  }

  has(...names) {
    return names.some((name) => super.has(name));
  }
}

export class App {
  /** @param {(problem: string | null) => void} report  shows a problem with the server */
  constructor(token, report) {
    this.api = makeApi(token, report);
    this.#report = report;
    this.state = initialState();
    this.models = [];
    this.text = new Text([]);
    this.prediction = null;
    this.vocabulary = null;
  }

  #report;
  #listeners = new Set();
  #vocabularies = new Map(); // model -> a promise of its vocabulary
  #uniforms = new Map(); // "seed sample block" -> a promise of random numbers
  #next = null; // the state that becomes the present one as soon as its prompt is read
  #reading = { controller: new AbortController(), done: null }; // of the prompt of #next
  #predicting = { controller: new AbortController(), done: null }; // of the present text
  #address = null; // the timer of the next change of the address bar
  #formats = new Map();
  #offered = null; // the prompt that the page has chosen for the model

  /** Ask the server for its models, and show the state that the address names. */
  async start(hash) {
    ({ models: this.models } = await this.api("/api/models"));
    await this.#enter(decodeAddress(hash));
  }

  /** Show the state that an address names, which the reader has typed or gone back to. */
  async visit(hash) {
    if (hash !== encodeAddress(this)) await this.#enter(decodeAddress(hash));
  }

  async #enter({ path, branches, ...named }) {
    const next = { ...initialState(), ...named };
    if (!this.models.some(({ id }) => id === next.model)) next.model = this.models[0].id;
    if (path.length || branches.length) next.prompt ??= "";
    const missing = next.step !== null && !(await this.#hasStep(next)) ? next.step : null;
    if (missing !== null) next.step = null;
    const refusal = await this.#read(next, [...branches, path]);
    if (refusal && !this.vocabulary) await this.#read({ ...next, prompt: null }); // it needs a text
    if (refusal) this.#report(refusal.message);
    else if (missing !== null) this.#report(this.t("page.no_step", { step: missing }));
  }

  async #hasStep({ model, step }) {
    const { runs } = await this.api("/api/runs");
    return runs.some((run) => run.model === model && run.checkpoints.includes(step));
  }

  /** Return a prompt for a model: a first line of its documents, their beginning, or a new line. */
  async #promptFor(model) {
    const { genres: [genre] } = await this.api("/api/genres", { model });
    if (genre) return (await this.api("/api/first_line", { model, noun: genre.noun })).text;
    const { opening } = this.models.find(({ id }) => id === model);
    const { bytes } = await this.loadVocabulary(model);
    return opening || (bytes.some(([byte, ...more]) => byte === 10 && !more.length) ? "\n" : "");
  }

  /** The facts of the present model. */
  get model() {
    return this.models.find(({ id }) => id === this.state.model);
  }

  /** Call `listener` with the set of changes after each change. */
  on(listener) {
    this.#listeners.add(listener);
  }

  /** Tell all parts of the page that something has changed. */
  notify(...changes) {
    this.#address ??= setTimeout(() => {
      this.#address = null;
      history.replaceState(null, "", encodeAddress(this) || location.pathname);
    }, ADDRESS_DELAY);
    for (const listener of this.#listeners) listener(new Changes(changes));
  }

  /**
   * Change parts of the state.
   *
   * Another model, checkpoint or prompt becomes the present one only together with its text, so
   * that no part of the page ever asks one model for the tokens of another.
   */
  async set(patch) {
    const ahead = this.#next ?? this.state;
    const isOther = (name) => name in patch && patch[name] !== ahead[name];
    if (isOther("model")) {
      patch = { step: null, ...patch };
      if (ahead.prompt === this.#offered) patch = { prompt: null, ...patch };
    }
    const next = { ...ahead, ...patch };
    const isRead = isOther("model") || isOther("prompt");
    if (!this.#next && !isRead) return this.#become(next);
    const { model, step, prompt, ...others } = patch;
    this.#become({ ...this.state, ...others });
    if (isRead) await this.#read(next);
    else this.#next = next;
  }

  /** Make a state of the same text the present one. */
  #become(state) {
    const changes = changesOf(this.state, state);
    this.state = state;
    if (changes.includes("model")) this.#predict();
    else if (changes.includes("prediction")) this.#predict(this.prediction);
    this.notify(...changes);
  }

  /**
   * Read the prompt of a state, and make the state the present one; return why the server refuses it.
   *
   * @param {object[][]} texts  tokens {token, forced} of texts that begin with the prompt
   */
  #read(next, texts = []) {
    this.#reading.controller.abort();
    const controller = new AbortController();
    this.#next = next;
    const done = this.#take(next, texts, controller.signal).catch((error) => {
      if (controller.signal.aborted) return null;
      this.#next = null;
      this.notify("model"); // the controls show the state that is still the present one
      if (!error.status) throw error;
      return error;
    });
    this.#reading = { controller, done };
    return done;
  }

  async #take({ model, prompt }, texts, signal) {
    const [vocabulary, text, { ids }] = await insist(async () => {
      const text = prompt ?? await this.#promptFor(model);
      const asked = this.api("/api/tokens", { model, text }, { signal });
      return Promise.all([this.loadVocabulary(model), text, asked]);
    }, signal);
    signal.throwIfAborted();
    if (prompt === null) this.#offered = text;
    this.#next.prompt = text;
    const changes = changesOf(this.state, this.#next);
    this.state = this.#next;
    this.#next = null;
    this.#report(null); // of a prompt or an address before
    this.vocabulary = vocabulary;
    this.text = new Text(ids);
    for (const path of texts) {
      const known = path.filter(({ token }) => token < vocabulary.bytes.length);
      this.text.goTo(this.text.root);
      for (const { token, forced } of known) this.text.append(token, { forced });
    }
    this.#predict();
    this.notify(...changes, "text");
    return null;
  }

  /** Say that the present text has changed. */
  textChanged() {
    this.#predict();
    this.notify("text");
  }

  /** Ask for the prediction after the present text, unless it is known, and for its random number. */
  #predict(known = null) {
    this.#predicting.controller.abort();
    const controller = new AbortController();
    this.prediction = null;
    const done = this.#find(known, controller.signal);
    done.catch(() => {}); // `api` has shown the reason; `predicted` passes it on
    this.#predicting = { controller, done };
  }

  async #find(known, signal) {
    const { question } = this;
    const { ids } = question;
    try {
      const [found, u] = await insist(() => Promise.all([
        known ?? this.api("/api/predict", question, { signal }).then((answer) => ({
          ids, logits: new Float32Array(answer), facts: answer.facts,
        })),
        this.uniform(ids.length - this.text.nPrompt),
      ]), signal);
      if (signal.aborted) return;
      this.prediction = { ...found, u, settings: null };
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    this.notify("prediction");
  }

  /** Return the prediction of the present text as soon as it is there; throw if it cannot be had. */
  async predicted(signal) {
    while (this.#next || !this.prediction) {
      await unlessAborted((this.#next ? this.#reading : this.#predicting).done, signal);
    }
    return this.prediction;
  }

  /** Return the random number for token n after the prompt, as `sampling.uniform` has it. */
  async uniform(n) {
    const { seed, sample } = this.state;
    const first = n - (n % N_UNIFORM);
    const key = `${seed} ${sample} ${first}`;
    if (!this.#uniforms.has(key)) {
      const asked = this.api("/api/uniform", { seed, sample, n: first });
      this.#uniforms.set(key, asked);
      asked.catch(() => this.#uniforms.delete(key));
    }
    return (await this.#uniforms.get(key)).u[n - first];
  }

  /** Return the present draw: {steps, raw, final, token}; null until there is a prediction. */
  draw() {
    if (!this.prediction) return null;
    const { settings } = this.state;
    if (this.prediction.settings !== settings) {
      const { ids, logits, u, raw = softmax(logits) } = this.prediction;
      const steps = filterSteps(logits, ids, settings);
      const final = softmax(steps.at(-1).logits);
      const drawn = { steps, raw, final, token: inverseCdf(final, u) };
      Object.assign(this.prediction, { settings, raw, drawn });
    }
    return this.prediction.drawn;
  }

  /** Append the token that the random number draws, and return it. */
  appendDrawn() {
    const { token, final } = this.draw();
    this.text.append(token, { u: this.prediction.u, p: final[token] });
    this.textChanged();
    return token;
  }

  /** Append a token that the reader has chosen, unless the numbers that it was chosen by are gone. */
  choose(token) {
    if (!this.prediction) return;
    const { token: drawn, final, raw } = this.draw();
    const isDrawn = token === drawn;
    const p = final[token] || raw[token]; // of a token that the filters cut: the model's own
    this.text.append(token, { forced: !isDrawn, u: isDrawn ? this.prediction.u : null, p });
    this.textChanged();
  }

  /** Show the source of a function in the panel with the code. */
  showCode(name) {
    this.set({ tab: "code", code: name });
    this.notify("code");
  }

  // ---- words and numbers ----

  /** Return what the server is asked about the present text: {model, step, ids}. */
  get question() {
    const { model, step } = this.state;
    return { model, step, ids: this.text.ids };
  }

  /** Return the vocabulary of a model: {bytes, controls, end_of_text, stop_ids}. */
  loadVocabulary(model) {
    if (!this.#vocabularies.has(model)) {
      const asked = this.api("/api/vocabulary", { model }).then((answer) => ({
        ...answer, bytes: answer.bytes.map(hexBytes),
      }));
      this.#vocabularies.set(model, asked);
      asked.catch(() => this.#vocabularies.delete(model));
    }
    return this.#vocabularies.get(model);
  }

  /** Return a token as it is shown alone, with visible blanks. */
  piece(id, vocabulary = this.vocabulary) {
    return id in vocabulary.controls ? named(vocabulary.controls[id]) : visible(vocabulary.bytes[id]);
  }

  /** Return the text of ids; control tokens by name, without one at the very beginning. */
  decode(ids, vocabulary = this.vocabulary) {
    return joined(ids, vocabulary);
  }

  /** Return a string of the page in its language, with the values in the place of {names}. */
  t(key, values = {}) {
    const words = STRINGS[key]?.[this.state.language] ?? key;
    return words.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  }

  /** Return `t` for the keys of one part. */
  words(part) {
    return (key, values) => this.t(`${part}.${key}`, values);
  }

  /** Return a number with a fixed number of digits after the point. */
  number(value, digits = 0) {
    const key = `${this.state.language} ${digits}`;
    if (!this.#formats.has(key)) {
      const about = { minimumFractionDigits: digits, maximumFractionDigits: digits };
      this.#formats.set(key, new Intl.NumberFormat(this.state.language, about));
    }
    return this.#formats.get(key).format(value);
  }

  /** Return an object's numbers as words, without digits after the point. */
  counts(values) {
    return Object.fromEntries(Object.entries(values).map(([name, n]) => [name, this.number(n)]));
  }

  /** Return a probability in per cent: one digit after the point, more for a small one. */
  percent(p) {
    if (p > 0 && p < 0.0001) return `< ${this.number(0.01, 2)} %`;
    return `${this.number(100 * p, p > 0 && p < 0.01 ? 2 : 1)} %`;
  }
}

/** Return the names of the changes between two states. */
function changesOf(before, after) {
  return Object.keys(CHANGES).filter((name) => CHANGES[name].some((key) => before[key] !== after[key]));
}
