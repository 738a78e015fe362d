// All texts of this visit as a tree: shared beginnings stand once, each choice begins a line.

import { apart, branchSum, keyStep, linesOf } from "../branches.js";
import { bar, columns, h, isModified, row } from "../dom.js";
import { pathTo } from "../text.js";

/** Show the tree, and two marked branches side by side. */
export function mount(root, app) {
  const closed = new Set(); // nodes whose lines hide the lines below them
  let marked = []; // the ends of at most two branches to compare
  let removed = null; // the branch that was removed last
  let own = new Map(); // the model's own ln p of each node, without filters; null: not known
  let before = null; // the latest prediction: {node that it follows, logits, sum: log of its sum}
  let asking = false;
  let lines = [];
  let focus = 0; // index of the line that Tab reaches
  const t = app.words("tree");

  const about = h("p.hint", { id: "tree-about" });
  const tree = h("div.tree", {
    role: "tree", "aria-multiselectable": "true", "aria-describedby": about.id, named: "tree.name",
    onkeydown: onKey, onclick: onClick,
  });
  const said = h("div", { role: "status" });
  const pair = h("section.tree-pair");
  const titles = ["words", "choice", "sum", "each"].map((key) => h("span", { t: `tree.${key}` }));
  root.append(h("div.tree-part",
    about, h("div.tree-line.tree-head", { "aria-hidden": "true" }, h("span"), titles), tree, said,
    h("p.hint", { t: "tree.means" }), pair));
  addEventListener("scroll", askMissing, true); // of the page, or of the panel

  const logprob = (node) => own.get(node) ?? null;
  const chance = (node) => (logprob(node) === null ? "–" : app.percent(Math.exp(logprob(node))));
  const end = (line) => line.nodes.at(-1);
  const words = (nodes) => app.decode(nodes.map((node) => node.token));

  function draw() {
    const had = tree.contains(document.activeElement);
    const first = lines[focus]?.nodes[0];
    lines = linesOf(app.text, closed);
    marked = marked.filter((node) => isThere(node));
    focus = Math.max(0, lines.findIndex((line) => line.nodes[0] === first));
    about.textContent = t(lines.length > 2 ? "keys" : "empty");
    tree.replaceChildren(...lines.map(item));
    if (had) tree.children[focus].focus();
    drawPair();
  }

  /** Return whether a node still hangs on the tree. */
  function isThere(node) {
    const path = [app.text.root, ...pathTo(node)];
    return path.every((at, i) => i === 0 || app.text.children(path[i - 1]).includes(at));
  }

  /** Return the element of a line; its buttons are for the pointer, keys do the same. */
  function item(line, i) {
    const { sum, n } = branchSum(end(line), logprob);
    const isPrompt = line.parent < 0;
    const isHere = line.here >= 0;
    const facts = {
      text: isPrompt ? promptText() : words(line.nodes),
      choice: isPrompt ? "" : chance(line.nodes[0]),
      sum: nats(sum),
      each: n && sum !== null ? nats(sum / n) : "–",
      n: app.number(n),
    };
    const made = h(line.isOnPath ? "div.tree-line.on-path" : "div.tree-line", {
      role: "treeitem", tabindex: i === focus ? 0 : -1, "--level": line.level - 1,
      "aria-level": line.level, "aria-posinset": line.position, "aria-setsize": line.size,
      "aria-label": t(isPrompt ? "prompt" : "line", facts) + (isHere ? `, ${t("here")}` : ""),
      "aria-expanded": line.nChildren ? String(line.isOpen) : null, "aria-current": isHere ? "true" : null,
    },
    h("span.tree-twist", line.nChildren ? (line.isOpen ? "▾" : "▸") : ""),
    h("span.tree-words", wordsOf(line, facts.text)));
    if (isPrompt) return made;
    const isMarked = marked.includes(end(line));
    made.setAttribute("aria-checked", isMarked);
    const button = (action, shown) => h("button",
      { tabindex: -1, "data-action": action, "aria-label": t(action), title: t(action) }, shown);
    made.append(
      h("span.tree-choice", h("span.track", bar(Math.exp(logprob(line.nodes[0]) ?? -Infinity))), facts.choice),
      h("span.tree-sum", facts.sum), h("span.tree-each", facts.each),
      button("mark", isMarked ? "☑" : "☐"), button("remove", "×"),
    );
    return made;
  }

  const nats = (x) => (x === null ? "–" : app.number(x, 2));
  const promptText = () => app.decode(app.text.prompt);
  const oneLine = (text) => text.replaceAll("\n", "↵");

  /** Return the words of a line: its choice strong, and the part after the present place faint. */
  function wordsOf(line, text) {
    if (line.parent < 0) return [oneLine(text) || t("nothing")];
    const at = line.here >= 0 ? line.here + 1 : line.nodes.length;
    const rest = words(line.nodes.slice(at));
    return [
      h("b", oneLine(words(line.nodes.slice(0, 1)))),
      oneLine(words(line.nodes.slice(1, at))),
      line.here >= 0 && h("span.tree-here", "●"),
      rest && h("span.rest", oneLine(rest)),
    ];
  }

  function onClick(event) {
    const at = [...tree.children].indexOf(event.target.closest("[role=treeitem]"));
    if (at < 0) return;
    const action = event.target.closest("[data-action]")?.dataset.action;
    focus = at;
    if (action === "mark") mark(lines[at]);
    else if (action === "remove") remove(lines[at]);
    else if (event.target.closest(".tree-twist") && lines[at].nChildren) open(lines[at], !lines[at].isOpen);
    else go(lines[at]);
  }

  function onKey(event) {
    if (isModified(event)) return;
    const line = lines[focus];
    const step = keyStep(lines, focus, event.key);
    if (step?.go !== undefined) show(step.go);
    else if (step) open(line, step.open);
    else if (event.key === "Enter") go(line);
    else if (event.key === " ") mark(line);
    else if (event.key === "Delete" || event.key === "Backspace") remove(line);
    else return;
    event.preventDefault();
  }

  /** Move the focus to a line. */
  function show(index) {
    tree.children[focus].tabIndex = -1;
    focus = index;
    tree.children[focus].tabIndex = 0;
    tree.children[focus].focus();
  }

  function open(line, isOpen) {
    if (isOpen) closed.delete(line.nodes[0]);
    else closed.add(line.nodes[0]);
    draw();
    tree.children[focus].focus();
  }

  /** Continue the text that ends with this line. */
  function go(line) {
    app.text.goTo(end(line));
    app.textChanged();
  }

  /** Mark a branch, or unmark it; of three marked branches the first is unmarked. */
  function mark(line) {
    const node = end(line);
    if (line.parent < 0) return;
    marked = marked.includes(node) ? marked.filter((each) => each !== node) : [...marked, node].slice(-2);
    draw();
  }

  function remove(line) {
    if (line.parent < 0) return;
    removed = line.nodes[0];
    const text = words(line.nodes);
    app.text.remove(removed);
    app.textChanged();
    const undo = h("button", { onclick: () => {
      app.text.restore(removed);
      said.replaceChildren();
      app.textChanged();
    } }, t("undo"));
    said.replaceChildren(t("removed", { text: oneLine(text) }), " ", undo);
  }

  /** Show the two marked branches side by side. */
  function drawPair() {
    if (marked.length < 2) {
      pair.replaceChildren(...marked.map(() => h("p.hint", t("mark_another"))));
      return;
    }
    const split = apart(...marked);
    const shared = words(pathTo(marked[0]).slice(0, split.shared));
    const sums = marked.map((node) => branchSum(node, logprob));
    const column = (n, rest) => h("div", h("h4", t("branch", { n })),
      h("p.tree-text", h("span", promptText(), shared), h("b", words(rest))));
    const fact = (key, show) => row(t(key), sums.map(show));
    pair.replaceChildren(
      h("h3", t("pair")),
      h("div.side-by-side", column(1, split.a), column(2, split.b)),
      h("table",
        h("thead", columns("", ...[1, 2].map((n) => t("branch", { n })))),
        h("tbody",
          fact("tokens", ({ n }) => app.number(n)), fact("sum", ({ sum }) => nats(sum)),
          fact("each", ({ sum, n }) => nats(sum === null || !n ? null : sum / n)))),
      h("p", odds(...sums)),
    );
  }

  /** Return the sentence that says how much more probable one branch is than the other. */
  function odds(a, b) {
    if (a.sum === null || b.sum === null) return t("unknown");
    const [n, m] = a.sum >= b.sum ? [1, 2] : [2, 1];
    const tens = Math.abs(a.sum - b.sum) / Math.LN10;
    if (tens >= 6) return t("odds", { n, m, x: `10^${app.number(tens, 1)}` });
    const ratio = Math.exp(Math.abs(a.sum - b.sum));
    return t("odds", { n, m, x: app.number(ratio, ratio < 10 ? 2 : 0) });
  }

  /** Read the probabilities of the tokens that follow the latest prediction. */
  function learn() {
    if (before) {
      for (const node of app.text.children(before.node)) {
        own.set(node, before.logits[node.token] - before.sum);
      }
    }
    if (!app.prediction || before?.node === app.text.at) return;
    const { logits } = app.prediction;
    const most = logits.reduce((a, b) => Math.max(a, b));
    const sum = most + Math.log(logits.reduce((a, b) => a + Math.exp(b - most), 0));
    before = { node: app.text.at, logits, sum };
  }

  /** Ask for the probabilities of the lines in sight that nobody has read: those of the address. */
  async function askMissing() {
    const present = own;
    const isMissing = (line, i) => {
      const { top, bottom } = tree.children[i].getBoundingClientRect();
      return bottom > 0 && top < innerHeight && pathTo(end(line)).some((node) => !own.has(node));
    };
    while (app.prediction && !asking) {
      const at = lines.findLastIndex(isMissing);
      if (at < 0) return;
      asking = true;
      const path = pathTo(end(lines[at]));
      const ids = [...app.text.prompt, ...path.map((node) => node.token)];
      let found = [];
      try {
        ({ logprob: found } = await app.api("/api/surprise", { ...app.question, ids }));
      } catch (error) {
        if (error.status === undefined) throw error; // app.api has shown a refusal
      }
      asking = false;
      if (own !== present) return;
      path.forEach((node, i) => own.set(node, found[app.text.nPrompt + i] ?? null));
      draw();
    }
  }

  return {
    update(changed) {
      if (changed.has("model")) {
        own = new Map();
        before = null;
      }
      learn();
      if (changed.size > 1 || !changed.has("prediction")) draw();
      askMissing();
    },
  };
}
