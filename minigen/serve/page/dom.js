/** Elements of the page. Text becomes text nodes only, so nothing that a model writes is markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return an element, such as h("p.hint", { id: "x" }, "some ", h("b", "words")).
 *
 * @param {string} name  the tag, and classes after points
 * @param {object} [attributes]  `onNAME` is a listener and `--NAME` a property of the style; `t` and
 *   `named` are keys of words, for `translate`; a value that is null or false leaves the attribute
 *   out, and true makes it empty
 * @param {...(Node | string | number | null | false | Array)} children
 */
export function h(name, ...rest) {
  return fill((tag) => document.createElement(tag), name, rest);
}

/** Return an element of a drawing; for the arguments see `h`. */
export function svg(name, ...rest) {
  return fill((tag) => document.createElementNS(SVG, tag), name, rest);
}

function fill(create, name, rest) {
  const [tag, ...classes] = name.split(".");
  const element = create(tag);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  if (tag === "button") element.type = "button"; // and not "submit"
  const attributes = rest[0]?.constructor === Object ? rest.shift() : {};
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) element.style.setProperty(key, value);
    else if (key === "t" || key === "named") element.dataset[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...rest.flat(2).filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

/** Write the words of all elements with `t`, and the accessible names of those with `named`. */
export function translate(app, root = document) {
  for (const each of root.querySelectorAll("[data-t]")) say(each, app.t(each.dataset.t));
  for (const each of root.querySelectorAll("[data-named]")) {
    each.setAttribute("aria-label", app.t(each.dataset.named));
  }
}

/** Set the text of an element if it differs, as a screen reader reads a changed text aloud. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Return a bar as wide as a share of its place; the number stands beside it. */
export function bar(share) {
  return h("span.bar", { "aria-hidden": "true", "--share": share });
}

/** Return a row of a table: its name, and cells. */
export function row(name, ...cells) {
  return h("tr", h("th", { scope: "row" }, name), cells.flat().map((cell) => (cell.tagName === "TD" ? cell : h("td", cell))));
}

/** Return a row with the names of columns. */
export function columns(...names) {
  return h("tr", names.map((name) => h("th", { scope: "col" }, name)));
}

/** Return a choice between options: values, or pairs of a value and its words. */
export function select(attributes, options, chosen) {
  const element = h("select", attributes);
  choose(element, options, chosen);
  return element;
}

/** Give a `select` other options. */
export function choose(element, options, chosen) {
  element.replaceChildren(...options.map((option) => {
    const [value, words] = [option].flat();
    return h("option", { value }, words ?? value);
  }));
  element.value = chosen;
}

/** Return whether an event has a key that a modifier gives another meaning. */
export function isModified(event) {
  return event.ctrlKey || event.altKey || event.metaKey;
}

/**
 * Return the drawing context of a canvas, in CSS pixels: sharp on a screen of any density.
 *
 * The canvas takes the size that the layout gives it.
 */
export function context(canvas) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  const [w, hgt] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== hgt) Object.assign(canvas, { width: w, height: hgt });
  const drawing = canvas.getContext("2d");
  drawing.setTransform(scale, 0, 0, scale, 0, 0);
  drawing.clearRect(0, 0, width, height);
  return { drawing, width, height };
}

/** Return pixels, 4 bytes each, as an image that can be drawn at any size. */
export function imageOf(bytes, width, height = width) {
  const image = new OffscreenCanvas(width, height);
  image.getContext("2d").putImageData(new ImageData(bytes, width, height), 0, 0);
  return image;
}

/** Return the value of a colour or another custom property of style.css, such as "--accent". */
export function property(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Let arrow keys move between the buttons of a strip, of which Tab reaches one. */
export function arrows(strip) {
  strip.addEventListener("keydown", (event) => {
    const all = [...strip.querySelectorAll("button")];
    const at = all.indexOf(document.activeElement);
    const to = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1,
      Home: 0, End: all.length - 1,
    }[event.key];
    if (at < 0 || to === undefined || isModified(event)) return;
    event.preventDefault();
    const next = all[Math.min(all.length - 1, Math.max(0, to))];
    for (const each of all) each.tabIndex = each === next ? 0 : -1;
    next.focus();
  });
}
