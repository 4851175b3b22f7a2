/** The features of one layer around the view: fetched by box, kept until the view leaves the box. */

import { ApiError, fetchFeatures } from "./api.js";
import { boxAround, boxHolds, growBox, visibleCorners } from "./geometry.js";
import { toShape } from "./shapes.js";

/** @typedef {import("./geometry.js").Box} Box */
/** @typedef {import("./shapes.js").Shape} Shape */

/** Options with their defaults. */
export const FEATURE_OPTIONS = {
  /** Features per answer at most; the panel says when there are more. */
  limit: 20_000,
  /** Share of the view fetched around it. */
  margin: 0.5,
  /** Milliseconds that the view must stand before it is fetched for. */
  settleMs: 120,
  /** Wait before a failed fetch is tried again. */
  retryMs: 3000,
};

/** Fires `change` when shapes or state changed. */
export class Features extends EventTarget {
  /** @param {string} slideId @param {import("./api.js").Layer} layer @param {{width: number, height: number}} base
   * @param {Partial<typeof FEATURE_OPTIONS>} [options] */
  constructor(slideId, layer, base, options = {}) {
    super();
    this.slideId = slideId;
    this.layer = layer;
    this.base = base;
    this.options = { ...FEATURE_OPTIONS, ...options };
    /** @type {Shape[]} */
    this.shapes = [];
    /** @type {Box | null} */
    this.box = null;
    /** What the view shows now. @type {Box} */
    this.seen = [0, 0, 0, 0];
    this.total = 0;
    this.truncated = false;
    this.error = "";
  }

  /** See to it that what the view shows is there, soon. @param {import("./geometry.js").View} view */
  need(view) {
    this.seen = boxAround(visibleCorners(view));
    this.look();
  }

  /** Fetch for the view as it is now; a fetch planned for a view that has passed is dropped. */
  look() {
    clearTimeout(this.timer);
    if (!this.covers(this.seen)) this.timer = setTimeout(() => this.load(this.seen), this.options.settleMs);
  }

  /** Whether the shapes at hand are all that a box holds. A cut-off answer is good only until a closer view asks again.
   * @param {Box} seen */
  covers(seen) {
    const [left, top, right, bottom] = seen;
    const inside = /** @type {Box} */ ([
      Math.max(0, left), Math.max(0, top), Math.min(this.base.width, right), Math.min(this.base.height, bottom),
    ]);
    if (inside[0] >= inside[2] || inside[1] >= inside[3]) return true;
    if (this.wanted !== undefined && boxHolds(this.wanted, inside) && !this.isTooCoarse(this.wanted, seen)) return true;
    return this.box !== null && boxHolds(this.box, inside) && !(this.truncated && this.isTooCoarse(this.box, seen));
  }

  /** @param {Box} box @param {Box} seen */
  isTooCoarse(box, seen) {
    return (seen[2] - seen[0]) * (1 + 2 * this.options.margin) < 0.8 * (box[2] - box[0]);
  }

  /** @param {Box} seen */
  async load(seen) {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    const box = growBox(seen, this.options.margin, this.base.width, this.base.height);
    this.wanted = box;
    try {
      const answer = await fetchFeatures(this.slideId, this.layer.id, box, this.options.limit, abort.signal);
      if (abort.signal.aborted) return;
      this.shapes = answer.features.map(toShape).filter((shape) => shape !== null);
      Object.assign(this, { box, wanted: undefined, total: answer.total, truncated: answer.truncated, error: "" });
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      Object.assign(this, { wanted: undefined, error: error.message });
      this.timer = setTimeout(() => this.load(this.seen), this.options.retryMs);
    }
    // The view may have moved to where only the former shapes reached.
    if (!this.error) this.look();
    this.dispatchEvent(new Event("change"));
  }

  /** Stop fetching, as for a layer that was switched off. */
  rest() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.wanted = undefined;
  }
}
