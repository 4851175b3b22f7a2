/** What lies under the pointer, under a click, in the middle of the view (by key), or where an error was jumped to. */

import { areaOf } from "./classtable.js";
import { readingScale, stateText } from "./comparewords.js";
import { byId, make } from "./dom.js";
import { apply, invert, viewMatrix } from "./geometry.js";
import { isModelOutput } from "./layerfacts.js";
import { freeRoom, lookAt } from "./room.js";

/** @typedef {{feature: any, layer: import("./api.js").Layer, state?: import("./comparewords.js").State}} Found */

const GAP = 14;
/** The box of a pinned feature goes when its place is this far outside the stage, CSS pixels. */
const OUTSIDE = 40;

export class Reading {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay
   * @param {import("./review.js").Review} review */
  constructor(stage, overlay, review) {
    this.stage = stage;
    this.overlay = overlay;
    this.review = review;
    this.box = byId("reading");
    /** What is kept on screen, and its place in the base plane. @type {{found: Found, x: number, y: number} | null} */
    this.pinned = null;
    /** Where the pointer reads, CSS pixels of the stage. @type {[number, number] | null} */
    this.pointer = null;
    const canvas = stage.viewer.canvas;
    canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.leave());
    stage.viewer.addHandler("canvas-click", (event) => event.quick && this.pin(event.position.x, event.position.y));
    stage.viewer.addHandler("canvas-drag", () => this.leave());
    stage.addEventListener("move", () => this.leave());
    stage.addEventListener("frame", () => this.place());
    overlay.addEventListener("change", () => this.readAgain());
  }

  /** @param {PointerEvent} event */
  hover(event) {
    if (this.pinned !== null || event.buttons || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const stage = this.stage.viewer.canvas.getBoundingClientRect();
      if (this.pinned === null) this.show(event.clientX - stage.left, event.clientY - stage.top);
    });
  }

  /** The pointer reads no longer; what is pinned stays. */
  leave() {
    if (this.pinned === null) this.clear();
  }

  /** Keep what lies here until something else is asked; nothing here: let go. @param {number} x @param {number} y CSS pixels
   * of the stage @returns {boolean} whether a feature lies there */
  pin(x, y) {
    const found = this.show(x, y);
    if (found === null) return false;
    const [baseX, baseY] = apply(invert(viewMatrix(this.stage.view())), x, y);
    this.pinned = { found, x: baseX, y: baseY };
    return true;
  }

  /** Read the middle of the view. */
  readMiddle() {
    const { width, height } = this.stage.view();
    if (this.pin(width / 2, height / 2)) return;
    this.write([make("span", { text: "No feature in the middle of the view" })], width / 2, height / 2);
  }

  /** Go to a feature and keep it marked, also while its outline is still on its way. @param {Found} found */
  lookAt(found) {
    const [x0, y0, x1, y1] = found.feature.box;
    const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
    const { scale } = this.stage.view(false);
    lookAt(this.stage, x, y, readingScale(found.feature.box, { scale, ...freeRoom() }));
    this.pinned = { found, x, y };
    this.pointer = null;
    this.overlay.mark(found);
    this.box.replaceChildren(...this.words(found));
    this.place();
  }

  /** @param {number} x @param {number} y @returns {Found | null} */
  show(x, y) {
    const found = this.overlay.at(x, y);
    this.clear();
    if (found === null) return null;
    this.pointer = [x, y];
    this.overlay.mark(found);
    this.write(this.words(found), x, y);
    return found;
  }

  /** Layers, classes or the threshold changed: what is read may be gone, or be something else. */
  readAgain() {
    if (this.pinned !== null) {
      const { found } = this.pinned;
      const view = this.overlay.layers.get(found.layer.id);
      const dropped = found.feature.score !== null && view !== undefined && found.feature.score < view.threshold;
      const wasCompared = found.state !== undefined && this.review.choice === null;
      if (view === undefined || !view.shown || view.hidden.has(found.feature.className) || dropped || wasCompared) this.clear();
    } else if (this.pointer !== null && !this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        if (this.pinned === null && this.pointer !== null) this.show(...this.pointer);
      });
    }
  }

  /** @param {Found} found @returns {HTMLElement[]} */
  words({ feature, layer, state }) {
    const score = feature.score === null ? "" : ` · score ${feature.score.toFixed(2)}`;
    const area = feature.area > 0 ? ` · ${areaOf(feature.area, this.stage.card.base.mpp)}` : "";
    const truth = this.review.layer("truth");
    const agreement = truth !== undefined && isModelOutput(truth);
    const swatch = make("span", { class: state ? `mark-${state}` : "swatch", "aria-hidden": "true" });
    if (!state) swatch.style.backgroundColor = this.overlay.colorOf(layer.id, feature.className);
    const name = feature.name ? ` ${feature.name}` : "";
    const match = state ? ` · ${stateText(state, agreement)}` : "";
    const facts = make("span", { text: `${name}${score}${area}${match}` });
    return [
      make("p", {}, [swatch, make("strong", { text: feature.className }), facts]),
      make("p", { class: "quiet", text: `${layer.name} · ${feature.uuid ?? `no. ${feature.number}`}` }),
    ];
  }

  /** @param {Node[]} words @param {number} x @param {number} y */
  write(words, x, y) {
    this.box.replaceChildren(...words);
    this.box.hidden = false;
    const { width, height } = freeRoom();
    const left = Math.max(4, Math.min(x + GAP, width - this.box.offsetWidth - 4));
    const top = y + GAP + this.box.offsetHeight > height ? y - GAP - this.box.offsetHeight : y + GAP;
    this.box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  /** Keep the pinned words beside their feature while the slide moves. */
  place() {
    if (this.pinned === null) return;
    const view = this.stage.view();
    const [x, y] = apply(viewMatrix(view), this.pinned.x, this.pinned.y);
    // What a panel covers is still there: only what left the stage is gone.
    const gone = x < -OUTSIDE || y < -OUTSIDE || x > view.width + OUTSIDE || y > view.height + OUTSIDE;
    if (gone) this.box.hidden = true;
    else this.write([...this.box.childNodes], x, y);
  }

  clear() {
    this.pinned = null;
    this.pointer = null;
    this.box.hidden = true;
    this.overlay.mark(null);
  }
}
