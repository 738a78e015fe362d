import assert from "node:assert/strict";
import test from "node:test";
import {
  RunLog, decimals, duration, lossRange, path, scale, smoothed, spread, ticks,
} from "../../minigen/serve/page/curve.js";

const answer = (lines, more = {}) => ({
  lines, next: "1-a", restarted: false, more: false, step: 0, samples: [], checkpoints: [], ...more,
});

test("the training curve has the means of loss.png", () => {
  // minigen.run.log.smoothed([(n, n * n) for n in range(1, 121)])
  const points = Array.from({ length: 120 }, (_, n) => [n + 1, (n + 1) ** 2]);
  assert.deepEqual(smoothed(points.slice(0, 3)), [[1, 1], [2, 4], [3, 9]]);
  assert.deepEqual(smoothed(points).slice(-2), [[116.0, 13456.666666666666], [119.0, 14161.666666666666]]);
  assert.equal(smoothed(points).length, 70);
});

test("a run's lines become curves, and null is left out", () => {
  const log = new RunLog("tales");
  log.take(answer([
    { step: 0, n_vocab: 50 }, { step: 0, val_loss: 4 }, { step: 1, train_loss: null },
    { step: 2, train_loss: 3.5 }, { step: 2, final_val_loss: 3.25 },
  ], { step: 2, n_vocab: 50, bits_per_byte: 0.5, entropy: 0.25, max_steps: 9 }));
  assert.deepEqual(log.training, [[2, 3.5]]);
  assert.deepEqual([log.validation, log.final], [[[0, 4]], [[2, 3.25]]]);
  assert.deepEqual([log.knowNothing, log.floor, log.lastStep], [Math.log(50), 0.5, 9]);
  assert.equal(log.cursor, "1-a");
});

test("a run that restarts loses its points, and what stays is no change", () => {
  const log = new RunLog("tales");
  assert.ok(log.take(answer([{ step: 8, train_loss: 3 }])));
  assert.ok(!log.take(answer([])));
  assert.ok(log.take(answer([], { step: 9 })));
  assert.ok(log.take(answer([{ step: 1, train_loss: 4 }], { restarted: true })));
  assert.deepEqual(log.training, [[1, 4]]);
});

test("the axis holds all losses, ln V and the entropy of the text", () => {
  const log = new RunLog("tales");
  for (const isLog of [true, false]) assert.deepEqual(lossRange(log, isLog), [1, 10]);
  const facts = { n_vocab: 50, bits_per_byte: 0.5, entropy: 0.25 };
  log.take(answer([{ step: 1, train_loss: 3.8 }, { step: 1, val_loss: 0.7 }], facts));
  for (const isLog of [true, false]) {
    const [low, high] = lossRange(log, isLog);
    assert.ok(low < 0.5 && high > Math.log(50) && high < 5);
  }
  log.forget();
  log.take(answer([{ step: 1, train_loss: 2 }], facts)); // fine-tuned: it knows something
  assert.ok(lossRange(log, true)[1] < 2.2);
});

test("scales are linear or logarithmic", () => {
  const linear = scale([0, 10], [100, 0]);
  assert.deepEqual([linear(0), linear(5), linear(10)], [100, 50, 0]);
  const log = scale([0.1, 10], [0, 100], true);
  assert.deepEqual([0.1, 1, 10].map((x) => Math.round(log(x))), [0, 50, 100]);
  assert.ok(Number.isFinite(log(0)) && Number.isFinite(scale([1, 1], [0, 1])(1)));
});

test("ticks are round numbers inside the axis", () => {
  assert.deepEqual(ticks(0, 100, 4), [0, 50, 100]);
  assert.deepEqual(ticks(0, 134, 5), [0, 50, 100]);
  assert.deepEqual(ticks(0.4, 8, 5, true), [0.5, 1, 2, 5]);
  assert.deepEqual(ticks(1, 2, 4, true), [1, 1.5, 2]);
  assert.deepEqual(ticks(0.3, 0.65, 4), [0.3, 0.4, 0.5, 0.6]);
  assert.deepEqual(ticks(0.01, 10, 5, true), [0.01, 0.1, 1, 10]);
});

test("a tick has only the digits that it needs", () => {
  assert.deepEqual([5, 0.5, 0.25].map(decimals), [0, 1, 2]);
});

test("labels do not cover each other and stay inside", () => {
  assert.deepEqual(spread([10, 50], 12, 0, 100), [10, 50]);
  assert.deepEqual(spread([52, 50], 12, 0, 100), [62, 50]);
  assert.deepEqual(spread([98, 99, 100], 10, 0, 100), [80, 90, 100]);
});

test("a path has a point for each value", () => {
  const same = (x) => x;
  assert.equal(path([[0, 1], [2, 3.26]], same, same), "M0.0 1.0L2.0 3.3");
  assert.equal(path([], same, same), "");
});

test("a duration is in the unit that a person would use", () => {
  assert.deepEqual(duration(0.2), [1, "seconds"]);
  assert.deepEqual(duration(99), [99, "seconds"]);
  assert.deepEqual(duration(130), [2, "minutes"]);
  assert.deepEqual(duration(7300), [2, "hours"]);
});
