/** Elements of the page. Text becomes text nodes only, so nothing that a model writes is markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return an element.
 *
 * @param {string} tag
 * @param {object} [attributes]  `onNAME` is a listener, `class` and others are attributes; a value
 *   that is null or false leaves the attribute out, and true makes it empty
 * @param {...(Node | string | number | null | false)} children
 */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return an element of a drawing; for the arguments see `h`. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

/** Set the text of an element if it differs, as a screen reader reads a changed text aloud. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
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

/** Return the value of a colour or another custom property of style.css, such as "--accent". */
export function property(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * Let arrow keys move between the elements of a strip, of which Tab reaches one.
 *
 * @param {Element} strip
 * @param {() => Element[]} items  the elements, in order
 */
export function arrows(strip, items) {
  strip.addEventListener("keydown", (event) => {
    const all = items();
    const at = all.indexOf(document.activeElement);
    const to = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1,
      Home: 0, End: all.length - 1,
    }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = all[Math.min(all.length - 1, Math.max(0, to))];
    for (const each of all) each.tabIndex = each === next ? 0 : -1;
    next.focus();
  });
}
