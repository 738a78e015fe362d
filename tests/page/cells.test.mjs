import assert from "node:assert/strict";
import { test } from "node:test";
import { cacheBytes, cells } from "../../minigen/serve/page/cells.js";

test("The cells are lost, reused, computed and free positions, in the order of the text.", () => {
  assert.deepEqual(cells({ truncated: 1, reused: 2, computed: 1 }, 4), [
    "lost",
    "reused",
    "reused",
    "computed",
    "free",
  ]);
});

test("A full context has no free cell.", () => {
  const kinds = cells({ truncated: 0, reused: 7, computed: 1 }, 8);
  assert.equal(kinds.length, 8);
  assert.ok(!kinds.includes("free"));
});

test("The cache of GPT-2 takes 36,864 bytes a position in bfloat16.", () => {
  const gpt2 = { n_layer: 12, n_kv_head: 12, head_dim: 64 };
  assert.equal(cacheBytes(gpt2, 1, 2), 36_864);
  assert.equal(cacheBytes({ ...gpt2, n_kv_head: 3 }, 1024, 4), 18_874_368);
});
