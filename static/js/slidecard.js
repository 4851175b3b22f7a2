/** The slide card: the facts of the slide and of its ingestion, as text. */

import { make } from "./dom.js";
import { bytesText, dateText, mppText, sizeText } from "./format.js";

/** @typedef {import("./api.js").Card} Card */
/** @typedef {[string, string]} Row */

/** @param {Card} card @returns {HTMLElement[]} */
export function slideCard(card) {
  return [
    section("Slide", slideRows(card)),
    section("Scan", scanRows(card.facts)),
    section("Stored pyramid", storedRows(card)),
    ...(card.faithful ? [section("Faithful ×40", faithfulRows(card.faithful))] : []),
    section("Sources of pixels", card.sources.map((each) => [each.label, sourceText(each)])),
  ];
}

/** @param {Card} card @returns {Row[]} */
function slideRows(card) {
  return [
    ["Name", card.name],
    ["Id", card.id],
    ["Version", card.version],
    ["Ingested", dateText(card.created)],
    ["Base plane", `${sizeText(card.base)} · ${mppText(card.base.mpp)}`],
    ["Stored plane", `${sizeText(card.stored)} · ${mppText(card.stored.mpp)}`],
  ];
}

/** @param {Record<string, any>} facts @returns {Row[]} */
function scanRows(facts) {
  const offset = facts.bounds_offset ?? [0, 0];
  return known([
    ["Format", facts.vendor],
    ["Size", facts.scan_size && `${facts.scan_size[0].toLocaleString("en")} × ${facts.scan_size[1].toLocaleString("en")} px`],
    ["Pixel size", facts.scan_mpp && `${mppText(facts.scan_mpp)}${facts.mpp_given ? " (given at ingestion)" : ""}`],
    ["Objective", facts.scan_objective_power && `×${facts.scan_objective_power}`],
    ["Trimmed at", offset.some(Boolean) && `${offset[0]}, ${offset[1]} px`],
    ["File", facts.source_bytes && bytesText(facts.source_bytes)],
    ["SHA-256", facts.source_sha256],
  ]);
}

/** @param {Card} card @returns {Row[]} */
function storedRows({ facts, levels, tile_side: side }) {
  const saved = facts.source_bytes && facts.pyramid_bytes ? ` (${Math.round((100 * facts.pyramid_bytes) / facts.source_bytes)} % of the file)` : "";
  return known([
    ["Levels", `${levels.length}, tiles of ${side} px`],
    ["Bytes", facts.pyramid_bytes && bytesText(facts.pyramid_bytes) + saved],
    ["Kernel", facts.kernel && `${facts.kernel}, halved ${facts.halvings ?? 0}×`],
    ["Encoding", facts.encoding],
    ["Colour profile", facts.icc],
    ["SHA-256", facts.pyramid_sha256],
  ]);
}

/** What was compared with the scan, and what was kept of it. @param {Record<string, any>} facts @returns {Row[]} */
function faithfulRows(facts) {
  const named = { 0: "least", 0.5: "median" };
  const spread = facts.quantiles.filter(([share]) => share < 1)
    .map(([share, value]) => `${named[share] ?? `${Number((100 * share).toPrecision(3))} %`} ${value.toFixed(3)}`);
  return [
    ["Compared", `${facts.tiles.toLocaleString("en")} tiles of ${facts.model} ${facts.model_sha256.slice(0, 12)} with the scan, all there are`],
    ["Floor", `${facts.measure} ${facts.floor}: tiles below are shown as scanned`],
    ["Kept", `${facts.kept.toLocaleString("en")} tiles (${(100 * facts.kept_share).toFixed(1)} %), ${bytesText(facts.bytes_kept)}, ${facts.encoding}`],
    ["Saved", `${bytesText(facts.bytes_saved)} against keeping every tile`],
    [facts.measure, spread.join(" · ")],
  ];
}

/** @param {import("./api.js").Source} source */
function sourceText(source) {
  const { kept, model } = source;
  const scanned = kept && `${kept.kept.toLocaleString("en")} of ${kept.tiles.toLocaleString("en")} ×40 tiles scanned`;
  const parts = [sizeText(source), scanned, source.synthesised ? "synthesised" : !kept && "scanned"];
  if (model) parts.push(`${model.name} ${model.sha256.slice(0, 12)}`);
  return parts.filter(Boolean).join(" · ");
}

/** Rows that say something. @param {[string, any][]} rows @returns {Row[]} */
function known(rows) {
  return rows.filter((row) => row[1]).map(([name, value]) => [name, String(value)]);
}

/** @param {string} title @param {Row[]} rows */
function section(title, rows) {
  const pairs = rows.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]);
  return make("section", {}, [make("h3", { text: title }), make("dl", {}, pairs)]);
}
