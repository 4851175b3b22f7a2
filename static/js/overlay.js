/** The canvas above the slide: layers of features, the marked one, tile frames. Nothing per object in the document. */

import { apply, compose, invert, viewMatrix } from "./geometry.js";
import { Features } from "./features.js";
import { begin, paintFrames, paintMarked, paintShapes } from "./paint.js";
import { shapeAt } from "./shapes.js";

/** @typedef {import("./shapes.js").Shape} Shape */
/** @typedef {import("./api.js").Layer} Layer */

/** Reach of the pointer around lines and points, CSS pixels. */
const REACH = 5;
/** A drawing that takes longer, in milliseconds, is carried along with the moving slide and renewed in between. */
const CHEAP_MS = 8;
/** Share of the time that costly drawings may take while the slide moves. */
const SHARE = 0.25;

/** Fires `change` when layers, classes, opacity or features changed. */
export class Overlay extends EventTarget {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    super();
    this.stage = stage;
    this.opacity = 0.6;
    this.frames = false;
    /** @type {Map<string, {layer: Layer, features: Features, shown: boolean, hidden: Set<string>}>} by layer id */
    this.layers = new Map();
    /** @type {Shape | null} */
    this.marked = null;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "overlay";
    stage.viewer.canvas.append(this.canvas);
    for (const layer of stage.card.layers) this.addLayer(layer);
    this.cost = 0;
    this.paintedAt = 0;
    /** @type {import("./geometry.js").View | null} */
    this.painted = null;
    stage.addEventListener("frame", () => this.follow());
    stage.addEventListener("move", () => this.fetch());
  }

  /** @param {Layer} layer */
  addLayer(layer) {
    const features = new Features(this.stage.card.id, layer, this.stage.card.base);
    features.addEventListener("change", () => this.changed());
    this.layers.set(layer.id, { layer, features, shown: true, hidden: new Set() });
  }

  /** @param {string} id @param {boolean} shown */
  showLayer(id, shown) {
    const entry = this.layers.get(id);
    if (entry === undefined) return;
    entry.shown = shown;
    if (!shown) entry.features.rest();
    this.fetch();
    this.changed();
  }

  /** @param {string} id @param {string} name @param {boolean} shown */
  showClass(id, name, shown) {
    this.layers.get(id)?.hidden[shown ? "delete" : "add"](name);
    this.changed();
  }

  /** @param {number} opacity 0 to 1 */
  setOpacity(opacity) {
    this.opacity = opacity;
    this.changed();
  }

  /** @param {boolean} frames */
  setFrames(frames) {
    this.frames = frames;
    this.draw();
  }

  /** @param {Shape | null} shape */
  mark(shape) {
    if (shape === this.marked) return;
    this.marked = shape;
    this.draw();
  }

  /** Fetch what the view is heading for. */
  fetch() {
    const view = this.stage.view(false);
    for (const { features, shown } of this.layers.values()) if (shown) features.need(view);
  }

  changed() {
    this.draw();
    this.dispatchEvent(new Event("change"));
  }

  /** Keep up with the slide: in the same frame either redrawn, or the last drawing moved to its place. */
  follow() {
    const view = this.stage.view();
    const same = this.painted !== null && Object.entries(view).every(([key, value]) => this.painted?.[key] === value);
    if (same && !this.frames) return;
    const now = performance.now();
    if (this.painted === null || this.cost < CHEAP_MS || (now - this.paintedAt) * SHARE > this.cost) {
      this.draw();
      return;
    }
    const moved = compose(viewMatrix(view), invert(viewMatrix(this.painted)));
    this.canvas.style.transform = `matrix(${moved.join(",")})`;
    clearTimeout(this.later);
    this.later = setTimeout(() => this.draw(), this.cost / SHARE);
  }

  draw() {
    clearTimeout(this.later);
    const view = this.stage.view();
    const began = performance.now();
    const context = begin(this.canvas, view, devicePixelRatio);
    this.paint(context, view);
    this.canvas.style.transform = "";
    this.painted = view;
    this.paintedAt = performance.now();
    this.cost = this.paintedAt - began;
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./geometry.js").View} view */
  paint(context, view) {
    for (const { layer, features, shown, hidden } of this.layers.values()) {
      if (!shown) continue;
      for (const [name, shapes] of byClass(features.shapes)) {
        if (!hidden.has(name)) paintShapes(context, view, shapes, colorOf(layer, name), this.opacity);
      }
    }
    if (this.marked !== null) paintMarked(context, view, this.marked);
    if (this.frames) paintFrames(context, view, this.stage.drawn.values());
  }

  /** The feature under a place of the stage. @param {number} screenX CSS pixels @param {number} screenY
   * @returns {{shape: Shape, layer: Layer} | null} */
  at(screenX, screenY) {
    const view = this.stage.view();
    const [x, y] = apply(invert(viewMatrix(view)), screenX, screenY);
    let best = null;
    for (const { layer, features, shown, hidden } of this.layers.values()) {
      if (!shown) continue;
      const shape = shapeAt(features.shapes.filter((each) => !hidden.has(each.className)), x, y, REACH / view.scale);
      if (shape !== null && (best === null || shape.area < best.shape.area)) best = { shape, layer };
    }
    return best;
  }
}

/** @type {WeakMap<Shape[], Map<string, Shape[]>>} */
const grouped = new WeakMap();

/** Shapes by class, in order of first appearance; remembered, since every frame asks. @param {Shape[]} shapes */
function byClass(shapes) {
  let groups = grouped.get(shapes);
  if (groups === undefined) {
    groups = Map.groupBy(shapes, (shape) => shape.className);
    grouped.set(shapes, groups);
  }
  return groups;
}

/** @param {Layer} layer @param {string} className */
export function colorOf(layer, className) {
  return layer.classes.find((each) => each.name === className)?.color ?? "#c0c4c8";
}
