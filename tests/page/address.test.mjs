import assert from "node:assert/strict";
import test from "node:test";
import { decodeAddress, encodeAddress, fits } from "../../minigen/serve/page/address.js";
import { DEFAULTS } from "../../minigen/serve/page/sampling.js";
import { Text } from "../../minigen/serve/page/text.js";

const STATE = {
  model: "tales", step: null, prompt: null, settings: DEFAULTS, seed: 1337, sample: 0,
  language: "en", theme: null, tab: "tree", compare: null, code: null,
};

/** Return a tree of the texts [1 2 3], [1 2 7 8], [1 9]; the present one ends as told. */
function tree(present) {
  const text = new Text([5]);
  for (const tokens of [[1, 2, 3], [1, 2, 7, 8], [1, 9], present]) {
    text.goTo(text.root);
    for (const token of tokens) text.append(token, { forced: token === 7 });
  }
  return text;
}

const plain = (texts) => texts.map((text) => text.map(({ token }) => token));

test("an address spells all texts of the tree, and of each only the tokens that are new", () => {
  const address = encodeAddress({ state: STATE, text: tree([1, 2, 3]) });
  const words = new URLSearchParams(address.slice(1));
  assert.deepEqual([words.get("path"), words.get("branches")], ["1.2.3", "2-7!.8_1-9"]);
  const { path, branches } = decodeAddress(address);
  assert.deepEqual(plain([path, ...branches]), [[1, 2, 3], [1, 2, 7, 8], [1, 9]]);
  assert.deepEqual(branches[0].map(({ forced }) => forced), [false, false, true, false]);
});

test("a present text that others continue is spelt, too", () => {
  const { path, branches } = decodeAddress(encodeAddress({ state: STATE, text: tree([1]) }));
  assert.deepEqual(plain([path, ...branches]), [[1], [1, 2, 3], [1, 2, 7, 8], [1, 9]]);
});

test("branches that nobody can read are left out of the tree", () => {
  const { path, branches } = decodeAddress("#path=1.x.2&branches=_-_9-_x-3_1-7_-1-2");
  assert.deepEqual(plain([path, ...branches]), [[1, 2], [1, 7]]);
  assert.deepEqual(decodeAddress("").branches, []);
});

test("an address names all that is not as at a first visit", () => {
  assert.equal(encodeAddress({ state: STATE, text: new Text([1]) }), "#model=tales&language=en");
});

test("an address brings the same state back", () => {
  const text = new Text([1]);
  text.append(12);
  text.append(0, { forced: true });
  for (const some of [
    {}, { prompt: "" }, { prompt: " a&b=c#é한글\n\"<b>\" %20+" }, { seed: 0, sample: 3, step: 120 },
    { language: "ko", theme: "dark", tab: "lens", model: "a b/c", code: "top_k" },
    { settings: { temperature: 0, top_k: 5, top_p: 0.35, min_p: 0, repetition_penalty: 1.2 } },
    { settings: { ...DEFAULTS, temperature: 1e-7 } }, { compare: { model: "b", step: 3 } },
  ]) {
    const state = { ...STATE, ...some };
    const { path, branches, ...named } = decodeAddress(encodeAddress({ state, text }));
    assert.deepEqual({ ...STATE, ...named }, state);
    assert.deepEqual(path, [{ token: 12, forced: false }, { token: 0, forced: true }]);
    assert.deepEqual(branches, []);
  }
});

test("a value that does not fit is left out", () => {
  const wrong = "#seed=-1&sample=1.5&step=x&language=xx&theme=pink&temperature=hot&top_k=0&top_p=0"
    + "&min_p=2&repetition_penalty=0&path=1.x.-3.4!.99999999999&compare={&branches=_5_x-1_1-";
  const { settings, path, ...rest } = decodeAddress(wrong);
  assert.deepEqual(settings, DEFAULTS);
  assert.deepEqual(path, [{ token: 1, forced: false }, { token: 4, forced: true }]);
  assert.deepEqual(rest, { branches: [] });
  for (const compare of ["null", "3", "[1]", "\"a\""]) {
    assert.equal(decodeAddress(`#compare=${compare}`).compare ?? null, null);
  }
  assert.deepEqual(decodeAddress("").settings, DEFAULTS);
});

test("settings fit as sampling.Sampling says", () => {
  const ranges = {
    temperature: [[0, 1e-300, 5], [-0.1, Infinity, NaN, null]], top_k: [[null, 1, 1e6], [0, 1.5, -1]],
    top_p: [[1e-300, 1], [0, 1.01]], min_p: [[0, 1], [-0.1, 1.1]],
    repetition_penalty: [[0.01, 100], [0, 101]],
  };
  for (const [name, [good, bad]] of Object.entries(ranges)) {
    for (const value of good) assert.equal(fits(name, value), true, `${name} ${value}`);
    for (const value of bad) assert.equal(fits(name, value), false, `${name} ${value}`);
  }
});
