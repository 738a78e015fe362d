import assert from "node:assert/strict";
import test from "node:test";
import { hexBytes, joined, named, shortened, visible } from "../../minigen/serve/page/vocabulary.js";

const utf8 = (text) => new TextEncoder().encode(text);

test("hex becomes bytes", () => {
  assert.deepEqual([...hexBytes("e282ac00")], [0xe2, 0x82, 0xac, 0]);
  assert.deepEqual([...hexBytes("")], []);
});

test("blanks and signs without a shape are visible", () => {
  const shown = [" a", "a\n\n", "\t\r", "한", "\ufeff", "\u200b", "\u0000", "\u{e0001}"].map((s) => visible(utf8(s)));
  assert.deepEqual(
    shown, ["␣a", "a↵↵", "⇥␍", "한", "⟨U+FEFF⟩", "⟨U+200B⟩", "⟨U+0000⟩", "⟨U+E0001⟩"],
  );
});

test("bytes that are no whole characters are hex", () => {
  assert.deepEqual([[0xe2, 0x82], [0xff], [0x20, 0xc3]].map((b) => visible(Uint8Array.from(b))), ["⟨e2 82⟩", "⟨ff⟩", "⟨20 c3⟩"]);
});

test("a long token is shown in part, and the rest is counted", () => {
  const short = "x".repeat(64);
  assert.equal(visible(utf8(short)), short);
  assert.equal(visible(utf8("x".repeat(10_000))), `${short}⟨+9936⟩`);
  assert.equal(shortened("😀".repeat(65)), `${"😀".repeat(64)}⟨+1⟩`);
  assert.equal(visible(new Uint8Array(10_000).fill(0xff)), `⟨${"ff ".repeat(21)}⟨+29937⟩`);
});

test("the name of a control token is one line, and turns no text around", () => {
  assert.equal(named("<|a\n\u202eb|>"), "<|a↵⟨U+202E⟩b|>");
  assert.equal(named("y".repeat(70)), `${"y".repeat(64)}⟨+6⟩`);
});

test("tokens that share a character are read together", () => {
  const vocabulary = {
    bytes: [utf8("a "), Uint8Array.of(0xe2, 0x82), Uint8Array.of(0xac), utf8(""), utf8("")],
    controls: { 3: "<|endoftext|>", 4: "<|end|>" }, end_of_text: 3,
  };
  assert.equal(joined([0, 1, 2], vocabulary), "a €");
  assert.equal(joined([0, 1], vocabulary), "a \ufffd");
  assert.equal(joined([3, 0, 3, 0], vocabulary), "a <|endoftext|>a "); // not the one that opens it
  assert.equal(joined([3], vocabulary), "<|endoftext|>");
  assert.equal(joined([4, 0], vocabulary), "<|end|>a ");
  assert.equal(joined([1, 3, 2], vocabulary), "\ufffd<|endoftext|>\ufffd");
  assert.equal(joined([], vocabulary), "");
});
