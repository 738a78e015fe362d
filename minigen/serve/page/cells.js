/** The cells of the key-value cache: one for each position of the context. */

/**
 * Return the kind of each position, in the order of the text.
 *
 * lost: fallen out at the beginning; reused: read from the cache; computed: by the prediction with
 * these `facts`; free: not used yet.
 */
export function cells(facts, blockSize) {
  const free = Math.max(0, blockSize - facts.reused - facts.computed);
  return [
    ...Array(facts.truncated).fill("lost"),
    ...Array(facts.reused).fill("reused"),
    ...Array(facts.computed).fill("computed"),
    ...Array(free).fill("free"),
  ];
}

/**
 * Return the bytes of the keys and values of n positions.
 *
 * A key and a value, for each layer and each key head, of head_dim numbers (Shazeer 2019,
 * arXiv:1911.02150, which shares key heads to make this number small).
 */
export function cacheBytes(config, positions, bytesPerNumber) {
  return 2 * config.n_layer * config.n_kv_head * config.head_dim * positions * bytesPerNumber;
}
