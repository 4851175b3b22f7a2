/** What a layer says about itself: its group in the panel, its run, where it comes from. Pure. */

import { countText, dateText } from "./format.js";
import { tidy } from "./scale.js";
import { trustOf } from "./trust.js";

/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {[string, string]} Row */

const TITLES = { truth: "Ground truth", annotation: "Annotations" };
const ORDER = ["truth", "annotation", "prediction"];

/**
 * Layers as the panel shows them: truth, annotations, then predictions by model, the newest run first.
 * @param {Layer[]} layers @returns {{key: string, title: string, layers: Layer[]}[]}
 */
export function groupLayers(layers) {
  const kinds = Map.groupBy(layers, (layer) => layer.kind);
  return ORDER.flatMap((kind) => {
    const members = kinds.get(kind) ?? [];
    if (kind !== "prediction") return members.length ? [{ key: kind, title: TITLES[kind], layers: members }] : [];
    const newest = [...members].reverse().sort((one, other) => other.created.localeCompare(one.created));
    const models = Map.groupBy(newest, modelOf);
    return [...models].map(([model, runs]) => ({ key: `prediction ${model}`, title: titleOf(model, runs[0]), layers: runs }));
  });
}

/** @param {string} model @param {Layer} layer one of its runs */
function titleOf(model, layer) {
  const trust = trustOf(layer);
  return trust ? `Trust map · ${trust.upscaler}` : `Predictions · ${model}`;
}

/** Model of a predicted layer. @param {Layer} layer */
export function modelOf(layer) {
  return String(layer.provenance?.model ?? "imported");
}

/** Whether a layer was made by a model, also where it stands for the truth: measures against it are agreement, not
 * correctness. @param {Layer} layer */
export function isModelOutput(layer) {
  return layer.kind === "prediction" || Boolean(layer.provenance?.model ?? layer.provenance?.source?.model);
}

/** `2026-11-21 07:30 · preview of 1.2 × 0.8 mm`; of a whole slide the time alone. @param {Layer} layer
 * @param {number | null} mpp µm per base-plane pixel */
export function runText(layer, mpp) {
  const { region, preview } = layer.provenance ?? {};
  const parts = [layer.created && dateText(layer.created)];
  if (region || preview) parts.push(regionText(region ?? null, Boolean(preview), mpp));
  return parts.filter(Boolean).join(" · ");
}

/** `whole slide`, `region of 1.2 × 0.8 mm`, `preview of …`. @param {number[] | null} region box in base-plane pixels
 * @param {boolean} preview @param {number | null} mpp µm per base-plane pixel */
export function regionText(region, preview, mpp) {
  if (region === null) return preview ? "preview" : "whole slide";
  const sides = [region[2] - region[0], region[3] - region[1]];
  return `${preview ? "preview" : "region"} of ${sidesText(sides, mpp)}`;
}

/** `1.2 × 0.8 mm`: both sides in the unit of the longer. @param {number[]} sides base-plane pixels @param {number | null} mpp */
export function sidesText(sides, mpp) {
  if (!mpp) return `${sides.map((side) => countText(Math.round(side))).join(" × ")} px`;
  const [scale, unit] = Math.max(...sides) * mpp >= 1000 ? [mpp / 1000, "mm"] : [mpp, "µm"];
  return `${sides.map((side) => tidy(side * scale)).join(" × ")} ${unit}`;
}

/** @param {Layer} layer @param {number | null} mpp µm per base-plane pixel @returns {Row[]} for the list behind “About” */
export function provenanceRows(layer, mpp) {
  const facts = layer.provenance ?? {};
  const made = facts.model ? predictionRows(facts, mpp) : importRows(facts);
  const published = layer.created && dateText(layer.created);
  return known([...made, ["Layer", layer.id], ["Published", published], ["Slide version", layer.version]]);
}

/** @param {Record<string, any>} facts @param {number | null} mpp @returns {[string, any][]} */
function predictionRows(facts, mpp) {
  return [
    ["Model", facts.kind ? `${facts.model} (${facts.kind})` : facts.model],
    ["Weights, SHA-256", facts.model_sha256],
    ["Computed on", regionText(facts.region ?? null, Boolean(facts.preview), mpp)],
    ["Parameters", parametersText(facts.parameters ?? {})],
    ["Started", facts.started && dateText(facts.started)],
    ["Took", facts.seconds !== undefined && durationText(facts.seconds)],
    ["Windows", facts.windows?.toLocaleString("en")],
    ["Engine", facts.engine],
    ["Ocular", facts.ocular],
  ];
}

/** @param {Record<string, any>} facts @returns {[string, any][]} */
function importRows({ source, report }) {
  return [
    ["Imported from", report?.format],
    ["File, SHA-256", source?.sha256],
    ["Pixels of the file", source?.plane && `${source.plane} plane`],
    ["Repaired", lossText(report?.repairs ?? [])],
    ["Not kept", lossText(report?.losses ?? [])],
  ];
}

/** `z coordinates (×3), lines (×1,200)`. @param {{what: string, count: number}[]} entries of a loss report */
export function lossText(entries) {
  return entries.map(({ what, count }) => `${what} (×${countText(count)})`).join(", ");
}

/** `threshold 0.5 · tissue otsu`; sub-tables are written out. @param {Record<string, any>} parameters */
export function parametersText(parameters) {
  const pairs = Object.entries(parameters).filter((pair) => pair[1] !== null);
  const words = pairs.map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  return words.join(" · ") || "defaults";
}

/** `850 ms`, `42 s`, `3 min 20 s`, `2 h 5 min`. @param {number} seconds */
export function durationText(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Rows that say something. @param {[string, any][]} rows @returns {Row[]} */
function known(rows) {
  return rows.filter((row) => row[1]).map(([name, value]) => [name, String(value)]);
}
