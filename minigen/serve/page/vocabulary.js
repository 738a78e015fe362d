/** Tokens as text: a token is a piece of UTF-8, and may end inside a character. */

const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const LENIENT = new TextDecoder("utf-8", { ignoreBOM: true });
const MOST = 64; // characters that are shown of a token: a vocabulary may have tokens of thousands
const SIGNS = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };

/** Return the bytes that a string such as "e282ac" spells. */
export function hexBytes(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

/** Return the bytes that a text in base64 spells. */
export function base64Bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Return bytes as a person reads them, such as "e2 82 ac". */
export function spelt(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** Return the first characters of a long text, and how many more there are: "xxx⟨+9936⟩". */
export function shortened(text) {
  const signs = [...text];
  return signs.length > MOST ? `${signs.slice(0, MOST).join("")}⟨+${signs.length - MOST}⟩` : text;
}

/** Return a token as text with visible blanks; ⟨e2 82⟩ for bytes that are no whole characters. */
export function visible(bytes) {
  let text;
  try {
    text = STRICT.decode(bytes);
  } catch {
    return shortened(`⟨${spelt(bytes)}⟩`);
  }
  return named(text);
}

/** Return the name of a control token, or the text of another, with a sign for each blank. */
export function named(text) {
  return shortened(text).replace(/[ \n\t\r]/g, (blank) => SIGNS[blank]).replace(/\p{C}/gu, (sign) => {
    return `⟨U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/** Return the text of ids: control tokens by name, but not the end-of-text token that opens it. */
export function joined(ids, vocabulary) {
  const opens = ids.length > 1 && ids[0] === vocabulary.end_of_text;
  const parts = [];
  let bytes = [];
  const flush = () => {
    parts.push(LENIENT.decode(Uint8Array.from(bytes)));
    bytes = [];
  };
  for (const id of opens ? ids.slice(1) : ids) {
    if (id in vocabulary.controls) {
      flush();
      parts.push(vocabulary.controls[id]);
    } else bytes.push(...vocabulary.bytes[id]);
  }
  flush();
  return parts.join("");
}
