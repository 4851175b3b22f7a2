/** Draws the marked feature and tile frames on a canvas. Knows canvases and numbers, no page. */

import { apply, boxAround, viewMatrix } from "./geometry.js";
import { provenanceText } from "./provenance.js";

/** @typedef {import("./geometry.js").View} View */
/** @typedef {import("./geometry.js").Matrix} Matrix */

/** Vertices nearer than this to the last one drawn, CSS pixels, are left out. */
const STEP = 0.4;
const FRAME_COLORS = { scanned: "#7fb2d6", made: "#f2b33d", standIn: "#ff7d6b" };

/**
 * Clear a canvas and make one drawing unit one CSS pixel.
 * @param {HTMLCanvasElement} canvas @param {View} view @param {number} density device pixels per CSS pixel
 */
export function begin(canvas, view, density) {
  const [width, height] = [Math.round(view.width * density), Math.round(view.height * density)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(density, 0, 0, density, 0, 0);
  return context;
}

/** Outline one feature so that it stands out on any tissue. @param {CanvasRenderingContext2D} context @param {View} view
 * @param {import("./geometry.js").Point[][]} rings */
export function paintMarked(context, view, rings) {
  const matrix = viewMatrix(view);
  context.beginPath();
  for (const ring of rings) traceRing(context, matrix, ring);
  for (const [strokeStyle, lineWidth] of [["#101214", 5], ["#ffffff", 2.5]]) {
    Object.assign(context, { strokeStyle, lineWidth, lineJoin: "round" });
    context.stroke();
  }
}

/** Frame every drawn tile with its address and origin. @param {CanvasRenderingContext2D} context @param {View} view
 * @param {Iterable<import("./stage.js").DrawnTile>} tiles */
export function paintFrames(context, view, tiles) {
  const matrix = viewMatrix(view);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "top";
  for (const tile of tiles) {
    const [left, top, right, bottom] = tile.box;
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(([x, y]) => apply(matrix, x, y));
    const { synthesised, fallbackFor } = tile.provenance;
    const color = fallbackFor ? FRAME_COLORS.standIn : synthesised ? FRAME_COLORS.made : FRAME_COLORS.scanned;
    context.beginPath();
    corners.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    for (const [strokeStyle, lineWidth] of [["#101214", 3.5], [color, 1.5]]) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.stroke();
    }
    label(context, boxAround(corners), `${provenanceText(tile.provenance)} · ${tile.level}/${tile.column}_${tile.row}`, color);
  }
}

/** @param {CanvasRenderingContext2D} context @param {import("./geometry.js").Box} box @param {string} text
 * @param {string} color */
function label(context, box, text, color) {
  const width = context.measureText(text).width + 10;
  if (box[2] - box[0] < width + 8 || box[3] - box[1] < 30) return;
  context.fillStyle = "rgba(16, 18, 20, 0.8)";
  context.fillRect(box[0] + 4, box[1] + 4, width, 20);
  context.fillStyle = color;
  context.fillText(text, box[0] + 9, box[1] + 8);
}

/** @param {CanvasRenderingContext2D} context @param {Matrix} matrix @param {import("./geometry.js").Point[]} ring */
function traceRing(context, matrix, ring) {
  let [lastX, lastY] = [Infinity, Infinity];
  for (const point of ring) {
    const [x, y] = apply(matrix, point[0], point[1]);
    if (Math.abs(x - lastX) < STEP && Math.abs(y - lastY) < STEP) continue;
    if (lastX === Infinity) context.moveTo(x, y);
    else context.lineTo(x, y);
    [lastX, lastY] = [x, y];
  }
  context.closePath();
}
