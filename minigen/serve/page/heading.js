/** The title of a part of the page, and a button that shows the code of its stage. */

import { h, say } from "./dom.js";

/**
 * Return {element, update}; `update` writes the words in the present language.
 *
 * @param {string} key  of the title's words
 * @param {() => string} code  returns the name of the function to show
 */
export function heading(app, key, code) {
  const title = h("h2", {});
  const button = h("button", { type: "button", class: "show-code", onclick: show });

  function show() {
    app.showCode(code());
    document.getElementById("tab-code").focus(); // which may be far below, on a narrow screen
  }

  function update() {
    say(title, app.t(key));
    say(button, app.t("show_code"));
    button.setAttribute("aria-label", app.t("show_code.of", { name: code() }));
  }

  return { element: h("div", { class: "heading" }, title, button), update };
}
