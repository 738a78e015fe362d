/** A conversation with a model that answers, and the tokens as which the model reads it. */

import { ApiError } from "../api.js";
import { h, isModified, say } from "../dom.js";
import { latest } from "../latest.js";

const MAX_SHOWN = 600; // tokens of the end of a long conversation
const EXAMPLE = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}\n';

/** Show the messages, the box for the next one, and the tokens. */
export function mount(root, app) {
  // {role, content}, of an answer also {seed, finish, n}: with it, n tokens are in the context. An
  // answer follows each message of the user.
  let messages = [];
  let running = null; // the AbortController of the answer that is being written
  let wanted = null; // the latest question about tokens
  let shown = { ids: [] }; // the tokens of the conversation: {ids, is_answer} or {refusal}
  const t = app.words("chat");

  const log = h("div.chat-log", { role: "log", tabindex: 0, named: "chat.log" });
  const box = h("textarea", { id: "chat-message", rows: 2, oninput: read, onkeydown: (event) => {
    // The Enter that ends the composition of a syllable, as of Korean, sends nothing.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || isModified(event)) return;
    event.preventDefault();
    send();
  } });
  const button = (key, action) => h("button", { t: `chat.${key}`, onclick: action });
  const sender = h("button.primary", { onclick: () => (running ? running.abort() : send()) });
  const again = button("again", answerAgain);
  const reseed = button("reseed", () => {
    if (!running) app.set({ seed: app.state.seed + 1 });
    answerAgain();
  });
  const seed = h("p.hint");
  const toggle = h("input", { type: "checkbox", onchange: read });
  const legend = h("p.chat-legend");
  const strip = h("ol.chips.chat-tokens", { role: "list", tabindex: 0, named: "chat.tokens" });
  const inside = button("inside", lookInside);
  const note = h("p.hint", { role: "status" });
  const reading = h("div.stack", { hidden: true }, legend, strip, inside, note);
  const talk = h("div.stack", { hidden: true },
    h("p.hint", { t: "chat.about" }), log, h("label.hint", { for: box.id, t: "chat.label" }), box,
    h("div.row", sender, again, reseed, button("new", startAnew)), seed,
    h("label.field", toggle, h("span", { t: "chat.as_read" })), reading);
  const [refusal, command] = [h("p"), h("code")];
  const untaught = h("div.stack", { hidden: true }, refusal, h("p", { t: "chat.train" }),
    h("pre.chat-command", h("code", EXAMPLE), command), h("p.hint", { t: "chat.pairs" }));
  root.append(untaught, talk);

  /** Return a question about messages to the server. */
  function about(said) {
    const { model, step } = app.state;
    return { model, step, messages: said.map(({ role, content }) => ({ role, content })) };
  }

  /** Show the conversation, or the server's reason why the model answers no messages. */
  function begin() {
    running?.abort();
    say(note, "");
    const { id, no_chat: reason, is_run: isRun } = app.model;
    say(refusal, reason ?? "");
    say(command, `python train.py --data FILE.jsonl --init_from ${isRun ? id : "MODEL"}`);
    untaught.hidden = !reason;
    talk.hidden = Boolean(reason);
    if (!reason) read();
  }

  // ---- the conversation ----

  async function send() {
    const content = box.value;
    if (running || !content.trim()) return;
    box.value = "";
    const hasAnswer = await answer([...messages, { role: "user", content }]);
    if (!hasAnswer) box.value ||= content;
    read();
  }

  function answerAgain() {
    if (!running && messages.length) answer(messages.slice(0, -1));
  }

  function startAnew() {
    running?.abort();
    messages = [];
    say(note, "");
    draw();
    read();
    box.focus();
  }

  /** Let the model answer messages; return whether it has written something. */
  async function answer(said) {
    const former = messages;
    const { seed, settings } = app.state;
    const written = { role: "assistant", content: "", seed, finish: null, n: null };
    const top_k = settings.top_k && Math.min(settings.top_k, app.model.n_vocab);
    const body = { ...about(said), ...settings, top_k, seed, stream: true, stream_options: { include_usage: true } };
    const { signal } = (running = new AbortController());
    messages = [...said, written];
    say(note, "");
    draw();
    read();
    try {
      await app.api("/v1/chat/completions", body, { signal, onEvent: ({ choices: [choice], usage }) => {
        written.n = usage?.total_tokens ?? null;
        if (!choice) return;
        written.content += choice.delta.content;
        written.finish = choice.finish_reason;
        grow(written);
      } });
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof ApiError)) throw error;
      written.finish = "stopped";
      if (messages.at(-1) === written && !written.content) messages = former;
    } finally {
      running = null;
      draw();
      read();
    }
    return messages !== former;
  }

  function draw() {
    log.replaceChildren(...messages.map(({ role, content, seed, finish, n }) => {
      const facts = [t("seed", { seed })];
      const { block_size: size } = app.model.config;
      if (n) facts.push(t(n > size ? "outgrown" : "context", app.counts({ n, size })));
      if (["length", "stopped"].includes(finish)) facts.push(t(finish));
      return h(`div.chat-message.chat-${role}`,
        h("h3", t(role)), h("p.chat-text", content || (finish ? t("nothing") : "…")),
        finish && h("p.hint", facts.join("; ")));
    }));
    log.hidden = !messages.length;
    log.setAttribute("aria-busy", String(running !== null)); // a screen reader waits for the end
    log.scrollTop = log.scrollHeight;
    again.disabled = reseed.disabled = !messages.length;
    say(sender, t(running ? "stop" : "send"));
  }

  /** Show more of an answer, and stay at its end unless the reader has scrolled up. */
  function grow({ content }) {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    say(log.lastChild.querySelector(".chat-text"), content || "…");
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }

  // ---- the tokens ----

  /** Return the tokens of messages, or {refusal} with the server's reason. */
  async function ask(question) {
    try {
      return await app.api("/api/tokens", question, { isQuiet: true });
    } catch (error) {
      if (error.status !== 400) throw error;
      return { refusal: error.message };
    }
  }

  const look = latest(ask, (answer, question) => {
    if (question !== wanted) return;
    shown = answer;
    drawTokens();
  });

  /** Show the tokens of the conversation and of the message in the box, if the reader wants them. */
  function read() {
    reading.hidden = !toggle.checked;
    if (!toggle.checked) return;
    const said = running ? messages.slice(0, -1) : [...messages];
    if (box.value && !running) said.push({ role: "user", content: box.value });
    wanted = said.length ? about(said) : null;
    if (wanted) return look(wanted);
    shown = { ids: [] };
    drawTokens();
  }

  function drawTokens() {
    const { ids = [], is_answer, refusal } = shown;
    const isControl = ids.map((id) => id in app.vocabulary.controls);
    const first = Math.max(0, ids.length - MAX_SHOWN);
    strip.replaceChildren(
      ...(first ? [h("li", `… ${app.number(first)}`)] : []),
      ...ids.slice(first).map((id, i) => {
        const kind = `${isControl[first + i] ? ".control" : ""}${is_answer?.[first + i] ? ".new" : ""}`;
        const piece = app.piece(id);
        return h(piece.endsWith("↵") ? "li.ends-line" : "li",
          h(`span.chip${kind}`, h("span.piece", piece), h("span.id", id)));
      }),
    );
    strip.hidden = inside.hidden = !ids.length;
    const count = (flags) => app.number(flags.filter(Boolean).length);
    const kind = (name, of) => h("span", h(`span.chip${of}`, { "aria-hidden": "true" }), ` ${name}`);
    legend.replaceChildren(...(ids.length ? [
      kind(t("control", { n: count(isControl) }), ".control"),
      is_answer ? kind(t("answer", { n: count(is_answer) }), ".new") : t("unknown"),
    ] : [refusal ?? t("empty")]));
  }

  /** Make the text that the model read before its last answer the text of the page. */
  async function lookInside() {
    const said = messages.length ? messages.slice(0, -1) : [{ role: "user", content: box.value }];
    const { ids, refusal } = await ask(about(said));
    if (refusal) return say(note, refusal);
    // The server may put a control token before a text, which the template has written already.
    for (const text of [app.decode(ids), app.decode(ids.slice(1))]) {
      const read = await app.api("/api/tokens", { model: app.state.model, text });
      if (read.ids.join() !== ids.join()) continue;
      await app.set({ prompt: text, sample: 0 });
      return say(note, t("moved"));
    }
    say(note, t("differs"));
  }

  return {
    update(changed) {
      if (changed.has("model")) begin();
      if (changed.has("language")) {
        draw();
        drawTokens();
      }
      if (changed.has("prediction", "language")) say(seed, t("next", { seed: app.state.seed }));
    },
  };
}
