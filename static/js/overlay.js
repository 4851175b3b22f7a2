/** What is drawn above the slide: layers of features, the marked one, tile frames. Nothing per object in the document. */

import { featureAt, NO_SCORE, ringsOf } from "./blocks.js";
import { CanvasPainter } from "./canvaspainter.js";
import { Comparison } from "./comparison.js";
import { apply, boxAround, boxesTouch, invert, viewMatrix, visibleCorners } from "./geometry.js";
import { GlSheet } from "./glsheet.js";
import { LayerView } from "./layerview.js";
import { stateLooks } from "./looks.js";
import { hasFastWebgl } from "./osd.js";
import { begin, paintFrames, paintMarked } from "./paint.js";
import { Sheet } from "./sheet.js";

/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {import("./geometry.js").View} View */
/** @typedef {import("./canvaspainter.js").Scene} Scene */

/** A feature under a pointer. @typedef {object} Found
 * @property {{number: number, className: string, score: number | null, area: number, name: string, uuid?: string,
 *   box: import("./geometry.js").Box}} feature area in base-plane px², box in base-plane pixels
 * @property {Layer} layer @property {"tp" | "fp" | "fn"} [state] in a comparison */

const STATE_NAMES = /** @type {const} */ ([undefined, "tp", "fp", "fn"]);

/** Fires `change` when layers, classes, colours, style, threshold, comparison or the data of the view changed. */
export class Overlay extends EventTarget {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    super();
    this.stage = stage;
    /** Opacity last set for all layers, 0 to 1. */
    this.opacity = 0.6;
    this.frames = false;
    /** @type {Map<string, LayerView>} by layer id, lowest first */
    this.layers = new Map();
    /** @type {Found | null} */
    this.marked = null;
    /** @type {Comparison | null} */
    this.comparison = null;
    this.sheet = this.makeSheet();
    this.marks = Object.assign(document.createElement("canvas"), { className: "overlay marks", hidden: true });
    stage.viewer.canvas.append(this.marks);
    for (const layer of stage.card.layers) this.addLayer(layer);
    stage.addEventListener("frame", () => this.follow());
    stage.addEventListener("move", () => this.fetch());
  }

  /** A sheet drawn by a graphics card where there is one, else by the processor. @param {boolean} [card] */
  makeSheet(card = hasFastWebgl()) {
    const parent = this.stage.viewer.canvas;
    const viewNow = () => this.stage.view();
    const sceneOf = (/** @type {View} */ view) => this.scene(view);
    const onCard = card ? GlSheet.make(parent, sceneOf, viewNow) : null;
    onCard?.canvas.addEventListener("webglcontextlost", () => this.loseCard(), { once: true });
    const sheet = onCard ?? new Sheet(parent, new CanvasPainter(), sceneOf, viewNow, () => this.stage.isMoving());
    sheet.addEventListener("drawn", () => this.report());
    return sheet;
  }

  /** Go on without the graphics card. */
  loseCard() {
    this.sheet.remove();
    this.sheet = this.makeSheet(false);
    this.stage.viewer.canvas.append(this.marks);
    this.changed();
  }

  // -- what is shown ---------------------------------------------------------------------------------------------

  /** @param {Layer} layer */
  addLayer(layer) {
    const view = new LayerView(this.stage.card.id, layer, this.stage.card.base);
    view.opacity = this.opacity;
    view.addEventListener("change", () => this.arrived());
    view.addEventListener("drop", (event) => this.sheet.forget(/** @type {any} */ (event).detail));
    this.layers.set(layer.id, view);
    this.fetch();
    this.changed();
  }

  /** @param {string} id */
  removeLayer(id) {
    const view = this.layers.get(id);
    if (view === undefined) return;
    this.layers.delete(id);
    view.close();
    if (this.marked?.layer.id === id) this.mark(null);
    if (this.comparison !== null && this.comparison.states(id) !== null) this.comparison = null;
    this.changed();
  }

  /** @param {string} id @param {boolean} shown */
  showLayer(id, shown) {
    this.change(id, (view) => (view.shown = shown));
    this.fetch();
  }

  /** @param {string} id @param {string} name of the class @param {boolean} shown */
  showClass(id, name, shown) {
    this.change(id, (view) => view.hidden[shown ? "delete" : "add"](name));
  }

  /** @param {string} id @param {string} name of the class @param {string | null} color `#rrggbb`; null: the layer's own */
  setClassColor(id, name, color) {
    this.change(id, (view) => (color === null ? view.colors.delete(name) : view.colors.set(name, color)));
  }

  /** @param {string} id @param {string} name of the class @returns {string} `#rrggbb` */
  colorOf(id, name) {
    return /** @type {LayerView} */ (this.layers.get(id)).colorOf(name);
  }

  /** @param {number} opacity of all layers, 0 to 1 */
  setOpacity(opacity) {
    this.opacity = opacity;
    for (const view of this.layers.values()) view.opacity = opacity;
    this.changed();
  }

  /** @param {string} id @param {number} opacity 0 to 1 */
  setLayerOpacity(id, opacity) {
    this.change(id, (view) => (view.opacity = opacity));
  }

  /** @param {string} id @param {import("./looks.js").Style} style */
  setStyle(id, style) {
    this.change(id, (view) => (view.style = style));
  }

  /** Leave out features with a lower score; those without one stay. @param {string} id
   * @param {number} threshold 0 to 1, in steps of 0.01 */
  setThreshold(id, threshold) {
    this.change(id, (view) => (view.threshold = Math.round(threshold * 100) / 100));
  }

  /** Colour two layers by what they agree on, or end that. @param {import("./comparison.js").Compared | null} compared */
  setComparison(compared) {
    const [truth, prediction] = [this.layers.get(compared?.truth ?? ""), this.layers.get(compared?.prediction ?? "")];
    this.comparison = compared && truth && prediction ? new Comparison(compared, truth, prediction) : null;
    this.changed();
  }

  /** @param {boolean} frames around tiles */
  setFrames(frames) {
    this.frames = frames;
    this.drawMarks();
  }

  /** Outline one feature; where its block is not at hand, its box. @param {Found | null} found */
  mark(found) {
    if (found === this.marked) return;
    this.marked = found;
    this.drawMarks();
  }

  /** @param {string} id @param {(view: LayerView) => void} apply */
  change(id, apply) {
    const view = this.layers.get(id);
    if (view === undefined) return;
    apply(view);
    this.changed();
  }

  changed() {
    this.sheet.renew();
    this.report();
    this.dispatchEvent(new Event("change"));
  }

  // -- data ------------------------------------------------------------------------------------------------------

  /** Fetch what the view is heading for. */
  fetch() {
    const view = this.stage.view(false);
    for (const layer of this.layers.values()) layer.need(view);
  }

  /** Data came: look whether it changes what is drawn, and say so, once a frame. */
  arrived() {
    this.arriving ??= requestAnimationFrame(() => {
      this.arriving = undefined;
      this.fetch();
      this.changed();
      if (this.marked !== null) this.drawMarks();
    });
  }

  // -- drawing ---------------------------------------------------------------------------------------------------

  follow() {
    this.sheet.follow();
    if (this.frames || this.marked !== null) this.drawMarks();
  }

  /** Say in the document whether all that is to be seen is drawn. */
  report() {
    const still = this.sheet.isSettled() && [...this.layers.values()].every((each) => !each.state.loading && !each.isFading);
    this.marks.dataset.drawn = String(still);
  }

  /** What to draw for a view. @param {View} view @returns {Scene} */
  scene(view) {
    /** @type {Scene} */
    const scene = { shapes: [], pictures: [] };
    const seen = boxAround(visibleCorners(view));
    let fading = false;
    // Layers of small features over those of large ones, as a click means the smaller, too.
    for (const [id, layer] of [...this.layers].sort((one, other) => other[1].meanSize - one[1].meanSize)) {
      if (!layer.shown) continue;
      layer.fade(view);
      fading ||= layer.isFading;
      const looks = layer.looks();
      const map = layer.mix < 1 ? layer.map(view, looks) : null;
      if (map !== null) scene.pictures.push({ ...map, alpha: 1 - layer.mix });
      const states = this.comparison?.states(id) ?? null;
      const shown = states === null ? looks : stateLooks(layer.opacity, id === this.comparison?.compared.truth);
      const faint = shown.map((look) => look && { ...look, fill: look.fill * layer.mix, line: look.line * layer.mix, dot: look.dot * layer.mix });
      if (layer.mix > 0) scene.shapes.push({ blocks: layer.data.blocks(seen), least: layer.least, looks: faint, states });
    }
    if (fading) requestAnimationFrame(() => this.sheet.renew());
    return scene;
  }

  drawMarks() {
    this.marks.hidden = this.marked === null && !this.frames;
    if (this.marks.hidden) return;
    const view = this.stage.view();
    const context = begin(this.marks, view, devicePixelRatio);
    if (this.marked !== null) paintMarked(context, view, this.ringsOf(this.marked));
    if (this.frames) paintFrames(context, view, this.stage.drawn.values());
  }

  /** @param {Found} found @returns {import("./geometry.js").Point[][]} */
  ringsOf({ feature, layer }) {
    const [left, top, right, bottom] = feature.box;
    for (const block of this.layers.get(layer.id)?.data.blocks(feature.box) ?? []) {
      const at = block.numbers.indexOf(feature.number);
      if (at >= 0) return ringsOf(block, at);
    }
    return [[[left, top], [right, top], [right, bottom], [left, bottom]]];
  }

  // -- asking ----------------------------------------------------------------------------------------------------

  /** The smallest feature under a place of the stage, of those drawn exactly. @param {number} screenX CSS pixels
   * @param {number} screenY @returns {Found | null} */
  at(screenX, screenY) {
    const view = this.stage.view();
    const [x, y] = apply(invert(viewMatrix(view)), screenX, screenY);
    /** @type {Found | null} */
    let best = null;
    for (const [id, layer] of this.layers) {
      if (!layer.shown || layer.mix < 0.5) continue;
      const states = this.comparison?.states(id) ?? null;
      const off = layer.classes.map((name) => layer.hidden.has(name));
      for (const { block, box } of layer.data.entries) {
        if (block === null || !boxesTouch(box, [x, y, x, y])) continue;
        const at = featureAt(block, x, y, (each) => block.scores[each] >= layer.least && !off[block.classes[each]]);
        if (at < 0 || (best !== null && block.areas[at] >= best.feature.area)) continue;
        best = { feature: describe(block, at, layer.classes), layer: layer.layer };
        if (states !== null) best.state = STATE_NAMES[states[block.numbers[at]]];
      }
    }
    return best;
  }

  /** Count and area by class of what the view shows of a layer. @param {string} id
   * @returns {{complete: boolean, classes: Map<string, {count: number, area: number}>}} */
  visibleCounts(id) {
    const view = this.stage.view();
    const [a, b, c, d, e, f] = viewMatrix(view);
    return /** @type {LayerView} */ (this.layers.get(id)).counts(view, (x, y) => {
      const [screenX, screenY] = [a * x + c * y + e, b * x + d * y + f];
      return screenX >= 0 && screenY >= 0 && screenX <= view.width && screenY <= view.height;
    });
  }
}

/** @param {import("./blocks.js").Block} block @param {number} at @param {string[]} classes @returns {Found["feature"]} */
function describe(block, at, classes) {
  const { boxes, originX, originY } = block;
  return {
    number: block.numbers[at],
    className: classes[block.classes[at]],
    score: block.scores[at] === NO_SCORE ? null : block.scores[at] / 10_000,
    area: block.areas[at],
    name: "",
    box: [boxes[4 * at] + originX, boxes[4 * at + 1] + originY, boxes[4 * at + 2] + originX, boxes[4 * at + 3] + originY],
  };
}
