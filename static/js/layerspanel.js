/** The layers panel: what is drawn, how, and how much of it; by truth, annotations, and predictions of each model. */

import { button, percentSlider, write } from "./controls.js";
import { byId, make } from "./dom.js";
import { groupLayers } from "./layerfacts.js";
import { LayerSection } from "./layersection.js";

/** @typedef {import("./api.js").Layer} Layer */

/** Layers and classes up to which every layer starts unfolded. */
const FEW_LAYERS = 3;
const FEW_CLASSES = 12;
/** Counting what is in view may take this share of the time, so that a moving slider stays smooth. */
const COUNT_SHARE = 0.2;

export class LayersPanel {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay
   * @param {import("./totals.js").Totals} totals @param {(words: string) => void} say tells the user what happened */
  constructor(stage, overlay, totals, say) {
    this.stage = stage;
    this.overlay = overlay;
    this.totals = totals;
    this.say = say;
    this.root = byId("layers");
    /** @type {Map<string, LayerSection>} by layer id */
    this.sections = new Map();
    /** @type {Map<string, {root: HTMLElement, title: HTMLElement}>} by key of the group */
    this.groups = new Map();
    this.cost = 0;
    this.build();
    for (const each of [overlay, totals]) each.addEventListener("change", () => this.update());
    for (const name of ["rest", "move"]) stage.addEventListener(name, () => this.countSoon());
    this.update();
  }

  build() {
    this.hideAll = button("Hide all", () => this.toggleAll(), { "aria-keyshortcuts": "H", title: "Hide or show all layers (H)" });
    this.opacity = percentSlider({
      label: "Opacity", hideLabel: "Opacity of all layers", id: "opacity", changed: (value) => this.overlay.setOpacity(value),
    });
    this.empty = make("p", { class: "quiet" }, [
      "This slide has no layers yet. Predict one (J), or import a file with ", make("code", { text: "ocular import" }), ".",
    ]);
    this.list = make("div", { class: "groups" });
    byId("layers-tools").append(this.hideAll);
    byId("layers-body").append(this.opacity.root, this.empty, this.list);
  }

  /** Hide all layers, or show them all when none is shown. */
  toggleAll() {
    const anyShown = this.anyShown();
    for (const id of this.overlay.layers.keys()) this.overlay.showLayer(id, !anyShown);
  }

  anyShown() {
    return [...this.overlay.layers.values()].some((view) => view.shown);
  }

  /** Bring everything in line with the overlay, which may have been changed by the address, a key or a finished job. */
  update() {
    const ids = [...this.overlay.layers.keys()].join(" ");
    if (ids !== this.shownIds) {
      this.shownIds = ids;
      this.arrange();
    }
    if (this.root.hidden) return;
    const { size } = this.overlay.layers;
    this.empty.hidden = size > 0;
    this.hideAll.hidden = size === 0;
    write(this.hideAll, this.anyShown() ? "Hide all" : "Show all");
    // One layer has its own slider; a second one for the same thing would only puzzle.
    this.opacity.root.hidden = size < 2;
    this.opacity.show(this.overlay.opacity);
    for (const section of this.sections.values()) section.update();
    this.countSoon();
  }

  /** Call when the panel was opened or closed: while it is closed it does nothing. @param {boolean} open */
  shown(open) {
    if (open) this.update();
  }

  /** Add and remove sections so that they are those of the overlay; those that stay are not touched, so focus stays. */
  arrange() {
    const layers = [...this.overlay.layers.values()].map((view) => view.layer);
    for (const [id, section] of this.sections) {
      if (!this.overlay.layers.has(id)) this.drop(id, section);
    }
    const few = layers.length <= FEW_LAYERS && layers.every((layer) => layer.classes.length <= FEW_CLASSES);
    const first = this.sections.size === 0;
    const groups = groupLayers(layers);
    for (const group of groups) {
      const at = this.group(group.key, group.title);
      place(this.list, groups.map((each) => this.groups.get(each.key)?.root), at.root);
      for (const layer of group.layers) this.section(layer, few || !first);
      const order = group.layers.map((layer) => this.sections.get(layer.id)?.root);
      for (const root of order) place(at.root, [at.title, ...order], root);
    }
    for (const [key, { root }] of this.groups) {
      if (groups.some((each) => each.key === key)) continue;
      root.remove();
      this.groups.delete(key);
    }
  }

  /** @param {string} key @param {string} title */
  group(key, title) {
    const known = this.groups.get(key);
    if (known !== undefined) return known;
    const head = make("h3", { class: "group-title", text: title });
    const made = { root: make("section", { class: "group" }, [head]), title: head };
    this.groups.set(key, made);
    return made;
  }

  /** @param {Layer} layer @param {boolean} open */
  section(layer, open) {
    if (this.sections.has(layer.id)) return;
    this.sections.set(layer.id, new LayerSection(this.overlay, layer, {
      slideId: this.stage.card.id, mpp: this.stage.card.base.mpp, totals: this.totals, open,
      removed: (each) => this.removed(each), toggled: () => this.update(),
    }));
  }

  /** @param {string} id @param {LayerSection} section */
  drop(id, section) {
    if (section.root.contains(document.activeElement)) byId("layers-title").focus();
    section.root.remove();
    this.sections.delete(id);
  }

  /** A layer was deleted on the server. @param {Layer} layer */
  removed(layer) {
    this.overlay.removeLayer(layer.id);
    this.update();
    this.say(`${layer.name} was deleted.`);
  }

  /** Count what is in view, in the next frame or, where that takes long, when there is time. */
  countSoon() {
    if (this.root.hidden || this.counting !== undefined) return;
    this.counting = setTimeout(() => requestAnimationFrame(() => this.count()), this.cost / COUNT_SHARE);
  }

  count() {
    this.counting = undefined;
    const began = performance.now();
    for (const section of this.sections.values()) if (this.overlay.layers.has(section.layer.id)) section.updateNumbers();
    this.cost = performance.now() - began;
  }
}

/**
 * Put `child` into `parent` at its place in `order`; what is there already is not moved, since moving drops the focus.
 * @param {Element} parent @param {(Element | undefined)[]} order @param {Element | undefined} child
 */
function place(parent, order, child) {
  if (child === undefined) return;
  const before = order.slice(0, order.indexOf(child)).reverse().find((each) => each?.parentElement === parent);
  const next = before ? before.nextElementSibling : parent.firstElementChild;
  if (next !== child) parent.insertBefore(child, next);
}
