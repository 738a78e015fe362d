import assert from "node:assert/strict";
import { test } from "node:test";
import { move } from "../../minigen/serve/page/grid.js";

const press = (key, row, column, ctrlKey = false) => move({ key, ctrlKey }, row, column, 3, 5);

test("Arrow keys move by one cell and stop at the edge of the grid.", () => {
  assert.deepEqual(press("ArrowDown", 1, 2), [2, 2]);
  assert.deepEqual(press("ArrowDown", 2, 2), [2, 2]);
  assert.deepEqual(press("ArrowLeft", 1, 0), [1, 0]);
  assert.deepEqual(press("ArrowRight", 1, 3), [1, 4]);
  assert.deepEqual(press("ArrowUp", 0, 0), [0, 0]);
});

test("Home and End lead to the ends of the row, with Ctrl to the corners of the grid.", () => {
  assert.deepEqual([press("Home", 1, 3), press("End", 1, 3)], [[1, 0], [1, 4]]);
  assert.deepEqual([press("Home", 1, 3, true), press("End", 1, 3, true)], [[0, 0], [2, 4]]);
  assert.deepEqual([press("PageUp", 1, 3), press("PageDown", 1, 3)], [[0, 3], [2, 3]]);
});

test("Other keys do not move.", () => {
  assert.equal(press("Enter", 1, 1), null);
  assert.equal(press("a", 1, 1), null);
});
