/** The comparison in words and numbers: measures, their names, what an error is called. Pure. */

import { countText } from "./format.js";
import { isModelOutput } from "./layerfacts.js";
import { areaText } from "./scale.js";

/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {"tp" | "fp" | "fn"} State */
/** @typedef {{kind: "fp" | "fn", number: number, class: string, score: number | null, area_um2: number,
 *   box: [number, number, number, number]}} MatchError */

/** Columns of the table: key in the server's answer, head, what it means. */
export const MEASURES = [
  { key: "dice", head: "Dice", about: "overlap of the areas: 2 · shared ÷ sum" },
  { key: "iou", head: "IoU", about: "overlap of the areas: shared ÷ union" },
  { key: "precision", head: "Prec.", about: "share of the predicted features that are matched" },
  { key: "recall", head: "Recall", about: "share of the true features that are matched" },
  { key: "f1", head: "F1", about: "harmonic mean of precision and recall" },
  { key: "pq", head: "PQ", about: "panoptic quality: F1 · mean IoU of the matched" },
];

const STATES = { tp: "matched", fp: "false positive", fn: "missed" };
const AGREED = { tp: "both", fp: "only in the prediction", fn: "only in the reference" };

/** What matched, false positive and missed are called: against a model nothing is false or missed.
 * @param {State} state @param {boolean} agreement the reference is a model's output */
export function stateText(state, agreement) {
  return (agreement ? AGREED : STATES)[state];
}

/** Three decimals; a dash where the measure has no denominator. @param {number | null | undefined} value */
export function measureText(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

/** What is to be said where the reference is no truth; empty where people made it. @param {Layer} truth */
export function agreementText(truth) {
  return isModelOutput(truth) ? "Agreement with a model: the reference is a model's output, not the truth." : "";
}

/** `false positive · Tumour · 0.91 · 45 µm²`. @param {MatchError} error @param {boolean} agreement */
export function errorText(error, agreement) {
  const score = error.score === null ? "" : ` · score ${error.score.toFixed(2)}`;
  return `${stateText(error.kind, agreement)} · ${error.class}${score} · ${areaText(error.area_um2)}`;
}

/** `812 matched · 45 false positive · 60 missed`. @param {{tp: number, fp: number, fn: number}} counts
 * @param {boolean} agreement */
export function countsText(counts, agreement) {
  return /** @type {State[]} */ (["tp", "fp", "fn"])
    .map((state) => `${countText(counts[state])} ${stateText(state, agreement)}`).join(" · ");
}

/**
 * The first choice of what to compare: the oldest ground truth, else an annotation, else a prediction, with the newest
 * prediction that has a class in common with it, else the newest; null where there are not two layers.
 * @param {Layer[]} layers @returns {{truth: string, prediction: string} | null}
 */
export function firstChoice(layers) {
  const of = (/** @type {string} */ kind) => layers.filter((layer) => layer.kind === kind);
  const predictions = of("prediction").reverse().sort((one, other) => other.created.localeCompare(one.created));
  const truth = [...of("truth"), ...of("annotation"), ...predictions.slice(1)][0];
  const others = predictions.filter((layer) => layer !== truth);
  if (truth === undefined || others.length === 0) return null;
  const names = new Set(truth.classes.map((each) => each.name));
  const alike = others.find((layer) => layer.classes.some((each) => names.has(each.name)));
  return { truth: truth.id, prediction: (alike ?? others[0]).id };
}

/** Pairs as the server packs them: `OCP1`, their number, then truth and prediction numbers and IoU of each.
 * @param {ArrayBuffer} bytes @returns {import("./matching.js").Pairs} */
export function readPairs(bytes) {
  const count = new DataView(bytes).getUint32(4, true);
  return {
    truth: new Uint32Array(bytes, 8, count),
    prediction: new Uint32Array(bytes, 8 + 4 * count, count),
    iou: new Float32Array(bytes, 8 + 8 * count, count),
  };
}

/** Errors of classes that are shown. @param {MatchError[]} errors @param {Set<string>} hiddenTruth
 * @param {Set<string>} hiddenPrediction */
export function seenErrors(errors, hiddenTruth, hiddenPrediction) {
  return errors.filter((error) => !(error.kind === "fp" ? hiddenPrediction : hiddenTruth).has(error.class));
}

/** Share of the stage's shorter side that a feature should take to be read, least and most. */
const READABLE = [0.06, 0.6];

/**
 * The scale at which a feature is read with what lies around it; the present one where that will do, ×40 at most.
 * @param {[number, number, number, number]} box base-plane pixels
 * @param {{scale: number, width: number, height: number}} view
 */
export function readingScale(box, { scale, width, height }) {
  const side = Math.max(box[2] - box[0], box[3] - box[1], 1);
  const [least, most] = READABLE.map((share) => (share * Math.min(width, height)) / side);
  if (scale >= Math.min(1, least) && scale <= most) return scale;
  return Math.min(1, 0.2 * Math.min(width, height) / side);
}
