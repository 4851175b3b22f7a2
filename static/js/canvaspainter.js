/**
 * Draws layers without a graphics card: crowds of small features with our own rasteriser, large ones as canvas paths, the
 * maps far out as pictures. A drawing is a generator that can be interrupted between its steps.
 */

import { fit } from "./frame.js";
import { compose } from "./geometry.js";
import { DASHED_FROM, rgb, SHAPE_FROM, strokeFor } from "./looks.js";
import { LARGEST, Raster } from "./raster.js";

/** @typedef {import("./geometry.js").Matrix} Matrix */
/** @typedef {import("./blocks.js").Block} Block */
/** @typedef {import("./looks.js").Look} Look */

/** Exact features to draw. @typedef {object} Shapes
 * @property {Block[]} blocks
 * @property {number} least score, in 1/10000
 * @property {(Look | null)[]} looks by class, or by state where states are given; null: not drawn
 * @property {Uint8Array | null} states of the features, by number */

/** A map far out to draw. @typedef {{source: any, box: import("./geometry.js").Box, alpha: number}} Picture */
/** What a painter draws, lowest first. @typedef {{shapes: Shapes[], pictures: Picture[]}} Scene */

/** Features between two chances to interrupt. */
const STEP = 256;
/** Paths of large features put together before they are drawn. */
const BATCH = 32;
/** Vertices nearer to the last one drawn, device pixels, are left out. */
const NEAR = 0.4;
const DASH = [5, 4];
export const CASING = "#1b1d20";

export class CanvasPainter {
  constructor() {
    this.raster = new Raster();
  }

  /**
   * Draw a scene on a canvas, clearing it first.
   * @param {HTMLCanvasElement} canvas @param {import("./frame.js").Frame} frame @param {Scene} scene
   * @returns {Generator<void>}
   */
  *paint(canvas, frame, scene) {
    const { matrix, density, width, height } = frame;
    /** @type {Map<Look, [Block, number][]>} */
    const large = new Map();
    this.raster.begin(width, height);
    for (const shapes of scene.shapes) yield* this.crowd(shapes, matrix, frame.scale, density, large);
    const context = begin(canvas, frame);
    context.putImageData(this.raster.image(), 0, 0);
    yield;
    // What the rasteriser drew lies on top, so the rest goes under it, topmost first.
    context.globalCompositeOperation = "destination-over";
    for (const [look, features] of [...large].reverse()) yield* paths(context, look, features, matrix, density);
    context.setTransform(...matrix);
    for (const picture of scene.pictures.toReversed()) drawPicture(context, picture);
  }

  /** Rasterise the small features, note the large ones. @param {Shapes} shapes @param {Matrix} matrix @param {number} scale device
   * pixels per base-plane pixel @param {number} density @param {Map<Look, [Block, number][]>} large */
  *crowd(shapes, matrix, scale, density, large) {
    const pens = shapes.looks.map((look) => look && new Pen(look, density));
    let countdown = STEP;
    for (const block of shapes.blocks) {
      const placed = compose(matrix, [1, 0, 0, 1, block.originX, block.originY]);
      const { scores, classes, numbers } = block;
      for (let at = 0; at < block.count; at++) {
        if (scores[at] < shapes.least) continue;
        const pen = pens[shapes.states === null ? classes[at] : shapes.states[numbers[at]]];
        if (pen === null || pen === undefined) continue;
        if (this.small(block, at, placed, pen, scale, density)) countdown -= 1;
        else if (isSeen(block, at, placed, this.raster)) note(large, pen.look, block, at);
        if (countdown <= 0) {
          countdown = STEP;
          yield;
        }
      }
    }
  }

  /** Draw a feature that is small enough. @param {Block} block @param {number} at @param {Matrix} placed @param {Pen} pen
   * @param {number} scale device pixels per base-plane pixel @param {number} density @returns {boolean} whether it was */
  small(block, at, placed, pen, scale, density) {
    const extent = block.extents[at] * scale;
    const area = block.areas[at];
    if (extent > LARGEST || (pen.look.dashed && extent >= DASHED_FROM * density)) return false;
    if (extent < SHAPE_FROM * density) {
      const x = (block.boxes[4 * at] + block.boxes[4 * at + 2]) / 2;
      const y = (block.boxes[4 * at + 1] + block.boxes[4 * at + 3]) / 2;
      const side = Math.sqrt(area) * scale;
      this.raster.dot(
        placed[0] * x + placed[2] * y + placed[4], placed[1] * x + placed[3] * y + placed[5], side, pen.look.dot, pen.color);
      return true;
    }
    const diameter = (2 * Math.sqrt(area / Math.PI) * scale) / density;
    this.raster.polygon(block, at, placed, pen.strokeFor(diameter), pen.color);
    return true;
  }
}

/** A look, ready for the rasteriser. */
class Pen {
  /** @param {Look} look @param {number} density */
  constructor(look, density) {
    const [red, green, blue] = rgb(look.color);
    this.look = look;
    this.density = density;
    this.color = red | (green << 8) | (blue << 16);
    this.stroke = { fill: 0, line: 0, width: 0 };
  }

  /** @param {number} diameter CSS pixels */
  strokeFor(diameter) {
    strokeFor(this.look, diameter, this.stroke);
    this.stroke.width *= this.density;
    return this.stroke;
  }
}

/** @param {HTMLCanvasElement} canvas @param {import("./frame.js").Frame} frame */
function begin(canvas, frame) {
  fit(canvas, frame);
  // The rasteriser's picture comes from the processor and many small paths are drawn faster there than by a graphics card,
  // and a hundred times faster than by one in software; this option is how a canvas is asked to stay with the processor.
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.globalCompositeOperation = "source-over";
  context.globalAlpha = 1;
  return context;
}

/** @param {Map<Look, [Block, number][]>} large @param {Look} look @param {Block} block @param {number} at */
function note(large, look, block, at) {
  const list = large.get(look);
  if (list === undefined) large.set(look, [[block, at]]);
  else list.push([block, at]);
}

/** Whether a feature's box meets the picture. @param {Block} block @param {number} at @param {Matrix} placed
 * @param {{width: number, height: number}} picture */
function isSeen({ boxes }, at, [a, b, c, d, e, f], { width, height }) {
  const [x, y] = [(boxes[4 * at] + boxes[4 * at + 2]) / 2, (boxes[4 * at + 1] + boxes[4 * at + 3]) / 2];
  const [halfWidth, halfHeight] = [(boxes[4 * at + 2] - boxes[4 * at]) / 2, (boxes[4 * at + 3] - boxes[4 * at + 1]) / 2];
  const [reachX, reachY] = [Math.abs(a) * halfWidth + Math.abs(c) * halfHeight + 4, Math.abs(b) * halfWidth + Math.abs(d) * halfHeight + 4];
  const [middleX, middleY] = [a * x + c * y + e, b * x + d * y + f];
  return middleX + reachX > 0 && middleY + reachY > 0 && middleX - reachX < width && middleY - reachY < height;
}

/** Draw large features of one look under what is there. @param {CanvasRenderingContext2D} context @param {Look} look
 * @param {[Block, number][]} features @param {Matrix} matrix @param {number} density */
function* paths(context, look, features, matrix, density) {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.lineJoin = "round";
  for (let from = 0; from < features.length; from += BATCH) {
    context.beginPath();
    for (const [block, at] of features.slice(from, from + BATCH)) traceFeature(context, block, at, matrix);
    strokePath(context, look, density);
    yield;
  }
}

/** @param {CanvasRenderingContext2D} context @param {Look} look @param {number} density */
function strokePath(context, look, density) {
  context.lineWidth = look.width * density;
  context.setLineDash(look.dashed ? DASH.map((each) => each * density) : []);
  if (look.line > 0) {
    Object.assign(context, { strokeStyle: look.color, globalAlpha: look.line });
    context.stroke();
  }
  context.setLineDash([]);
  if (look.dashed) {
    Object.assign(context, { strokeStyle: CASING, globalAlpha: look.line * 0.75, lineWidth: (look.width + 1.5) * density });
    context.stroke();
  }
  if (look.fill > 0) {
    Object.assign(context, { fillStyle: look.color, globalAlpha: look.fill });
    context.fill();
  }
}

/** @param {CanvasRenderingContext2D} context @param {Block} block @param {number} feature @param {Matrix} matrix */
function traceFeature(context, block, feature, matrix) {
  const [a, b, c, d, e, f] = compose(matrix, [1, 0, 0, 1, block.originX, block.originY]);
  const { places, points, rings } = block;
  for (let ring = rings[feature]; ring < rings[feature + 1]; ring++) {
    let [lastX, lastY] = [Infinity, Infinity];
    for (let at = points[ring]; at < points[ring + 1]; at++) {
      const [px, py] = [places[2 * at], places[2 * at + 1]];
      const [x, y] = [a * px + c * py + e, b * px + d * py + f];
      if (Math.abs(x - lastX) < NEAR && Math.abs(y - lastY) < NEAR) continue;
      if (lastX === Infinity) context.moveTo(x, y);
      else context.lineTo(x, y);
      [lastX, lastY] = [x, y];
    }
    context.closePath();
  }
}

/** @param {CanvasRenderingContext2D} context in base-plane pixels @param {Picture} picture */
function drawPicture(context, { source, box, alpha }) {
  Object.assign(context, { globalAlpha: alpha, imageSmoothingEnabled: true, imageSmoothingQuality: "low" });
  context.drawImage(source, box[0], box[1], box[2] - box[0], box[3] - box[1]);
}

