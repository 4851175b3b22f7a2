/** Controls that the panels share: each keeps its elements, and `show` brings them to a value without firing. */

import { barsPath, histogramOf, stepOf } from "./classsums.js";
import { make } from "./dom.js";

let made = 0;

/** An id that no other element has. @param {string} word */
export function freshId(word) {
  made += 1;
  return `${word}-${made}`;
}

/** Set text only when it changed, to spare layout and screen readers. @param {HTMLElement} target @param {string} text */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** @param {(checked: boolean) => void} changed @param {Record<string, string | boolean>} [attributes] */
export function checkbox(changed, attributes = {}) {
  return /** @type {HTMLInputElement} */ (make("input", {
    type: "checkbox", ...attributes, onchange: (event) => changed(/** @type {any} */ (event.target).checked),
  }));
}

/** @param {string} text @param {() => void} pressed @param {Record<string, string | boolean>} [attributes] */
export function button(text, pressed, attributes = {}) {
  const options = { type: "button", class: "button small", text, onclick: pressed, ...attributes };
  return /** @type {HTMLButtonElement} */ (make("button", options));
}

/**
 * A share from 0 to 100 %.
 * @param {{label: string, hideLabel?: string, id?: string, changed: (value: number) => void}} options `hideLabel` is the
 * accessible name where the seen label is too short
 */
export function percentSlider({ label, hideLabel, id = freshId("percent"), changed }) {
  const slider = /** @type {HTMLInputElement} */ (make("input", {
    type: "range", min: "0", max: "100", step: "5", id, oninput: () => changed(Number(slider.value) / 100),
    ...(hideLabel && { "aria-label": hideLabel }),
  }));
  const text = make("output", { for: id });
  return {
    root: make("div", { class: "slider" }, [make("label", { for: id, text: label }), slider, text]),
    show(/** @type {number} */ value) {
      const percent = String(Math.round(value * 100));
      if (slider.value !== percent) slider.value = percent;
      write(text, `${percent} %`);
    },
  };
}

/**
 * One of a few words, side by side.
 * @param {{label: string, options: {value: string, text: string, title?: string}[], changed: (value: string) => void}} options
 */
export function segments({ label, options, changed }) {
  const name = freshId("segments");
  const radios = options.map(({ value }) => /** @type {HTMLInputElement} */ (make("input", {
    type: "radio", name, value, class: "visually-hidden", onchange: () => changed(value),
  })));
  const items = options.map(({ text, title }, at) => make("label", { class: "segment", ...(title && { title }) }, [
    radios[at], make("span", { text }),
  ]));
  return {
    root: make("div", { class: "segments", role: "radiogroup", "aria-label": label }, items),
    radios,
    show(/** @type {string | null} */ value) {
      for (const radio of radios) radio.checked = radio.value === value;
    },
  };
}

/**
 * A score threshold: slider over the scores' histogram, and a field of two decimals.
 * @param {{of: string, changed: (threshold: number) => void}} options `of`: the name of the layer
 */
export function thresholdControl({ of, changed }) {
  const id = freshId("threshold");
  const slider = /** @type {HTMLInputElement} */ (make("input", {
    type: "range", min: "0", max: "100", step: "1", "aria-label": `Score threshold of ${of}`,
    oninput: () => changed(Number(slider.value) / 100),
  }));
  const field = /** @type {HTMLInputElement} */ (make("input", {
    type: "number", id, class: "threshold-field", min: "0", max: "1", step: "0.01", inputmode: "decimal",
    oninput: () => field.validity.valid && field.value !== "" && changed(Number(field.value)),
    onchange: () => (field.value = (Number(slider.value) / 100).toFixed(2)),
  }));
  const bars = scoreBars();
  return {
    root: make("div", { class: "threshold" }, [
      make("label", { for: id, text: "Score ≥" }), make("div", { class: "threshold-track" }, [bars.root, slider]), field,
    ]),
    /** @param {Map<string, import("./classsums.js").Tally> | null} tallies @param {number} threshold
     * @param {(name: string) => boolean} wanted classes counted */
    showBars(tallies, threshold, wanted) {
      if (tallies === null) return;
      const counts = histogramOf(tallies, wanted);
      const cut = stepOf(threshold);
      bars.show(barsPath(counts, 0, cut), barsPath(counts, cut, counts.length));
    },
    show(/** @type {number} */ threshold) {
      const step = String(Math.round(threshold * 100));
      if (slider.value !== step) slider.value = step;
      slider.setAttribute("aria-valuetext", threshold.toFixed(2));
      // A field that is being typed in keeps what is typed.
      const text = threshold.toFixed(2);
      if (document.activeElement !== field || Number(field.value) !== Number(text)) field.value = text;
    },
  };
}

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} tag @param {Record<string, string>} [attributes] @param {Element[]} [children] */
export function makeSvg(tag, attributes = {}, children = []) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** How many features have which score, those below the threshold faint. Decoration: the counts say it in numbers. */
function scoreBars() {
  const [dropped, kept] = ["bars-dropped", "bars-kept"].map((name) => makeSvg("path", { class: name }));
  const frame = { class: "bars", viewBox: "0 0 101 1", preserveAspectRatio: "none", "aria-hidden": "true" };
  const root = makeSvg("svg", frame, [dropped, kept]);
  return {
    root,
    /** @param {string} below `d` of the bars under the threshold @param {string} above of the others */
    show(below, above) {
      if (dropped.getAttribute("d") !== below) dropped.setAttribute("d", below);
      if (kept.getAttribute("d") !== above) kept.setAttribute("d", above);
    },
  };
}

/**
 * A button that opens a part below it.
 * @param {string} text @param {HTMLElement} part hidden or not, as it is to begin
 * @param {(open: boolean) => void} [toggled] @param {Record<string, string>} [attributes]
 */
export function opener(text, part, toggled = () => {}, attributes = {}) {
  part.id ||= freshId("part");
  const expanded = { "aria-expanded": String(!part.hidden), "aria-controls": part.id };
  const root = button(text, () => set(part.hidden), { ...expanded, ...attributes });
  /** @param {boolean} open */
  function set(open) {
    if (part.hidden === !open) return;
    part.hidden = !open;
    root.setAttribute("aria-expanded", String(open));
    toggled(open);
  }
  return { root, part, set };
}
