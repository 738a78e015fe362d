/** The address bar: the state of the page as words after #, so that it can be copied. */

import { leavesOf } from "./branches.js";
import { DEFAULTS } from "./sampling.js";
import { pathTo } from "./text.js";

const NUMBERS = ["step", "seed", "sample"];
const WORDS = ["model", "prompt", "language", "theme", "tab", "code"];
const USUAL = { seed: 1337, sample: 0, tab: "tree" };

/** Return the address of the page's state and text, with all that is not as at a first visit. */
export function encodeAddress({ state, text }) {
  const words = new URLSearchParams();
  for (const name of [...WORDS, ...NUMBERS]) {
    const value = state[name];
    if (value !== null && value !== USUAL[name]) words.set(name, value);
  }
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (state.settings[name] !== usual) words.set(name, state.settings[name] ?? "");
  }
  const { path } = text;
  if (path.length) words.set("path", spell(path));
  const branches = [];
  let before = path;
  for (const other of leavesOf(text).map(pathTo)) {
    if (other.at(-1) === undefined || path.includes(other.at(-1))) continue;
    let shared = 0;
    while (shared < before.length && before[shared] === other[shared]) shared++;
    branches.push(`${shared}-${spell(other.slice(shared))}`);
    before = other;
  }
  if (branches.length) words.set("branches", branches.join("_"));
  if (state.compare) words.set("compare", JSON.stringify(state.compare));
  return `#${words}`;
}

/**
 * Return the state that an address names; a value that does not fit is left out.
 *
 * path: the tokens {token, forced} of the present text. branches: those of the other texts. The
 * address spells of each text only the tokens that the text before it does not begin with.
 */
export function decodeAddress(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const state = { settings: { ...DEFAULTS }, path: read(words.get("path")), branches: [] };
  for (const name of WORDS) if (words.has(name)) state[name] = words.get(name);
  for (const name of NUMBERS) if (isWhole(words.get(name))) state[name] = Number(words.get(name));
  for (const name of Object.keys(DEFAULTS)) {
    const value = words.get(name);
    if (value === null) continue;
    if (fits(name, value === "" ? null : Number(value))) state.settings[name] = value === "" ? null : Number(value);
  }
  if (!["en", "ko"].includes(state.language)) delete state.language;
  if (!["light", "dark"].includes(state.theme)) delete state.theme;
  let before = state.path;
  for (const branch of words.get("branches")?.split("_") ?? []) {
    const [, shared, rest] = /^(\d{1,9})-(.+)$/.exec(branch) ?? [];
    if (!rest) continue;
    before = [...before.slice(0, Number(shared)), ...read(rest)];
    state.branches.push(before);
  }
  try {
    const compare = JSON.parse(words.get("compare"));
    if (compare?.constructor === Object) state.compare = compare;
  } catch {
    // not JSON: nothing is compared
  }
  return state;
}

/** Return tokens as words for the address. */
function spell(nodes) {
  return nodes.map(({ token, forced }) => `${token}${forced ? "!" : ""}`).join(".");
}

/** Return the tokens {token, forced} that words of an address spell. */
function read(words) {
  const found = (words ?? "").split(".").map((word) => /^(\d{1,9})(!?)$/.exec(word));
  return found.filter(Boolean).map(([, token, forced]) => ({ token: Number(token), forced: forced === "!" }));
}

/** Return whether a setting may have a value; the ranges are those of `sampling.Sampling`. */
export function fits(name, value) {
  if (name === "top_k") return value === null || (Number.isInteger(value) && value >= 1);
  if (value === null || !Number.isFinite(value)) return false;
  const [least, most] = {
    temperature: [0, Infinity], top_p: [Number.MIN_VALUE, 1], min_p: [0, 1],
    repetition_penalty: [0.01, 100],
  }[name];
  return least <= value && value <= most;
}

function isWhole(word) {
  return word !== null && /^\d{1,15}$/.test(word);
}
