/** The exact features of one layer around the view: blocks fetched nearest first, kept while there is room. */

import { ApiError, fetchBlock, fetchBlockIndex } from "./api.js";
import { DamagedError, decodeBlock } from "./blocks.js";
import { boxesTouch } from "./geometry.js";

/** @typedef {import("./geometry.js").Box} Box */
/** @typedef {import("./blocks.js").Block} Block */
/** @typedef {import("./api.js").BlockIndex} BlockIndex */

/** A block of the index. @typedef {object} Entry
 * @property {number} number @property {Box} box @property {number} count @property {number} bytes as sent
 * @property {Block | null} block once loaded
 * @property {AbortController | null} abort while in flight
 * @property {number} tries in vain so far
 * @property {number} waitUntil time before which it is not asked for again
 * @property {number} used when the view last met it */

/** Options with their defaults. */
export const LAYER_OPTIONS = {
  /** Blocks in flight at most, of the six connections that a browser opens to one server. */
  limit: 4,
  /** Unpacked bytes kept at most, but for those the view needs. */
  keepBytes: 160 << 20,
  /** First wait before a block is asked for again, doubled each time up to the longest. */
  firstWaitMs: 500,
  longestWaitMs: 10_000,
  /** Tries before an answer that will hardly change counts as final. */
  finalTries: 4,
};

/** Fires `change` when blocks or state changed, `drop` (detail: the Block) when one was let go. */
export class LayerData extends EventTarget {
  /** @param {string} slideId @param {string} layerId @param {Partial<typeof LAYER_OPTIONS>} [options] */
  constructor(slideId, layerId, options = {}) {
    super();
    this.slideId = slideId;
    this.layerId = layerId;
    this.options = { ...LAYER_OPTIONS, ...options };
    /** @type {BlockIndex | null} */
    this.index = null;
    /** @type {Entry[]} */
    this.entries = [];
    /** @type {Entry[]} nearest first */
    this.wanted = [];
    this.active = 0;
    this.bytes = 0;
    /** Bytes of all blocks as sent. */
    this.packedBytes = 0;
    this.closed = false;
    this.openTries = 0;
    this.error = "";
    this.turn = 0;
    /** Blocks that have come so far. */
    this.arrived = 0;
  }

  /** Fetch the index, once. */
  async open() {
    if (this.opening || this.closed) return;
    this.opening = true;
    try {
      this.index = await fetchBlockIndex(this.slideId, this.layerId);
      this.entries = this.index.blocks.map((each, number) => (
        { ...each, number, block: null, abort: null, tries: 0, waitUntil: 0, used: 0 }));
      this.packedBytes = this.entries.reduce((sum, each) => sum + each.bytes, 0);
      this.error = "";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.error = error.message;
      this.openTries += 1;
      const again = () => { this.opening = false; this.open(); };
      if (!isLasting(error) || this.openTries < this.options.finalTries) setTimeout(again, this.waitFor(this.openTries));
    }
    this.changed();
  }

  /** Entries that meet a box. @param {Box} box */
  meeting(box) {
    return this.entries.filter((each) => boxesTouch(each.box, box));
  }

  /** Blocks at hand that meet a box. @param {Box} box @returns {Block[]} */
  blocks(box) {
    return /** @type {Block[]} */ (this.meeting(box).map((each) => each.block).filter((each) => each !== null));
  }

  /** Features and bytes of the blocks that meet a box, known before any is loaded. @param {Box} box */
  weigh(box) {
    return this.meeting(box).reduce(
      (sum, each) => ({ count: sum.count + each.count, bytes: sum.bytes + each.bytes }), { count: 0, bytes: 0 });
  }

  /** Whether every block that meets a box is at hand. @param {Box} box */
  covers(box) {
    return this.index !== null && this.meeting(box).every((each) => each.block !== null);
  }

  /** See to it that what meets a box comes, nearest to its middle first; null: nothing is needed. @param {Box | null} box */
  need(box) {
    this.turn += 1;
    const wanted = box === null ? [] : this.meeting(box);
    for (const each of wanted) each.used = this.turn;
    for (const each of this.wanted) {
      if (each.used === this.turn) continue;
      each.abort?.abort();
      Object.assign(each, { tries: 0, waitUntil: 0 });
    }
    if (box !== null) {
      const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
      wanted.sort((one, other) => distance(one.box, x, y) - distance(other.box, x, y));
    }
    this.wanted = wanted;
    this.pump();
    this.tidy();
  }

  get loading() {
    return this.index === null ? this.opening === true : this.wanted.some((each) => each.block === null && each.waitUntil < Infinity);
  }

  pump() {
    clearTimeout(this.timer);
    const now = performance.now();
    let next = Infinity;
    for (const entry of this.wanted) {
      if (entry.block !== null || entry.abort !== null) continue;
      if (entry.waitUntil > now) next = Math.min(next, entry.waitUntil);
      else if (this.active < this.options.limit) this.load(entry);
    }
    if (next < Infinity) this.timer = setTimeout(() => this.pump(), Math.max(0, next - now) + 5);
  }

  /** @param {Entry} entry */
  async load(entry) {
    const abort = (entry.abort = new AbortController());
    this.active += 1;
    try {
      const buffer = await fetchBlock(this.slideId, this.layerId, entry.number, abort.signal);
      if (abort.signal.aborted) return;
      this.take(entry, decodeBlock(buffer, this.index?.unit));
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof ApiError || error instanceof DamagedError)) throw error;
      this.stumble(entry, error);
    } finally {
      this.active -= 1;
      entry.abort = null;
      this.pump();
    }
    this.changed();
  }

  /** @param {Entry} entry @param {Block} block */
  take(entry, block) {
    entry.block = block;
    entry.tries = 0;
    this.bytes += block.bytes;
    this.arrived += 1;
    if (this.wanted.every((each) => each.tries === 0)) this.error = "";
  }

  /** @param {Entry} entry @param {Error} error */
  stumble(entry, error) {
    entry.tries += 1;
    const lasting = isLasting(error);
    const final = lasting && entry.tries >= this.options.finalTries;
    entry.waitUntil = final ? Infinity : performance.now() + this.waitFor(entry.tries);
    if (entry.tries > 1 || lasting) this.error = error.message;
  }

  /** Milliseconds before something is asked for again. @param {number} tries in vain so far */
  waitFor(tries) {
    return Math.min(this.options.longestWaitMs, this.options.firstWaitMs * 2 ** (tries - 1));
  }

  /** Let go of what was longest out of view when there is too much. */
  tidy() {
    if (this.bytes <= this.options.keepBytes) return;
    const idle = this.entries.filter((each) => each.block !== null && each.used !== this.turn);
    idle.sort((one, other) => one.used - other.used);
    for (const entry of idle) {
      if (this.bytes <= this.options.keepBytes) return;
      const block = /** @type {Block} */ (entry.block);
      this.bytes -= block.bytes;
      entry.block = null;
      this.dispatchEvent(new CustomEvent("drop", { detail: block }));
    }
  }

  /** Stop and let everything go. */
  close() {
    this.closed = true;
    this.need(null);
    this.options.keepBytes = 0;
    this.tidy();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether asking again will hardly help. @param {Error} error */
function isLasting(error) {
  return error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429;
}

/** Squared distance of a point from a box. @param {Box} box @param {number} x @param {number} y */
function distance(box, x, y) {
  const dx = Math.max(box[0] - x, 0, x - box[2]);
  const dy = Math.max(box[1] - y, 0, y - box[3]);
  return dx * dx + dy * dy;
}
