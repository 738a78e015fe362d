// Any text, coloured by how much each token surprised the model.

import { h } from "../dom.js";
import { MOST, bits, completed, mostSurprising, shade, wordsInside } from "../surprisal.js";

const MARKS = [0, 1, 2, 4, 8, 16]; // bits that the legend names
const LISTED = 10; // tokens in the list of the most surprising ones

/** Show a box for a text, and the text in the colours of its surprise. */
export function mount(root, app) {
  let answer = null; // of /api/surprise, and `texts`: the characters that each token completes
  let running = null; // the AbortController of the present request
  let spans = [];
  let active = 0;
  const t = (key, values) => app.t(`surprise.${key}`, values);

  const box = h("textarea", { id: "surprise-text", rows: 4, spellcheck: "false" });
  const file = h("input", { type: "file", class: "visually-hidden", tabindex: -1 });
  const result = h("div", { class: "surprise-result" });
  let tokens, details;

  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });
  file.addEventListener("change", () => read(file.files[0]));
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    read(event.dataTransfer.files[0]);
  });

  async function read(opened) {
    if (!opened) return;
    box.value = await opened.text();
    ask();
  }

  function usePresent() {
    box.value = app.decode(app.text.ids);
    ask();
  }

  async function ask() {
    running?.abort();
    running = new AbortController();
    const { model, step } = app.state;
    const { signal } = running;
    result.setAttribute("aria-busy", "true");
    try {
      const got = await app.api("/api/surprise", { model, step, text: box.value }, { signal });
      const { bytes } = app.vocabulary;
      answer = { ...got, texts: completed(got.ids.map((id) => bytes[id])) };
      active = answer.logprob.findIndex((x) => x !== null);
      draw();
    } catch (error) {
      if (!signal.aborted && error.status === undefined) throw error; // app.api has shown a refusal
    } finally {
      if (!signal.aborted) result.removeAttribute("aria-busy");
    }
  }

  function build() {
    const button = (key, type, action) => h("button", { type, onclick: action }, t(key));
    root.replaceChildren(
      h("p", { class: "hint" }, t("intro")),
      h(
        "form",
        { class: "surprise-form", onsubmit: submit },
        h("label", { for: box.id }, t("label")),
        box,
        h(
          "div",
          { class: "row" },
          button("colour", "submit"),
          button("present", "button", usePresent),
          button("open", "button", () => file.click()),
          file,
        ),
      ),
      result,
    );
    file.setAttribute("aria-label", t("open"));
    if (answer) draw();
  }

  function submit(event) {
    event.preventDefault();
    ask();
  }

  function draw() {
    spans = answer.texts.map(span);
    const copied = answer.copied ?? [];
    for (const [from, to] of copied) {
      for (const each of spans.slice(from, to)) each.classList.add("copied");
    }
    tokens = h("div", { class: "surprise-tokens", role: "listbox", tabindex: 0 }, ...spans);
    tokens.setAttribute("aria-label", t("tokens"));
    tokens.addEventListener("keydown", walk);
    tokens.addEventListener("focus", () => choose(active));
    tokens.addEventListener("pointerover", pick);
    tokens.addEventListener("click", pick);
    details = h("div", { class: "surprise-details" });
    const numbers = h("input", { type: "checkbox" });
    numbers.addEventListener("change", () => tokens.classList.toggle("numbered", numbers.checked));
    result.replaceChildren(
      legend(),
      h("label", { class: "surprise-numbers" }, numbers, t("numbers")),
      tokens,
      details,
      summary(),
      list(),
    );
    if (active >= 0) choose(active);
  }

  /** Return the element of token i; `::after` shows its bits. */
  function span(text, i) {
    const b = bits(answer.logprob[i]);
    const isControl = answer.ids[i] in app.vocabulary.controls;
    const part = text === "" && !isControl;
    const shown = part ? "·" : isControl ? app.piece(answer.ids[i]) : text.replaceAll("\n", "↵\n");
    const made = h("span", { role: "option", id: `surprise-${i}` }, shown);
    made.style.setProperty("--shade", shade(b).toFixed(3));
    if (b !== null) made.dataset.bits = b.toFixed(b < 9.95 ? 1 : 0);
    if (part || isControl) made.classList.add("part");
    if (!shown.trim()) made.setAttribute("aria-label", app.piece(answer.ids[i]));
    return made;
  }

  function pick(event) {
    const at = spans.indexOf(event.target.closest("[role=option]"));
    if (at >= 0) choose(at);
  }

  function walk(event) {
    const go = { ArrowRight: active + 1, ArrowLeft: active - 1, Home: 0, End: spans.length - 1 };
    let at = go[event.key];
    if (event.key === "ArrowDown") at = nearest(1);
    if (event.key === "ArrowUp") at = nearest(-1);
    if (at === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    choose(Math.min(spans.length - 1, Math.max(0, at)));
    spans[active].scrollIntoView({ block: "nearest" });
  }

  /** Return the token of the next line (or the one before: -1) that is nearest to the active one. */
  function nearest(direction) {
    const place = (i) => spans[i].getBoundingClientRect();
    const from = place(active);
    let best = active;
    let line = null;
    for (let i = active + direction; i >= 0 && i < spans.length; i += direction) {
      const here = place(i);
      const isBeyond = direction > 0 ? here.top > from.bottom - 4 : here.bottom < from.top + 4;
      if (!isBeyond) continue;
      line ??= here.top;
      if (Math.abs(here.top - line) > 4) break;
      if (best === active || Math.abs(here.left - from.left) < Math.abs(place(best).left - from.left)) {
        best = i;
      }
    }
    return best;
  }

  function choose(i) {
    spans[active]?.removeAttribute("aria-selected");
    active = i;
    spans[i].setAttribute("aria-selected", "true");
    spans[i].setAttribute("aria-label", describe(i));
    tokens.setAttribute("aria-activedescendant", spans[i].id);
    details.replaceChildren(...detail(i));
  }

  function describe(i) {
    const piece = app.piece(answer.ids[i]);
    if (answer.logprob[i] === null) return `${piece}: ${t("first")}`;
    return `${piece}: ${t("facts", facts(i))}`;
  }

  function facts(i) {
    return {
      bits: app.number(bits(answer.logprob[i]), 1),
      p: app.percent(Math.exp(answer.logprob[i])),
      rank: app.number(answer.rank[i], 0),
      n: app.number(app.model.n_vocab, 0),
    };
  }

  function detail(i) {
    const id = answer.ids[i];
    const head = h("p", {}, h("b", { class: "token" }, app.piece(id)), ` ${describe(i).slice(app.piece(id).length + 2)}`);
    if (answer.logprob[i] === null) return [head];
    const rows = answer.top[i].map(([other, p]) => {
      const bar = h("span", { class: "share" });
      bar.style.setProperty("--p", p);
      return h(
        "tr",
        { class: other === id ? "really" : "" },
        h("th", { scope: "row" }, app.piece(other)),
        h("td", {}, app.percent(p)),
        h("td", { class: "wide" }, bar),
      );
    });
    const caption = h("caption", {}, t("instead"));
    return [head, h("table", { class: "surprise-top" }, caption, h("tbody", {}, ...rows))];
  }

  function legend() {
    const marks = MARKS.map((b) => {
      const mark = h("span", {}, `${b}${b === MOST ? "+" : ""}`);
      mark.style.setProperty("--shade", shade(b));
      return mark;
    });
    return h("p", { class: "surprise-legend" }, t("legend"), ...marks);
  }

  function summary() {
    const { loss, perplexity, bits_per_byte: perByte, copied, n_truncated: cut } = answer;
    const fact = (key, value) => h("div", {}, h("dt", {}, t(key)), h("dd", {}, value));
    const lines = [
      h(
        "dl",
        { class: "surprise-sums" },
        fact("n", app.number(answer.ids.length, 0)),
        fact("loss", app.number(loss, 3)),
        fact("perplexity", perplexity === null ? "–" : app.number(perplexity, 2)),
        fact("per_byte", perByte === null ? "–" : app.number(perByte, 3)),
      ),
    ];
    if (cut) lines.push(h("p", {}, t("cut", { n: app.number(cut, 0) })));
    if (copied) {
      const n = wordsInside(answer.texts, copied);
      lines.push(h("p", {}, n ? t("copied", { n: app.number(n, 0) }) : t("new")));
    }
    return h("div", {}, ...lines);
  }

  function list() {
    const items = mostSurprising(answer.logprob, LISTED).map((i) => {
      const before = answer.texts.slice(Math.max(0, i - 24), i).join("").slice(-24);
      const context = h("span", {}, `…${before.replaceAll("\n", "↵")}`);
      const go = h("button", { type: "button" }, context, h("b", {}, app.piece(answer.ids[i])));
      go.addEventListener("click", () => {
        choose(i);
        tokens.focus();
        spans[i].scrollIntoView({ block: "center" });
      });
      return h("li", {}, go, " ", t("item", facts(i)));
    });
    if (!items.length) return "";
    return h("section", {}, h("h3", {}, t("most")), h("ol", { class: "surprise-most" }, ...items));
  }

  build();
  return {
    update(changed) {
      if (changed.has("language")) build();
      if (changed.has("model") && answer) ask();
    },
  };
}
