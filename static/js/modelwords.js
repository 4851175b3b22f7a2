/** What the card of a model says, for upscalers and predictors alike: rows, tables and lines of text. Pure. */

import { countText, plural } from "./format.js";
import { labelsText, modelText, whyNot } from "./jobwords.js";

/**
 * A card as `/api/models` gives it; what is not stated is not shown.
 * @typedef {object} ModelCard
 * @property {string} name
 * @property {string} kind `bicubic`, `sr`, or a predictor's
 * @property {number} [parameters]
 * @property {number} [scale]
 * @property {number} [halo] stored pixels
 * @property {[number, number]} mpp_range µm per stored pixel
 * @property {string} sha256
 * @property {string} [architecture]
 * @property {string} [title]
 * @property {string} [licence]
 * @property {boolean} [research_only] the licence or that of a training set forbids other use
 * @property {string[]} [label_kinds]
 * @property {Record<string, any>} [degradation]
 * @property {Record<string, any>[]} [data]
 * @property {Record<string, any>[]} [scores]
 * @property {Record<string, any>} [training]
 * @property {string} [notes]
 */
/** @typedef {[string, string]} Row */
/** `head[0]` names the rows. @typedef {{caption: string, head: string[], rows: {name: string, more: string, cells: string[]}[]}} Table */

/** Names listed before the rest is counted. */
const MOST_NAMES = 8;
const SYNTHESIS = ["bicubic", "sr"];
/** Order of the methods in a table of scores; the model comes last. */
const PEERS = ["bicubic", "lanczos", "linear"];

/** Whether a model makes ×40 pixels (and does not predict layers). @param {{kind: string}} card */
export function isUpscaler(card) {
  return SYNTHESIS.includes(card.kind);
}

/** What it does, in words. @param {any} card */
export function kindText(card) {
  if (card.kind === "bicubic") return `interpolation ×${card.scale}, nothing learnt`;
  return card.kind === "sr" ? `super-resolution ×${card.scale}` : modelText(card);
}

/** The facts at the head. @param {ModelCard} card @param {number | null} storedMpp of the slide @returns {Row[]} */
export function factRows(card, storedMpp) {
  const [low, high] = card.mpp_range;
  const unfit = whyNot(/** @type {any} */ (card), storedMpp);
  const range = `${tidy(low)}–${tidy(high)} µm per stored pixel`;
  const fits = storedMpp ? ` · this slide: ${tidy(storedMpp)}, ${unfit === null ? "fits" : "does not fit"}` : "";
  return known([
    ["Title", card.title],
    ["Does", kindText(card)],
    ["Network", card.architecture],
    ["Parameters", card.parameters === undefined ? "" : countText(card.parameters)],
    ["Made for", range + fits],
    ["Looks around", card.halo === undefined ? "" : `${countText(card.halo)} stored px on each side of a tile or window`],
    ["Trained for", degradationText(card.degradation ?? {})],
    ["Learnt from", labelsText(card).replace("learnt from ", "")],
    ["Licence", [card.licence, card.research_only && "for research only: never chosen by itself"].filter(Boolean).join(" · ")],
    ["SHA-256", card.sha256],
  ]);
}

/** `stored pixels by box2, JPEG steps 5/7 4:4:4`; older cards have quality and subsampling. @param {Record<string, any>} degradation */
function degradationText(degradation) {
  const { kernel, jpeg: text, jpeg_quality: quality, jpeg_subsampling: subsampling } = degradation;
  const chroma = String(subsampling ?? "").split("").join(":");
  const jpeg = text ?? (quality ? `quality ${quality} ${chroma}`.trim() : "");
  return [kernel && `stored pixels by ${kernel}`, jpeg && `JPEG ${jpeg}`].filter(Boolean).join(", ");
}

/** The scores as one small table; null where the card states none. @param {ModelCard} card @returns {Table | null} */
export function scoreTable(card) {
  const scores = (card.scores ?? []).filter((row) => row && typeof row === "object");
  if (scores.length === 0) return null;
  return scores.some((row) => methodsOf(row).length) ? pictureScores(card.name, scores) : namedScores(scores);
}

/** Methods that a row of picture scores measures. @param {Record<string, any>} row */
function methodsOf(row) {
  return Object.keys(row).filter((key) => key !== "gain" && typeof row[key]?.psnr === "number");
}

/** @param {string} model @param {Record<string, any>[]} scores @returns {Table} */
function pictureScores(model, scores) {
  const all = [...new Set(scores.flatMap(methodsOf))];
  const methods = [...all].sort((one, other) => rank(one, model) - rank(other, model));
  const cell = (/** @type {any} */ score) => (score ? `${score.psnr.toFixed(2)} dB\n${score.ssim?.toFixed(4) ?? ""}` : "–");
  const gain = (/** @type {Record<string, any>} */ row) => {
    const made = row[model] ?? row[methods[methods.length - 1]];
    return made && row.bicubic ? `${signed(made.psnr - row.bicubic.psnr, 2)} dB\n${signed((made.ssim ?? 0) - (row.bicubic.ssim ?? 0), 4)}` : "–";
  };
  const gains = methods.includes("bicubic") && methods.length > 1;
  return {
    caption: "PSNR, and SSIM below it, against the scanned ×40 pixels of slides it was not trained on",
    head: ["Slide", ...methods, ...(gains ? ["gain over bicubic"] : [])],
    rows: scores.map((row) => ({
      name: String(row.slide ?? row.set ?? ""),
      more: countsText(row),
      cells: [...methods.map((name) => cell(row[name])), ...(gains ? [gain(row)] : [])],
    })),
  };
}

/** @param {string} name @param {string} model */
function rank(name, model) {
  if (name === model) return PEERS.length + 1;
  return PEERS.includes(name) ? PEERS.indexOf(name) : PEERS.length;
}

/** Rows of a set's name, what it is, and measures from 0 to 1. @param {Record<string, any>[]} scores @returns {Table} */
function namedScores(scores) {
  const isMeasure = (/** @type {any} */ value) => typeof value === "number" && !Number.isInteger(value);
  const measures = [...new Set(scores.flatMap((row) => Object.keys(row).filter((key) => isMeasure(row[key]))))];
  return {
    caption: "Measured on data it was not trained on",
    head: ["Measured on", ...measures.map(wordsOf)],
    rows: scores.map((row) => ({
      name: String(row.set ?? row.slide ?? ""),
      more: [row.words, countsText(row)].filter(Boolean).join("; "),
      cells: measures.map((key) => (typeof row[key] === "number" ? row[key].toFixed(3) : "–")),
    })),
  };
}

/** `5 pictures, 129 nuclei`: the whole numbers of a row. @param {Record<string, any>} row */
function countsText(row) {
  const counts = Object.entries(row).filter((pair) => Number.isInteger(pair[1]) && pair[1] > 1);
  return counts.map(([name, count]) => `${countText(count)} ${wordsOf(name)}`).join(", ");
}

/** Training data, a heading and a line for each set. @param {ModelCard} card @returns {Row[]} */
export function dataRows(card) {
  return (card.data ?? []).map((set) => {
    const counted = ["pictures", "patches", "tiles", "scenes"].find((name) => Number.isInteger(set[name]));
    const parts = [
      counted && `${countText(set[counted])} ${counted}`,
      set.slides?.length && `${plural(set.slides.length, "slide")}: ${namesText(set.slides)}`,
      set.labels && `labels: ${set.labels}`,
      set.used,
      set.licence && `licence: ${set.licence}`,
      set.credit,
    ];
    return [String(set.set ?? "data"), parts.filter(Boolean).join(" · ")];
  });
}

/** @param {ModelCard} card @returns {Row[]} */
export function trainingRows(card) {
  const { steps, commit, stages, hardware, minutes, unfinished } = card.training ?? {};
  return known([
    ["Not finished", unfinished],
    ["Steps", Number.isFinite(steps) ? countText(steps) : ""],
    ["Stages", stages?.length > 1 ? String(stages.length) : ""],
    ["Minutes", Number.isFinite(minutes) ? countText(Math.round(minutes)) : ""],
    ["Hardware", hardware],
    ["Commit", commit],
  ]);
}

/** @param {string[]} names */
function namesText(names) {
  const rest = names.length - MOST_NAMES;
  return rest > 1 ? `${names.slice(0, MOST_NAMES).join(", ")} and ${rest} more` : names.join(", ");
}

/** `balanced_accuracy` as `balanced accuracy`; short names of measures as they are written. @param {string} key */
function wordsOf(key) {
  const short = { psnr: "PSNR", ssim: "SSIM", aji: "AJI", pq: "PQ", dq: "DQ", sq: "SQ", f1: "F1", ece: "ECE", dice: "Dice" };
  return short[key] ?? key.replaceAll("_", " ");
}

/** @param {number} value @param {number} digits */
function signed(value, digits) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

/** @param {number} value */
function tidy(value) {
  return String(Number(value.toPrecision(3)));
}

/** Rows that say something. @param {[string, any][]} rows @returns {Row[]} */
function known(rows) {
  return rows.filter((row) => row[1]).map(([name, value]) => [name, String(value)]);
}
