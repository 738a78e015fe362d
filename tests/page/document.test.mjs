import assert from "node:assert/strict";
import test from "node:test";
import { lastDocument, rgba } from "../../minigen/serve/page/document.js";

test("the last document is the one after the last end of text", () => {
  const ids = (...args) => lastDocument(args, 9);
  assert.deepEqual(ids(9, 1, 2), { ids: [1, 2], isComplete: false });
  assert.deepEqual(ids(9, 1, 2, 9), { ids: [1, 2], isComplete: true });
  assert.deepEqual(ids(9, 1, 9, 2, 3), { ids: [2, 3], isComplete: false });
  assert.deepEqual(ids(9), { ids: [], isComplete: false });
  assert.deepEqual(ids(1, 2), { ids: [1, 2], isComplete: false });
  assert.deepEqual(ids(), { ids: [], isComplete: false });
});

test("a cell that is not written yet is clear", () => {
  const rgb = btoa(String.fromCharCode(...Array.from({ length: 24 }, (_, n) => n)));
  const picture = { width: 4, height: 2, cell: 2, filled: [1], rgb };
  const pixels = rgba(picture);
  assert.deepEqual([...pixels.slice(0, 4)], [0, 1, 2, 255]);
  assert.deepEqual([...pixels].filter((_, n) => n % 4 === 3), [255, 255, 0, 0, 255, 255, 0, 0]);
});
