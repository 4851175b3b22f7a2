/** A canvas above the slide that a graphics card draws anew in every frame. */

import { frameOf } from "./frame.js";
import { GlPainter } from "./glpainter.js";

/** @typedef {import("./geometry.js").View} View */
/** @typedef {import("./canvaspainter.js").Scene} Scene */

/** Fires `drawn` after each drawing. */
export class GlSheet extends EventTarget {
  /**
   * @param {HTMLElement} parent @param {(view: View) => Scene} sceneOf what to draw for a view @param {() => View} viewNow
   * @returns {GlSheet | null} null where there is no WebGL 2
   */
  static make(parent, sceneOf, viewNow) {
    const canvas = Object.assign(document.createElement("canvas"), { className: "overlay" });
    const painter = GlPainter.on(canvas);
    return painter && new GlSheet(parent, canvas, painter, sceneOf, viewNow);
  }

  /** @param {HTMLElement} parent @param {HTMLCanvasElement} canvas @param {GlPainter} painter
   * @param {(view: View) => Scene} sceneOf @param {() => View} viewNow */
  constructor(parent, canvas, painter, sceneOf, viewNow) {
    super();
    this.canvas = canvas;
    this.painter = painter;
    this.sceneOf = sceneOf;
    this.viewNow = viewNow;
    this.seen = "";
    this.stale = true;
    parent.append(canvas);
  }

  /** Something else is to be drawn. */
  renew() {
    this.stale = true;
    this.next ??= requestAnimationFrame(() => {
      this.next = undefined;
      this.draw();
    });
  }

  /** The slide moved: draw in the same frame. */
  follow() {
    if (!this.isSettled()) this.draw();
  }

  /** Whether what is to be seen is drawn. */
  isSettled() {
    return !this.stale && JSON.stringify(this.viewNow()) === this.seen;
  }

  draw() {
    const view = this.viewNow();
    this.seen = JSON.stringify(view);
    this.stale = !this.painter.paint(frameOf(view, devicePixelRatio), this.sceneOf(view));
    if (this.stale) this.renew();
    this.dispatchEvent(new Event("drawn"));
  }

  /** @param {import("./blocks.js").Block} block that is no longer at hand */
  forget(block) {
    this.painter.forget(block);
  }

  remove() {
    cancelAnimationFrame(this.next ?? 0);
    this.canvas.remove();
  }
}
