/** The page: the stage, on which a text is written, and the panels that look inside the model. */

import { App, Changes } from "./app.js";
import { h, say, translate } from "./dom.js";
import { mount as mountDraw } from "./parts/draw.js";
import { mount as mountHead } from "./parts/head.js";
import { mount as mountLadder } from "./parts/ladder.js";
import { mount as mountPlay } from "./parts/play.js";
import { mount as mountSettings } from "./parts/settings.js";
import { mount as mountTokens } from "./parts/tokens.js";
import { mount as mountPanels } from "./panels.js";

const STAGE = {
  play: mountPlay, tokens: mountTokens, settings: mountSettings, ladder: mountLadder, draw: mountDraw,
};

/**
 * Return the token that the address names, for a server that asks for one; the address loses it.
 *
 * It is kept until the window closes, unless the browser keeps nothing for pages.
 */
function takeToken() {
  const words = new URLSearchParams(location.hash.slice(1));
  const token = words.get("token");
  if (token !== null) {
    words.delete("token");
    history.replaceState(null, "", `${location.pathname}#${words}`);
  }
  try {
    if (token !== null) sessionStorage.setItem("token", token);
    return token ?? sessionStorage.getItem("token");
  } catch {
    return token;
  }
}

/** Show the state that the reader's new address names; a new token starts the page anew. */
function visit() {
  if (new URLSearchParams(location.hash.slice(1)).has("token")) location.reload();
  else if (app.models.length) app.visit(location.hash);
}

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const problem = document.getElementById("problem");
const app = new App(takeToken(), (message) => {
  say(problem, message === "offline" ? app.t("page.offline") : (message ?? ""));
});
const colour = () => (root.dataset.theme = app.state.theme ?? (dark.matches ? "dark" : "light"));
colour(); // before the first answer of the server
addEventListener("hashchange", visit); // also of a page that the server has refused
await app.start(location.hash);

const parts = [mountHead(document.getElementById("head"), app)];
for (const [name, mount] of Object.entries(STAGE)) {
  const section = h(`section.part.part-${name}`);
  document.getElementById("stage").append(section);
  parts.push(mount(section, app));
}
parts.push(mountPanels(document.getElementById("inside"), app));

function update(changed) {
  if (changed.has("theme")) colour();
  if (changed.has("language")) {
    root.lang = app.state.language;
    document.title = app.t("page.title");
    translate(app);
  }
  for (const part of parts) part.update(changed);
}

app.on(update);
dark.addEventListener("change", () => app.notify("theme"));
update(new Changes());
document.body.dataset.ready = "true";
