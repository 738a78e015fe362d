/** The settings of the draw: the sliders are the flags of sample.py. */

import { fits } from "../address.js";
import { h } from "../dom.js";
import { heading } from "../heading.js";
import { DEFAULTS, PLAIN } from "../sampling.js";

// Of each slider: the least and greatest value, and the step. A number box takes any other value.
const SLIDERS = {
  temperature: [0, 2, 0.05], top_k: [0, 100, 1], top_p: [0.05, 1, 0.01], min_p: [0, 0.5, 0.01],
  repetition_penalty: [0.8, 2, 0.05],
};

/** Show a slider and a number box for each setting, and for the random numbers. */
export function mount(root, app) {
  const rows = Object.entries(SLIDERS).map(([name, range]) => row(name, range, app));
  const boxes = ["seed", "sample"].map((name) => {
    const box = h("input", { type: "number", id: `settings-${name}`, min: 0, step: 1, onchange: () => {
      if (/^\d{1,15}$/.test(box.value)) app.set({ [name]: Number(box.value) });
      else box.value = app.state[name];
    } });
    return { name, box, field: h("label.field", { for: box.id }, h("span", { t: `settings.${name}` }), box) };
  });
  const reset = (key, settings) =>
    h("button", { t: `settings.${key}`, onclick: () => app.set({ settings: { ...settings } }) });
  root.append(
    heading(app, "settings.title", "filter_steps").element,
    h("div.settings", rows.map(({ element }) => element)),
    h("div.row", boxes.map(({ field }) => field), reset("usual", DEFAULTS), reset("plain", PLAIN)),
  );

  return {
    update(changed) {
      if (!changed.has("settings", "prediction", "language")) return;
      for (const each of rows) each.update();
      for (const { name, box } of boxes) {
        if (document.activeElement !== box) box.value = app.state[name];
      }
    },
  };
}

/** Return the row of one setting: {element, update}. */
function row(name, [min, max, step], app) {
  const set = ({ target: { value } }) => {
    const isOff = name === "top_k" && Number(value) === 0;
    const wanted = isOff ? null : Number(value);
    if (fits(name, wanted)) app.set({ settings: { ...app.state.settings, [name]: wanted } });
  };
  const slider = h("input", { type: "range", min, max, step, oninput: set });
  const box = h("input", { type: "number", step: "any", id: `settings-${name}`, oninput: set, onblur: update });

  function update() {
    const value = app.state.settings[name];
    const off = app.t("settings.off");
    slider.setAttribute("aria-label", app.t("settings.slider", { name: app.t(`settings.${name}`) }));
    if (document.activeElement !== slider) slider.value = value ?? 0;
    slider.setAttribute("aria-valuetext", value ?? off);
    if (document.activeElement === box) return;
    box.value = value ?? "";
    box.placeholder = off;
  }

  const label = h("label", { for: box.id }, h("span", { t: `settings.${name}` }));
  return { element: h("div.setting", label, slider, box), update };
}
