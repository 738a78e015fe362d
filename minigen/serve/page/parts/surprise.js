// Any text, coloured by how much each token surprised the model.

import { bar, h, isModified, row } from "../dom.js";
import { MOST, bits, completed, mostSurprising, shade, wordsInside } from "../surprisal.js";

const MARKS = [0, 1, 2, 4, 8, 16]; // bits that the legend names
const LISTED = 10; // tokens in the list of the most surprising ones

/** Show a box for a text, and the text in the colours of its surprise. */
export function mount(root, app) {
  let answer = null; // of /api/surprise, and `texts`: the characters that each token completes
  let running = null; // the AbortController of the present request
  let spans = [];
  let active = 0;
  const t = app.words("surprise");

  const box = h("textarea", { id: "surprise-text", rows: 4, spellcheck: "false", onkeydown: (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  } });
  const file = h("input.visually-hidden",
    { type: "file", tabindex: -1, named: "surprise.open", onchange: () => read(file.files[0]) });
  const result = h("div.surprise-result");
  let tokens, details;
  const submit = (event) => {
    event.preventDefault();
    ask();
  };
  root.append(
    h("p.hint", { t: "surprise.intro" }),
    h("form.surprise-form", { onsubmit: submit },
      h("label", { for: box.id, t: "surprise.label" }), box,
      h("div.row", h("button", { type: "submit", t: "surprise.colour" }),
        h("button", { t: "surprise.present", onclick: usePresent }),
        h("button", { t: "surprise.open", onclick: () => file.click() }), file)),
    result,
  );
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

  function draw() {
    spans = answer.texts.map(span);
    const copied = answer.copied ?? [];
    for (const [from, to] of copied) {
      for (const each of spans.slice(from, to)) each.classList.add("copied");
    }
    tokens = h("div.surprise-tokens", {
      role: "listbox", tabindex: 0, "aria-label": t("tokens"),
      onkeydown: walk, onfocus: () => choose(active), onpointerover: pick, onclick: pick,
    }, spans);
    details = h("div.surprise-details");
    const numbers = h("input",
      { type: "checkbox", onchange: () => tokens.classList.toggle("numbered", numbers.checked) });
    result.replaceChildren(
      h("p.surprise-legend", t("legend"), MARKS.map((b) =>
        h("span", { "--shade": shade(b) }, `${b}${b === MOST ? "+" : ""}`))),
      h("label", numbers, t("numbers")), tokens, details, summary(), list(),
    );
    if (active >= 0) choose(active);
  }

  /** Return the element of token i; `::after` shows its bits. */
  function span(text, i) {
    const b = bits(answer.logprob[i]);
    const isControl = answer.ids[i] in app.vocabulary.controls;
    const part = text === "" && !isControl;
    const shown = part ? "·" : isControl ? app.piece(answer.ids[i]) : text.replaceAll("\n", "↵\n");
    return h(part || isControl ? "span.part" : "span", {
      role: "option", id: `surprise-${i}`, "--shade": shade(b).toFixed(3),
      "data-bits": b?.toFixed(b < 9.95 ? 1 : 0), "aria-label": !shown.trim() && app.piece(answer.ids[i]),
    }, shown);
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
    if (at === undefined || isModified(event)) return;
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
      rank: app.number(answer.rank[i]),
      n: app.number(app.model.n_vocab),
    };
  }

  function detail(i) {
    const id = answer.ids[i];
    const words = describe(i).slice(app.piece(id).length + 2);
    const head = h("p", h("b.token", app.piece(id)), ` ${words}`);
    if (answer.logprob[i] === null) return [head];
    return [head, h("table", h("caption", t("instead")), h("tbody", answer.top[i].map(([other, p]) =>
      row(other === id ? h("b", app.piece(other)) : app.piece(other), app.percent(p),
        h("td.wide", h("span.track", bar(p)))))))];
  }

  function summary() {
    const { loss, perplexity, bits_per_byte: perByte, copied, n_truncated: cut } = answer;
    const fact = (words, x, digits) =>
      h("div", h("dt", words), h("dd", x === null ? "–" : app.number(x, digits)));
    const n = copied && wordsInside(answer.texts, copied);
    return h("div",
      h("dl.surprise-sums", fact(app.t("tree.tokens"), answer.ids.length, 0), fact(t("loss"), loss, 3),
        fact(t("perplexity"), perplexity, 2), fact(t("per_byte"), perByte, 3)),
      cut > 0 && h("p", t("cut", { n: app.number(cut) })),
      copied && h("p", n ? t("copied", { n: app.number(n) }) : t("new")));
  }

  function list() {
    const items = mostSurprising(answer.logprob, LISTED).map((i) => {
      const before = answer.texts.slice(Math.max(0, i - 24), i).join("").slice(-24);
      const go = h("button", { onclick: () => {
        choose(i);
        tokens.focus();
        spans[i].scrollIntoView({ block: "center" });
      } }, h("span", `…${before.replaceAll("\n", "↵")}`), h("b", app.piece(answer.ids[i])));
      return h("li", go, " ", t("item", facts(i)));
    });
    if (!items.length) return "";
    return h("section", h("h3", t("most")), h("ol.surprise-most", items));
  }

  return {
    update(changed) {
      if (changed.has("language") && answer) draw();
      if (changed.has("model") && answer) ask();
    },
  };
}
