/** Sums of each layer by class and score, fetched once: layers never change. */

import { ApiError, fetchTotals } from "./api.js";
import { tallyOf } from "./classsums.js";

/** @typedef {import("./classsums.js").Tally} Tally */

/** Wait before sums that did not come are asked for again. */
const RETRY_MS = 5000;

/** Fires `change` when the sums of a layer have come. */
export class Totals extends EventTarget {
  /** @param {string} slideId */
  constructor(slideId) {
    super();
    this.slideId = slideId;
    /** @type {Map<string, Map<string, Tally> | null>} by layer id; null: asked for */
    this.known = new Map();
  }

  /** Sums of a layer by class, null as long as they are not there; the first look asks for them. @param {string} id */
  of(id) {
    if (!this.known.has(id)) {
      this.known.set(id, null);
      this.load(id);
    }
    return this.known.get(id) ?? null;
  }

  /** @param {string} id */
  async load(id) {
    try {
      this.known.set(id, tallyOf(await fetchTotals(this.slideId, id)));
      this.dispatchEvent(new Event("change"));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // A layer that was deleted has no sums any more.
      if (error.status !== 404) setTimeout(() => this.load(id), RETRY_MS);
    }
  }
}
