/** Cells of a layer's summary ("OCS1"): per cell, class and score bin the area and count of features; pure. */

import { DamagedError } from "./blocks.js";

/** @typedef {import("./geometry.js").Box} Box */

const MAGIC = 0x3153434f; // "OCS1", read as a little-endian number
const HEADER = 16;

/**
 * A part of one level. Entry `i` is column `i` of each array.
 * @typedef {object} Grid
 * @property {number} level
 * @property {number} side of a cell, base-plane pixels
 * @property {number} entries
 * @property {Uint16Array} columns of the cells @property {Uint16Array} rows
 * @property {Uint16Array} classes index into the class names of the layer's block index
 * @property {Uint16Array} bins score in 1/100; 255 without a score
 * @property {Uint32Array} counts features whose middle lies in the cell
 * @property {Float64Array} areas within the cell, in 1/512 base-plane px²
 * @property {Box} cells first column, first row, last column + 1, last row + 1 of the part
 */

/** What is shown of each class. @typedef {{red: number, green: number, blue: number, alpha: number}} Tint */

export const AREA_UNIT = 1 / 512;

/** @param {ArrayBuffer} buffer @param {Box} cells the part asked for @returns {Grid} throws DamagedError */
export function decodeSummary(buffer, cells) {
  if (buffer.byteLength < HEADER) throw new DamagedError("The summary is shorter than its header.");
  const [magic, entries, level, side] = new Uint32Array(buffer, 0, 4);
  if (magic !== MAGIC) throw new DamagedError("The summary does not begin as a summary does.");
  const step = 4 * Math.ceil(entries / 2);
  const countsAt = HEADER + 4 * step;
  const areasAt = 8 * Math.ceil((countsAt + 4 * entries) / 8);
  const expected = areasAt + 8 * entries;
  if (buffer.byteLength !== expected) throw new DamagedError(`The summary has ${buffer.byteLength} bytes instead of ${expected}.`);
  const shorts = (/** @type {number} */ at) => new Uint16Array(buffer, HEADER + at * step, entries);
  return {
    level, side, entries, cells, columns: shorts(0), rows: shorts(1), classes: shorts(2), bins: shorts(3),
    counts: new Uint32Array(buffer, countsAt, entries), areas: new Float64Array(buffer, areasAt, entries),
  };
}

/**
 * The part of a grid as a picture, one pixel a cell and a clear rim of one pixel: each class's share of the cell times its
 * alpha.
 * @param {Grid} grid @param {number} least bin; an entry below is left out @param {(Tint | null)[]} tints by class, null: hidden
 * @param {{width: number, height: number}} base plane; cells at its rim are only as large as their part of it
 * @returns {{pixels: Uint8ClampedArray<ArrayBuffer>, width: number, height: number, box: Box}} RGBA, not premultiplied; the box is that of
 * the picture with its rim, in base-plane pixels
 */
export function picture(grid, least, tints, base) {
  const [left, top, right, bottom] = grid.cells;
  const [width, height] = [right - left + 2, bottom - top + 2];
  const sums = new Float32Array(4 * width * height);
  const { columns, rows, classes, bins, areas, side } = grid;
  for (let at = 0; at < grid.entries; at++) {
    const tint = bins[at] >= least ? tints[classes[at]] : null;
    const [column, row] = [columns[at], rows[at]];
    if (!tint || column < left || column >= right || row < top || row >= bottom) continue;
    const cell = Math.min(side, base.width - column * side) * Math.min(side, base.height - row * side);
    const alpha = Math.min(1, (areas[at] * AREA_UNIT) / cell) * tint.alpha;
    const to = 4 * ((row - top + 1) * width + column - left + 1);
    sums[to] += alpha * tint.red;
    sums[to + 1] += alpha * tint.green;
    sums[to + 2] += alpha * tint.blue;
    sums[to + 3] += alpha;
  }
  const box = /** @type {Box} */ ([(left - 1) * side, (top - 1) * side, (right + 1) * side, (bottom + 1) * side]);
  return { pixels: unweigh(sums), width, height, box };
}

/** Mean colour and whole alpha of weighed sums. @param {Float32Array} sums */
function unweigh(sums) {
  const pixels = new Uint8ClampedArray(sums.length);
  for (let at = 0; at < sums.length; at += 4) {
    const alpha = sums[at + 3];
    if (alpha === 0) continue;
    pixels[at] = sums[at] / alpha;
    pixels[at + 1] = sums[at + 1] / alpha;
    pixels[at + 2] = sums[at + 2] / alpha;
    pixels[at + 3] = 255 * Math.min(1, alpha);
  }
  return pixels;
}

/**
 * Count and area by class in the cells that meet a box; cells at its rim weigh in full.
 * @param {Grid} grid @param {number} least bin @param {Box} box base-plane pixels @param {number} classes how many there are
 * @returns {{counts: Float64Array, areas: Float64Array, exact: boolean}} areas in base-plane px²; exact: no cell with
 * anything in it lies across the rim
 */
export function countCells(grid, least, box, classes) {
  const [counts, areas] = [new Float64Array(classes), new Float64Array(classes)];
  const { columns, rows, bins, side } = grid;
  const across = [box[0] / side, box[1] / side, box[2] / side, box[3] / side];
  let exact = true;
  for (let at = 0; at < grid.entries; at++) {
    const [column, row] = [columns[at], rows[at]];
    if (bins[at] < least || column + 1 <= across[0] || row + 1 <= across[1] || column >= across[2] || row >= across[3]) continue;
    if (column < across[0] || row < across[1] || column + 1 > across[2] || row + 1 > across[3]) exact = false;
    counts[grid.classes[at]] += grid.counts[at];
    areas[grid.classes[at]] += grid.areas[at] * AREA_UNIT;
  }
  return { counts, areas, exact };
}
