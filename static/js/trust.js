/** Trust maps in the layers panel: what was compared, in which units, and what each colour means. */

import { checkbox } from "./controls.js";
import { make } from "./dom.js";

/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {{upscaler: string, upscaler_sha256: string, compared: keyof typeof NOTES, measure: string,
 *   score: string, floor: number | null, bands: {name: string, limits: string, words: string}[], held_out?: HeldOut[]}}
 *   Trust */
/** @typedef {{slide: string, part: string, off: number, correlation: number | null}} HeldOut How an estimate did on a slide
 *   that it was not fitted on: mean distance from the truth in grey levels, rank correlation with it */

const NOTES = {
  scan: "Compared with the scan, tile by tile.",
  stored: "No scan at hand: shows self-consistency only, not truth.",
  both: "Compared with the scan where it is known; elsewhere self-consistency only, not truth.",
  estimated: "No scan at hand: estimated from how much fine detail lies there, not compared with a scan.",
  "both-estimated": "Compared with the scan where it is known; elsewhere estimated from how much fine detail lies there.",
};
const UNIT = "1 grey level is 1/255 of the way from black to white.";

/** What a trust map says of itself; null for any other layer. @param {Layer} layer @returns {Trust | null} */
export function trustOf(layer) {
  return layer.provenance?.trust ?? null;
}

/** In one sentence, what the map rests on. @param {Trust} told */
export function trustNote({ compared }) {
  return NOTES[compared] ?? NOTES.stored;
}

/** How well estimates held where the scan was known; empty without an estimate. @param {Trust} told */
export function trustProof({ compared, held_out: slides = [] }) {
  if (!compared.endsWith("estimated") || !slides.length) return "";
  const span = (/** @type {number[]} */ values) => {
    const [low, high] = [Math.min(...values).toFixed(2), Math.max(...values).toFixed(2)];
    return low === high ? low : `${low} to ${high}`;
  };
  const off = span(slides.map((slide) => slide.off));
  const orders = slides.map((slide) => slide.correlation).filter((each) => each !== null);
  const order = orders.length ? ` ${span(orders)}` : " unknown";
  const many = slides.length === 1 ? "On 1 slide" : `On ${slides.length} slides`;
  return `${many} that it was not fitted on the estimate was off by ${off} grey levels in the mean, and put places in
    order with rank correlation${order} (1 would be perfect, 0 useless).`.replace(/\s+/g, " ");
}

/** Bands that the slide has, the most trusted first, with their share of the mapped area.
 * @param {Layer} layer @param {Trust} told */
export function bandShares(layer, told) {
  const areas = new Map(layer.classes.map((each) => [each.name, each.area_um2 ?? 0]));
  const all = [...areas.values()].reduce((sum, area) => sum + area, 0) || 1;
  return told.bands.map((band) => ({ ...band, share: (areas.get(band.name) ?? 0) / all })).filter((band) => band.share > 0);
}

/** `93 %`, `0.4 %`, `< 0.1 %`: no share is rounded to nothing or to all. @param {number} share above 0, to 1 */
export function shareText(share) {
  const percent = 100 * share;
  if (percent < 0.1) return "< 0.1 %";
  if (percent < 1 || (percent > 99 && percent < 100)) return `${Math.min(99.9, Number(percent.toFixed(1)))} %`;
  return `${Math.round(percent)} %`;
}

/** Stands where other layers have the table of their classes: switches, colours, shares and words in one. */
export class TrustLegend {
  /** @param {import("./overlay.js").Overlay} overlay @param {Layer} layer @param {Trust} told */
  constructor(overlay, layer, told) {
    this.overlay = overlay;
    this.layer = layer;
    this.rows = bandShares(layer, told).map((band) => this.row(band));
    const proof = trustProof(told);
    const measured = [`Measured: ${told.measure}.`, ...(proof ? [proof] : [])].map((text) => make("p", { text }));
    const unit = told.compared === "scan" ? [] : [make("p", { class: "quiet", text: UNIT })];
    this.root = make("div", { class: "trust" }, [
      make("p", { class: `trust-note ${told.compared === "scan" ? "" : "self-only"}`, role: "note", text: trustNote(told) }),
      make("ul", { class: "trust-bands", "aria-label": `What the colours of ${layer.name} mean` }, this.rows.map((row) => row.root)),
      ...unit,
      make("details", { class: "quiet" }, [make("summary", { text: "How it was measured" }), ...measured]),
    ]);
  }

  /** @param {{name: string, limits: string, words: string, share: number}} band */
  row({ name, limits, words, share }) {
    const { id } = this.layer;
    const box = checkbox((shown) => this.overlay.showClass(id, name, shown), { "data-layer": id, "data-class": name });
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    const label = make("label", {}, [box, swatch, make("strong", { text: name })]);
    const head = make("div", { class: "trust-band" }, [label, make("span", { class: "number", text: shareText(share) })]);
    const root = make("li", {}, [head, make("p", { text: words }), make("p", { class: "quiet", text: limits })]);
    return { name, root, box, swatch };
  }

  /** Bring switches and colours in line with the overlay. */
  update() {
    const { hidden, shown } = /** @type {any} */ (this.overlay.layers.get(this.layer.id));
    for (const { name, root, box, swatch } of this.rows) {
      box.checked = !hidden.has(name);
      /** @type {HTMLElement} */ (swatch).style.backgroundColor = this.overlay.colorOf(this.layer.id, name);
      root.classList.toggle("faint", !shown || hidden.has(name));
    }
  }

  /** Shares do not change with the view: how many pieces an area has says nothing here. */
  updateNumbers() {}
}
