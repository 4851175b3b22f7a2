/** One layer as it is shown: its data, what is switched off, and whether exact features or the map far out are drawn. */

import { boxAround, growBox, visibleCorners } from "./geometry.js";
import { LayerData } from "./layerdata.js";
import { classLook, diameterOf, meanAlpha, rgb, UNKNOWN_COLOR } from "./looks.js";
import { countCells, picture } from "./summary.js";
import { SummaryData } from "./summarydata.js";

/** @typedef {import("./geometry.js").Box} Box */
/** @typedef {import("./geometry.js").View} View */
/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {import("./looks.js").Look} Look */
/** @typedef {import("./looks.js").Style} Style */
/** @typedef {{count: number, area: number}} Sum area in base-plane px² */

/** Options with their defaults. */
export const VIEW_OPTIONS = {
  /** Features, and packed bytes of them, in view up to which the exact ones are drawn. */
  exactCount: 120_000,
  exactBytes: 16 << 20,
  /** How much more there may be before exact features, once drawn, give way to the map. */
  hysteresis: 1.3,
  /** Features in view up to which they are drawn as they come, without waiting until all are there. */
  fewCount: 20_000,
  /** Share of the view around it in which blocks are fetched. */
  margin: 0.25,
  /** Time that the change between map and exact features takes, milliseconds. */
  fadeMs: 180,
};

/** Fires `change` when data came or state changed, `drop` (detail: a Block) when one was let go. */
export class LayerView extends EventTarget {
  /** @param {string} slideId @param {Layer} layer @param {import("./api.js").Plane} base
   * @param {Partial<typeof VIEW_OPTIONS>} [options] */
  constructor(slideId, layer, base, options = {}) {
    super();
    this.layer = layer;
    this.base = base;
    this.options = { ...VIEW_OPTIONS, ...options };
    this.shown = true;
    /** Names of classes switched off. @type {Set<string>} */
    this.hidden = new Set();
    this.opacity = 0.6;
    /** @type {Style} */
    this.style = "both";
    /** Score from which features are shown, 0 to 1 in steps of 0.01. */
    this.threshold = 0;
    /** Colours that differ from the layer's own. @type {Map<string, string>} */
    this.colors = new Map();
    /** What is wished for; what is drawn may have to wait for it. @type {"summary" | "exact" | null} */
    this.mode = null;
    /** Share of the exact drawing in what is drawn; the rest is the map. */
    this.mix = 0;
    /** Time of the last step of a change between the two. @type {number | undefined} */
    this.fadedAt = undefined;
    /** @type {{key: string, source: HTMLCanvasElement, box: Box} | null} */
    this.drawnMap = null;
    this.data = new LayerData(slideId, layer.id);
    this.summary = new SummaryData(slideId, layer.id, base, (box) => this.data.weigh(box).count / (layer.count || 1));
    this.data.addEventListener("change", () => this.tell());
    this.data.addEventListener("drop", (event) => this.dispatchEvent(new CustomEvent("drop", { detail: /** @type {any} */ (event).detail })));
    this.summary.addEventListener("change", () => this.tell());
  }

  /** What the panel says of it. @returns {{mode: "summary" | "exact", loading: boolean, error: string}} */
  get state() {
    return {
      mode: this.mix < 0.5 ? "summary" : "exact",
      loading: this.shown && (this.data.loading || this.summary.wanted !== null),
      error: this.shown ? this.data.error || this.summary.error : "",
    };
  }

  /** Class names in the order of the class numbers of blocks and summary. @returns {string[]} */
  get classes() {
    return this.data.index?.classes ?? [];
  }

  /** Score below which features are left out, in 1/10000. */
  get least() {
    return Math.round(this.threshold * 100) * 100;
  }

  /** @param {string} name of a class */
  colorOf(name) {
    return this.colors.get(name) ?? this.layer.classes.find((each) => each.name === name)?.color ?? UNKNOWN_COLOR;
  }

  /** Looks by class number; null for a class that is switched off. @returns {(Look | null)[]} */
  looks() {
    return this.classes.map((name) => (this.hidden.has(name) ? null : classLook(this.colorOf(name), this.style, this.opacity)));
  }

  /** Fetch what a view needs, or nothing while the layer is hidden. @param {View} view */
  need(view) {
    if (!this.shown) {
      this.data.need(null);
      this.summary.rest();
      return;
    }
    const index = this.data.index;
    if (index === null) {
      this.data.open();
      return;
    }
    if (this.summary.levels.length === 0) this.summary.open(index.summary);
    const seen = this.seen(view);
    this.mode = this.wish(seen);
    this.data.need(this.mode === "exact" ? growBox(seen, this.options.margin, Infinity, Infinity) : null);
    if (this.mode === "summary" || this.isLarge()) this.summary.need(seen, view.scale);
    else this.summary.rest();
  }

  /** Whether the layer is ever drawn as a map. */
  isLarge() {
    return this.layer.count > this.options.exactCount || this.data.packedBytes > this.options.exactBytes;
  }

  /** What to draw of what a box shows: by how much it holds, and with some reluctance to change. @param {Box} seen */
  wish(seen) {
    const { exactCount, exactBytes, hysteresis } = this.options;
    const slack = this.mode === "exact" ? hysteresis : 1;
    const { count, bytes } = this.data.weigh(seen);
    return count <= exactCount * slack && bytes <= exactBytes * slack ? "exact" : "summary";
  }

  /** @param {View} view @returns {Box} */
  seen(view) {
    return boxAround(visibleCorners(view));
  }

  /** Whether what a view shows is at hand for what is wished for, or will not come soon. @param {View} view */
  isReady(view) {
    const seen = this.seen(view);
    if (this.mode === "summary") return this.summary.best(seen, view.scale) !== null;
    if (!this.isLarge()) return true;
    const missing = this.data.meeting(seen).filter((each) => each.block === null);
    return missing.every((each) => each.tries > 0) || this.data.weigh(seen).count <= this.options.fewCount;
  }

  /** Come nearer to what is wished for, map or exact features, once it is at hand. @param {View} view */
  fade(view) {
    const goal = this.mode === "exact" ? 1 : 0;
    if (this.mode === null || this.mix === goal || !this.isReady(view)) return;
    const now = performance.now();
    const step = this.map(view, this.looks()) === null ? 1 : (now - (this.fadedAt ?? now)) / this.options.fadeMs;
    this.mix = goal > this.mix ? Math.min(1, this.mix + step) : Math.max(0, this.mix - step);
    this.fadedAt = this.mix === goal ? undefined : now;
  }

  /** Whether map and exact features change over just now. */
  get isFading() {
    return this.fadedAt !== undefined;
  }

  /** The map of what a view shows, drawn anew when something it shows changed; null when there is none yet.
   * @param {View} view @param {(Look | null)[]} looks @returns {{source: HTMLCanvasElement, box: Box} | null} */
  map(view, looks) {
    const grid = this.summary.best(this.seen(view), view.scale);
    if (grid === null) return null;
    const tints = looks.map((look, at) => look && this.tint(look, at, view.scale));
    const key = JSON.stringify([grid.level, grid.cells, this.threshold, tints]);
    if (this.drawnMap?.key !== key) this.drawnMap = { key, ...drawn(picture(grid, this.least / 100, tints, this.base)) };
    return this.drawnMap;
  }

  /** @param {Look} look @param {number} number of the class @param {number} scale CSS pixels per base-plane pixel */
  tint(look, number, scale) {
    const [red, green, blue] = rgb(look.color);
    const alpha = meanAlpha(look, diameterOf(this.meanArea(number)) * scale);
    return { red, green, blue, alpha: Number(alpha.toFixed(2)) };
  }

  /** Mean area of a class's features, base-plane px². @param {number} number */
  meanArea(number) {
    const facts = this.layer.classes.find((each) => each.name === this.classes[number]);
    const unit = this.base.mpp ? this.base.mpp ** 2 : 1;
    return facts?.area_um2 && facts.count ? facts.area_um2 / unit / facts.count : 0;
  }

  /** Mean area of all features, µm² or, where there is no µm per pixel, 0. */
  get meanSize() {
    return this.layer.classes.reduce((sum, each) => sum + (each.area_um2 ?? 0), 0) / (this.layer.count || 1);
  }

  /** Count and area by class in the view, of what is switched on, at the threshold. A feature counts where the middle of
   * its box lies. @param {View} view @param {(x: number, y: number) => boolean} isSeen
   * @returns {{complete: boolean, classes: Map<string, Sum>}} */
  counts(view, isSeen) {
    const seen = this.seen(view);
    const sums = this.data.covers(seen) ? this.countFeatures(seen, isSeen) : this.countMap(seen, view.scale);
    const classes = new Map();
    this.classes.forEach((name, at) => {
      if (!this.hidden.has(name)) classes.set(name, { count: sums.counts[at], area: sums.areas[at] });
    });
    return { complete: sums.exact, classes };
  }

  /** @param {Box} seen @param {(x: number, y: number) => boolean} isSeen */
  countFeatures(seen, isSeen) {
    const [counts, areas] = [new Float64Array(this.classes.length), new Float64Array(this.classes.length)];
    for (const block of this.data.blocks(seen)) {
      const { boxes, originX, originY } = block;
      for (let at = 0; at < block.count; at++) {
        if (block.scores[at] < this.least) continue;
        const x = (boxes[4 * at] + boxes[4 * at + 2]) / 2 + originX;
        const y = (boxes[4 * at + 1] + boxes[4 * at + 3]) / 2 + originY;
        if (!isSeen(x, y)) continue;
        counts[block.classes[at]] += 1;
        areas[block.classes[at]] += block.areas[at];
      }
    }
    return { counts, areas, exact: true };
  }

  /** @param {Box} seen @param {number} scale */
  countMap(seen, scale) {
    const grid = this.summary.best(seen, scale);
    if (grid !== null) return countCells(grid, this.least / 100, seen, this.classes.length);
    return { counts: new Float64Array(this.classes.length), areas: new Float64Array(this.classes.length), exact: false };
  }

  close() {
    this.data.close();
    this.summary.rest();
  }

  tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** A picture as a canvas that painters can draw. @param {ReturnType<typeof picture>} made */
function drawn({ pixels, width, height, box }) {
  const source = Object.assign(document.createElement("canvas"), { width, height });
  source.getContext("2d")?.putImageData(new ImageData(pixels, width, height), 0, 0);
  return { source, box };
}
