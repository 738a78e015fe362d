// All texts of this visit as a tree: shared beginnings stand once, each choice begins a line.

import { apart, branchSum, keyStep, leavesOf, linesOf, pathTo } from "../branches.js";
import { h } from "../dom.js";

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
  const t = (key, values) => app.t(`tree.${key}`, values);

  const about = h("p", { class: "hint", id: "tree-about" });
  const tree = h("div", { role: "tree", class: "tree", "aria-multiselectable": "true" });
  const said = h("div", { class: "tree-said", role: "status" });
  const pair = h("section", { class: "tree-pair" });
  tree.setAttribute("aria-describedby", about.id);
  tree.addEventListener("keydown", onKey);
  tree.addEventListener("click", onClick);
  const head = h("div", { class: "tree-line tree-head", "aria-hidden": "true" });
  const means = h("p", { class: "hint" });
  root.append(h("div", { class: "tree-part" }, about, head, tree, said, means, pair));

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
    means.textContent = t("means");
    const titles = ["", "words", "choice", "sum", "each"].map((key) => h("span", {}, key && t(key)));
    head.replaceChildren(...titles);
    tree.setAttribute("aria-label", t("name"));
    tree.replaceChildren(...lines.map(row));
    if (had) tree.children[focus].focus();
    drawPair();
  }

  /** Return whether a node still hangs on the tree. */
  function isThere(node) {
    const path = [app.text.root, ...pathTo(node)];
    return path.every((at, i) => i === 0 || app.text.children(path[i - 1]).includes(at));
  }

  /** Return the element of a line; its buttons are for the pointer, keys do the same. */
  function row(line, i) {
    const { sum, n } = branchSum(end(line), logprob);
    const isPrompt = line.parent < 0;
    const isHere = line.here >= 0;
    const facts = {
      text: isPrompt ? promptText() : words(line.nodes),
      choice: isPrompt ? "" : chance(line.nodes[0]),
      sum: nats(sum),
      each: n && sum !== null ? nats(sum / n) : "–",
      n: app.number(n, 0),
    };
    const made = h(
      "div",
      {
        role: "treeitem",
        class: "tree-line",
        tabindex: i === focus ? 0 : -1,
        "aria-level": line.level,
        "aria-posinset": line.position,
        "aria-setsize": line.size,
        "aria-label": t(isPrompt ? "prompt" : "line", facts) + (isHere ? `, ${t("here")}` : ""),
      },
      h("span", { class: "tree-twist" }, line.nChildren ? (line.isOpen ? "▾" : "▸") : ""),
      h("span", { class: "tree-words" }, ...wordsOf(line, facts.text)),
    );
    made.style.setProperty("--level", line.level - 1);
    if (line.nChildren) made.setAttribute("aria-expanded", line.isOpen);
    if (line.isOnPath) made.classList.add("on-path");
    if (isHere) made.setAttribute("aria-current", "true");
    if (isPrompt) return made;
    const bar = h("span", { class: "share" });
    bar.style.setProperty("--p", Math.exp(logprob(line.nodes[0]) ?? -Infinity));
    const isMarked = marked.includes(end(line));
    made.setAttribute("aria-checked", isMarked);
    const button = (action, label, shown) =>
      h("button", { type: "button", tabindex: -1, "data-action": action, "aria-label": label, title: label }, shown);
    made.append(
      h("span", { class: "tree-choice" }, bar, facts.choice),
      h("span", { class: "tree-sum" }, facts.sum),
      h("span", { class: "tree-each" }, facts.each),
      button("mark", t("mark"), isMarked ? "☑" : "☐"),
      button("remove", t("remove"), "×"),
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
      h("b", {}, oneLine(words(line.nodes.slice(0, 1)))),
      oneLine(words(line.nodes.slice(1, at))),
      line.here >= 0 ? h("span", { class: "tree-here" }, "●") : "",
      rest ? h("span", { class: "rest" }, oneLine(rest)) : "",
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
    if (event.ctrlKey || event.altKey || event.metaKey) return;
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
    const undo = h("button", { type: "button" }, t("undo"));
    undo.addEventListener("click", () => {
      app.text.restore(removed);
      said.replaceChildren();
      app.textChanged();
    });
    said.replaceChildren(t("removed", { text: oneLine(text) }), " ", undo);
  }

  /** Show the two marked branches side by side. */
  function drawPair() {
    if (marked.length < 2) {
      pair.replaceChildren(...(marked.length ? [h("p", { class: "hint" }, t("mark_another"))] : []));
      return;
    }
    const split = apart(...marked);
    const shared = words(pathTo(marked[0]).slice(0, split.shared));
    const sums = marked.map((node) => branchSum(node, logprob));
    const column = (i, rest) =>
      h(
        "div",
        {},
        h("h4", {}, t("branch", { n: i + 1 })),
        h("p", { class: "tree-text" }, h("span", {}, promptText(), shared), h("b", {}, words(rest))),
      );
    const fact = (key, values) =>
      h("tr", {}, h("th", { scope: "row" }, t(key)), ...values.map((value) => h("td", {}, value)));
    const head = [1, 2].map((n) => h("th", { scope: "col" }, t("branch", { n })));
    pair.replaceChildren(
      h("h3", {}, t("pair")),
      h("div", { class: "side-by-side" }, column(0, split.a), column(1, split.b)),
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, h("td", {}), ...head)),
        h(
          "tbody",
          {},
          fact("tokens", sums.map(({ n }) => app.number(n, 0))),
          fact("sum", sums.map(({ sum }) => nats(sum))),
          fact("each", sums.map(({ sum, n }) => nats(sum === null || !n ? null : sum / n))),
        ),
      ),
      h("p", {}, odds(...sums)),
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

  /** Ask for the probabilities that nobody has read: those of a text from the address, for example. */
  async function askMissing() {
    const present = own;
    for (;;) {
      const leaf = leavesOf(app.text).find((node) => pathTo(node).some((each) => !own.has(each)));
      if (!leaf || asking) return;
      asking = true;
      const { model, step } = app.state;
      const path = pathTo(leaf);
      const ids = [...app.text.prompt, ...path.map((node) => node.token)];
      let found = [];
      try {
        ({ logprob: found } = await app.api("/api/surprise", { model, step, ids }));
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
      if (app.prediction) askMissing();
    },
  };
}
