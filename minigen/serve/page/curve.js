// The loss curve of a run: its points, its axes and its labels, as numbers. Nothing here draws.

const MAX_MEANS = 50; // as minigen/run/log.py: points of the training curve after its beginning
const GROWTH = 0.05; // a point is the mean of this share of the steps before it

/** Return means of neighbouring points [step, value], as `smoothed` of minigen/run/log.py does. */
export function smoothed(points) {
  const means = [];
  const longest = Math.ceil(points.length / MAX_MEANS);
  for (let start = 0; start < points.length; ) {
    const size = Math.min(Math.max(1, Math.floor(GROWTH * start)), longest);
    const group = points.slice(start, start + size);
    const sum = group.reduce(([a, b], [x, y]) => [a + x, b + y], [0, 0]);
    means.push(sum.map((total) => total / group.length));
    start += size;
  }
  return means;
}

/** What is known of a run that a page follows, from the answers of /api/runs/ID. */
export class RunLog {
  constructor(id) {
    this.id = id;
    this.cursor = "";
    this.forget();
    this.state = { step: 0, checkpoints: [], samples: [], running: false };
  }

  forget() {
    this.training = []; // points [step, nats/token] of the steps
    this.validation = []; // of the evaluations
    this.final = []; // of the best model on all of the validation text
  }

  /** Take an answer; return whether anything has changed. A value that is null is not finite. */
  take(answer) {
    if (answer.restarted) this.forget();
    const curves = { train_loss: this.training, val_loss: this.validation, final_val_loss: this.final };
    for (const line of answer.lines) {
      for (const [key, points] of Object.entries(curves)) {
        if (Number.isFinite(line[key])) points.push([line.step, line[key]]);
      }
    }
    const { lines, next, restarted, more, ...state } = answer;
    const before = JSON.stringify(this.state);
    this.state = state;
    this.cursor = next;
    return restarted || lines.length > 0 || JSON.stringify(state) !== before;
  }

  /** The loss of a model that knows nothing: ln V, in nats/token; null if V is not known. */
  get knowNothing() {
    return this.state.n_vocab ? Math.log(this.state.n_vocab) : null;
  }

  /** The entropy of the text in nats/token, which no model can beat; null if it is not known. */
  get floor() {
    const { entropy, bits_per_byte: bits } = this.state;
    return entropy && bits ? entropy / bits : null;
  }

  /** The last step of the axis: of the plan, or of the run if that is longer. */
  get lastStep() {
    return Math.max(this.state.step, this.state.max_steps ?? 0, 1);
  }
}

/** Return the lowest and the highest loss of an axis that shows a run and its two limits. */
export function lossRange(log, isLog) {
  const losses = [log.training, log.validation, log.final].flat().map(([, loss]) => loss);
  const limits = [log.floor, losses.length ? null : log.knowNothing].filter((x) => x !== null);
  const top = log.knowNothing;
  const all = [...losses, ...limits];
  if (top !== null && Math.max(...all) > 0.8 * top) all.push(top); // not of a fine-tuned model
  if (!all.length) return [1, 10];
  let [low, high] = [Infinity, -Infinity];
  for (const loss of all) [low, high] = [Math.min(low, loss), Math.max(high, loss)];
  if (isLog) return low > 0 ? [low / 1.12, high * 1.06] : [0.01, Math.max(high, 0.1) * 1.06];
  return [Math.min(0, low), high * 1.04 || 1];
}

/** Return a function from a value to a place, linear or logarithmic. */
export function scale([low, high], [from, to], isLog = false) {
  const f = isLog ? (x) => Math.log(Math.max(x, low / 2)) : (x) => x;
  const width = f(high) - f(low) || 1;
  return (x) => from + ((f(x) - f(low)) / width) * (to - from);
}

/** Return about `n` round numbers from `low` to `high`. */
export function ticks(low, high, n, isLog = false) {
  if (isLog && high / low > 4) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
      for (const digit of high / low > 200 ? [1] : [1, 2, 5]) {
        const tick = Number(`${digit}e${power}`);
        if (tick >= low && tick <= high) found.push(tick);
      }
    }
    return found;
  }
  const rough = (high - low) / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let k = first; k * step <= high + 1e-9 * step; k += 1) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

/** Return the number of digits after the point that a tick needs. */
export function decimals(tick) {
  return (String(tick).split(".")[1] ?? "").length;
}

/** Return an SVG path through points. */
export function path(points, x, y) {
  return points
    .map(([step, value], n) => `${n ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`)
    .join("");
}

/** Return places for labels that are at least `gap` apart, each as near as possible to its own. */
export function spread(places, gap, low, high) {
  const order = places.map((place, n) => [place, n]).sort((a, b) => a[0] - b[0]);
  const moved = [];
  let last = low - gap;
  for (const [place] of order) moved.push((last = Math.max(place, last + gap)));
  last = high + gap;
  for (let n = moved.length - 1; n >= 0; n -= 1) moved[n] = last = Math.min(moved[n], last - gap);
  const result = [];
  order.forEach(([, n], k) => (result[n] = moved[k]));
  return result;
}

/** Return the number and the unit of a duration: seconds, minutes or hours. */
export function duration(seconds) {
  if (seconds < 99.5) return [Math.max(1, Math.round(seconds)), "seconds"];
  if (seconds < 99.5 * 60) return [Math.round(seconds / 60), "minutes"];
  return [Math.round(seconds / 3600), "hours"];
}
