import assert from "node:assert/strict";
import test from "node:test";
import {
  candidates, decodeLogits, nextCheckpoint,
} from "../../minigen/serve/page/replay.js";

test("each key press on the slider reaches another checkpoint", () => {
  const steps = [0, 100, 250, 300];
  const at = (present, step) => nextCheckpoint(steps, present, step);
  assert.deepEqual([at(100, 101), at(100, 99), at(300, 301), at(0, -1)], [250, 0, 300, 0]);
  assert.deepEqual([at(0, 290), at(300, 120), at(100, 100)], [300, 100, 100]);
});

test("the table has the chosen checkpoint's best tokens, then the best of all", () => {
  const of = (p) => ({ p, bytes: Object.fromEntries(p.map((_, id) => [id, ""])) });
  const early = of([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]);
  const late = of([0.01, 0.6, 0, 0.05, 0.3, 0.02, 0, 0.001, 0.019, 0]);
  assert.deepEqual(candidates([early, late], late), [1, 4, 3, 5, 0, 7, 2, 6]);
  assert.deepEqual(candidates([late], late), [1, 4, 3, 5, 8, 0]); // others are never probable
});

test("logits are little-endian float32", () => {
  assert.deepEqual([...decodeLogits("AADAPwAAIMA=")], [1.5, -2.5]);
});
