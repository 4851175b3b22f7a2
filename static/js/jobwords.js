/** Jobs and models in words, and whether a model may be run on a slide. Pure. */

import { countText, plural } from "./format.js";
import { durationText, regionText } from "./layerfacts.js";

/**
 * @typedef {object} Job
 * @property {string} id
 * @property {string} model
 * @property {string} slide
 * @property {number[] | null} region box in base-plane pixels; null: the whole slide
 * @property {Record<string, any>} parameters
 * @property {boolean} preview
 * @property {"queued" | "running" | "done" | "failed" | "cancelled"} state
 * @property {number | null} position in the queue, 1 is next
 * @property {{done: number, total: number, unit: string} | null} progress
 * @property {number} tries
 * @property {boolean} [cancelling] it is being stopped
 * @property {string | null} reason of the failure
 * @property {string | null} layer
 * @property {string} created
 * @property {string | null} started
 * @property {string | null} finished
 */
/** @typedef {{name: string, kind: string, classes: {name: string, color: string | null}[], mpp: number,
 *   mpp_range: [number, number], sha256: string, background?: string[],
 *   title?: string, licence?: string, research_only?: boolean, label_kinds?: string[],
 *   better?: string, trust?: {upscaler: string, compared: string}}} Model better: a model that does the same and scores higher;
 *   trust: of the trust map of an upscaler */

/** Side of the largest region that is computed at once, beside the slides: base-plane pixels. */
export const QUICK_SIDE = 8192;

const KINDS = {
  patch: "areas, patch by patch", dense: "areas, pixel by pixel", instance: "single objects", heatmap: "heat map",
};

const LABELS = {
  exact: "drawn truth", hand: "labels by hand", weak: "weak labels", teacher: "labels of another model",
};

/** Whether a model predicts layers (and does not make pixels). @param {{kind: string}} model */
export function isPredictor(model) {
  return model.kind in KINDS;
}

/** @param {Job} job */
export function isActive(job) {
  return job.state === "queued" || job.state === "running";
}

/** What a job computes: `whole slide`, `preview of 0.8 × 0.5 mm`. @param {Job} job @param {number | null} mpp */
export function targetText(job, mpp) {
  return regionText(job.region, job.preview, mpp);
}

/** @param {Job} job @param {number} [now] milliseconds */
export function stateText(job, now = Date.now()) {
  switch (job.state) {
    case "queued": return queuedText(job);
    case "running": return job.cancelling ? "stopping …" : runningText(job, now);
    case "done": return job.started && job.finished ? `done in ${secondsBetween(job.started, job.finished)}` : "done";
    case "cancelled": return "cancelled";
    default: return `failed: ${job.reason ?? "no reason was given"}`;
  }
}

/** @param {Job} job */
function queuedText({ position, tries, reason }) {
  const place = position === null ? "waiting" : position === 1 ? "next in the queue" : `waiting, ${position - 1} before it`;
  return tries ? `${place} · try ${tries + 1} of 3. ${reason ?? ""}`.trim() : place;
}

/** @param {Job} job @param {number} now */
function runningText({ progress, started, tries }, now) {
  const again = tries > 1 ? ` · try ${tries} of 3` : "";
  if (!progress?.total) return `starting${again}`;
  const share = `${percentOf(progress)} % of ${countText(progress.total)} ${progress.unit}`;
  const left = started ? remainingText(progress, (now - Date.parse(started)) / 1000) : "";
  return `${share}${left}${again}`;
}

/** @param {{done: number, total: number}} progress @param {number} seconds since the start */
function remainingText({ done, total }, seconds) {
  // Before a tenth is done the estimate would jump about.
  if (seconds < 5 || done * 10 < total || done >= total) return "";
  return ` · about ${durationText(Math.max(1, (seconds * (total - done)) / done))} left`;
}

/** Whole percents, 100 only when all is done. @param {{done: number, total: number}} progress */
export function percentOf({ done, total }) {
  return total ? Math.min(done >= total ? 100 : 99, Math.floor((100 * done) / total)) : 0;
}

/** @param {string} from @param {string} to both ISO */
function secondsBetween(from, to) {
  return durationText(Math.max(0, (Date.parse(to) - Date.parse(from)) / 1000));
}

/** What a screen reader and the note hear when a job has ended. @param {Job} job @param {number | null} mpp
 * @param {number | null} count features of its layer */
export function endText(job, mpp, count) {
  const what = `${job.model}, ${targetText(job, mpp)}`;
  if (job.state === "done") return count === null ? `${what}: done.` : `${what}: done, ${plural(count, "feature")}.`;
  return job.state === "cancelled" ? `${what}: cancelled.` : `${what}: failed. ${job.reason ?? ""}`.trim();
}

/** @param {Model} model */
export function modelText(model) {
  if (model.trust) {
    const other = model.trust.compared === "estimated" ? "estimated from its fine detail" : "against the stored pixels";
    return `where ${model.trust.upscaler} can be believed: against the scan, or ${other}`;
  }
  const background = new Set(model.background ?? []);
  const classes = model.classes.map((each) => each.name).filter((name) => !background.has(name));
  return [KINDS[model.kind] ?? model.kind, listText(classes, 6)].filter(Boolean).join(": ");
}

/** Kind of the labels that a model learnt from; empty where its card does not say. @param {{label_kinds?: string[]}} model */
export function labelsText({ label_kinds: kinds = [] }) {
  return kinds.length ? `learnt from ${listText(kinds.map((kind) => LABELS[kind] ?? kind), 4)}` : "";
}

/** Models in the order they are offered in: those that fit the slide first, of these the free ones first, of these those
 * whose card names no better one.
 * @param {Model[]} models @param {number | null} storedMpp @returns {Model[]} */
export function inOrder(models, storedMpp) {
  const rank = (/** @type {Model} */ model) =>
    whyNot(model, storedMpp) === null ? (model.research_only ? 2 : model.better ? 1 : 0) : 3;
  return [...models].sort((one, other) => rank(one) - rank(other));
}

/** The model that is chosen where nobody chose: the first that fits and is not for research only.
 * @param {Model[]} ordered by `inOrder` @param {number | null} storedMpp @returns {Model | undefined} */
export function defaultOf(ordered, storedMpp) {
  return ordered.find((model) => whyNot(model, storedMpp) === null && !model.research_only);
}

/** The first few names. @param {string[]} names @param {number} most */
function listText(names, most) {
  const rest = names.length - most;
  return rest > 1 ? `${names.slice(0, most).join(", ")} and ${rest} more` : names.join(", ");
}

/**
 * Why a model may not be run on a slide; null when it may.
 * @param {Model} model @param {number | null} storedMpp µm per stored pixel of the slide
 */
export function whyNot(model, storedMpp) {
  const [low, high] = model.mpp_range;
  const range = `${tidy(low)}–${tidy(high)} µm/px`;
  if (!storedMpp) return `Needs ${range}; the pixel size of this slide is unknown.`;
  return storedMpp < low || storedMpp > high ? `Needs ${range}; this slide has ${tidy(storedMpp)} µm/px.` : null;
}

/** @param {number} value */
function tidy(value) {
  return String(Number(value.toPrecision(3)));
}

/**
 * The part of the slide that a view shows, in whole base-plane pixels; null where it shows none.
 * @param {import("./geometry.js").Box} seen @param {{width: number, height: number}} base
 * @returns {[number, number, number, number] | null}
 */
export function regionOf(seen, base) {
  const [x0, y0] = [Math.max(0, Math.floor(seen[0])), Math.max(0, Math.floor(seen[1]))];
  const [x1, y1] = [Math.min(base.width, Math.ceil(seen[2])), Math.min(base.height, Math.ceil(seen[3]))];
  return x0 < x1 && y0 < y1 ? [x0, y0, x1, y1] : null;
}

/** Whether a region is small enough for a preview at once. @param {number[]} region base-plane pixels */
export function isQuick([x0, y0, x1, y1]) {
  return (x1 - x0) * (y1 - y0) <= QUICK_SIDE * QUICK_SIDE;
}
