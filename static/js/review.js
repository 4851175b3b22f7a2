/** A prediction reviewed against a reference: what was chosen, what the server makes of it, the way from error to error. */

import { ApiError, fetchComparison, fetchCurve, fetchErrors, fetchPairs } from "./api.js";
import { firstChoice, readPairs, seenErrors } from "./comparewords.js";
import { boxAround, visibleCorners } from "./geometry.js";
import { regionOf } from "./jobwords.js";

/** @typedef {import("./viewstate.js").Compared} Compared */
/** @typedef {import("./comparewords.js").MatchError} MatchError */

/** Options with their defaults. */
export const REVIEW_OPTIONS = {
  /** Quiet before the server is asked: a slider that moves would ask for every step. */
  settleMs: 200,
  /** Errors that can be stepped through; the panel says how many there are in all. */
  errors: 2000,
};

/** Fires `change` when the choice or an answer changed, `found` (detail: a feature to look at) when stepping to an error. */
export class Review extends EventTarget {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay
   * @param {Partial<typeof REVIEW_OPTIONS>} [options] */
  constructor(stage, overlay, options = {}) {
    super();
    this.stage = stage;
    this.overlay = overlay;
    this.options = { ...REVIEW_OPTIONS, ...options };
    /** @type {Compared | null} */
    this.choice = null;
    /** Whether somebody looks at the table and the curve. */
    this.watched = false;
    /** @type {"size" | "score"} */
    this.order = "score";
    /** The requests under way, by what they are for. @type {Map<string, AbortController>} */
    this.asking = new Map();
    this.forget();
    overlay.addEventListener("change", () => this.follow());
    stage.addEventListener("rest", () => this.choice?.wholeSlide === false && this.askTableSoon());
  }

  /** Drop every answer. */
  forget() {
    for (const abort of this.asking.values()) abort.abort();
    this.asking.clear();
    clearTimeout(this.timer);
    /** @type {any} */
    this.table = null;
    /** @type {any} */
    this.curve = null;
    /** @type {import("./matching.js").Pairs | null} */
    this.pairs = null;
    /** Whether the table is of an older threshold or view. */
    this.stale = false;
    /** What went wrong, by what was asked for. @type {Map<string, string>} */
    this.faults = new Map();
    this.forgetErrors();
  }

  forgetErrors() {
    this.asking.get("errors")?.abort();
    /** @type {MatchError[] | null} */
    this.errors = null;
    this.total = 0;
    this.at = -1;
  }

  /** What went wrong last, empty when nothing did. */
  get error() {
    return [...this.faults.values()].at(-1) ?? "";
  }

  /** Threshold of the prediction. */
  get threshold() {
    return this.overlay.layers.get(this.choice?.prediction ?? "")?.threshold ?? 0;
  }

  /** A layer of the choice. @param {"truth" | "prediction"} side @returns {import("./api.js").Layer | undefined} */
  layer(side) {
    return this.overlay.layers.get(this.choice?.[side] ?? "")?.layer;
  }

  /** Compare what makes most sense, unless something is compared already; false where there are not two layers. */
  begin() {
    if (this.choice !== null) return true;
    const first = firstChoice([...this.overlay.layers.values()].map((view) => view.layer));
    if (first !== null) this.pick(first);
    return first !== null;
  }

  /** Choose other layers and show both. @param {{truth?: string, prediction?: string}} layers */
  pick(layers) {
    this.choose(layers);
    for (const id of [this.choice?.truth, this.choice?.prediction]) if (id !== undefined) this.overlay.showLayer(id, true);
  }

  /** Change the choice; what is not named stays. @param {Partial<Compared>} change */
  choose(change) {
    const before = this.choice;
    const plain = { truth: "", prediction: "", iou: 0.5, wholeSlide: false, colored: true, ...before, ...change };
    const layersChanged = plain.truth !== before?.truth || plain.prediction !== before?.prediction;
    const sameClass = change.sameClass ?? (layersChanged ? this.shareClasses(plain) : before?.sameClass ?? true);
    this.choice = { ...plain, sameClass };
    this.known = this.threshold;
    if (layersChanged || sameClass !== before?.sameClass) this.forget();
    if (plain.iou !== before?.iou) {
      this.curve = null;
      this.forgetErrors();
    }
    this.color();
    this.ask();
    this.changed();
  }

  /** Whether two layers have a class in common: only then can classes decide what matches.
   * @param {{truth: string, prediction: string}} [choice] */
  shareClasses(choice = this.choice ?? { truth: "", prediction: "" }) {
    const names = (/** @type {string} */ id) => this.overlay.layers.get(id)?.layer.classes.map((each) => each.name) ?? [];
    const theirs = new Set(names(choice.prediction));
    return names(choice.truth).some((name) => theirs.has(name));
  }

  /** Compare no longer. */
  stop() {
    if (this.choice === null) return;
    this.choice = null;
    this.forget();
    this.color();
    this.changed();
  }

  /** The panel was opened or closed. @param {boolean} watched */
  watch(watched) {
    this.watched = watched;
    if (watched) this.ask();
  }

  /** Keep up with thresholds and layers that changed elsewhere. */
  follow() {
    if (this.choice === null) return;
    if (this.layer("truth") === undefined || this.layer("prediction") === undefined) return this.stop();
    if (this.threshold === this.known) return;
    this.known = this.threshold;
    this.forgetErrors();
    this.askTableSoon();
    this.changed();
  }

  /** Ask for whatever is needed and not there. The first answer costs the server the whole comparison and the others follow
   * from it: asked for at once, each would be as dear. */
  async ask() {
    const choice = this.choice;
    if (choice === null) return;
    if (choice.colored && this.pairs === null) await this.askPairs(choice);
    if (choice !== this.choice || !this.watched) return;
    await this.askTable();
    if (choice !== this.choice || this.curve !== null) return;
    await this.request("curve", (signal) => fetchCurve(this.stage.card.id, choice, signal), (curve) => (this.curve = curve));
  }

  /** @param {Compared} choice */
  askPairs(choice) {
    return this.request("pairs", (signal) => fetchPairs(this.stage.card.id, choice, signal), (bytes) => {
      this.pairs = readPairs(bytes);
      this.color();
    });
  }

  askTableSoon() {
    if (!this.watched) return;
    this.stale = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.askTable(), this.options.settleMs);
    this.changed();
  }

  async askTable() {
    const choice = this.choice;
    if (choice === null) return;
    clearTimeout(this.timer);
    this.stale = true;
    const box = choice.wholeSlide ? null : this.seenBox();
    await this.request("table", (signal) => fetchComparison(this.stage.card.id, choice, this.threshold, box, signal), (table) => {
      this.table = table;
      this.stale = false;
    });
  }

  /** What the view shows of the slide, base-plane pixels; a box without area where it shows nothing. */
  seenBox() {
    return regionOf(boxAround(visibleCorners(this.stage.view(false))), this.stage.card.base) ?? [0, 0, 0, 0];
  }

  /**
   * One request of a kind at a time: a new one ends the one before.
   * @template T
   * @param {string} kind @param {(signal: AbortSignal) => Promise<T>} fetched @param {(answer: T) => void} take
   */
  async request(kind, fetched, take) {
    this.asking.get(kind)?.abort();
    const abort = new AbortController();
    this.asking.set(kind, abort);
    try {
      const answer = await fetched(abort.signal);
      if (abort.signal.aborted) return;
      this.faults.delete(kind);
      take(answer);
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.faults.set(kind, error.message);
    }
    if (this.asking.get(kind) === abort) this.asking.delete(kind);
    this.changed();
  }

  /** Colour the slide by what matches, as far as that is wanted and known. */
  color() {
    const { choice, pairs } = this;
    if (choice === null || !choice.colored || pairs === null) return this.overlay.setComparison(null);
    const { truth, prediction, iou, sameClass } = choice;
    this.overlay.setComparison({ truth, prediction, pairs, iou, sameClass });
  }

  /** @param {"size" | "score"} order of the errors */
  sort(order) {
    this.order = order;
    this.forgetErrors();
    this.changed();
  }

  /** Look at the next error. @param {number} step 1 or −1 */
  async step(step) {
    const choice = this.choice;
    if (choice === null) return;
    if (this.errors === null) await this.askErrors(choice);
    const seen = this.seen();
    if (seen.length > 0) {
      const start = this.at < 0 && step < 0 ? 0 : this.at;
      this.at = (start + step + seen.length) % seen.length;
      this.dispatchEvent(new CustomEvent("found", { detail: this.found(seen[this.at]) }));
    }
    this.changed();
  }

  /** @param {Compared} choice */
  askErrors(choice) {
    const ask = (/** @type {AbortSignal} */ signal) => (
      fetchErrors(this.stage.card.id, choice, this.threshold, this.order, this.options.errors, signal));
    return this.request("errors", ask, ({ errors, total }) => Object.assign(this, { errors, total }));
  }

  /** Errors of the classes that are switched on. @returns {MatchError[]} */
  seen() {
    const [truth, prediction] = [this.choice?.truth, this.choice?.prediction].map((id) => this.overlay.layers.get(id ?? "")?.hidden);
    return this.errors === null ? [] : seenErrors(this.errors, truth ?? new Set(), prediction ?? new Set());
  }

  /** An error as the overlay tells a feature. @param {MatchError} error */
  found({ kind, number, class: className, score, area_um2: um2, box }) {
    const area = um2 / (this.stage.card.base.mpp ?? 1) ** 2;
    const layer = this.layer(kind === "fp" ? "prediction" : "truth");
    return { feature: { number, className, score, area, name: "", box }, layer, state: kind };
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
