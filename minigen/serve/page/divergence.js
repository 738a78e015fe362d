// How far two predictions of the next token lie apart.

/**
 * Return the Kullback-Leibler divergence of q from p, in bits: the bits per token that a code made
 * for q spends too much on tokens drawn from p. Infinite if q excludes a token that p may draw.
 */
export function kullbackLeibler(p, q) {
  let sum = 0;
  for (let i = 0; i < p.length; i++) if (p[i] > 0) sum += p[i] * Math.log2(p[i] / q[i]);
  return Math.max(0, sum);
}

/**
 * Return the Jensen-Shannon divergence in bits: the mean divergence of p and q from their average
 * (Lin 1991). 0: p and q are equal; 1: no token is possible in both.
 */
export function jensenShannon(p, q) {
  const mean = p.map((x, i) => (x + q[i]) / 2);
  return Math.min(1, (kullbackLeibler(p, mean) + kullbackLeibler(q, mean)) / 2);
}

/** Return the bytes of a token as a string that equal tokens of other vocabularies have, too. */
export function key(vocabulary, id) {
  const name = vocabulary.controls[id];
  return name === undefined ? vocabulary.bytes[id].join() : `control ${name}`;
}

const keysOf = new WeakMap();

/** Return a map from the bytes of each token of a vocabulary to its id. */
function ids(vocabulary) {
  if (!keysOf.has(vocabulary)) {
    const map = new Map();
    for (let id = vocabulary.bytes.length - 1; id >= 0; id--) map.set(key(vocabulary, id), id);
    keysOf.set(vocabulary, map);
  }
  return keysOf.get(vocabulary);
}

/** Return whether two vocabularies have the same tokens under the same ids. */
export function sameVocabulary(a, b) {
  if (a === b) return true;
  if (a.bytes.length !== b.bytes.length) return false;
  return a.bytes.every((_, id) => key(a, id) === key(b, id));
}

/**
 * Return p as probabilities of the first byte of the next token, (257,): predictions over different
 * vocabularies can be compared by it. The last is the probability of all control tokens.
 */
export function firstBytes(p, vocabulary) {
  const sums = new Float64Array(257);
  for (let id = 0; id < p.length; id++) {
    sums[id in vocabulary.controls ? 256 : (vocabulary.bytes[id][0] ?? 256)] += p[id];
  }
  return sums;
}

/** Return the ids of the n most probable tokens, the most probable first; ties by id. */
export function mostProbable(p, n) {
  const possible = [...p.keys()].filter((id) => p[id] > 0);
  return possible.sort((a, b) => p[b] - p[a]).slice(0, n);
}

/**
 * Return the n tokens that are most probable in either prediction, as {a, b, p, q}: the ids (null:
 * the vocabulary has no such token) and the probabilities.
 */
export function candidates(p, q, vocabularyA, vocabularyB, n) {
  const isSame = sameVocabulary(vocabularyA, vocabularyB);
  const [inA, inB] = isSame ? [] : [ids(vocabularyA), ids(vocabularyB)];
  const found = new Map();
  const add = (name, a, b) => found.set(name, { a, b, p: p[a] ?? 0, q: q[b] ?? 0 });
  for (const id of mostProbable(p, n)) {
    const name = key(vocabularyA, id);
    add(name, id, isSame ? id : (inB.get(name) ?? null));
  }
  for (const id of mostProbable(q, n)) {
    const name = key(vocabularyB, id);
    if (!found.has(name)) add(name, isSame ? id : (inA.get(name) ?? null), id);
  }
  const most = (x) => Math.max(x.p, x.q);
  return [...found.values()].sort((x, y) => most(y) - most(x)).slice(0, n);
}

/**
 * Return, for each of two texts, the index of its first token that is not in the other text; null
 * as long as one text begins with the other.
 *
 * The texts are lists of keys if the vocabulary is the same. Else they are compared byte by byte.
 */
export function firstDifference(a, b) {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) if (a[i] !== b[i]) return [i, i];
  return null;
}

/** Return `firstDifference` for texts of different vocabularies: lists of the tokens' bytes. */
export function firstDifferentBytes(a, b) {
  const owners = (tokens) => tokens.flatMap((bytes, i) => [...bytes].map((byte) => [byte, i]));
  const [x, y] = [owners(a), owners(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    if (x[i][0] !== y[i][0]) return [x[i][1], y[i][1]];
  }
  return null;
}

/** Return the end of a scale from 0 that shows probabilities up to `most`: 1, 2 or 5 times 10^n. */
export function scaleEnd(most) {
  for (const end of [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]) {
    if (most <= end) return end;
  }
  return 1;
}
