// How surprising a token is, in bits, and how a page shows that.

export const MOST = 16; // bits at which the colour scale ends: one in 65,536

/** Return -log2 p of a token, from its log-probability in nats; null for an unpredicted token. */
export function bits(logprob) {
  return logprob === null ? null : Math.max(0, -logprob / Math.LN2);
}

/**
 * Return how strongly a token is coloured, from 0 to 1.
 *
 * The scale is fixed, so that a colour means the same in each text: the square root of bits / 16.
 * Most tokens have fewer than 4 bits; the root spreads these over half of the scale.
 */
export function shade(bits) {
  return Math.sqrt(Math.min(bits ?? 0, MOST) / MOST);
}

/**
 * Return the characters that each token completes.
 *
 * A character of several bytes may be split between tokens. It belongs to the token with its last
 * byte, and the tokens before that complete "". Bytes that are no UTF-8 become U+FFFD.
 */
export function completed(tokens) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const texts = tokens.map((bytes) => decoder.decode(bytes, { stream: true }));
  if (texts.length) texts[texts.length - 1] += decoder.decode();
  return texts;
}

/** Return the indices of the n most surprising tokens, the most surprising first. */
export function mostSurprising(logprobs, n) {
  const known = [...logprobs.keys()].filter((i) => logprobs[i] !== null);
  return known.sort((i, j) => logprobs[i] - logprobs[j]).slice(0, n);
}

const WORD = /[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*/gu;

/** Return the number of words that lie as a whole inside one of the runs [start, end) of tokens. */
export function wordsInside(texts, runs) {
  const starts = [0];
  for (const text of texts) starts.push(starts.at(-1) + text.length);
  const words = [...texts.join("").matchAll(WORD)].map((m) => [m.index, m.index + m[0].length]);
  const inside = ([from, to]) => runs.some(([a, b]) => starts[a] <= from && to <= starts[b]);
  return words.filter(inside).length;
}
