/** One layer in the panel: switch, threshold, style, opacity, classes, and what lies behind About, Export and Delete. */

import { sumsAt, together } from "./classsums.js";
import { ClassTable } from "./classtable.js";
import { button, checkbox, freshId, opener, percentSlider, segments, thresholdControl, write } from "./controls.js";
import { make } from "./dom.js";
import { countText, plural } from "./format.js";
import { runText } from "./layerfacts.js";
import { aboutPart, deletePart, ExportPart } from "./layerparts.js";
import { TrustLegend, trustOf } from "./trust.js";

/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {import("./classsums.js").Sum} Sum */

/** Colours shown in the head of a layer. */
const LEGEND = 8;

export class LayerSection {
  /**
   * @param {import("./overlay.js").Overlay} overlay @param {Layer} layer
   * @param {{slideId: string, mpp: number | null, totals: import("./totals.js").Totals, open: boolean,
   *   removed: (layer: Layer) => void, toggled: () => void}} options
   */
  constructor(overlay, layer, options) {
    this.overlay = overlay;
    this.layer = layer;
    this.options = options;
    this.box = checkbox((shown) => overlay.showLayer(layer.id, shown), { "data-layer": layer.id });
    const swatches = layer.classes.slice(0, LEGEND).map(() => make("span", { class: "swatch" }));
    this.legend = make("span", { class: "legend", "aria-hidden": "true" }, swatches);
    [this.run, this.count] = [make("span", { class: "run" }), make("span", { class: "count-all" })];
    this.facts = make("p", { class: "quiet layer-facts" }, [this.run, this.count]);
    this.state = make("p", { class: "warning layer-state", role: "status" });
    const told = trustOf(layer);
    this.table = told ? new TrustLegend(overlay, layer, told) : new ClassTable(overlay, layer, options.mpp);
    const parts = told ? [this.table.root, ...this.controls()] : [...this.controls(), this.table.root];
    this.body = make("div", { class: "layer-body", hidden: !options.open }, parts);
    this.fold = opener("", this.body, options.toggled, { class: "button small fold", "aria-label": `Details of ${layer.name}` });
    const name = make("span", { class: "layer-name", text: layer.name });
    this.root = make("section", { class: "layer", "aria-labelledby": (name.id = freshId("layer")) }, [
      make("div", { class: "layer-head" }, [
        make("h4", {}, [make("label", {}, [this.box, name])]), this.legend, this.fold.root,
      ]),
      this.facts, this.state, this.body,
    ]);
  }

  /** Sums by class and score; null until they are known. */
  get tallies() {
    return this.options.totals.of(this.layer.id);
  }

  get isOpen() {
    return !this.body.hidden;
  }

  /** What the overlay knows of the layer. @returns {any} */
  get view() {
    return this.overlay.layers.get(this.layer.id);
  }

  controls() {
    const { overlay, layer } = this;
    const setThreshold = (/** @type {number} */ value) => overlay.setThreshold(layer.id, value);
    // The bands of a trust map are its thresholds.
    this.threshold = layer.scored && !trustOf(layer) ? thresholdControl({ of: layer.name, changed: setThreshold }) : null;
    this.style = segments({
      label: `Drawing of ${layer.name}`,
      options: [{ value: "outline", text: "Outline" }, { value: "fill", text: "Fill" }, { value: "both", text: "Both" }],
      changed: (value) => overlay.setStyle(layer.id, /** @type {any} */ (value)),
    });
    this.opacity = percentSlider({
      label: "Opacity", hideLabel: `Opacity of ${layer.name}`, changed: (value) => overlay.setLayerOpacity(layer.id, value),
    });
    return [
      ...(this.threshold ? [this.threshold.root] : []),
      make("div", { class: "layer-look" }, [this.style.root, this.opacity.root]),
      ...this.drawers(),
    ];
  }

  /** Buttons and the parts they open, one at a time. */
  drawers() {
    const { layer, options } = this;
    this.exports = new ExportPart(options.slideId, this.overlay, layer);
    const parts = [
      opener("About", aboutPart(layer, options.mpp), (open) => open && this.close(0)),
      opener("Export", this.exports.root, (open) => open && (this.exports.update(this.kept()), this.close(1))),
    ];
    if (layer.kind === "prediction") {
      const shut = () => { parts[2].set(false); parts[2].root.focus(); };
      const part = deletePart(options.slideId, layer, () => options.removed(layer), shut);
      parts.push(opener("Delete", part, (open) => open && this.close(2)));
    }
    this.parts = parts;
    this.recolor = button("Reset colours", () => this.resetColors(), { hidden: true });
    return [
      make("div", { class: "layer-actions" }, [...parts.map((each) => each.root), this.recolor]),
      ...parts.map((each) => each.part),
    ];
  }

  /** Close the parts but one. @param {number} but */
  close(but) {
    this.parts.forEach((each, at) => at !== but && each.set(false));
  }

  resetColors() {
    for (const { name } of this.layer.classes) this.overlay.setClassColor(this.layer.id, name, null);
    this.fold.root.focus();
  }

  /** Features kept by threshold and classes, by class. @returns {Map<string, Sum>} */
  kept() {
    const { threshold, hidden } = this.view;
    return new Map([...this.sums(threshold)].filter(([name]) => !hidden.has(name)));
  }

  /** Sums of the slide by class; without the bins they are known only while no threshold is set.
   * @param {number} threshold @returns {Map<string, Sum>} areas in base-plane px² */
  sums(threshold) {
    if (this.tallies !== null) return sumsAt(this.tallies, threshold);
    if (threshold > 0) return new Map();
    const perPixel = (this.options.mpp ?? 1) ** 2;
    return new Map(this.layer.classes.map((each) => [each.name, { count: each.count, area: (each.area_um2 ?? 0) / perPixel }]));
  }

  /** Bring every control in line with the overlay, which may have been changed by the address or a key. */
  update() {
    const { shown, opacity, style, threshold, state } = this.view;
    this.box.checked = shown;
    this.root.classList.toggle("off", !shown);
    write(this.state, shown && state.error ? `Not loaded: ${state.error} Trying again.` : "");
    this.layer.classes.slice(0, LEGEND).forEach((each, at) => {
      /** @type {HTMLElement} */ (this.legend.children[at]).style.backgroundColor = this.overlay.colorOf(this.layer.id, each.name);
    });
    this.updateFacts();
    if (!this.isOpen) return;
    this.table.update();
    this.style.show(style);
    this.opacity.show(opacity);
    this.threshold?.show(threshold);
    this.showBars(threshold);
    this.recolor.hidden = this.layer.classes.every((each) => this.overlay.colorOf(this.layer.id, each.name) === each.color);
    if (!this.exports.root.hidden) this.exports.update(this.kept());
  }

  updateFacts() {
    const { threshold } = this.view;
    const { count } = this.layer;
    const words = runText(this.layer, this.options.mpp);
    write(this.run, words);
    this.facts.title = words;
    if (threshold === 0) return write(this.count, plural(count, "feature"));
    const kept = this.tallies === null ? "…" : countText(together(this.sums(threshold).values()).count);
    write(this.count, `${kept} of ${countText(count)}`);
  }

  /** @param {number} threshold */
  showBars(threshold) {
    const { hidden } = this.view;
    if (this.threshold) this.threshold.showBars(this.tallies, threshold, (name) => !hidden.has(name));
  }

  updateNumbers() {
    const { shown, threshold } = this.view;
    if (this.isOpen) this.table.updateNumbers(this.sums(threshold), shown ? this.overlay.visibleCounts(this.layer.id) : null);
  }
}
