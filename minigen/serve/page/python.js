/** The colours of Python's source: pieces of text, each of one kind. */

const KEYWORDS = new Set(
  `False None True and as assert async await break class continue def del elif else except
  finally for from global if import in is lambda nonlocal not or pass raise return try while with
  yield match case`.split(/\s+/),
);

// One alternative for each kind. A string ends at its quotes, or at the end of the source.
const TOKEN = new RegExp(
  [
    String.raw`(?<comment>#[^\n]*)`,
    String.raw`(?<string>(?:\b[rbfu]{1,2})?(?:"""(?:\\[\s\S]|[^\\])*?(?:"""|$)|'''(?:\\[\s\S]|[^\\])*?(?:'''|$)` +
      String.raw`|"(?:\\[\s\S]|[^"\\\n])*"?|'(?:\\[\s\S]|[^'\\\n])*'?))`,
    String.raw`(?<decorator>(?<=(?:^|\n)[ \t]*)@[\w.]+)`,
    String.raw`(?<number>\b\d[\d_]*(?:\.[\d_]*)?(?:e[+-]?\d+)?j?\b|\B\.\d+\b)`,
    String.raw`(?<word>[A-Za-z_]\w*)`,
  ].join("|"),
  "gi",
);

/**
 * Return the pieces of a source: { kind, text }, whose texts together are the source.
 *
 * The kinds: comment, string, decorator, number, keyword, name (after def or class), plain.
 */
export function pieces(source) {
  const result = [];
  const add = (kind, text) => {
    const last = result[result.length - 1];
    if (last?.kind === kind && kind === "plain") last.text += text;
    else if (text) result.push({ kind, text });
  };
  let end = 0;
  let defines = false; // the word before was def or class
  for (const match of source.matchAll(TOKEN)) {
    add("plain", source.slice(end, match.index));
    end = match.index + match[0].length;
    let kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    if (kind === "word") kind = KEYWORDS.has(match[0]) ? "keyword" : defines ? "name" : "plain";
    defines = kind === "keyword" && (match[0] === "def" || match[0] === "class");
    add(kind, match[0]);
  }
  add("plain", source.slice(end));
  return result;
}

/** Return the pieces of each line of a source; a string over several lines is cut at their ends. */
export function lines(source) {
  const result = [[]];
  for (const { kind, text } of pieces(source)) {
    text.split("\n").forEach((part, i) => {
      if (i > 0) result.push([]);
      if (part) result[result.length - 1].push({ kind, text: part });
    });
  }
  if (result.at(-1).length === 0) result.pop(); // after the last line end
  return result;
}
