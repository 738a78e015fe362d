import assert from "node:assert/strict";
import { test } from "node:test";
import { latest } from "../../minigen/serve/page/latest.js";

test("While a wish is computed, later wishes replace each other, and the last one is answered.", async () => {
  const asked = [];
  const delivered = [];
  let answer;
  const want = latest(
    (wish) => {
      asked.push(wish);
      return new Promise((resolve) => (answer = resolve));
    },
    (result, wish) => delivered.push([result, wish]),
  );
  const done = want(1);
  want(2);
  want(3);
  answer("a");
  await new Promise(setImmediate);
  answer("b");
  await done;
  assert.deepEqual(asked, [1, 3]);
  assert.deepEqual(delivered, [["a", 1], ["b", 3]]);
});

test("A wish that fails delivers nothing, and the next one is computed.", async () => {
  const delivered = [];
  const want = latest(
    async (wish) => {
      if (wish === "bad") throw new Error("400");
      return wish;
    },
    (result) => delivered.push(result),
  );
  await want("bad");
  await want("good");
  assert.deepEqual(delivered, ["good"]);
});
