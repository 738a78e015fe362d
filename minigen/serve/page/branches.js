// The texts of a visit as lines: what they share stands once, and each choice begins a line.

import { pathTo } from "./text.js";

/**
 * Return the lines of a tree of texts, in reading order: {nodes, level, position, size, parent,
 * nChildren, isOpen, isOnPath, here}. parent and here are indices, or -1: of the line above, and in
 * `nodes` of the end of the present text.
 *
 * The first line is the prompt. Each other line begins with a chosen token and runs as long as
 * nothing else was chosen. Lines below a node of `closed` are left out.
 */
export function linesOf(text, closed) {
  const onPath = new Set([text.root, ...text.path]);
  const here = text.path.at(-1) ?? text.root;
  const lines = [];
  const todo = [{ node: text.root, level: 1, position: 1, size: 1, parent: -1 }];
  while (todo.length) {
    const { node, ...place } = todo.pop();
    const nodes = [node];
    let children = text.children(node);
    while (node !== text.root && children.length === 1) {
      nodes.push(children[0]);
      children = text.children(children[0]);
    }
    const isOpen = children.length > 0 && !closed.has(node);
    const [nChildren, isOnPath] = [children.length, onPath.has(node)];
    lines.push({ nodes, ...place, nChildren, isOpen, isOnPath, here: nodes.indexOf(here) });
    if (!isOpen) continue;
    const below = { level: place.level + 1, size: children.length, parent: lines.length - 1 };
    for (let i = children.length; i > 0; i--) {
      todo.push({ node: children[i - 1], position: i, ...below });
    }
  }
  return lines;
}

/** Return the ends of all texts of a tree. */
export function leavesOf(text) {
  const leaves = [];
  const todo = [text.root];
  while (todo.length) {
    const node = todo.pop();
    const children = text.children(node);
    if (children.length) todo.push(...children.toReversed());
    else leaves.push(node);
  }
  return leaves;
}

/** Return the sum of the log-probabilities up to `node`, null if one is not known; and their number. */
export function branchSum(node, logprob) {
  const path = pathTo(node);
  const parts = path.map(logprob);
  const sum = parts.includes(null) ? null : parts.reduce((a, b) => a + b, 0);
  return { sum, n: path.length };
}

/** Return the number of tokens that two branches share, and the rest of each. */
export function apart(a, b) {
  const [x, y] = [pathTo(a), pathTo(b)];
  let shared = 0;
  while (shared < x.length && x[shared] === y[shared]) shared++;
  return { shared, a: x.slice(shared), b: y.slice(shared) };
}

/**
 * Return what a key does at a line, as in any tree of the ARIA practices: {go: index of a line},
 * {open: true or false}, or null.
 */
export function keyStep(lines, index, key) {
  const line = lines[index];
  if (key === "ArrowDown") return index + 1 < lines.length ? { go: index + 1 } : null;
  if (key === "ArrowUp") return index > 0 ? { go: index - 1 } : null;
  if (key === "Home") return { go: 0 };
  if (key === "End") return { go: lines.length - 1 };
  if (key === "ArrowRight" && line.nChildren) return line.isOpen ? { go: index + 1 } : { open: true };
  if (key === "ArrowLeft" && line.isOpen) return { open: false };
  if (key === "ArrowLeft" && line.parent >= 0) return { go: line.parent };
  return null;
}
