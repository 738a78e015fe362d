/** The panels that look inside the model: one is shown, and only that one computes. */

import { Changes } from "./app.js";
import { arrows, h, translate } from "./dom.js";

const NAMES = [
  "tree", "chat", "attention", "lens", "surprise", "training", "compare", "document", "cache", "code",
];

/** Show the tabs and the panel of the state's `tab`. */
export function mount(root, app) {
  const tabs = NAMES.map((name) =>
    h("button", {
      role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, "aria-selected": "false",
      tabindex: -1, t: `tab.${name}`, onclick: () => app.set({ tab: name }),
    }));
  const strip = h("div.tabs", { role: "tablist", named: "page.inside" }, tabs);
  const panels = NAMES.map((name) =>
    h(`div.panel.panel-${name}`, {
      role: "tabpanel", id: `panel-${name}`, tabindex: 0, "aria-labelledby": `tab-${name}`, hidden: true,
    }));
  root.append(h("h2.visually-hidden", { t: "page.inside" }), strip, ...panels);
  arrows(strip);
  const parts = new Map(); // name -> a promise of the mounted part
  const missed = new Map(); // name -> what has changed while another panel was shown
  const present = () => (NAMES.includes(app.state.tab) ? app.state.tab : NAMES[0]);

  return {
    async update(changed) {
      const shown = present();
      NAMES.forEach((name, i) => {
        missed.set(name, new Changes([...(missed.get(name) ?? []), ...changed]));
        const isShown = name === shown;
        if (panels[i].hidden === !isShown) return;
        tabs[i].setAttribute("aria-selected", isShown);
        tabs[i].tabIndex = isShown ? 0 : -1;
        panels[i].hidden = !isShown;
      });
      const panel = panels[NAMES.indexOf(shown)];
      if (!parts.has(shown)) {
        parts.set(shown, import(`./parts/${shown}.js`).then(({ mount }) => {
          const part = mount(panel, app);
          translate(app, panel);
          return part;
        }));
        missed.set(shown, new Changes());
      }
      const part = await parts.get(shown);
      if (present() !== shown) return;
      const changes = missed.get(shown);
      missed.set(shown, new Changes([]));
      part.update(changes);
    },
  };
}
