import assert from "node:assert/strict";
import test from "node:test";
import * as d from "../../minigen/serve/page/divergence.js";

const utf8 = (text) => new TextEncoder().encode(text);
const vocabulary = (names, controls = {}) => ({ bytes: names.map(utf8), controls });
const near = (x, y) => assert.ok(Math.abs(x - y) < 1e-12, `${x} is not ${y}`);

test("the Kullback-Leibler divergence of a fair from a biased coin is half of log2(4/3) bits", () => {
  const [fair, biased] = [[0.5, 0.5], [0.75, 0.25]];
  near(d.kullbackLeibler(fair, biased), Math.log2(4 / 3) / 2);
  near(d.kullbackLeibler(fair, fair), 0);
});

test("the Kullback-Leibler divergence is infinite where q excludes a token of p, not vice versa", () => {
  assert.equal(d.kullbackLeibler([0.5, 0.5], [1, 0]), Infinity);
  near(d.kullbackLeibler([1, 0], [0.5, 0.5]), 1);
});

test("the Jensen-Shannon divergence is symmetric, 0 for equal and 1 for disjoint predictions", () => {
  const [p, q] = [[0.5, 0.5, 0], [0.75, 0, 0.25]];
  near(d.jensenShannon(p, q), d.jensenShannon(q, p));
  near(d.jensenShannon(p, p), 0);
  near(d.jensenShannon(Float64Array.of(1, 0), Float64Array.of(0, 1)), 1);
  // mean [5/8, 1/4, 1/8]: (log2(4/5)/2 + 1/2 + log2(6/5)*3/4 + 1/4) / 2
  near(d.jensenShannon(p, q), (Math.log2(4 / 5) / 2 + 0.75 + Math.log2(6 / 5) * 0.75) / 2);
});

test("two vocabularies are the same if the same ids have the same bytes and names", () => {
  const a = vocabulary(["a", "b", ""], { 2: "<|end|>" });
  assert.ok(d.sameVocabulary(a, vocabulary(["a", "b", ""], { 2: "<|end|>" })));
  assert.ok(!d.sameVocabulary(a, vocabulary(["a", "b", ""], { 2: "<|stop|>" })));
  assert.ok(!d.sameVocabulary(a, vocabulary(["b", "a", ""], { 2: "<|end|>" })));
  assert.ok(!d.sameVocabulary(a, vocabulary(["a", "b"])));
});

test("predictions of different vocabularies are comparable by the next byte", () => {
  const words = vocabulary(["at", "an", "be", ""], { 3: "<|end|>" });
  const letters = vocabulary(["b", "a"]);
  const p = d.firstBytes([0.25, 0.25, 0.25, 0.25], words);
  assert.deepEqual([p[97], p[98], p[256]], [0.5, 0.25, 0.25]);
  near(p.reduce((x, y) => x + y), 1);
  assert.deepEqual([...d.firstBytes([0.25, 0.75], letters).slice(97, 99)], [0.75, 0.25]);
});

test("the most probable tokens come first, equal ones by id, impossible ones never", () => {
  assert.deepEqual(d.mostProbable([0.1, 0.4, 0, 0.4, 0.1], 3), [1, 3, 0]);
  assert.deepEqual(d.mostProbable([0, 1, 0], 3), [1]);
});

test("candidates are the most probable tokens of either prediction", () => {
  const v = vocabulary(["a", "b", "c"]);
  const found = d.candidates([0.7, 0.2, 0.1], [0.1, 0.1, 0.8], v, v, 2);
  assert.deepEqual(found, [{ a: 2, b: 2, p: 0.1, q: 0.8 }, { a: 0, b: 0, p: 0.7, q: 0.1 }]);
});

test("candidates of different vocabularies are paired by their text", () => {
  const [words, letters] = [vocabulary(["the", "a"]), vocabulary(["a", "t"])];
  const found = d.candidates([0.6, 0.4], [0.1, 0.9], words, letters, 9);
  assert.deepEqual(found, [
    { a: null, b: 1, p: 0, q: 0.9 },
    { a: 0, b: null, p: 0.6, q: 0 },
    { a: 1, b: 0, p: 0.4, q: 0.1 },
  ]);
});

test("the first difference is the first index at which two texts have other tokens", () => {
  assert.deepEqual(d.firstDifference([1, 2, 3], [1, 2, 4, 5]), [2, 2]);
  assert.equal(d.firstDifference([1, 2], [1, 2, 3]), null);
});

test("texts of different vocabularies differ in the tokens that own the first other byte", () => {
  assert.deepEqual(d.firstDifferentBytes(["the", " cat"].map(utf8), [..."the cow"].map(utf8)), [1, 5]);
  assert.equal(d.firstDifferentBytes(["the"].map(utf8), [..."the cow"].map(utf8)), null);
});

test("the scale of a chart ends at 1, 2 or 5 times a power of ten, and never before its bars", () => {
  assert.deepEqual([0.0004, 0.05, 0.051, 0.2, 0.7, 1].map(d.scaleEnd), [0.001, 0.05, 0.1, 0.2, 1, 1]);
});
