/** The layers panel: what is drawn, in which colour, how much of it. */

import { byId, make } from "./dom.js";
import { areaText } from "./scale.js";

/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {import("./api.js").LayerClass} LayerClass */

const KINDS = { truth: "ground truth", annotation: "annotation", prediction: "prediction" };

export class LayersPanel {
  /** @param {import("./overlay.js").Overlay} overlay */
  constructor(overlay) {
    this.overlay = overlay;
    this.root = byId("layers");
    /** @type {Map<string, HTMLElement>} state line by layer id */
    this.states = new Map();
    this.build();
    overlay.addEventListener("change", () => this.update());
    this.update();
  }

  build() {
    const layers = [...this.overlay.layers.values()].map((entry) => entry.layer);
    const empty = make("p", { class: "quiet", text: "This slide has no layers. Import one with: ocular import" });
    this.root.replaceChildren(
      make("h2", { text: "Layers" }),
      ...(layers.length ? [this.opacitySlider(), ...layers.map((layer) => this.layerSection(layer))] : [empty]),
    );
  }

  opacitySlider() {
    this.slider = /** @type {any} */ (make("input", {
      type: "range", min: "0", max: "100", step: "5", id: "opacity",
      oninput: () => this.overlay.setOpacity(Number(this.slider.value) / 100),
    }));
    this.opacityText = make("output", { for: "opacity" });
    return make("div", { class: "opacity" }, [make("label", { for: "opacity", text: "Opacity" }), this.slider, this.opacityText]);
  }

  /** @param {Layer} layer */
  layerSection(layer) {
    const state = make("p", { class: "quiet layer-state", role: "status" });
    this.states.set(layer.id, state);
    const box = checkbox((shown) => this.overlay.showLayer(layer.id, shown), { "data-layer": layer.id });
    return make("section", { class: "layer" }, [
      make("h3", {}, [make("label", {}, [box, make("span", { class: "layer-name", text: layer.name })])]),
      make("p", { class: "quiet", text: `${KINDS[layer.kind] ?? layer.kind} · ${plural(layer.count, "feature")}` }),
      state,
      make("ul", { class: "classes", "aria-label": `Classes of ${layer.name}` }, layer.classes.map((each) => this.classRow(layer, each))),
    ]);
  }

  /** @param {Layer} layer @param {LayerClass} each */
  classRow(layer, each) {
    const attributes = { "data-layer": layer.id, "data-class": each.name };
    const box = checkbox((shown) => this.overlay.showClass(layer.id, each.name, shown), attributes);
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = each.color;
    const area = each.area_um2 ? areaText(each.area_um2) : "";
    return make("li", {}, [
      make("label", {}, [box, swatch, make("span", { class: "class-name", text: each.name })]),
      make("span", { class: "class-numbers", text: each.count.toLocaleString("en"), title: area && `${area} in all` }),
    ]);
  }

  /** Bring every control in line with the overlay, which may have been changed by the address or a key. */
  update() {
    for (const box of this.root.querySelectorAll("input[data-layer]")) {
      const entry = this.entry(box.dataset.layer);
      box.checked = box.dataset.class === undefined ? entry.shown : !entry.hidden.has(box.dataset.class);
      if (box.dataset.class !== undefined) box.disabled = !entry.shown;
    }
    for (const [id, line] of this.states) this.updateState(id, line);
    if (this.slider === undefined || this.opacityText === undefined) return;
    this.slider.value = String(Math.round(this.overlay.opacity * 100));
    this.opacityText.textContent = `${this.slider.value} %`;
  }

  /** What the overlay knows of a layer of this panel. @param {string} id @returns {any} */
  entry(id) {
    return this.overlay.layers.get(id);
  }

  /** @param {string} id @param {HTMLElement} line */
  updateState(id, line) {
    const { features, shown } = this.entry(id);
    const cut = `The ${features.shapes.length.toLocaleString("en")} largest of ${features.total.toLocaleString("en")} here; zoom in for all.`;
    line.textContent = !shown ? "" : features.error ? `Not loaded: ${features.error} Trying again.` : features.truncated ? cut : "";
    line.classList.toggle("warning", line.textContent !== "");
  }
}

/** @param {(checked: boolean) => void} changed @param {Record<string, string>} attributes */
function checkbox(changed, attributes) {
  return make("input", { type: "checkbox", ...attributes, onchange: (event) => changed(/** @type {any} */ (event.target).checked) });
}

/** @param {number} count @param {string} noun */
function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
