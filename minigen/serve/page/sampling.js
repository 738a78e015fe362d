/**
 * minigen/sampling.py, in the browser: logits -> filters -> probabilities -> one token.
 *
 * The names, the order and the arithmetic (float64) are those of the Python file, so the page shows
 * the probabilities and draws the tokens of `sample.py`. The page calls these functions for each
 * move of a slider: so the order of the tokens, which no filter changes, is sorted once.
 */

export const DEFAULTS = {
  temperature: 0.8, top_k: null, top_p: 1, min_p: 0.1, repetition_penalty: 1,
};
export const PLAIN = { ...DEFAULTS, temperature: 1, min_p: 0 };

const orders = new WeakMap(); // logits -> their ids, least probable first
const penalised = new WeakMap(); // raw logits -> {penalty, ids, logits} of the last call

/** Make the tokens of the text `ids` less probable. */
export function repetitionPenalty(logits, ids, penalty) {
  const known = penalised.get(logits);
  if (known?.penalty === penalty && known.ids === ids) return known.logits;
  const result = new Float64Array(logits);
  const seen = new Set(ids);
  for (const id of seen) result[id] = result[id] < 0 ? result[id] * penalty : result[id] / penalty;
  penalised.set(logits, { penalty, ids, logits: result });
  orders.set(result, reordered(ascending(logits), seen, result));
  return result;
}

/** Return the order of logits of which only those of the ids `moved` are not in `order` already. */
function reordered(order, moved, logits) {
  const before = (a, b) => logits[a] - logits[b] || a - b;
  const late = [...moved].sort(before);
  const result = new Uint32Array(order.length);
  let [n, next] = [0, 0];
  for (const id of order) {
    if (moved.has(id)) continue;
    while (next < late.length && before(late[next], id) < 0) result[n++] = late[next++];
    result[n++] = id;
  }
  while (next < late.length) result[n++] = late[next++];
  return result;
}

/** Divide the logits by `value`; at 0, leave only the first of the most probable tokens. */
export function temperature(logits, value) {
  const result = new Float64Array(logits.length);
  const best = argmax(logits);
  if (value === 0) {
    result.fill(-Infinity);
    result[best] = 0;
    return result;
  }
  const most = logits[best];
  for (let i = 0; i < result.length; i++) result[i] = (logits[i] - most) / value;
  return result;
}

/** Cut all but the k most probable tokens; ties with the last of them stay too. */
export function topK(logits, k, order = ascending(logits)) {
  return cutBelow(logits, logits[order[order.length - k]], logits);
}

/** Cut the least probable tokens, as long as their probabilities add up to at most 1 - p. */
export function topP(logits, p, order = ascending(logits)) {
  const chance = softmax(logits);
  const result = new Float64Array(logits);
  let sum = 0;
  for (let i = 0; i < order.length - 1; i++) {
    sum += chance[order[i]];
    if (sum > 1 - p) break;
    result[order[i]] = -Infinity;
  }
  return result;
}

/** Return the logits, with -Infinity where a value is less than `least`. */
function cutBelow(values, least, logits) {
  const result = new Float64Array(logits);
  for (let i = 0; i < result.length; i++) if (values[i] < least) result[i] = -Infinity;
  return result;
}

/** Cut tokens less probable than p times the most probable one. */
export function minP(logits, p) {
  const chance = softmax(logits);
  return cutBelow(chance, p * chance[argmax(chance)], logits);
}

/** Return {name, logits} after each filter that is switched on, in order, for the text `ids`. */
export function filterSteps(logits, ids, settings) {
  const steps = [];
  if (settings.repetition_penalty !== 1) {
    logits = repetitionPenalty(logits, ids, settings.repetition_penalty);
    steps.push({ name: "repetition_penalty", logits });
  }
  // The filters below cut tokens from the least probable on, and the temperature keeps the order.
  const order = settings.top_k === null && settings.top_p === 1 ? null : ascending(logits);
  logits = temperature(logits, settings.temperature);
  steps.push({ name: "temperature", logits });
  const isOne = settings.temperature === 0; // the order says nothing of tokens that are all cut
  if (settings.top_k !== null) {
    logits = isOne ? logits : topK(logits, Math.min(settings.top_k, logits.length), order);
    steps.push({ name: "top_k", logits });
  }
  if (settings.top_p < 1) {
    logits = isOne ? logits : topP(logits, settings.top_p, order);
    steps.push({ name: "top_p", logits });
  }
  if (settings.min_p > 0) {
    logits = minP(logits, settings.min_p);
    steps.push({ name: "min_p", logits });
  }
  return steps;
}

/** Return the probabilities of logits. */
export function softmax(logits) {
  const result = new Float64Array(logits.length);
  const most = logits[argmax(logits)];
  let sum = 0;
  for (let i = 0; i < result.length; i++) sum += result[i] = Math.exp(logits[i] - most);
  for (let i = 0; i < result.length; i++) result[i] /= sum;
  return result;
}

/** Return the token in whose part of the line from 0 to 1 the number u falls. */
export function inverseCdf(probabilities, u) {
  let end = 0;
  for (let i = 0; i < probabilities.length; i++) end += probabilities[i];
  const at = u * end;
  end = 0;
  for (let i = 0; i < probabilities.length; i++) {
    end += probabilities[i];
    if (end > at) return i;
  }
  return argmax(probabilities);
}

/** Return the entropy of probabilities, in nats: e to its power is the number of choices. */
export function entropy(probabilities) {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    if (probabilities[i] > 0) sum += probabilities[i] * -Math.log(probabilities[i]);
  }
  return sum;
}

/** Return the index of the first of the largest values. */
export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Return the ids, least probable first; of equal logits the lower id first, as PyTorch sorts. */
export function ascending(logits) {
  let order = orders.get(logits);
  if (!order) {
    order = Uint32Array.from(logits, (_, id) => id).sort((a, b) => logits[a] - logits[b] || a - b);
    orders.set(logits, order);
  }
  return order;
}
