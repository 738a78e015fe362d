import assert from "node:assert/strict";
import test from "node:test";
import * as b from "../../minigen/serve/page/branches.js";

/** Return a tree of texts from nested lists: [token, ...children]. */
function grow(shape) {
  const below = new Map();
  const nodes = {};
  const add = ([token, ...children], parent) => {
    const node = { token, parent };
    nodes[token] = node;
    below.set(node, children.map((child) => add(child, node)));
    return node;
  };
  const root = add(shape, null);
  const text = { root, path: [], children: (node) => below.get(node) };
  return { text, nodes };
}

//   prompt ─ a ─ b ┬ c ─ d
//                  └ e ┬ f
//                      └ g
const SHAPE = ["prompt", ["a", ["b", ["c", ["d"]], ["e", ["f"], ["g"]]]]];
const tokens = (lines) => lines.map((line) => line.nodes.map((node) => node.token).join(" "));

test("a line runs from a choice to the next one, and shared beginnings stand once", () => {
  const { text } = grow(SHAPE);
  const lines = b.linesOf(text, new Set());
  assert.deepEqual(tokens(lines), ["prompt", "a b", "c d", "e", "f", "g"]);
  assert.deepEqual(lines.map((line) => line.level), [1, 2, 3, 3, 4, 4]);
  assert.deepEqual(lines.map((line) => line.parent), [-1, 0, 1, 1, 3, 3]);
  assert.deepEqual(lines.map((line) => [line.position, line.size]), [
    [1, 1], [1, 1], [1, 2], [2, 2], [1, 2], [2, 2],
  ]);
});

test("a closed line hides the lines below it", () => {
  const { text, nodes } = grow(SHAPE);
  const lines = b.linesOf(text, new Set([nodes.e]));
  assert.deepEqual(tokens(lines), ["prompt", "a b", "c d", "e"]);
  assert.deepEqual(lines.map((line) => line.isOpen), [true, true, false, false]);
  assert.deepEqual(lines.map((line) => line.nChildren), [1, 2, 0, 2]);
});

test("the present text is marked along its whole path, and its end in the line that holds it", () => {
  const { text, nodes } = grow(SHAPE);
  text.path = [nodes.a, nodes.b, nodes.c];
  const lines = b.linesOf(text, new Set());
  assert.deepEqual(lines.map((line) => line.isOnPath), [true, true, true, false, false, false]);
  assert.deepEqual(lines.map((line) => line.here), [-1, -1, 0, -1, -1, -1]);
  text.path = [];
  assert.equal(b.linesOf(text, new Set())[0].here, 0);
});

test("a tree of 20,000 tokens in a row is two lines, without a stack overflow", () => {
  const nodes = [{ token: 0, parent: null }];
  for (let i = 1; i <= 20000; i++) nodes.push({ token: i, parent: nodes[i - 1] });
  const children = (node) => nodes.slice(node.token + 1, node.token + 2);
  const lines = b.linesOf({ root: nodes[0], path: nodes.slice(1), children }, new Set());
  assert.deepEqual(lines.map((line) => line.nodes.length), [1, 20000]);
  assert.equal(b.branchSum(nodes[20000], () => -0.5).sum, -10000);
});

test("a branch's sum adds up its log-probabilities, and is unknown if one of them is", () => {
  const { nodes } = grow(SHAPE);
  const logprob = (node) => ({ a: -1, b: -0.5, c: -2, d: null })[node.token];
  assert.deepEqual(b.branchSum(nodes.c, logprob), { sum: -3.5, n: 3 });
  assert.deepEqual(b.branchSum(nodes.d, logprob), { sum: null, n: 4 });
  assert.deepEqual(b.branchSum(nodes.prompt, logprob), { sum: 0, n: 0 });
});

test("two branches are apart from their first different token on", () => {
  const { nodes } = grow(SHAPE);
  assert.deepEqual(b.apart(nodes.d, nodes.g), {
    shared: 2, a: [nodes.c, nodes.d], b: [nodes.e, nodes.g],
  });
  assert.deepEqual(b.apart(nodes.b, nodes.f), { shared: 2, a: [], b: [nodes.e, nodes.f] });
});

test("the keys walk as in any tree: down, up, in, out, open, close", () => {
  const { text, nodes } = grow(SHAPE);
  const open = b.linesOf(text, new Set());
  assert.deepEqual(b.keyStep(open, 0, "ArrowDown"), { go: 1 });
  assert.equal(b.keyStep(open, 0, "ArrowUp"), null);
  assert.equal(b.keyStep(open, 5, "ArrowDown"), null);
  assert.deepEqual(b.keyStep(open, 1, "ArrowRight"), { go: 2 });
  assert.equal(b.keyStep(open, 2, "ArrowRight"), null);
  assert.deepEqual(b.keyStep(open, 2, "ArrowLeft"), { go: 1 });
  assert.deepEqual(b.keyStep(open, 1, "ArrowLeft"), { open: false });
  assert.deepEqual(b.keyStep(open, 3, "Home"), { go: 0 });
  assert.deepEqual(b.keyStep(open, 3, "End"), { go: 5 });
  const closed = b.linesOf(text, new Set([nodes.e]));
  assert.deepEqual(b.keyStep(closed, 3, "ArrowRight"), { open: true });
  assert.deepEqual(b.keyStep(closed, 3, "ArrowLeft"), { go: 1 });
  assert.equal(b.keyStep(open, 0, "x"), null);
});
