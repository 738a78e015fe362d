import assert from "node:assert/strict";
import test from "node:test";
import { wordAround } from "../../minigen/serve/page/words.js";

const pieces = ["On", "ce", " up", "on", "\n", " a", "é", "<|end|>", "x"];
const bytes = pieces.map((piece) => new TextEncoder().encode(piece));
const controls = { 7: "<|end|>" };
const around = (ids, at) => wordAround(ids, at, bytes, controls);

test("a word begins with its blank and ends before the next", () => {
  const ids = [0, 1, 2, 3, 4, 5, 6];
  const words = ids.map((_, at) => around(ids, at)).map(({ from, to }) => [from, to]);
  assert.deepEqual(words, [[0, 2], [0, 2], [2, 4], [2, 4], [4, 5], [5, 7], [5, 7]]);
});

test("a control token is no word and no part of one", () => {
  const ids = [7, 8, 8, 7, 8];
  const words = ids.map((_, at) => around(ids, at)).map(({ from, to }) => [from, to]);
  assert.deepEqual(words, [[0, 0], [1, 3], [1, 3], [3, 3], [4, 5]]);
});
