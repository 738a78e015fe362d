/** The prompt and the text that grows from it: step, play, speed, stop. */

import { ApiError, pause } from "../api.js";
import { h, say } from "../dom.js";
import { heading } from "../heading.js";

const STAGES = ["tokenise", "predict", "draw", "append"];
const SPEEDS = [1200, 600, 250, 80, 0]; // milliseconds of a stage, from the slowest
const N_TOKENS = 200; // that one press of Play writes
const TYPING = 400; // milliseconds after the last key until the prompt is read

/** Show the box of the prompt, the buttons, and the text. */
export function mount(root, app) {
  const box = h("textarea", { id: "prompt", rows: 2, spellcheck: "false" });
  const button = (key, action) => h("button", { t: `play.${key}`, onclick: action });
  const play = h("button.primary", { onclick: () => (running ? stop() : write(N_TOKENS)) });
  const [back, reset] = [button("back", goBack), button("reset", goToPrompt)];
  const speed = h("input", { type: "range", min: 0, max: SPEEDS.length - 1, step: 1, value: 3 });
  const loop = h("ol.loop", { named: "play.loop" },
    STAGES.map((name) => h("li", { t: `play.${name}`, "data-stage": name })));
  const textTitle = h("h3.hint", { id: "text-title", t: "play.text" });
  const text = h("p.text", { tabindex: 0, role: "region", "aria-labelledby": textTitle.id });
  const [note, cutNote] = [h("p.hint", { role: "status" }), h("p.hint", { role: "status" })];
  root.append(
    heading(app, "play.title", "naive_generate").element,
    h("label", { for: "prompt", t: "prompt.label" }), box,
    h("div.row", play, button("step", () => write(1)), back, reset,
      h("label.field", h("span", { t: "play.speed" }), speed)),
    loop, textTitle, text, note, cutNote,
  );
  let running = null; // the AbortController of what writes at present
  let writing = null; // the tree of texts that it writes
  let typing = 0;

  box.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => app.set({ prompt: box.value }), TYPING);
  });
  box.addEventListener("change", () => {
    clearTimeout(typing);
    if (box.value !== app.state.prompt) app.set({ prompt: box.value });
  });

  const isEnd = (id) => app.vocabulary.stop_ids.includes(id);

  /** Write up to n tokens; stop at the end of a document. */
  async function write(n) {
    running?.abort();
    const controller = (running = new AbortController());
    const { signal } = controller;
    say(note, "");
    showState();
    try {
      await app.predicted(signal);
      writing = app.text;
      for (let i = 0; i < n; i++) {
        for (const stage of STAGES) {
          for (const item of loop.children) {
            item.toggleAttribute("data-lit", item.dataset.stage === stage);
          }
          if (stage === "predict") await app.predicted(signal);
          const wait = SPEEDS[Number(speed.value)];
          if (n > 1 && wait) await pause(wait, signal);
        }
        signal.throwIfAborted();
        await app.predicted(signal);
        if (isEnd(app.appendDrawn())) return say(note, app.t("play.ended"));
      }
      if (n > 1) say(note, app.t("play.full", { n: app.number(n) }));
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof ApiError)) throw error;
    } finally {
      if (running === controller) stop();
    }
  }

  function stop() {
    running?.abort();
    [running, writing] = [null, null];
    for (const item of loop.children) item.removeAttribute("data-lit");
    showState();
  }

  function goBack() {
    stop();
    if (!app.text.at.parent) return;
    app.text.goTo(app.text.at.parent);
    app.textChanged();
  }

  function goToPrompt() {
    stop();
    say(note, "");
    app.text.goTo(app.text.root);
    app.textChanged();
  }

  function showState() {
    say(play, app.t(running ? "play.pause" : "play.play"));
  }

  function draw() {
    const { ids, nPrompt } = app.text;
    // Bytes of one character may lie on both sides of the border between prompt and new tokens.
    const whole = app.decode(ids);
    const prompt = app.decode(ids.slice(0, nPrompt));
    const shared = whole.startsWith(prompt) ? prompt.length : 0;
    text.replaceChildren(
      h("span.given", whole.slice(0, shared)), h("span.written", whole.slice(shared)),
    );
    text.scrollTop = text.scrollHeight;
    back.disabled = reset.disabled = !app.text.at.parent;
  }

  return {
    update(changed) {
      if (changed.has("language")) {
        box.placeholder = app.t("prompt.empty");
        showState();
      }
      if (writing && writing !== app.text) stop(); // another prompt or model
      if (document.activeElement !== box) box.value = app.state.prompt;
      if (changed.has("text")) draw();
      if (!app.prediction) return;
      const cut = app.prediction.facts.truncated;
      say(cutNote, cut ? app.t("play.cut", { n: app.number(cut) }) : "");
    },
  };
}
