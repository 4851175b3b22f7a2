/** How features look: alphas, widths and colours, so chosen that the mean colour stays as one zooms; pure. */

/**
 * @typedef {object} Look
 * @property {string} color `#rrggbb`
 * @property {number} fill alpha of the inside
 * @property {number} line alpha of the outline
 * @property {number} width of the outline, CSS pixels
 * @property {number} dot alpha of a feature too small for an outline
 * @property {boolean} dashed with dark gaps, so that it shows on any ground
 */

/** @typedef {"fill" | "outline" | "both"} Style */

export const UNKNOWN_COLOR = "#c0c4c8";
const LINE_WIDTH = 1.5;
const FILL_SHARE = 0.3;
const LINE_SHARE = 1.5;
/** Diameter, CSS pixels, from which a feature has its full outline; below it, outline and filling run together. */
export const OUTLINED_FROM = 12;
/** Diameter, CSS pixels, below which a feature is all one. */
export const SOLID_BELOW = 5;
/** Longer side, CSS pixels, below which a feature is drawn as a square of its area. */
export const SHAPE_FROM = 3;

/** Longer side, CSS pixels, from which an outline is dashed where it is to be. */
export const DASHED_FROM = 14;

/** Colours that the colour blind tell apart; shape says the same again. */
export const STATE_COLORS = { tp: "#0072b2", fp: "#d55e00", fn: "#f0e442" };

/** Look of a class. @param {string} color @param {Style} style @param {number} opacity 0 to 1 @returns {Look} */
export function classLook(color, style, opacity) {
  const line = style === "fill" ? 0 : Math.min(1, opacity * LINE_SHARE);
  const fill = style === "fill" ? opacity : style === "both" ? opacity * FILL_SHARE : 0;
  return { color, fill, line, width: LINE_WIDTH, dot: solidAlpha(fill, line), dashed: false };
}

/** Looks of the states of a comparison, by their number. What agrees is filled once, by the prediction; the truth adds a
 * thin outline. @param {number} opacity @param {boolean} isTruth @returns {(Look | null)[]} */
export function stateLooks(opacity, isTruth) {
  const line = Math.min(1, 0.4 + opacity);
  const [tp, fp, fn] = [STATE_COLORS.tp, STATE_COLORS.fp, STATE_COLORS.fn];
  return [
    null,
    { color: tp, fill: isTruth ? 0 : opacity * 0.75, line: Math.min(1, opacity * 1.2), width: 1, dot: isTruth ? 0 : opacity, dashed: false },
    { color: fp, fill: opacity * 0.1, line, width: 3, dot: line, dashed: false },
    { color: fn, fill: 0, line, width: 2, dot: line, dashed: true },
  ];
}

/** Mean alpha of a feature of OUTLINED_FROM, which all smaller ones have too. A disc's outline of width w takes 4w/d of
 * its area. @param {number} fill @param {number} line */
function solidAlpha(fill, line) {
  return Math.min(1, fill + (line * 4 * LINE_WIDTH) / OUTLINED_FROM);
}

/**
 * How a feature of a diameter is drawn. As it gets smaller its filling rises to the mean alpha and its outline thins, so
 * that rings turn into dots by degrees.
 * @param {Look} look @param {number} diameter CSS pixels
 * @param {{fill: number, line: number, width: number}} stroke filled in; the width in CSS pixels
 */
export function strokeFor(look, diameter, stroke) {
  const share = Math.min(1, Math.max(0, (diameter - SOLID_BELOW) / (OUTLINED_FROM - SOLID_BELOW)));
  stroke.line = look.line;
  stroke.fill = look.dot + (look.fill - look.dot) * share;
  stroke.width = look.width * share * Math.min(1, diameter / OUTLINED_FROM);
}

/** Mean alpha over the area of features of a diameter, CSS pixels: what the map far out shows of them.
 * @param {Look} look @param {number} diameter */
export function meanAlpha(look, diameter) {
  if (diameter <= OUTLINED_FROM) return look.dot;
  return Math.min(1, look.fill + (look.line * 4 * look.width) / diameter);
}

/** Diameter of a disc of an area. @param {number} area */
export function diameterOf(area) {
  return 2 * Math.sqrt(area / Math.PI);
}

/** @param {string} color `#rrggbb` @returns {[number, number, number]} 0 to 255 */
export function rgb(color) {
  const value = Number.parseInt(color.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
