import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { lines, pieces } from "../../minigen/serve/page/python.js";

const kinds = (source, kind) => pieces(source).filter((p) => p.kind === kind).map((p) => p.text);
const folder = new URL("../../minigen/", import.meta.url);
const files = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".py"));

test("The pieces of each file of the library together are the file, and so are its lines.", () => {
  assert.ok(files.length > 50);
  for (const name of files) {
    const source = readFileSync(new URL(name, folder), "utf8");
    assert.equal(pieces(source).map((p) => p.text).join(""), source, name);
    const text = lines(source).map((line) => line.map((p) => p.text).join("") + "\n");
    assert.equal(text.join(""), source, name);
  }
});

test("A quote in a comment begins no string, and a # in a string no comment.", () => {
  const source = `x = "a # b"  # it's "so"\ny = 'c'\n`;
  assert.deepEqual(kinds(source, "string"), [`"a # b"`, "'c'"]);
  assert.deepEqual(kinds(source, "comment"), [`# it's "so"`]);
});

test("A docstring is one string, whatever quotes and line ends it has.", () => {
  const doc = `"""Say "hi".\n\n>>> f('a')  # no comment\n"""`;
  assert.deepEqual(kinds(`def f():\n    ${doc}\n    return 1\n`, "string"), [doc]);
});

test("Strings keep their prefixes and escaped quotes.", () => {
  assert.deepEqual(kinds(String.raw`a = rb"\"x" + f'{y}' + u""`, "string"), [
    String.raw`rb"\"x"`,
    "f'{y}'",
    'u""',
  ]);
});

test("Keywords, numbers, decorators and the names of functions and classes have kinds of their own.", () => {
  const source = "@torch.no_grad()\ndef in_range(x1): return x1 @ w if x1 else 1_000.5e-3\nclass A: ...\n";
  assert.deepEqual(kinds(source, "decorator"), ["@torch.no_grad"]);
  assert.deepEqual(kinds(source, "keyword"), ["def", "return", "if", "else", "class"]);
  assert.deepEqual(kinds(source, "number"), ["1_000.5e-3"]);
  assert.deepEqual(kinds(source, "name"), ["in_range", "A"]);
});

test("An unfinished string ends with the source.", () => {
  assert.deepEqual(kinds('x = """abc\n', "string"), ['"""abc\n']);
  assert.deepEqual(lines(""), []);
});
