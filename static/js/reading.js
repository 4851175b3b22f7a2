/** Class and area of the feature under the pointer, under a click, or in the middle of the view (by key). */

import { byId, make } from "./dom.js";
import { colorOf } from "./overlay.js";
import { areaText } from "./scale.js";

const GAP = 14;

export class Reading {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay */
  constructor(stage, overlay) {
    this.stage = stage;
    this.overlay = overlay;
    this.box = byId("reading");
    this.pinned = false;
    const canvas = stage.viewer.canvas;
    canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.pinned || this.clear());
    stage.viewer.addHandler("canvas-click", (event) => event.quick && this.pin(event.position.x, event.position.y));
    stage.viewer.addHandler("canvas-drag", () => this.pinned || this.clear());
    stage.addEventListener("move", () => this.clear());
    overlay.addEventListener("change", () => this.clear());
  }

  /** @param {PointerEvent} event */
  hover(event) {
    if (this.pinned || event.buttons || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const place = this.stage.viewer.canvas.getBoundingClientRect();
      this.show(event.clientX - place.left, event.clientY - place.top);
    });
  }

  /** Keep what lies here until something else is asked. @param {number} x @param {number} y CSS pixels of the stage */
  pin(x, y) {
    this.pinned = this.show(x, y);
  }

  /** Read the middle of the view. */
  readMiddle() {
    const { width, height } = this.stage.view();
    this.pin(width / 2, height / 2);
    if (!this.pinned) this.write([make("span", { text: "No feature in the middle of the view" })], width / 2, height / 2);
  }

  /** @param {number} x @param {number} y @returns {boolean} whether a feature lies there */
  show(x, y) {
    const found = this.overlay.at(x, y);
    if (found === null) {
      this.clear();
      return false;
    }
    this.overlay.mark(found.shape);
    this.write(this.words(found), x, y);
    return true;
  }

  /** @param {{shape: import("./shapes.js").Shape, layer: import("./api.js").Layer}} found */
  words({ shape, layer }) {
    const mpp = this.stage.card.base.mpp;
    const area = mpp ? areaText(shape.area * mpp * mpp) : `${Math.round(shape.area).toLocaleString("en")} px²`;
    const score = shape.score === null ? "" : ` · score ${shape.score.toFixed(2)}`;
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = colorOf(layer, shape.className);
    return [
      swatch,
      make("strong", { text: shape.className }),
      make("span", { text: `${shape.name ? ` ${shape.name}` : ""}${shape.filled ? ` · ${area}` : ""}${score}` }),
    ];
  }

  /** @param {Node[]} words @param {number} x @param {number} y */
  write(words, x, y) {
    this.box.replaceChildren(...words);
    this.box.hidden = false;
    const { width, height } = this.stage.view();
    const left = Math.max(4, Math.min(x + GAP, width - this.box.offsetWidth - 4));
    const top = y + GAP + this.box.offsetHeight > height ? y - GAP - this.box.offsetHeight : y + GAP;
    this.box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  clear() {
    this.pinned = false;
    this.box.hidden = true;
    this.overlay.mark(null);
  }
}
