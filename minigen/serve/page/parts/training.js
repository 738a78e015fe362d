/** Training live: the loss curve of a run, its samples, and its predictions at each checkpoint. */

import { bar, choose, columns, h, row, say, svg } from "../dom.js";
import { softmax } from "../sampling.js";
import { hexBytes, visible } from "../vocabulary.js";
import {
  RunLog, decimals, duration, lossRange, path, scale, smoothed, spread, ticks,
} from "../curve.js";
import { candidates, decodeLogits, nextCheckpoint } from "../replay.js";

const POLL = 1000; // milliseconds between two looks at a run that trains
const IDLE = 5000; // and at one that does not, and at the list of runs
const N_REPLAYED = 24; // checkpoints of which the predictions are drawn
const THUMB = 8; // pixels from the end of a slider to the middle of its thumb at that end
const MAX_DRAWN = 1200; // points of the unsmoothed line
const MAX_CHARS = 20_000; // of a text that the server predicts

/** Show the choice of a run, its curve, the slider over its checkpoints, and its samples. */
export function mount(root, app) {
  const t = app.words("training");
  const step = (n) => t("step", { step: app.number(n) });
  const runs = h("select", { id: "training-run", onchange: () => {
    lost.hidden = true;
    follow(runs.value);
  } });
  const status = h("p.training-status");
  const axis = h("button", { "aria-pressed": "true", t: "training.axis", onclick: () => {
    axis.setAttribute("aria-pressed", !isLog());
    draw();
  } });
  const drawing = svg("svg.training-chart", {
    "aria-hidden": "true", onpointermove: hover, onpointerleave: hover,
    onclick: (event) => log.state.checkpoints.length && slide(stepAt(event)),
  });
  const summary = h("div.visually-hidden");
  const figure = h("figure.training-figure", { role: "figure" }, drawing, summary);
  const slider = h("input", {
    type: "range", min: 0, step: 1, named: "page.checkpoint", oninput: () => slide(Number(slider.value)),
  });
  const stepShown = h("output");
  const sliderRow = h("div.training-slider", slider, stepShown);
  const kept = h("p.hint", { t: "training.few_checkpoints" });
  const [replayTitle, replayNote] = [h("h3"), h("p.hint")];
  const table = h("table.training-replay");
  const samplesTitle = h("h3", { t: "training.samples" });
  const samples = h("ol.training-samples", { tabindex: 0, named: "training.samples" });
  const live = h("p.visually-hidden", { "aria-live": "polite" });
  const empty = h("p.hint", { t: "training.no_runs", hidden: true });
  const lost = h("p.hint", { role: "status", hidden: true });
  const body = h("div", figure, sliderRow, kept,
    h("div.columns", h("section", replayTitle, replayNote, table), h("section", samplesTitle, samples)));
  root.append(
    h("div.row", h("label.field", { for: runs.id }, h("span", { t: "training.run" })), runs, status, axis), lost, empty, body, live);
  new ResizeObserver(draw).observe(figure);

  const predictions = new Map(); // by step: {p, bytes}; null: refused
  let log = null; // the RunLog of the run that is shown
  let wanted = null; // the run to show, as the reader has chosen its model
  let chosen = null; // the step of the checkpoint that is shown
  let isAtEnd = true; // whether that is the last one
  let hovered = null; // the step under the pointer
  let plot = null; // the place of the curve: {left, right, top, bottom}
  let asked = ""; // the run and the text of the predictions
  let [timer, listedAt, isPolling, isReplaying] = [0, 0, false, false];
  const isLog = () => axis.getAttribute("aria-pressed") === "true";
  const isVisible = () => root.offsetParent !== null && !document.hidden;

  // ---- following ----

  async function poll() {
    clearTimeout(timer);
    timer = setTimeout(poll, log?.state.running ? POLL : IDLE);
    if (!isVisible() || isPolling) return;
    isPolling = true;
    try {
      if (Date.now() - listedAt > IDLE - 100) await list();
      if (log) await read();
    } catch {
      // the page says so in its own line; the next look may succeed
    } finally {
      isPolling = false;
    }
  }

  async function list() {
    listedAt = Date.now();
    const { runs: found } = await app.api("/api/runs");
    const words = ({ id, running }) => [id, running ? t("run_running", { id }) : id];
    choose(runs, found.map(words), log?.id);
    empty.hidden = found.length > 0;
    body.hidden = !found.length;
    const known = found.map(({ id }) => id);
    if (log && !known.includes(log.id)) {
      say(lost, t("lost", { id: log.id }));
      lost.hidden = false;
      [log, asked] = [null, ""];
    }
    const started = found.find(({ running }) => running)?.id;
    const id = [wanted, log?.id, started, app.state.model, known[0]].find((name) => known.includes(name));
    wanted = null;
    if (id !== undefined && id !== log?.id) await follow(id);
  }

  async function follow(id) {
    log = new RunLog(id);
    chosen = null;
    asked = "";
    runs.value = id;
    await read();
    draw();
  }

  async function read() {
    const present = log;
    const id = log.id.split("/").map(encodeURIComponent).join("/");
    let [more, isChanged] = [true, false];
    while (more) {
      const address = `/api/runs/${id}?after=${encodeURIComponent(log.cursor)}`;
      const answer = await app.api(address, undefined, { isQuiet: true }); // `list` names a lost run
      if (log !== present) return;
      const { running, samples } = log.state;
      isChanged = log.take(answer) || isChanged;
      more = answer.more;
      announce(running, samples.length);
    }
    if (isChanged) show();
  }

  function show() {
    draw();
    showSamples();
    replay();
  }

  /** Say politely what a person who does not see the curve would miss: evaluations, the end. */
  function announce(wasRunning, nSamples) {
    const { state, validation } = log;
    if (wasRunning && !state.running) live.textContent = t("said_end", { id: log.id });
    else if (state.running && wasRunning && state.samples.length > nSamples && validation.length) {
      const [at, loss] = validation.at(-1);
      live.textContent = t("said_evaluation", { step: app.number(at), loss: app.number(loss, 3) });
    }
  }

  // ---- the curve ----

  function showStatus() {
    const { state } = log;
    const parts = [
      t(state.running ? "running" : state.ended ? "ended" : "stopped"),
      state.max_steps
        ? t("step_of", app.counts({ step: state.step, last: state.max_steps }))
        : step(state.step),
    ];
    if (state.eta_seconds !== null && state.eta_seconds !== undefined) {
      const [n, unit] = duration(state.eta_seconds);
      parts.push(t(`left_${unit}`, app.counts({ n })));
    }
    const dot = h(state.running ? "span.training-dot.is-running" : "span.training-dot");
    status.replaceChildren(dot, parts.join(" · "));
  }

  function draw() {
    const width = figure.clientWidth;
    if (!log || !width) return;
    showStatus();
    showSlider();
    const height = Math.round(Math.min(340, Math.max(220, width * 0.4)));
    const isNarrow = width < 520;
    const [left, right, top, bottom] = [40, width - (isNarrow ? 10 : 138), 22, height - 26];
    plot = { left, right, top, bottom };
    const range = lossRange(log, isLog());
    const x = scale([0, log.lastStep], [left, right]);
    const y = scale(range, [bottom, top], isLog());
    slider.style.setProperty("margin-inline-start", `${left - THUMB}px`);
    slider.style.setProperty("width", `${right - left + 2 * THUMB}px`);
    const parts = [];
    const line = (kind, x1, y1, x2, y2) => parts.push(svg(`line.training-${kind}`, { x1, y1, x2, y2 }));
    const text = (kind, at, up, words, anchor = "start") =>
      parts.push(svg(`text.training-${kind}`, { x: at, y: up, "text-anchor": anchor }, words));
    const curve = (kind, d) => parts.push(svg(`path.training-${kind}`, { d }));

    for (const tick of ticks(...range, 4, isLog())) {
      line("grid", left, y(tick), right, y(tick));
      text("tick", left - 6, y(tick) + 4, app.number(tick, decimals(tick)), "end");
    }
    text("tick", 2, 11, t("nats"));
    for (const tick of ticks(0, log.lastStep, isNarrow ? 3 : 6).filter(Number.isInteger)) {
      text("tick", x(tick), height - 8, app.number(tick), "middle");
    }
    line("grid", left, bottom, right, bottom);
    for (const each of log.state.checkpoints) line("mark", x(each), bottom, x(each), bottom + 4);

    // A label stands at the end of its line, in its colour, and moves aside for others.
    const labels = [];
    for (const [name, value] of [["know", log.knowNothing], ["floor", log.floor]]) {
      if (value === null || value < range[0] || value > range[1]) continue;
      line(name, left, y(value), right, y(value));
      labels.push(["limit", value, t(name, { loss: app.number(value, 2) })]);
    }
    const every = Math.ceil(log.training.length / MAX_DRAWN);
    const means = smoothed(log.training);
    curve("raw", path(log.training.filter((_, n) => n % every === 0), x, y));
    curve("line", path(means, x, y));
    for (const [at, loss] of log.validation) {
      parts.push(svg("circle.training-point", { cx: x(at), cy: y(loss), r: 3.5 }));
    }
    for (const [kind, points, key] of [["line", means, "training"], ["point", log.validation, "validation"]]) {
      const loss = points.at(-1)?.[1];
      if (points.length) labels.push([kind, loss, t(`label_${key}`, { loss: app.number(loss, 3) })]);
    }
    for (const [at, loss] of log.final) {
      curve("final", `M${x(at)} ${y(loss) - 6}l6 6l-6 6l-6 -6Z`);
    }
    const places = spread(labels.map(([, value]) => y(value)), 15, top + 4, bottom - 4);
    labels.forEach(([kind, , words], n) => {
      const [at, up, anchor] = isNarrow ? [right - 4, -6, "end"] : [right + 8, 4, "start"];
      text(`label.of-training-${kind}`, at, places[n] + up, words, anchor);
    });

    if (chosen !== null) line("cursor", x(chosen), top, x(chosen), bottom);
    if (hovered !== null) {
      line("hover", x(hovered), top, x(hovered), bottom);
      text("label", right, 11, readout(), "end");
    }
    for (const [name, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, width, height })) {
      drawing.setAttribute(name, value);
    }
    drawing.replaceChildren(...parts);
    figure.setAttribute("aria-label", t("figure", { id: log.id }));
    summarise();
  }

  /** Return the losses at the step under the pointer, in words. */
  function readout() {
    const words = [step(Math.round(hovered))];
    for (const [name, points] of [["training", log.training], ["validation", log.validation]]) {
      if (!points.length) continue;
      const distance = ([at]) => Math.abs(at - hovered);
      const [, loss] = points.reduce((best, point) => (distance(best) <= distance(point) ? best : point));
      words.push(t(`label_${name}`, { loss: app.number(loss, 3) }));
    }
    return words.join(" · ");
  }

  /** Write the curve as words and a table, for people who do not see it. */
  function summarise() {
    summary.replaceChildren(
      h("p", status.textContent),
      h("table",
        h("caption", t("table")),
        columns(t("column_step"), t("column_loss")),
        log.validation.slice(-20).map(([at, loss]) =>
          h("tr", h("td", app.number(at)), h("td", app.number(loss, 4))))),
    );
  }

  /** Return the step under the pointer, which may lie between two steps. */
  function stepAt({ clientX }) {
    const at = clientX - drawing.getBoundingClientRect().left;
    const { left, right } = plot;
    return ((at - left) / (right - left)) * log.lastStep;
  }

  function hover(event) {
    const before = hovered;
    const at = event.type === "pointermove" && plot ? stepAt(event) : -1;
    hovered = at >= 0 && at <= log.lastStep ? at : null;
    if (hovered !== before) draw();
  }

  // ---- the slider over the checkpoints ----

  function showSlider() {
    const steps = log.state.checkpoints;
    sliderRow.hidden = steps.length === 0;
    kept.hidden = steps.length === 0 || steps.length >= Math.min(5, log.validation.length - 1);
    if (!steps.length) return;
    // A slider at its end stays at its end, so that it follows a run that trains.
    if (!steps.includes(chosen) || isAtEnd) chosen = steps.at(-1);
    isAtEnd = chosen === steps.at(-1);
    slider.max = log.lastStep; // so that its thumb is below its step of the curve
    slider.value = chosen;
    say(stepShown, t("at_checkpoint", { step: app.number(chosen) }));
    slider.setAttribute("aria-valuetext", step(chosen));
    slider.disabled = steps.length < 2;
  }

  /** Choose the checkpoint that is nearest to a step, or at least the next in its direction. */
  function slide(to) {
    const steps = log.state.checkpoints;
    chosen = nextCheckpoint(steps, chosen, to);
    isAtEnd = chosen === steps.at(-1);
    show();
  }

  // ---- the predictions of each checkpoint ----

  /** Return what the checkpoints shall continue: tokens if the run is the present model's. */
  function question() {
    if (!log) return null;
    if (log.id === app.state.model) return { ids: app.text.ids };
    const text = app.decode(app.text.ids);
    return text.length <= MAX_CHARS ? { text } : null;
  }

  async function replay() {
    const key = JSON.stringify([log.id, question()]);
    if (key !== asked) predictions.clear();
    asked = key;
    showReplay();
    if (isReplaying) return;
    isReplaying = true;
    for (let at = nextStep(); at !== undefined; at = nextStep()) {
      const present = asked;
      try {
        const answer = await app.api("/api/replay", { run: log.id, step: at, ...question() });
        if (present !== asked) continue;
        predictions.set(at, { p: softmax(decodeLogits(answer.logits)), bytes: answer.bytes });
      } catch {
        predictions.set(at, null); // the page has said why; the next text asks again
        break;
      }
      showReplay();
    }
    isReplaying = false;
  }

  /** Return the checkpoint to ask next: the chosen one, then others, evenly over the run. */
  function nextStep() {
    if (!isVisible() || !question()) return undefined;
    const steps = log.state.checkpoints;
    const every = Math.max(1, (steps.length - 1) / (N_REPLAYED - 1));
    const even = Array.from({ length: Math.min(steps.length, N_REPLAYED) }, (_, n) =>
      steps[Math.round(n * every)]);
    return [chosen, ...even].find((each) => steps.includes(each) && !predictions.has(each));
  }

  function nameOf(id) {
    if (log.id === app.state.model) return app.piece(id);
    const bytes = [...predictions.values()].find((each) => each?.bytes[id] !== undefined)?.bytes[id];
    return bytes === undefined ? `#${id}` : visible(hexBytes(bytes));
  }

  function showReplay() {
    const hasSteps = log.state.checkpoints.length > 0;
    const { controls, end_of_text: end } = app.vocabulary;
    const document = app.decode(app.text.ids).split(controls[end] ?? "\0").at(-1);
    const tail = [...document].slice(-40).join("").replaceAll("\n", "↵");
    say(replayTitle, t("replay", { step: app.number(chosen ?? 0) }));
    say(replayNote, hasSteps ? `… ${tail}` : t("no_checkpoint"));
    if (!hasSteps) table.replaceChildren();
    const present = predictions.get(chosen);
    if (!present) return;
    const known = [...predictions].filter(([, each]) => each).sort(([a], [b]) => a - b);
    const ids = candidates(known.map(([, each]) => each), present);
    const histories = ids.map((id) => known.map(([at, { p }]) => [at, p[id]]));
    histories.push(known.map(([at], n) =>
      [at, Math.max(0, histories.reduce((rest, history) => rest - history[n][1], 1))]));
    const top = Math.max(...histories.flat().map(([, p]) => p));
    table.replaceChildren(
      h("caption.visually-hidden", t("replay_table")),
      h("thead.visually-hidden",
        columns(app.t("ladder.token"), t("column_history"), t("column_bar"), t("column_p"))),
      h("tbody", { "data-step": chosen }, histories.map((history, n) => {
        const [, p] = history.find(([at]) => at === chosen);
        const isOthers = n === ids.length;
        return row(isOthers ? h("span.others", t("others")) : h("span.token", nameOf(ids[n])),
          sparkline(history, top), h("td.wide", bar(p)), h("td.p", app.percent(p)));
      })),
    );
  }

  /** Return a small line: a probability over the checkpoints, with a dot at the chosen one. */
  function sparkline(points, top) {
    const [width, height] = [96, 22];
    const x = scale([0, log.lastStep], [3, width - 3]);
    const y = scale([0, top], [height - 3, 3]);
    const [at, p] = points.find(([each]) => each === chosen);
    return svg("svg.training-spark", {
      viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": points.map(([, each]) => app.percent(each)).join(", "),
    }, svg("path", { d: path(points, x, y) }), svg("circle", { cx: x(at), cy: y(p), r: 2.5 }));
  }

  // ---- the samples ----

  function showSamples() {
    const all = log.state.samples.toReversed();
    const latest = all.find((sample) => sample.step <= (chosen ?? Infinity));
    samples.replaceChildren(...all.map((sample) => h(sample === latest ? "li.is-chosen" : "li",
      h("span.training-sample-step", step(sample.step)), h("p", sample.text))));
    samples.hidden = samplesTitle.hidden = !all.length;
  }

  return {
    update(changed) {
      if (changed.has("model") && app.model?.is_run) wanted = app.state.model;
      if (!timer) poll();
      else if (wanted) list();
      if (log) show();
    },
  };
}
