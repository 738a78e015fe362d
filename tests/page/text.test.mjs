import assert from "node:assert/strict";
import test from "node:test";
import { Text } from "../../minigen/serve/page/text.js";

const tokens = (nodes) => nodes.map(({ token }) => token);

test("a text is the prompt and the tokens after it", () => {
  const text = new Text([5, 6]);
  text.append(7, { u: 0.5, p: 0.25 });
  text.append(8, { forced: true, p: 0.1 });
  assert.deepEqual([text.ids, text.nPrompt, tokens(text.path)], [[5, 6, 7, 8], 2, [7, 8]]);
  const facts = text.path.map(({ forced, u, p }) => [forced, u, p]);
  assert.deepEqual(facts, [[false, 0.5, 0.25], [true, null, 0.1]]);
});

test("going back keeps the texts, and the same token is the same node", () => {
  const text = new Text([1]);
  const first = text.append(2);
  text.append(3);
  text.goTo(first);
  assert.deepEqual(text.ids, [1, 2]);
  const other = text.append(4);
  text.goTo(first);
  const third = text.append(3);
  assert.deepEqual(tokens(text.children(first)), [3, 4]);
  assert.deepEqual([third.parent, other.parent], [first, first]);
  text.goTo(text.root);
  assert.deepEqual([text.ids, tokens(text.children(text.root))], [[1], [2]]);
});

test("a removed node takes the texts after it, and can be put back", () => {
  const text = new Text([1]);
  const a = text.append(2);
  const b = text.append(3);
  text.append(4);
  text.remove(b);
  assert.deepEqual([text.ids, text.children(a)], [[1, 2], []]);
  text.restore(b);
  assert.deepEqual([text.ids, tokens(text.children(b))], [[1, 2, 3], [4]]);
  text.remove(text.root);
  assert.equal(text.children(text.root).length, 1);
});

test("the prompt is a copy", () => {
  const ids = [1];
  const text = new Text(ids);
  ids.push(2);
  assert.deepEqual(text.ids, [1]);
});
