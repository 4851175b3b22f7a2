/** Scale bar and magnification, pure. */

/** Nominal sizes: ×40 is 0.25 µm per pixel, so ×1 is 10 µm. */
const UM_AT_X1 = 10;

/** Magnifications of the keys 1 to 7. */
export const PRESETS = [1.25, 2.5, 5, 10, 20, 40, 80];

/**
 * The longest bar of 1, 2 or 5 · 10ⁿ µm that fits.
 * @param {number} umPerPixel µm per CSS pixel, > 0
 * @param {number} room CSS pixels at most
 * @returns {{um: number, pixels: number, label: string}}
 */
export function scaleBar(umPerPixel, room) {
  const longest = umPerPixel * room;
  const decade = 10 ** Math.floor(Math.log10(longest) + 1e-9);
  const step = [5, 2, 1].find((each) => each * decade <= longest * (1 + 1e-9)) ?? 1;
  const um = step * decade;
  return { um, pixels: um / umPerPixel, label: lengthText(um) };
}

/** A length as a reader writes it: nm below 1 µm, mm from 1000 µm. @param {number} um */
export function lengthText(um) {
  if (um >= 1000) return `${tidy(um / 1000)} mm`;
  return um >= 1 ? `${tidy(um)} µm` : `${tidy(um * 1000)} nm`;
}

/** An area in µm², in mm² from 0.01 mm². @param {number} um2 */
export function areaText(um2) {
  if (um2 >= 1e4) return `${tidy(um2 / 1e6)} mm²`;
  return `${tidy(um2)} µm²`;
}

/** Three significant digits, grouped, without a trailing zero. @param {number} value */
export function tidy(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: value >= 1000 ? 4 : 3 });
}

/**
 * Magnification of the base plane at one CSS pixel per pixel: twice the nominal power of the stored plane; null when
 * neither the power nor µm/px are known.
 * @param {{objective_power: number | null, base: {mpp: number | null}}} card
 * @returns {number | null}
 */
export function basePower(card) {
  if (card.objective_power) return 2 * card.objective_power;
  return card.base.mpp ? UM_AT_X1 / card.base.mpp : null;
}

/** `×27.3`, `×1.25`: three digits, without trailing zeros. @param {number} power */
export function powerText(power) {
  return `×${Number(power.toPrecision(3))}`;
}
