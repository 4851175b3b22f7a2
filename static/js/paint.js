/** Draws shapes and tile frames on a canvas, culled to the view. Knows canvases and numbers, no page. */

import { apply, boxAround, boxesOverlap, viewMatrix, visibleCorners } from "./geometry.js";
import { provenanceText } from "./provenance.js";

/** @typedef {import("./shapes.js").Shape} Shape */
/** @typedef {import("./geometry.js").View} View */
/** @typedef {import("./geometry.js").Matrix} Matrix */

/** Shapes smaller than this on screen, CSS pixels, become dots. */
const DOT_BELOW = 2.5;
/** Vertices nearer than this to the last one drawn, CSS pixels, are left out. */
const STEP = 0.4;
const LINE_WIDTH = 1.5;
const FILL_SHARE = 0.3;
const LINE_SHARE = 1.5;
const FRAME_COLORS = { scanned: "#7fb2d6", made: "#f2b33d", standIn: "#ff7d6b" };

/**
 * Clear a canvas and make one drawing unit one CSS pixel.
 * @param {HTMLCanvasElement} canvas @param {View} view @param {number} density device pixels per CSS pixel
 */
export function begin(canvas, view, density) {
  const [width, height] = [Math.round(view.width * density), Math.round(view.height * density)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  // Thousands of small paths are drawn faster by the processor than by a graphics card, and a hundred times faster
  // than by one in software; this option is how a canvas is asked to stay with the processor.
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(density, 0, 0, density, 0, 0);
  return context;
}

/**
 * Draw the shapes of one class that the view shows.
 * @param {CanvasRenderingContext2D} context @param {View} view @param {Iterable<Shape>} shapes @param {string} color
 * @param {number} opacity
 * @returns {number} shapes drawn
 */
export function paintShapes(context, view, shapes, color, opacity) {
  const seen = boxAround(visibleCorners(view));
  const matrix = viewMatrix(view);
  const dot = DOT_BELOW / view.scale;
  let count = 0;
  Object.assign(context, { fillStyle: color, strokeStyle: color, lineWidth: LINE_WIDTH, lineJoin: "round" });
  for (const shape of shapes) {
    if (!boxesOverlap(shape.box, seen) && !isPointIn(shape, seen)) continue;
    count += 1;
    context.beginPath();
    if (shape.box[2] - shape.box[0] < dot && shape.box[3] - shape.box[1] < dot) {
      tracePoint(context, matrix, shape);
      context.globalAlpha = opacity;
      context.fill();
      continue;
    }
    for (const ring of shape.rings) traceRing(context, matrix, ring, shape.filled);
    if (shape.filled) {
      context.globalAlpha = opacity * FILL_SHARE;
      context.fill("evenodd");
    }
    context.globalAlpha = Math.min(1, opacity * LINE_SHARE);
    context.stroke();
  }
  context.globalAlpha = 1;
  return count;
}

/** Outline one shape so that it stands out on any tissue. @param {CanvasRenderingContext2D} context @param {View} view
 * @param {Shape} shape */
export function paintMarked(context, view, shape) {
  const matrix = viewMatrix(view);
  context.beginPath();
  for (const ring of shape.rings) traceRing(context, matrix, ring, shape.filled);
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

/** @param {Shape} shape @param {import("./geometry.js").Box} box */
function isPointIn(shape, box) {
  const [x, y] = shape.box;
  return !shape.filled && x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3];
}

/** @param {CanvasRenderingContext2D} context @param {Matrix} matrix @param {Shape} shape */
function tracePoint(context, matrix, shape) {
  const [x, y] = apply(matrix, (shape.box[0] + shape.box[2]) / 2, (shape.box[1] + shape.box[3]) / 2);
  const side = shape.filled ? DOT_BELOW / 2 : 2 * DOT_BELOW;
  context.rect(x - side / 2, y - side / 2, side, side);
}

/** @param {CanvasRenderingContext2D} context @param {Matrix} matrix @param {import("./geometry.js").Point[]} ring
 * @param {boolean} closed */
function traceRing(context, matrix, ring, closed) {
  const last = ring.length - 1;
  let [lastX, lastY] = apply(matrix, ring[0][0], ring[0][1]);
  context.moveTo(lastX, lastY);
  for (let at = 1; at <= last; at++) {
    const [x, y] = apply(matrix, ring[at][0], ring[at][1]);
    if (at < last && Math.abs(x - lastX) < STEP && Math.abs(y - lastY) < STEP) continue;
    context.lineTo(x, y);
    [lastX, lastY] = [x, y];
  }
  if (closed) context.closePath();
}
