/** Matrices as pixels: the shades of a colour scale, and pooling to the pixels that there are. */

/** Return n shades, 4 bytes each, between colours such as "#1b4f8a" at equal distances. */
export function ramp(stops, n = 256) {
  const colours = stops.map(parseHex);
  const bytes = new Uint8ClampedArray(4 * n);
  for (let i = 0; i < n; i++) {
    const at = (i / (n - 1)) * (colours.length - 1);
    const left = Math.min(Math.floor(at), colours.length - 2);
    for (let c = 0; c < 3; c++) {
      const [from, to] = [colours[left][c], colours[left + 1][c]];
      bytes[4 * i + c] = Math.round(from + (to - from) * (at - left));
    }
    bytes[4 * i + 3] = 255;
  }
  return bytes;
}

/** Return the red, green and blue of "#rrggbb" or "#rgb", from 0 to 255. */
export function parseHex(colour) {
  let digits = colour.trim().slice(1);
  if (digits.length === 3) digits = [...digits].map((d) => d + d).join("");
  if (!/^[0-9a-f]{6}$/i.test(digits)) throw new Error(`${colour} is not a colour such as #1b4f8a`);
  return [0, 2, 4].map((i) => parseInt(digits.slice(i, i + 2), 16));
}

/**
 * Return the place of a weight on the scale, from 0 to 1: its square root.
 *
 * A head that looks at twenty tokens gives each 5 %. On an even scale nobody would see them.
 */
export function place(weight) {
  return Math.sqrt(Math.min(1, Math.max(0, weight)));
}

/**
 * Return a causal matrix of side * side at another size: the largest of the values under each pixel.
 *
 * The largest, because a mean would hide a single strong weight among many zeros. Pixels with
 * nothing but the future, of which a causal matrix has no values, are -1.
 */
export function pool(values, side, size) {
  const starts = Array.from({ length: size }, (_, i) => Math.floor((i * side) / size));
  const ends = starts.map((start, i) =>
    Math.max(start + 1, Math.floor(((i + 1) * side) / size)),
  );
  const result = new Float32Array(size * size).fill(-1);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size && starts[x] < ends[y]; x++) {
      let most = -1;
      for (let row = Math.max(starts[y], starts[x]); row < ends[y]; row++) {
        const end = Math.min(ends[x], row + 1);
        for (let column = starts[x]; column < end; column++) {
          const value = values[row * side + column];
          if (value > most) most = value;
        }
      }
      result[y * size + x] = most;
    }
  }
  return result;
}

/** Return the pixels of weights, 4 bytes each: one of the `shades`, or nothing for -1, the future. */
export function pixels(weights, shades) {
  const last = shades.length / 4 - 1;
  const bytes = new Uint8ClampedArray(4 * weights.length);
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] < 0) continue;
    const shade = 4 * Math.round(place(weights[i]) * last);
    for (let c = 0; c < 4; c++) bytes[4 * i + c] = shades[shade + c];
  }
  return bytes;
}
