/** The ladder: from the model's prediction, filter by filter, to the probabilities of the draw. */

import { h, say } from "../dom.js";
import { heading } from "../heading.js";
import { ascending, entropy, softmax } from "../sampling.js";

const N_ROWS = 12; // tokens with a bar of their own
const PATIENCE = 300; // milliseconds until the page says that it waits, and hides the numbers before

/** Show the steps, and the most probable tokens with their probabilities at each step. */
export function mount(root, app) {
  const title = heading(app, "ladder.title", "GPT.forward");
  const steps = h("div.steps", { role: "radiogroup", named: "ladder.steps" });
  const left = h("p.left");
  const rows = Array.from({ length: N_ROWS + 1 }, (_, i) => row(i < N_ROWS, app));
  const table = h("table.ladder", h("caption.visually-hidden", { t: "ladder.table" }),
    h("thead", h("tr", ["token", "model", "here", "sum"].map((key) =>
      h("th", { scope: "col", t: `ladder.${key}` })))),
    h("tbody", rows.map(({ element }) => element)));
  root.append(title.element, h("p.hint", { t: "ladder.about" }), steps, left, table);
  let waiting = 0;
  let shown = null; // name of the step that is shown; null: the last

  function draw() {
    const draw = app.draw();
    clearTimeout(waiting);
    table.setAttribute("aria-busy", String(!draw));
    if (!draw) {
      waiting = setTimeout(() => {
        table.hidden = true;
        say(left, app.t("page.loading"));
      }, PATIENCE);
      return;
    }
    table.hidden = false;
    const stages = [{ name: "raw", p: draw.raw }, ...draw.steps];
    const last = stages.length - 1;
    const at = shown === null ? last : stages.findIndex(({ name }) => name === shown);
    const here = at < 0 ? last : at;
    const p = here === last ? draw.final : (stages[here].p ?? softmax(stages[here].logits));
    const nLeft = drawSteps(stages, here, p);
    title.show(here === 0 ? "GPT.forward" : stages[here].name);
    const order = ascending(app.prediction.logits);
    const n = Math.min(N_ROWS, order.length);
    const ids = Array.from({ length: n }, (_, i) => order[order.length - 1 - i]);
    if (!ids.includes(draw.token)) ids[n - 1] = draw.token;
    const most = Math.max(draw.raw[ids[0]], ...ids.map((id) => p[id]));
    let [rawSum, sum, nShown] = [0, 0, 0]; // of the rows so far
    const cutters = new Set(); // those that a row above has named
    for (let i = 0; i < N_ROWS; i++) {
      const id = ids[i];
      rows[i].element.hidden = id === undefined;
      if (id === undefined) continue;
      rawSum += draw.raw[id];
      sum += p[id];
      const isCut = p[id] === 0;
      if (!isCut) nShown++;
      const cutBy = isCut ? cutter(stages, here, id) : null;
      rows[i].show({
        id, raw: draw.raw[id], p: p[id], most, sum: isCut ? null : sum, isDrawn: id === draw.token,
        cutBy: cutters.has(cutBy) ? null : cutBy, isFirstCut: isCut && cutters.size === 0,
      });
      if (isCut) cutters.add(cutBy);
    }
    const rest = order.length - n;
    rows[N_ROWS].element.hidden = rest === 0;
    const others = nLeft > nShown ? Math.max(0, 1 - sum) : 0; // rounding is no share
    rows[N_ROWS].show({ others: rest, raw: Math.max(0, 1 - rawSum), p: others, most });
  }

  /** Return the name of the step that cut a token. */
  function cutter(stages, here, id) {
    return stages.slice(1, here + 1).find(({ logits }) => logits[id] === -Infinity)?.name ?? null;
  }

  /** Show the steps, and how open the choice is; return the number of tokens that are left. */
  function drawSteps(stages, here, p) {
    const names = stages.map(({ name }) => name);
    const known = [...steps.querySelectorAll("input")].map(({ value }) => value);
    if (names.join() !== known.join()) {
      const focused = steps.contains(document.activeElement) ? document.activeElement.value : null;
      const onchange = ({ target: { value } }) => {
        shown = value === names.at(-1) ? null : value;
        draw();
      };
      steps.replaceChildren(...names.map((value) =>
        h("label", h("input", { type: "radio", name: "step", value, onchange }), h("span"))));
      if (focused) steps.querySelector(`[value="${focused}"]`)?.focus();
    }
    stages.forEach(({ name }, i) => {
      const [input, label] = steps.children[i].children;
      input.checked = i === here;
      say(label, stepName(name));
    });
    let n = 0;
    for (let i = 0; i < p.length; i++) if (p[i] > 0) n++;
    const nats = entropy(p);
    say(left, app.t("ladder.left", {
      n: app.number(n), choices: app.number(Math.exp(nats), 1),
      bits: app.number(nats / Math.LN2, 2),
    }));
    return n;
  }

  function stepName(name) {
    if (name === "raw") return app.t("ladder.raw");
    return `${app.t(`settings.${name}`).toLowerCase()} ${app.state.settings[name]}`;
  }

  return {
    update(changed) {
      if (changed.has("text", "prediction", "settings", "model", "language")) draw();
    },
  };
}

/** Return a row of the table: {element, show}; the last row is for all other tokens. */
function row(isToken, app) {
  let id = null;
  const name = isToken ? h("button.token", { onclick: () => app.choose(id) }) : h("span");
  const note = h("span.note");
  const [before, after, sum] = [h("td.p"), h("td.p"), h("td.p.sum")];
  const [wide, thin] = [h("span.after"), h("span.before")];
  const bars = h("span.bars", { "aria-hidden": "true" }, wide, thin);
  const element = h("tr", h("th", { scope: "row" }, name, note, bars), before, after, sum);

  function show(facts) {
    id = facts.id ?? null;
    const piece = isToken ? app.piece(id) : app.t("ladder.others", { n: app.number(facts.others) });
    say(name, piece);
    element.classList.toggle("drawn", facts.isDrawn === true);
    element.classList.toggle("cut", facts.p === 0);
    element.classList.toggle("first-cut", facts.isFirstCut === true);
    say(note, facts.cutBy ? app.t("ladder.cut", { name: facts.cutBy.replaceAll("_", "-") })
      : facts.isDrawn ? app.t("ladder.drawn") : "");
    say(before, app.percent(facts.raw));
    say(after, facts.p === 0 ? "–" : app.percent(facts.p));
    say(sum, facts.sum == null ? "" : app.percent(Math.min(1, facts.sum)));
    if (!isToken) return; // all others together may have many times the most probable one's share
    name.setAttribute("aria-label", app.t("ladder.choose", { piece }));
    element.dataset.id = id;
    wide.style.setProperty("--share", facts.p / facts.most);
    thin.style.setProperty("--share", facts.raw / facts.most);
  }
  return { element, show };
}
