import assert from "node:assert/strict";
import { test } from "node:test";
import { parseHex, pixels, place, pool, ramp } from "../../minigen/serve/page/shades.js";

test("A scale begins and ends with its stops, and mixes them between.", () => {
  const shades = ramp(["#000000", "#ff8000", "#fff"], 5);
  assert.deepEqual([...shades.slice(0, 4)], [0, 0, 0, 255]);
  assert.deepEqual([...shades.slice(4, 8)], [128, 64, 0, 255]);
  assert.deepEqual([...shades.slice(8, 12)], [255, 128, 0, 255]);
  assert.deepEqual([...shades.slice(16)], [255, 255, 255, 255]);
  assert.throws(() => parseHex("rebeccapurple"), /not a colour/);
});

test("The place of a weight on the scale is its square root, and never outside the scale.", () => {
  assert.deepEqual([0, 0.25, 1, 1.00001, -0.1].map(place), [0, 0.5, 1, 1, 0]);
});

test("A matrix pooled to its own size is the matrix, with -1 in the future.", () => {
  assert.deepEqual([...pool([1, 9, 0.25, 0.75], 2, 2)], [1, -1, 0.25, 0.75]);
});

test("A pixel over several values has the largest of them, and no value of the future.", () => {
  // prettier-ignore
  const matrix = [
    0.5, 9, 9, 9,
    0.25, 0.125, 9, 9,
    0, 0.75, 0.25, 9,
    0, 0, 0.5, 0.375,
  ];
  assert.deepEqual([...pool(matrix, 4, 2)], [0.5, -1, 0.75, 0.5]);
  assert.deepEqual([...pool(matrix, 4, 1)], [0.75]);
});

test("No single weight is lost when 1024 tokens are pooled to 100 pixels.", () => {
  const T = 1024;
  for (const [row, column] of [[0, 0], [1023, 0], [1023, 1023], [517, 516], [700, 3]]) {
    const matrix = new Float32Array(T * T);
    matrix[row * T + column] = 0.5;
    const bright = [...pool(matrix, T, 100)].flatMap((value, i) => (value === 0.5 ? [i] : []));
    assert.equal(bright.length, 1);
    assert.ok(Math.abs(Math.floor(bright[0] / 100) - (row * 100) / T) < 1);
    assert.ok(Math.abs((bright[0] % 100) - (column * 100) / T) < 1);
  }
});

test("A small matrix is drawn as squares of equal pixels.", () => {
  const drawn = [...pool([1, 9, 0.25, 0.75], 2, 4)];
  assert.deepEqual(drawn.slice(0, 4), [1, 1, -1, -1]);
  assert.deepEqual(drawn.slice(12), [0.25, 0.25, 0.75, 0.75]);
});

test("A pixel has the shade of its weight, and the future is transparent.", () => {
  const shades = ramp(["#000000", "#646464"], 101);
  const drawn = pixels(Float32Array.of(0, -1, 0.25, 1), shades);
  assert.deepEqual([...drawn.slice(0, 8)], [0, 0, 0, 255, 0, 0, 0, 0]);
  assert.deepEqual([...drawn.slice(8)], [50, 50, 50, 255, 100, 100, 100, 255]);
});
