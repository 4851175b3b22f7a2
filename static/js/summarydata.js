/** The summary of one layer around the view: the level that suits the zoom, and a coarse one of the whole slide. */

import { ApiError, fetchSummary } from "./api.js";
import { DamagedError } from "./blocks.js";
import { boxHolds, growBox } from "./geometry.js";
import { decodeSummary } from "./summary.js";

/** @typedef {import("./geometry.js").Box} Box */
/** @typedef {import("./summary.js").Grid} Grid */
/** @typedef {{level: number, columns: number, rows: number, entries: number}} Level */

/** Options with their defaults. */
export const SUMMARY_OPTIONS = {
  /** CSS pixels that a cell takes at least. */
  cell: 6,
  /** Entries of a part at most; where the level that suits the zoom has more, the next coarser one is taken. The server
   * gives 500,000. */
  entries: 480_000,
  /** Entries up to which a level is fetched whole. */
  whole: 300_000,
  /** Entries of the coarse level of the whole slide. */
  coarse: 60_000,
  /** Share of the view fetched around it. */
  margin: 0.5,
  /** Parts kept. */
  keep: 5,
  retryMs: 3000,
};

/** Fires `change` when a part arrived or failed. */
export class SummaryData extends EventTarget {
  /** @param {string} slideId @param {string} layerId @param {{width: number, height: number}} base
   * @param {(box: Box) => number} share of the layer's features that a box holds, about
   * @param {Partial<typeof SUMMARY_OPTIONS>} [options] */
  constructor(slideId, layerId, base, share, options = {}) {
    super();
    this.slideId = slideId;
    this.layerId = layerId;
    this.base = base;
    this.share = share;
    this.options = { ...SUMMARY_OPTIONS, ...options };
    this.side = 128;
    /** @type {Level[]} fine to coarse */
    this.levels = [];
    /** @type {Grid[]} last used last */
    this.grids = [];
    this.error = "";
    /** @type {{level: Level, cells: Box} | null} */
    this.wanted = null;
  }

  /** @param {{side: number, levels: Level[]}} facts of the block index */
  open(facts) {
    this.side = facts.side;
    this.levels = [...facts.levels].sort((one, other) => one.level - other.level);
  }

  /** The level for a view: the finest whose cells are large enough on screen and whose entries are not too many.
   * @param {Box} box what the view shows @param {number} scale CSS pixels per base-plane pixel @returns {Level | undefined} */
  levelFor(box, scale) {
    const { cell, entries } = this.options;
    const share = this.share(this.around(box));
    return this.levels.find((level) => this.sideOf(level) * scale >= cell && level.entries * share <= entries)
      ?? this.levels.at(-1);
  }

  /** @param {Level} level */
  sideOf(level) {
    return this.side * 2 ** level.level;
  }

  /** Cells of a level that meet a box. @param {Level} level @param {Box} box @returns {Box} */
  cellsOf(level, box) {
    const side = this.sideOf(level);
    const inside = (/** @type {number} */ at, /** @type {number} */ end) => Math.min(end, Math.max(0, at));
    return [
      inside(Math.floor(box[0] / side), level.columns), inside(Math.floor(box[1] / side), level.rows),
      inside(Math.ceil(box[2] / side), level.columns), inside(Math.ceil(box[3] / side), level.rows),
    ];
  }

  /** See to it that the part for a view comes; first, once, the whole slide coarsely. @param {Box} box @param {number} scale */
  need(box, scale) {
    const level = this.levelFor(box, scale);
    if (level === undefined) return;
    const coarse = this.levels.find((each) => each.entries <= this.options.coarse) ?? this.levels.at(-1);
    const whole = coarse && this.gridOf(coarse, this.all(coarse));
    const first = coarse !== undefined && coarse.level > level.level && whole === undefined;
    if (whole !== undefined) this.touch(whole);
    const target = first ? /** @type {Level} */ (coarse) : level;
    const cells = first ? this.all(target) : this.partFor(target, box);
    if (!first && this.gridOf(level, this.cellsOf(level, box)) !== undefined) {
      this.rest();
      return;
    }
    if (this.wanted?.level === target && boxHolds(this.wanted.cells, first ? cells : this.cellsOf(target, box))) return;
    this.load(target, cells, () => this.need(box, scale));
  }

  /** @param {Level} level @returns {Box} */
  all(level) {
    return [0, 0, level.columns, level.rows];
  }

  /** @param {Level} level @param {Box} box @returns {Box} */
  partFor(level, box) {
    if (level.entries <= this.options.whole) return this.all(level);
    return this.cellsOf(level, this.around(box));
  }

  /** @param {Box} box */
  around(box) {
    return growBox(box, this.options.margin, this.base.width, this.base.height);
  }

  /** @param {Level} level @param {Box} cells */
  gridOf(level, cells) {
    return this.grids.findLast((each) => each.level === level.level && boxHolds(each.cells, cells));
  }

  /** The best part at hand that covers a view: of the level that suits it, else the finest coarser, else any finer one.
   * @param {Box} box @param {number} scale @returns {Grid | null} */
  best(box, scale) {
    const level = this.levelFor(box, scale);
    if (level === undefined) return null;
    const covering = this.grids.filter((each) => {
      const its = this.levels.find((one) => one.level === each.level);
      return its !== undefined && boxHolds(each.cells, this.cellsOf(its, box));
    });
    const distance = (/** @type {Grid} */ grid) => (grid.level < level.level ? 100 : 0) + Math.abs(grid.level - level.level);
    const best = covering.sort((one, other) => distance(one) - distance(other))[0] ?? null;
    if (best !== null) this.touch(best);
    return best;
  }

  /** Note that a part is of use. @param {Grid} grid */
  touch(grid) {
    this.grids.push(...this.grids.splice(this.grids.indexOf(grid), 1));
  }

  /** @param {Level} level @param {Box} cells @param {() => void} next */
  async load(level, cells, next) {
    this.rest();
    const abort = (this.abort = new AbortController());
    this.wanted = { level, cells };
    const side = this.sideOf(level);
    const box = /** @type {Box} */ ([cells[0] * side, cells[1] * side, cells[2] * side, cells[3] * side]);
    const whole = boxHolds(cells, this.all(level));
    try {
      const buffer = await fetchSummary(this.slideId, this.layerId, level.level, whole ? null : box, abort.signal);
      if (abort.signal.aborted) return;
      this.grids.push(decodeSummary(buffer, cells));
      this.grids.splice(0, Math.max(0, this.grids.length - this.options.keep));
      Object.assign(this, { error: "", wanted: null });
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof ApiError || error instanceof DamagedError)) throw error;
      Object.assign(this, { error: error.message, wanted: null });
      // More entries than thought: something coarser next time.
      if (error instanceof ApiError && error.status === 400) this.options.entries *= 0.7;
      this.timer = setTimeout(next, this.options.retryMs);
    }
    if (!this.error) next();
    this.dispatchEvent(new Event("change"));
  }

  /** Fetch nothing more for now. */
  rest() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.wanted = null;
  }
}
