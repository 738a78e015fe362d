/** The words of a text of tokens: byte-pair encoding joins pieces inside a word only. */

const BLANKS = new Set([0x20, 0x0a, 0x09, 0x0d]);

/**
 * Return the tokens of the word around token `at`: `from` is its first, `to` after its last.
 *
 * A word begins with a blank, and ends before the next. A control token is no word: from === to.
 */
export function wordAround(ids, at, bytes, controls) {
  if (ids[at] in controls) return { from: at, to: at };
  const begins = (i) => i === 0 || ids[i] in controls || BLANKS.has(bytes[ids[i]][0]);
  let from = at;
  while (!begins(from) && !(ids[from - 1] in controls)) from--;
  let to = at + 1;
  while (to < ids.length && !begins(to)) to++;
  return { from, to };
}
