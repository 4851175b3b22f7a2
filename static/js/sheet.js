/** A canvas above the slide that keeps up with it: cheap drawings are made anew in every frame, costly ones are carried
 * along with the moving slide and renewed a slice per frame. */

import { frameOf } from "./frame.js";
import { compose, invert, viewMatrix } from "./geometry.js";

/** @typedef {import("./geometry.js").View} View */
/** @typedef {import("./canvaspainter.js").Scene} Scene */
/** @typedef {import("./frame.js").Frame} Frame */

/** Options with their defaults. */
export const SHEET_OPTIONS = {
  /** A drawing that takes longer, milliseconds, is carried along. */
  cheapMs: 16,
  /** Milliseconds of a frame for drawing while the slide moves. */
  movingMs: 9,
  /** The same while it stands: a change of threshold or classes should show at once. */
  standingMs: 60,
  /** Share of the stage drawn around it when the drawing is carried along. */
  margin: 0.05,
};

/** Fires `drawn` whenever it has drawn or moved something. */
export class Sheet extends EventTarget {
  /**
   * @param {HTMLElement} parent
   * @param {{paint: (canvas: HTMLCanvasElement, frame: Frame, scene: Scene) => Generator<void>}} painter
   * @param {(view: View) => Scene} sceneOf what to draw for a view
   * @param {() => View} viewNow @param {() => boolean} isMoving
   */
  constructor(parent, painter, sceneOf, viewNow, isMoving) {
    super();
    this.painter = painter;
    this.sceneOf = sceneOf;
    this.viewNow = viewNow;
    this.isMoving = isMoving;
    this.front = makeCanvas(parent);
    this.back = makeCanvas(parent);
    this.back.hidden = true;
    /** What the canvas in front shows. @type {Frame | null} */
    this.painted = null;
    /** @type {{steps: Generator<void>, frame: Frame, spent: number} | null} */
    this.job = null;
    this.stale = true;
    this.cost = 0;
  }

  /** Something else is to be drawn. */
  renew() {
    this.stale = true;
    this.schedule();
  }

  /** The slide moved: in the same frame, draw anew or carry along. */
  follow() {
    if (!this.isSettled()) this.work();
  }

  /** Whether what is to be seen is drawn. */
  isSettled() {
    return this.job === null && !this.stale && this.painted !== null && same(this.viewNow(), this.painted.view);
  }

  schedule() {
    this.next ??= requestAnimationFrame(() => {
      this.next = undefined;
      this.work();
    });
  }

  work() {
    const { cheapMs, movingMs, standingMs } = SHEET_OPTIONS;
    if (this.job === null && !this.isSettled()) this.begin();
    if (this.job !== null) this.proceed(this.job, this.isMoving() && this.cost > cheapMs ? movingMs : standingMs);
    this.carry();
    if (!this.isSettled()) this.schedule();
    this.dispatchEvent(new Event("drawn"));
  }

  begin() {
    const margin = this.cost > SHEET_OPTIONS.cheapMs ? SHEET_OPTIONS.margin : 0;
    const frame = frameOf(this.viewNow(), devicePixelRatio, margin);
    this.stale = false;
    this.job = { steps: this.painter.paint(this.back, frame, this.sceneOf(frame.grown)), frame, spent: 0 };
  }

  /** @param {{steps: Generator<void>, frame: Frame, spent: number}} job @param {number} budget milliseconds */
  proceed(job, budget) {
    const began = performance.now();
    let now = began;
    let done = false;
    do {
      done = job.steps.next().done === true;
      now = performance.now();
    } while (!done && now - began < budget);
    job.spent += now - began;
    if (!done) return;
    this.job = null;
    // Half of what it was, so that one slow drawing does not change the ways.
    this.cost = (this.cost + job.spent) / 2;
    this.painted = job.frame;
    [this.front, this.back] = [this.back, this.front];
    this.front.hidden = false;
    this.back.hidden = true;
  }

  /** Put the drawing in front where the slide is now. */
  carry() {
    if (this.painted === null) return;
    const { view, rim } = this.painted;
    const then = compose(invert(viewMatrix(view)), [1, 0, 0, 1, -rim[0], -rim[1]]);
    const moved = same(this.viewNow(), view) ? [1, 0, 0, 1, -rim[0], -rim[1]] : compose(viewMatrix(this.viewNow()), then);
    this.front.style.transform = `matrix(${moved.map((each) => Number(each.toFixed(6))).join(",")})`;
  }

  /** Nothing is kept of a block. */
  forget() {}

  remove() {
    cancelAnimationFrame(this.next ?? 0);
    this.front.remove();
    this.back.remove();
  }
}

/** @param {HTMLElement} parent */
function makeCanvas(parent) {
  const canvas = document.createElement("canvas");
  canvas.className = "overlay";
  parent.append(canvas);
  return canvas;
}

/** @param {View} one @param {View} other */
function same(one, other) {
  return Object.entries(one).every(([key, value]) => other[key] === value);
}
