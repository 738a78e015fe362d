/** The texts of a visit: a prompt, and a tree of the tokens that were drawn or chosen after it. */

/** Return the nodes from the first token after the prompt to `node`. */
export function pathTo(node) {
  const path = [];
  for (let at = node; at.parent; at = at.parent) path.push(at);
  return path.reverse();
}

/**
 * A tree of texts with the same prompt. One of them is the present text.
 *
 * A node: {id, token, parent, forced, u, p}. forced: a person chose the token. u: the random number
 * that drew it, or null. p: its probability among those it was chosen from, or null. The root has
 * no token and no parent: it is the prompt.
 */
export class Text {
  #children = new Map();
  #n = 0;

  /** @param {number[]} prompt  the ids of the prompt */
  constructor(prompt) {
    this.prompt = [...prompt];
    this.root = this.#node(null, null, {});
    this.at = this.root;
  }

  #node(token, parent, { forced = false, u = null, p = null }) {
    const node = { id: this.#n++, token, parent, forced, u, p };
    this.#children.set(node, []);
    return node;
  }

  /** The number of tokens of the prompt. */
  get nPrompt() {
    return this.prompt.length;
  }

  /** The nodes of the present text, after the prompt. */
  get path() {
    return pathTo(this.at);
  }

  /** The ids of the present text, the prompt included. */
  get ids() {
    return [...this.prompt, ...this.path.map(({ token }) => token)];
  }

  /** Return the nodes that follow a node, in the order in which they came. */
  children(node) {
    return this.#children.get(node) ?? [];
  }

  /** Append a token to the present text; a node that is there already is used again. */
  append(token, facts = {}) {
    const siblings = this.children(this.at);
    let node = siblings.find((each) => each.token === token);
    if (!node) {
      node = this.#node(token, this.at, facts);
      siblings.push(node);
    }
    this.at = node;
    return node;
  }

  /** Make the text that ends with `node` the present one. */
  goTo(node) {
    this.at = node;
  }

  /** Take a node and all texts with it off the tree; the present text then ends before it. */
  remove(node) {
    if (!node.parent) return;
    if (node === this.at || this.path.includes(node)) this.at = node.parent;
    const siblings = this.children(node.parent);
    siblings.splice(siblings.indexOf(node), 1);
  }

  /** Put a node that was removed back on the tree, and make it the present text. */
  restore(node) {
    const siblings = this.children(node.parent);
    if (!siblings.includes(node)) siblings.push(node);
    this.at = node;
  }
}
