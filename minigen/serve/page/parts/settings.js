/** The settings of the draw: the sliders are the flags of sample.py. */

import { fits } from "../address.js";
import { h, say } from "../dom.js";
import { heading } from "../heading.js";
import { DEFAULTS, PLAIN } from "../sampling.js";

// Of each slider: the least and greatest value, and the step. A number box takes any other value.
const SLIDERS = {
  temperature: [0, 2, 0.05], top_k: [0, 100, 1], top_p: [0.05, 1, 0.01], min_p: [0, 0.5, 0.01],
  repetition_penalty: [0.8, 2, 0.05],
};

/** Show a slider and a number box for each setting, and for the random numbers. */
export function mount(root, app) {
  const title = heading(app, "settings.title", () => "filter_steps");
  const grid = h("div", { class: "settings" });
  const rows = Object.entries(SLIDERS).map(([name, range]) => row(name, range, app));
  grid.append(...rows.map(({ element }) => element));
  const numbers = ["seed", "sample"].map((name) => {
    const label = h("span", {});
    const box = h("input", { type: "number", id: `settings-${name}`, min: 0, step: 1 });
    box.addEventListener("change", () => {
      if (/^\d{1,15}$/.test(box.value)) app.set({ [name]: Number(box.value) });
      else box.value = app.state[name];
    });
    return { name, label, box, element: h("label", { class: "field", for: box.id }, label, box) };
  });
  const usual = h("button", { type: "button", onclick: () => app.set({ settings: { ...DEFAULTS } }) });
  const plain = h("button", { type: "button", onclick: () => app.set({ settings: { ...PLAIN } }) });
  const last = h("div", { class: "row" }, ...numbers.map(({ element }) => element), usual, plain);
  root.append(title.element, grid, last);

  return {
    update(changed) {
      if (changed.has("language")) {
        title.update();
        say(usual, app.t("settings.usual"));
        say(plain, app.t("settings.plain"));
        for (const { name, label } of numbers) say(label, app.t(`settings.${name}`));
      }
      if (!["settings", "prediction", "language"].some((name) => changed.has(name))) return;
      for (const each of rows) each.update();
      for (const { name, box } of numbers) {
        if (document.activeElement !== box) box.value = app.state[name];
      }
    },
  };
}

/** Return the row of one setting: {element, update}. */
function row(name, [min, max, step], app) {
  const label = h("span", { class: "setting-name" });
  const slider = h("input", { type: "range", min, max, step });
  const box = h("input", { type: "number", step: "any", id: `settings-${name}` });
  const set = (value) => {
    if (fits(name, value)) app.set({ settings: { ...app.state.settings, [name]: value } });
  };
  const isOff = (value) => name === "top_k" && (value === "" || Number(value) === 0);
  slider.addEventListener("input", () => set(isOff(slider.value) ? null : Number(slider.value)));
  box.addEventListener("input", () => set(isOff(box.value) ? null : Number(box.value)));
  box.addEventListener("blur", update);

  function update() {
    const value = app.state.settings[name];
    const words = app.t(`settings.${name}`);
    say(label, words);
    slider.setAttribute("aria-label", app.t("settings.slider", { name: words }));
    if (document.activeElement !== slider) slider.value = value ?? 0;
    slider.setAttribute("aria-valuetext", value === null ? app.t("settings.off") : value);
    if (document.activeElement !== box) {
      box.value = value ?? "";
      box.placeholder = app.t("settings.off");
    }
  }

  const element = h("div", { class: "setting" }, h("label", { for: box.id }, label), slider, box);
  return { element, update };
}
