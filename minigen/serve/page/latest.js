/** Computing the latest wish only, so that a fast typist waits for one answer and not for twenty. */

/**
 * Return a function that takes a wish, asks the server by `compute`, and gives both to `deliver`.
 *
 * While one wish is computed, the next ones wait, and a later wish replaces an earlier one. So the
 * server has at most one request of a part, and the last wish is always answered.
 */
export function latest(compute, deliver) {
  let running = false;
  let waiting = null;
  return async function want(wish) {
    waiting = { wish };
    if (running) return;
    running = true;
    while (waiting) {
      const present = waiting.wish;
      waiting = null;
      try {
        deliver(await compute(present), present);
      } catch {
        // `app.api` has shown the reason already; the next wish may succeed.
      }
    }
    running = false;
  };
}
