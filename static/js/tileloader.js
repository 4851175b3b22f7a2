/**
 * Loads tiles so that none stays blurred: what fails for a passing reason is asked again until it arrives or leaves the
 * view, what leaves the view is aborted, and slow (synthesised) tiles never take every connection.
 *
 * OpenSeadragon's own loader gives up after 30 s, never asks twice and queues first come, first served.
 */

import { ApiError, fetchTile } from "./api.js";
import { parseProvenance } from "./provenance.js";

/** @typedef {import("./provenance.js").Provenance} Provenance */

/**
 * @typedef {object} TileJob
 * @property {string} url
 * @property {any} tile the OpenSeadragon tile
 * @property {boolean} slow made on demand, may take long
 * @property {(bitmap: ImageBitmap) => void} done
 * @property {() => void} dropped the tile left the view; it may be asked for again later
 * @property {(message: string) => void} failed for good
 * @property {() => void} renew unload the tile and ask for it again
 * @property {number} [tries]
 * @property {AbortController} [abort] while in flight
 * @property {number} [timer] while waiting for the next try
 */

/** Options with their defaults. */
export const LOADER_OPTIONS = {
  /** Requests in flight at most: what a browser opens to one HTTP/1.1 server. */
  limit: 6,
  /** Of these, synthesised tiles at most; the rest stays free for stored tiles, which come in milliseconds. */
  slowLimit: 4,
  /** First wait before a new try, doubled each time up to the longest. */
  firstWaitMs: 500,
  longestWaitMs: 10_000,
  /** Tries before an answer of 500, which may be a damaged tile, counts as final. */
  faultTries: 4,
  /** Tries before the user is told that the server is slow to answer. */
  quietTries: 2,
  /** Wait before a stand-in tile is asked for again, doubled each time up to the longest. */
  renewWaitMs: 4_000,
  longestRenewMs: 60_000,
};

const PASSING = [0, 408, 425, 429, 502, 503, 504];

/** Fires `change` when the counts of {@link TileLoader.counts} may have changed. */
export class TileLoader extends EventTarget {
  /** @param {(tile: any) => boolean} isWanted whether a tile still matters for the view
   * @param {Partial<typeof LOADER_OPTIONS>} [options] */
  constructor(isWanted, options = {}) {
    super();
    this.isWanted = isWanted;
    this.options = { ...LOADER_OPTIONS, ...options };
    /** @type {Set<TileJob>} */
    this.queued = new Set();
    /** @type {Set<TileJob>} */
    this.active = new Set();
    /** @type {Set<TileJob>} */
    this.waiting = new Set();
    /** @type {Map<string, TileJob>} */
    this.failures = new Map();
    /** @type {Map<string, Provenance>} by URL, since tiles are shared and rebuilt by the cache above */
    this.provenances = new Map();
    /** @type {Map<string, number>} times a stand-in was asked for again, by URL */
    this.renewals = new Map();
    this.pumping = false;
  }

  /** @param {TileJob} job */
  request(job) {
    job.tries = 0;
    this.queued.add(job);
    this.schedule();
  }

  /** Forget a job without a word to its caller. @param {TileJob} job */
  cancel(job) {
    this.queued.delete(job);
    this.active.delete(job);
    this.waiting.delete(job);
    clearTimeout(job.timer);
    job.abort?.abort();
    this.schedule();
  }

  /** Drop every job, and forgive every failure, whose tile is no longer wanted. */
  prune() {
    for (const job of [...this.queued, ...this.waiting, ...this.active]) {
      if (this.isWanted(job.tile)) continue;
      this.cancel(job);
      job.dropped();
    }
    for (const [url, job] of this.failures) {
      if (!this.isWanted(job.tile)) this.forgive(url, job);
    }
  }

  /** Ask again, at the user's wish, for everything that failed or waits. */
  retry() {
    for (const [url, job] of this.failures) this.forgive(url, job);
    for (const job of this.waiting) this.requeue(job);
  }

  /** Numbers for the notice. */
  counts() {
    const quiet = this.options.quietTries;
    return {
      pending: this.queued.size + this.active.size + this.waiting.size,
      troubled: [...this.waiting, ...this.active].filter((job) => (job.tries ?? 0) > quiet).length,
      failed: this.failures.size,
      reason: [...this.failures.values()].map((job) => job.tile.failure).at(-1) ?? "",
    };
  }

  /** @param {string} url @returns {Provenance} of a tile that was loaded */
  provenance(url) {
    return this.provenances.get(url) ?? parseProvenance("unknown");
  }

  /** @param {string} url @param {TileJob} job */
  forgive(url, job) {
    this.failures.delete(url);
    job.renew();
    this.schedule();
  }

  /** @param {TileJob} job */
  requeue(job) {
    clearTimeout(job.timer);
    this.waiting.delete(job);
    this.queued.add(job);
    this.schedule();
  }

  /** Start what there is room for, once this turn's requests are all known. */
  schedule() {
    if (this.pumping) return;
    this.pumping = true;
    queueMicrotask(() => {
      this.pumping = false;
      this.pump();
      this.dispatchEvent(new Event("change"));
    });
  }

  pump() {
    const order = [...this.queued].sort(byUse);
    let slow = [...this.active].filter((job) => job.slow).length;
    for (const job of order) {
      if (this.active.size >= this.options.limit) return;
      if (job.slow && slow >= this.options.slowLimit) continue;
      slow += job.slow ? 1 : 0;
      this.queued.delete(job);
      this.active.add(job);
      this.load(job);
    }
  }

  /** @param {TileJob} job */
  async load(job) {
    const abort = new AbortController();
    job.abort = abort;
    job.tries = (job.tries ?? 0) + 1;
    try {
      const { bitmap, provenance } = await fetchTile(job.url, abort.signal);
      if (abort.signal.aborted) return bitmap.close();
      this.active.delete(job);
      this.settle(job, bitmap, parseProvenance(provenance));
    } catch (error) {
      if (abort.signal.aborted) return;
      this.active.delete(job);
      if (!(error instanceof ApiError)) throw error;
      this.stumble(job, error);
    } finally {
      this.schedule();
    }
  }

  /** @param {TileJob} job @param {ImageBitmap} bitmap @param {Provenance} provenance */
  settle(job, bitmap, provenance) {
    this.provenances.set(job.url, provenance);
    job.done(bitmap);
    if (provenance.fallbackFor === undefined) {
      this.renewals.delete(job.url);
      return;
    }
    const times = this.renewals.get(job.url) ?? 0;
    this.renewals.set(job.url, times + 1);
    setTimeout(job.renew, Math.min(this.options.longestRenewMs, this.options.renewWaitMs * 2 ** times));
  }

  /** @param {TileJob} job @param {ApiError} error */
  stumble(job, error) {
    const tries = job.tries ?? 1;
    const passing = PASSING.includes(error.status) || (error.status === 500 && tries < this.options.faultTries);
    if (!passing) {
      job.tile.failure = error.message;
      this.failures.set(job.url, job);
      job.failed(error.message);
      return;
    }
    const backOff = Math.min(this.options.longestWaitMs, this.options.firstWaitMs * 2 ** (tries - 1));
    const wait = Math.max(error.retryAfterS === null ? backOff : error.retryAfterS * 1000, 100);
    this.waiting.add(job);
    job.timer = setTimeout(() => this.requeue(job), wait * (1 + Math.random() / 4));
  }
}

/** Stored before synthesised, coarse before fine (the coarse one covers more of the screen), centre before rim.
 * @param {TileJob} one @param {TileJob} other */
function byUse(one, other) {
  return Number(one.slow) - Number(other.slow)
    || one.tile.level - other.tile.level
    || (one.tile.squaredDistance ?? 0) - (other.tile.squaredDistance ?? 0);
}
