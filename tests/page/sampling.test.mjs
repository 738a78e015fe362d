import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import {
  argmax, ascending, DEFAULTS, entropy, filterSteps, inverseCdf, PLAIN, softmax, topK, topP,
} from "../../minigen/serve/page/sampling.js";

const folder = process.env.DRAWS; // written by tests/test_page_modules.py
const skip = folder ? false : "the variable DRAWS names no folder";

test("probabilities and tokens are those of sampling.py", { skip }, () => {
  const bytes = readFileSync(`${folder}/numbers.f64`);
  const numbers = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
  const read = ([first, n]) => numbers.subarray(first, first + n);
  const cases = JSON.parse(readFileSync(`${folder}/draws.json`, "utf-8"));
  assert.equal(cases.length, 466);
  for (const [i, { logits, ids, settings, us, steps, tokens }] of cases.entries()) {
    const what = `${i}: ${JSON.stringify(settings)}`;
    const found = filterSteps(Float32Array.from(read(logits)), ids, settings);
    assert.deepEqual(found.map(({ name }) => name), steps.map(({ name }) => name), what);
    for (const [n, { name, p }] of steps.entries()) {
      const [here, there] = [softmax(found[n].logits), read(p)];
      for (let id = 0; id < there.length; id++) {
        const close = Math.abs(here[id] - there[id]) < 1e-12 && (here[id] === 0) === (there[id] === 0);
        assert.ok(close, `${what} ${name} ${id}: ${here[id]} and ${there[id]}`);
      }
    }
    const last = softmax(found.at(-1).logits);
    assert.deepEqual(us.map((u) => inverseCdf(last, u)), tokens, what);
  }
});

test("the same logits give the same numbers with any settings before", () => {
  const logits = Float32Array.from({ length: 500 }, (_, i) => Math.sin(i * i) * 4);
  const ids = [3, 7, 7, 499];
  const all = [1, 1.2, 0.5].flatMap((repetition_penalty) => [null, 20].flatMap((top_k) =>
    [1, 0.7].map((top_p) => ({ ...DEFAULTS, repetition_penalty, top_k, top_p }))));
  const fresh = all.map((s) => filterSteps(Float32Array.from(logits), ids, s).at(-1).logits);
  for (const order of [all.keys(), [...all.keys()].reverse()]) {
    for (const i of order) assert.deepEqual(filterSteps(logits, ids, all[i]).at(-1).logits, fresh[i]);
  }
  const longer = filterSteps(logits, [...ids, 42], all.at(-1)).at(-1).logits;
  assert.deepEqual(longer, filterSteps(Float32Array.from(logits), [...ids, 42], all.at(-1)).at(-1).logits);
});

test("a top-k of more tokens than there are cuts none", () => {
  const [{ name }, last] = filterSteps([1, 3, 2], [0], { ...PLAIN, top_k: 1000 });
  assert.deepEqual([name, last.name], ["temperature", "top_k"]);
  assert.deepEqual([...last.logits], [-2, 0, -1]);
});

test("ties with the last of the k tokens stay", () => {
  assert.deepEqual([...topK(Float64Array.of(2, 1, 2, 2, 0), 2)], [2, -Infinity, 2, 2, -Infinity]);
});

test("of equal tokens top-p cuts those with the lowest ids", () => {
  const left = topP(Float64Array.of(0, 0, 0, 0), 0.5);
  assert.deepEqual([...left], [-Infinity, -Infinity, 0, 0]);
});

test("at temperature 0 the first of the best tokens is left, whatever the other filters", () => {
  for (const others of [{}, { top_k: 2 }, { top_p: 0.1 }, { min_p: 1 }, { top_k: 3, top_p: 0.9 }]) {
    const steps = filterSteps([1, 5, 5, 2], [0], { ...PLAIN, temperature: 0, ...others });
    for (const { logits } of steps) assert.deepEqual([...softmax(logits)], [0, 1, 0, 0]);
  }
});

test("the least probable token comes first, and of equals the lower id", () => {
  assert.deepEqual([...ascending(Float32Array.of(2, -1, 2, -Infinity, 0, -0))], [3, 1, 4, 5, 0, 2]);
  const many = Float32Array.from({ length: 5000 }, (_, i) => Math.fround(Math.tan(i)));
  const order = [...ascending(many)];
  assert.deepEqual(order, [...many.keys()].sort((a, b) => many[a] - many[b] || a - b));
});

test("a token without a share is never drawn", () => {
  assert.equal(inverseCdf([0, 0.5, 0, 0.5, 0], 0), 1);
  assert.equal(inverseCdf([0, 0.5, 0, 0.5, 0], 0.5), 3);
  assert.equal(inverseCdf([0, 0.5, 0, 0.5, 0], 1 - 2 ** -53), 3);
});

test("the entropy of n equal tokens is that of n choices", () => {
  assert.ok(Math.abs(Math.exp(entropy([0.25, 0.25, 0, 0.25, 0.25])) - 4) < 1e-12);
  assert.equal(entropy([0, 1]), 0);
  assert.equal(argmax([1, 4, 4]), 1);
});
