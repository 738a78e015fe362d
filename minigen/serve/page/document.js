// The document in a text, and the pixels of a picture, as numbers. Nothing here draws.

import { base64Bytes } from "./vocabulary.js";

/** Return the tokens of the last document in a text, and whether its end is there. */
export function lastDocument(ids, endOfText) {
  const isComplete = ids.length > 1 && ids.at(-1) === endOfText;
  const end = isComplete ? ids.length - 1 : ids.length;
  const begin = ids.lastIndexOf(endOfText, end - 1) + 1;
  return { ids: ids.slice(begin, end), isComplete };
}

/** Return the pixels of a picture as RGBA, in which a cell that is not written yet is clear. */
export function rgba({ width, height, cell, filled, rgb }) {
  const bytes = base64Bytes(rgb);
  const pixels = new Uint8ClampedArray(4 * width * height);
  for (let n = 0; n < width * height; n += 1) {
    const [row, column] = [Math.floor(n / width / cell), Math.floor((n % width) / cell)];
    pixels.set(bytes.subarray(3 * n, 3 * n + 3), 4 * n);
    pixels[4 * n + 3] = column < filled[row] ? 255 : 0;
  }
  return pixels;
}
