/** The draw: a ruler from 0 to 1, cut by probability, and the random number that falls on it. */

import { context, h, property, say } from "../dom.js";
import { heading } from "../heading.js";

const HEIGHT = 30; // pixels of the ruler

/** Show the ruler, the number and the token that it hits. */
export function mount(root, app) {
  const canvas = h("canvas.ruler", { role: "img" });
  const result = h("p.draw-result");
  const number = h("p.hint");
  const button = (key, action) => h("button", { t: `draw.${key}`, onclick: action });
  const warm = (factor) => () => {
    const { settings } = app.state;
    const value = Math.round(100 * Math.max(0.05, settings.temperature) * factor) / 100;
    app.set({ settings: { ...settings, temperature: value } });
  };
  root.append(
    heading(app, "draw.title", "inverse_cdf").element, h("p.hint", { t: "draw.about" }), canvas, result,
    h("div.row", button("again", () => app.set({ sample: app.state.sample + 1 })),
      button("cooler", warm(1 / 1.5)), button("warmer", warm(1.5))),
    number,
  );
  new ResizeObserver(paint).observe(canvas);

  function paint() {
    const draw = app.draw();
    if (!draw || !canvas.isConnected) return;
    const { drawing, width } = context(canvas);
    const { final, token } = draw;
    const total = final.reduce((sum, p) => sum + p, 0);
    const [even, odd, accent, ink] = ["--ruler", "--ruler-2", "--accent", "--ink"].map(property);
    drawing.font = `12px ${property("--mono")}`;
    drawing.textBaseline = "middle";
    // Thousands of tokens that are narrower than a pixel are one stroke.
    let [from, n, hit, narrow] = [0, 0, null, null];
    const stroke = (end) => {
      if (narrow === null) return;
      drawing.fillStyle = odd;
      drawing.fillRect(narrow * width, 9, (end - narrow) * width, HEIGHT - 18);
      narrow = null;
    };
    for (let i = 0; i < final.length; i++) {
      if (final[i] === 0) continue;
      const share = final[i] / total;
      const [x, w] = [from * width, share * width];
      if (w < 1 && i !== token) {
        narrow ??= from;
        from += share;
        continue;
      }
      stroke(from);
      drawing.fillStyle = i === token ? accent : n++ % 2 ? odd : even;
      drawing.fillRect(x, 6, Math.max(w - 1, 0.2), HEIGHT - 12);
      if (i === token) hit = [from, from + share];
      from += share;
      const piece = w > 22 ? app.piece(i) : "";
      if (piece && drawing.measureText(piece).width < w - 6) {
        drawing.fillStyle = i === token ? property("--on-accent") : ink;
        drawing.fillText(piece, x + 4, HEIGHT / 2);
      }
    }
    stroke(from);
    drawing.fillStyle = ink;
    drawing.fillRect(Math.min(width - 2, app.prediction.u * width - 1), 0, 2, HEIGHT);
    const [u, low, high] = [app.prediction.u, ...hit].map((x) => app.number(x, 4));
    say(result, app.t("draw.result", {
      u, from: low, to: high, piece: app.piece(token), p: app.percent(hit[1] - hit[0]),
    }));
    canvas.setAttribute("aria-label", result.textContent);
    root.dataset.token = token;
    const { sample, seed } = app.state;
    const nth = app.prediction.ids.length - app.text.nPrompt;
    say(number, app.t("draw.number", { n: app.number(nth), sample, seed }));
  }

  return {
    update(changed) {
      if (changed.has("prediction", "settings", "language", "theme")) paint();
    },
  };
}
