/** A block of features as arrays for a graphics card, built once; pure. */

import { diameterOf } from "./looks.js";

/** @typedef {import("./blocks.js").Block} Block */

/** Bytes of a vertex: x, y and length along the ring (floats, base-plane pixels), feature, whether no edge begins here. */
export const RECORD_BYTES = 16;
/** Features in a row of the table. */
export const TABLE_WIDTH = 64;

/**
 * @typedef {object} Mesh
 * @property {ArrayBuffer} records vertices of all rings, each ring closed, then the middles of fans
 * @property {number} segments vertices of the rings; an edge runs from each to the next
 * @property {Uint32Array} fans triangles of features that are stars around their middle: exactly their inside
 * @property {Uint32Array} windings triangles of all others, by class: a place is inside where more of them turn one way
 * @property {{class: number, from: number, count: number}[]} ranges of the windings
 * @property {number} smallestWound diameter of the smallest of those, base-plane pixels
 * @property {Float32Array} table score, class, diameter and longer side of each feature, in rows of TABLE_WIDTH
 * @property {Float32Array} dots x, y and side of a square of each feature's area
 */

/** @param {Block} block @returns {Mesh} */
export function meshOf(block) {
  const vertices = new Vertices(block.places.length / 2 + block.points.length - 1 + block.count);
  const firsts = traceRings(block, vertices);
  const segments = vertices.count;
  /** @type {number[]} */
  const fans = [];
  /** @type {Map<number, number[]>} */
  const windings = new Map();
  let smallestWound = Infinity;
  for (let feature = 0; feature < block.count; feature++) {
    if (fanOut(block, feature, firsts, vertices, fans)) continue;
    smallestWound = Math.min(smallestWound, diameterOf(block.areas[feature]));
    const list = windings.get(block.classes[feature]) ?? [];
    windings.set(block.classes[feature], list);
    for (let ring = block.rings[feature]; ring < block.rings[feature + 1]; ring++) {
      wind(list, firsts[ring], firsts[ring] + block.points[ring + 1] - block.points[ring] - 1);
    }
  }
  return {
    records: vertices.bytes.slice(0, vertices.count * RECORD_BYTES), segments, fans: Uint32Array.from(fans),
    ...inRanges(windings), smallestWound, table: tableOf(block), dots: dotsOf(block),
  };
}

class Vertices {
  /** @param {number} most */
  constructor(most) {
    this.bytes = new ArrayBuffer(most * RECORD_BYTES);
    this.floats = new Float32Array(this.bytes);
    this.shorts = new Uint16Array(this.bytes);
    this.count = 0;
  }

  /** @param {number} x @param {number} y @param {number} along @param {number} feature @param {boolean} last */
  add(x, y, along, feature, last) {
    const at = this.count++;
    this.floats[4 * at] = x;
    this.floats[4 * at + 1] = y;
    this.floats[4 * at + 2] = along;
    this.shorts[8 * at + 6] = feature;
    this.shorts[8 * at + 7] = last ? 1 : 0;
    return at;
  }
}

/** Put down every ring, closed. @param {Block} block @param {Vertices} vertices @returns {Uint32Array} first vertex of each */
function traceRings({ count, rings, points, places }, vertices) {
  const firsts = new Uint32Array(points.length - 1);
  for (let feature = 0; feature < count; feature++) {
    for (let ring = rings[feature]; ring < rings[feature + 1]; ring++) {
      firsts[ring] = vertices.count;
      let along = 0;
      const [from, to] = [points[ring], points[ring + 1]];
      for (let at = from; at <= to; at++) {
        const here = at === to ? from : at;
        if (at > from) along += Math.hypot(places[2 * here] - places[2 * at - 2], places[2 * here + 1] - places[2 * at - 1]);
        vertices.add(places[2 * here], places[2 * here + 1], along, feature, at === to);
      }
    }
  }
  return firsts;
}

/** Fill a feature of one ring by a fan around its middle, if every part of the ring is seen from there.
 * @param {Block} block @param {number} feature @param {Uint32Array} firsts @param {Vertices} vertices @param {number[]} fans
 * @returns {boolean} whether it could be */
function fanOut({ rings, points, places }, feature, firsts, vertices, fans) {
  const ring = rings[feature];
  if (rings[feature + 1] - ring !== 1) return false;
  const [from, to] = [points[ring], points[ring + 1]];
  const middle = centroid(places, from, to);
  // A ring that turns one way all along may still go around more than once: downward passes right of the middle tell.
  let turns = 0;
  for (let at = from, before = to - 1; at < to; before = at++) {
    const [ax, ay] = [places[2 * before] - middle[0], places[2 * before + 1] - middle[1]];
    const [bx, by] = [places[2 * at] - middle[0], places[2 * at + 1] - middle[1]];
    if (ax * by - ay * bx <= 0) return false;
    if (ay <= 0 && by > 0) turns += 1;
  }
  if (turns !== 1) return false;
  const hub = vertices.add(middle[0], middle[1], 0, feature, true);
  for (let at = 0; at < to - from; at++) fans.push(hub, firsts[ring] + at, firsts[ring] + at + 1);
  return true;
}

/** @param {Float32Array} places @param {number} from @param {number} to @returns {[number, number]} */
function centroid(places, from, to) {
  const [originX, originY] = [places[2 * from], places[2 * from + 1]];
  let [twice, x, y] = [0, 0, 0];
  for (let at = from + 1; at + 1 < to; at++) {
    const [ax, ay] = [places[2 * at] - originX, places[2 * at + 1] - originY];
    const [bx, by] = [places[2 * at + 2] - originX, places[2 * at + 3] - originY];
    const cross = ax * by - ay * bx;
    twice += cross;
    x += (ax + bx) * cross;
    y += (ay + by) * cross;
  }
  return [originX + x / (3 * twice || 1), originY + y / (3 * twice || 1)];
}

/** Triangles between every vertex and the middle one of ever smaller pieces of a ring: few cover much, so that hardly
 * anything is drawn twice. @param {number[]} list @param {number} first @param {number} last */
function wind(list, first, last) {
  if (last - first < 2) return;
  const middle = (first + last) >> 1;
  list.push(first, middle, last);
  wind(list, first, middle);
  wind(list, middle, last);
}

/** @param {Map<number, number[]>} windings */
function inRanges(windings) {
  const total = [...windings.values()].reduce((sum, list) => sum + list.length, 0);
  const all = new Uint32Array(total);
  const ranges = [];
  let from = 0;
  for (const [number, list] of windings) {
    all.set(list, from);
    ranges.push({ class: number, from, count: list.length });
    from += list.length;
  }
  return { windings: all, ranges };
}

/** @param {Block} block */
function tableOf({ count, scores, classes, areas, extents }) {
  const table = new Float32Array(4 * TABLE_WIDTH * Math.max(1, Math.ceil(count / TABLE_WIDTH)));
  for (let at = 0; at < count; at++) {
    table[4 * at] = scores[at];
    table[4 * at + 1] = classes[at];
    table[4 * at + 2] = diameterOf(areas[at]);
    table[4 * at + 3] = extents[at];
  }
  return table;
}

/** @param {Block} block */
function dotsOf({ count, boxes, areas }) {
  const dots = new Float32Array(3 * count);
  for (let at = 0; at < count; at++) {
    dots[3 * at] = (boxes[4 * at] + boxes[4 * at + 2]) / 2;
    dots[3 * at + 1] = (boxes[4 * at + 1] + boxes[4 * at + 3]) / 2;
    dots[3 * at + 2] = Math.sqrt(areas[at]);
  }
  return dots;
}
