/** Attention heads: the matrices of their weights, and the habits that their scores show. */

import { base64Bytes } from "./vocabulary.js";

/** A head has a habit if at least half of its weight follows that habit. */
export const HABIT_FROM = 0.5;
export const HABITS = ["previous", "first", "induction"];

/** Return the weights of each head, [layer][head], as bytes: round(255 * weight), row by row. */
export function wall({ wall, layers, heads, pooled }) {
  const bytes = base64Bytes(wall);
  const size = pooled * pooled;
  return Array.from({ length: layers }, (_, layer) =>
    Array.from({ length: heads }, (_, head) => {
      const start = (layer * heads + head) * size;
      return bytes.subarray(start, start + size);
    }),
  );
}

/**
 * Return the weights, T * T, without those on the first token, each row again with the sum 1.
 *
 * A row without any other weight, such as the first, is all zeros.
 */
export function withoutFirst(weights, T) {
  const result = new Float32Array(weights.length);
  for (let row = 1; row < T; row++) {
    let rest = 0;
    for (let column = 1; column <= row; column++) rest += weights[row * T + column];
    if (rest <= 0) continue;
    for (let column = 1; column <= row; column++) {
      result[row * T + column] = weights[row * T + column] / rest;
    }
  }
  return result;
}

/** Return the tokens {position, weight} from which a token takes the most, and the rest. */
export function sources(weights, T, row, most = 8) {
  const all = Array.from({ length: row + 1 }, (_, position) => ({
    position,
    weight: weights[row * T + position],
  })).filter(({ weight }) => weight > 0);
  all.sort((a, b) => b.weight - a.weight || a.position - b.position);
  const rest = all.slice(most).reduce((sum, { weight }) => sum + weight, 0);
  return { sources: all.slice(0, most), rest };
}

/** Return the habit {kind, score} of a head with the highest score; null below HABIT_FROM. */
export function habit(scores, layer, head) {
  let best = null;
  for (const kind of HABITS) {
    const score = scores[kind][layer][head];
    if (score >= HABIT_FROM && (best === null || score > best.score)) best = { kind, score };
  }
  return best;
}

/** Return the head with the highest score of a habit: { layer, head, score }; null without scores. */
export function strongest(scores, kind) {
  let best = null;
  scores[kind].forEach((row, layer) =>
    row.forEach((score, head) => {
      if (score !== null && (best === null || score > best.score)) best = { layer, head, score };
    }),
  );
  return best;
}
