import assert from "node:assert/strict";
import test from "node:test";
import * as s from "../../minigen/serve/page/surprisal.js";

const utf8 = (text) => new TextEncoder().encode(text);

test("a probability of 1/8 is 3 bits, and the first token has none", () => {
  assert.equal(s.bits(Math.log(1 / 8)).toFixed(12), "3.000000000000");
  assert.equal(s.bits(0), 0);
  assert.equal(s.bits(null), null);
});

test("the colour scale is the same for each text: 0 at 0 bits, 1/2 at 4, 1 from 16 bits on", () => {
  assert.deepEqual([0, 1, 4, 16, 40, null].map(s.shade), [0, 0.25, 0.5, 1, 1, 0]);
});

test("a split character belongs to the token with its last byte", () => {
  const [a, b, c] = utf8("읽");
  const tokens = [utf8("a"), Uint8Array.of(a), Uint8Array.of(b, c), utf8(" x")];
  assert.deepEqual(s.completed(tokens), ["a", "", "읽", " x"]);
});

test("the beginning of a character at a text's end is shown as U+FFFD", () => {
  assert.deepEqual(s.completed([utf8("a"), utf8("읽").slice(0, 2)]), ["a", "\ufffd"]);
  assert.deepEqual(s.completed([]), []);
});

test("a byte order mark inside a text is a character like any other", () => {
  assert.deepEqual(s.completed([utf8("\ufeffa")]), ["\ufeffa"]);
});

test("the most surprising tokens are those with the least log-probability; the first has none", () => {
  assert.deepEqual(s.mostSurprising([null, -1, -5, -3, -5], 3), [2, 4, 3]);
});

test("a word counts as copied if one run holds all of it", () => {
  const texts = ["Sir", " F", "ox", " can", "'t", " sing", "."];
  assert.equal(s.wordsInside(texts, [[0, 7]]), 4);
  assert.equal(s.wordsInside(texts, [[0, 2]]), 1); // Sir; Fox is cut
  assert.equal(s.wordsInside(texts, [[0, 2], [2, 4]]), 1); // Fox is in two runs, "can't" is cut
  assert.equal(s.wordsInside(texts, [[1, 5]]), 2);
  assert.equal(s.wordsInside(texts, []), 0);
});
