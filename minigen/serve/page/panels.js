/** The panels that look inside the model: one is shown, and only that one computes. */

import { arrows, h, say } from "./dom.js";

const NAMES = [
  "tree", "attention", "lens", "surprise", "training", "compare", "document", "cache", "code",
];

/** Show the tabs and the panel of the state's `tab`. */
export function mount(root, app) {
  const title = h("h2", { class: "visually-hidden" });
  const tabs = NAMES.map((name) =>
    h("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
      "aria-selected": false, tabindex: -1,
      onclick: () => app.set({ tab: name }),
    }),
  );
  const strip = h("div", { role: "tablist", class: "tabs" }, tabs);
  const panels = NAMES.map((name) =>
    h("div", {
      role: "tabpanel", id: `panel-${name}`, class: `panel panel-${name}`, tabindex: 0,
      "aria-labelledby": `tab-${name}`, hidden: true,
    }),
  );
  root.append(title, strip, ...panels);
  arrows(strip, () => tabs);
  const parts = new Map(); // name -> a promise of the mounted part
  const missed = new Map(); // name -> what has changed while another panel was shown

  const present = () => (NAMES.includes(app.state.tab) ? app.state.tab : NAMES[0]);

  async function show(changed) {
    const shown = present();
    NAMES.forEach((name, i) => {
      missed.set(name, new Set([...(missed.get(name) ?? []), ...changed]));
      const isShown = name === shown;
      if (panels[i].hidden === !isShown) return;
      tabs[i].setAttribute("aria-selected", isShown);
      tabs[i].tabIndex = isShown ? 0 : -1;
      panels[i].hidden = !isShown;
    });
    const root = panels[NAMES.indexOf(shown)];
    if (!parts.has(shown)) {
      parts.set(shown, import(`./parts/${shown}.js`).then(({ mount }) => mount(root, app)));
      missed.set(shown, new Set(["model", "text", "prediction", "settings", "language", "theme"]));
    }
    const part = await parts.get(shown);
    if (present() !== shown) return;
    const changes = missed.get(shown);
    missed.set(shown, new Set());
    part.update(changes);
  }

  return {
    update(changed) {
      if (changed.has("language")) {
        say(title, app.t("inside"));
        strip.setAttribute("aria-label", app.t("inside"));
        NAMES.forEach((name, i) => say(tabs[i], app.t(`tab.${name}`)));
      }
      show(changed);
    },
  };
}
