import assert from "node:assert/strict";
import { test } from "node:test";
import { habit, sources, strongest, wall, withoutFirst } from "../../minigen/serve/page/heads.js";

const T = 3;
// prettier-ignore
const weights = Float32Array.of(
  1, 0, 0,
  0.75, 0.25, 0,
  0.5, 0.125, 0.375,
);
const scores = {
  previous: [[0.1, 0.92], [0.6, null]],
  first: [[0.9, 0.02], [0.7, null]],
  induction: [[0, 0.2], [0.1, null]],
};

test("The wall has the bytes of each head of each layer.", () => {
  const bytes = Uint8Array.from({ length: 2 * 3 * 4 }, (_, i) => i);
  const answer = { wall: Buffer.from(bytes).toString("base64"), layers: 2, heads: 3, pooled: 2 };
  const heads = wall(answer);
  assert.deepEqual([heads.length, heads[0].length], [2, 3]);
  assert.deepEqual([...heads[1][2]], [20, 21, 22, 23]);
});

test("Without the first token, the other weights of a row keep their ratios and have the sum 1.", () => {
  assert.deepEqual([...withoutFirst(weights, T)], [0, 0, 0, 0, 1, 0, 0, 0.25, 0.75]);
});

test("A row with weight on the first token only has no other weights.", () => {
  assert.deepEqual([...withoutFirst(Float32Array.of(1, 0, 1, 0), 2)], [0, 0, 0, 0]);
});

test("The sources of a token are in the order of their weights, and the rest is counted.", () => {
  assert.deepEqual(sources(weights, T, 2, 2), {
    sources: [{ position: 0, weight: 0.5 }, { position: 2, weight: 0.375 }],
    rest: 0.125,
  });
  assert.deepEqual(sources(weights, T, 0), { sources: [{ position: 0, weight: 1 }], rest: 0 });
});

test("A head has the habit of its highest score, from one half on.", () => {
  assert.deepEqual(habit(scores, 0, 1), { kind: "previous", score: 0.92 });
  assert.deepEqual(habit(scores, 1, 0), { kind: "first", score: 0.7 });
  const low = Object.fromEntries(Object.keys(scores).map((kind) => [kind, [[0.49]]]));
  assert.equal(habit(low, 0, 0), null);
  assert.equal(habit(scores, 1, 1), null);
});

test("The strongest head of a habit is found among all layers, and heads without a score are passed over.", () => {
  assert.deepEqual(strongest(scores, "induction"), { layer: 0, head: 1, score: 0.2 });
  assert.equal(strongest({ first: [[null]] }, "first"), null);
});
