/** The title of a part of the page, and the button that shows the code of a stage. */

import { h, say } from "./dom.js";

/** Return a button that shows the code of a function. */
export function codeButton(app, name) {
  const hidden = h("span.visually-hidden", ` ${name}`);
  return h("button.show-code", {
    onclick: () => {
      app.showCode(hidden.textContent.trim());
      document.getElementById("tab-code").focus(); // which may be far below, on a narrow screen
    },
  }, h("span", { t: "page.show_code" }), hidden);
}

/** Return {element, show}; `show` gives the button of the title the name of another function. */
export function heading(app, key, name) {
  const button = codeButton(app, name);
  return {
    element: h("div.heading", h("h2", { t: key }), button),
    show: (other) => say(button.lastChild, ` ${other}`),
  };
}
