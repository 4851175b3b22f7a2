/** Blocks of features as they come from the server ("OCB1"), unpacked into flat arrays; pure. */

/** @typedef {import("./geometry.js").Box} Box */

/** Score of a feature without one; larger than every threshold, so that such a feature is always kept. */
export const NO_SCORE = 65535;
const MAGIC = 0x3142434f; // "OCB1", read as a little-endian number
const HEADER = 32;

/** Bytes that are not what their header says. */
export class DamagedError extends Error {}

/**
 * Features of one cell of the slide; feature `i` is column `i` of each array. Places are base-plane pixels less the
 * block's origin, exact in 32-bit floats.
 * @typedef {object} Block
 * @property {number} count
 * @property {number} originX base-plane pixels
 * @property {number} originY
 * @property {Uint32Array} numbers of the features in their layer
 * @property {Uint16Array} classes index into the class names of the layer's block index
 * @property {Uint16Array} scores in 1/10000, or NO_SCORE
 * @property {Float32Array} areas base-plane px², holes taken off
 * @property {Float32Array} boxes left, top, right, bottom of each
 * @property {Float32Array} extents longer side of each box
 * @property {Uint32Array} rings first ring of each feature, and the end of the last: `count + 1` numbers
 * @property {Uint32Array} points first point of each ring, and the end of the last
 * @property {Float32Array} places x, y of each point; outlines run clockwise on screen, holes the other way
 * @property {number} smallest extent of all
 * @property {number} largest extent of all
 * @property {number} bytes that the arrays take
 */

/**
 * Unpack a block.
 * @param {ArrayBuffer} buffer @param {number} [unit] steps of a base-plane pixel
 * @returns {Block} throws DamagedError
 */
export function decodeBlock(buffer, unit = 16) {
  const header = readHeader(buffer);
  const take = taker(buffer);
  const { count, parts, rings, points } = header;
  const [numbers, classes, scores] = [take(Uint32Array, count), take(Uint16Array, count), take(Uint16Array, count)];
  const [areas, boxes] = [take(Float32Array, count), Float32Array.from(take(Int32Array, 4 * count), (each) => each / unit)];
  const [partEnds, ringEnds, pointEnds] = [take(Uint32Array, count), take(Uint32Array, parts), take(Uint32Array, rings)];
  checkEnds(partEnds, parts);
  checkEnds(ringEnds, rings);
  checkEnds(pointEnds, points);
  const starts = withZero(pointEnds);
  const places = unfold(take(Int32Array, points), take(Int32Array, points), starts, unit);
  windRings(places, starts, ringEnds);
  const extents = extentsOf(boxes, count);
  const block = {
    count, originX: header.x / unit, originY: header.y / unit, numbers, classes, scores, areas, boxes, extents,
    rings: withZero(partEnds.map((end) => (end ? ringEnds[end - 1] : 0))), points: starts, places,
    smallest: extents.reduce((one, other) => Math.min(one, other), Infinity),
    largest: extents.reduce((one, other) => Math.max(one, other), 0),
    bytes: 0,
  };
  block.bytes = Object.values(block).reduce((sum, each) => sum + (each?.byteLength ?? 0), 0);
  return block;
}

/** @param {ArrayBuffer} buffer */
function readHeader(buffer) {
  if (buffer.byteLength < HEADER) throw new DamagedError("The block is shorter than its header.");
  const [magic, count, parts, rings, points] = new Uint32Array(buffer, 0, 5);
  if (magic !== MAGIC) throw new DamagedError("The block does not begin as a block does.");
  const [x, y] = new Int32Array(buffer, 20, 2);
  const shorts = 2 * 4 * Math.ceil(count / 2);
  const expected = HEADER + 28 * count + shorts + 4 * (parts + rings + 2 * points);
  if (buffer.byteLength !== expected) throw new DamagedError(`The block has ${buffer.byteLength} bytes instead of ${expected}.`);
  return { count, parts, rings, points, x, y };
}

/** Hands out one array of the buffer after the other, each beginning at a multiple of four bytes.
 * @param {ArrayBuffer} buffer */
function taker(buffer) {
  let at = HEADER;
  return (/** @type {any} */ Kind, /** @type {number} */ length) => {
    const array = new Kind(buffer, at, length);
    at += Math.ceil((length * Kind.BYTES_PER_ELEMENT) / 4) * 4;
    return array;
  };
}

/** @param {Uint32Array} ends @param {number} total */
function checkEnds(ends, total) {
  let last = 0;
  for (const end of ends) {
    if (end < last) throw new DamagedError("The parts of the block are out of order.");
    last = end;
  }
  if (last !== total) throw new DamagedError("The parts of the block do not add up.");
}

/** @param {Uint32Array} ends */
function withZero(ends) {
  const starts = new Uint32Array(ends.length + 1);
  starts.set(ends, 1);
  return starts;
}

/** Places from differences. @param {Int32Array} dx @param {Int32Array} dy @param {Uint32Array} starts @param {number} unit */
function unfold(dx, dy, starts, unit) {
  const places = new Float32Array(2 * dx.length);
  for (let ring = 0; ring + 1 < starts.length; ring++) {
    let [x, y] = [0, 0];
    for (let at = starts[ring]; at < starts[ring + 1]; at++) {
      x += dx[at];
      y += dy[at];
      places[2 * at] = x / unit;
      places[2 * at + 1] = y / unit;
    }
  }
  return places;
}

/** Make the first ring of each part run clockwise on screen and the others the other way, whichever way they came, so
 * that painters may add them up. @param {Float32Array} places @param {Uint32Array} starts @param {Uint32Array} ringEnds */
function windRings(places, starts, ringEnds) {
  let first = 0;
  for (const end of ringEnds) {
    for (let ring = first; ring < end; ring++) {
      const area = signedArea(places, starts[ring], starts[ring + 1]);
      if (ring === first ? area < 0 : area > 0) reverse(places, starts[ring], starts[ring + 1]);
    }
    first = end;
  }
}

/** @param {Float32Array} places @param {number} from @param {number} to */
function signedArea(places, from, to) {
  let twice = 0;
  for (let at = from, before = to - 1; at < to; before = at++) {
    twice += places[2 * before] * places[2 * at + 1] - places[2 * at] * places[2 * before + 1];
  }
  return twice / 2;
}

/** @param {Float32Array} places @param {number} from @param {number} to */
function reverse(places, from, to) {
  for (let one = from, other = to - 1; one < other; one++, other--) {
    const [x, y] = [places[2 * one], places[2 * one + 1]];
    places[2 * one] = places[2 * other];
    places[2 * one + 1] = places[2 * other + 1];
    places[2 * other] = x;
    places[2 * other + 1] = y;
  }
}

/** @param {Float32Array} boxes @param {number} count */
function extentsOf(boxes, count) {
  const extents = new Float32Array(count);
  for (let at = 0; at < count; at++) {
    extents[at] = Math.max(boxes[4 * at + 2] - boxes[4 * at], boxes[4 * at + 3] - boxes[4 * at + 1]);
  }
  return extents;
}

/**
 * The smallest feature of a block under a point: what lies inside another is what the user means.
 * @param {Block} block @param {number} baseX @param {number} baseY base-plane pixels
 * @param {(at: number) => boolean} isShown
 * @returns {number} its column, or -1
 */
export function featureAt(block, baseX, baseY, isShown) {
  const [x, y] = [baseX - block.originX, baseY - block.originY];
  const { boxes, areas } = block;
  let best = -1;
  for (let at = 0; at < block.count; at++) {
    if (boxes[4 * at] > x || boxes[4 * at + 2] < x || boxes[4 * at + 1] > y || boxes[4 * at + 3] < y) continue;
    if ((best < 0 || areas[at] < areas[best]) && isShown(at) && holds(block, at, x, y)) best = at;
  }
  return best;
}

/** Whether a feature holds a point, by the even-odd rule. @param {Block} block @param {number} feature @param {number} x
 * @param {number} y less the origin */
function holds(block, feature, x, y) {
  const { places, points, rings } = block;
  let inside = false;
  for (let ring = rings[feature]; ring < rings[feature + 1]; ring++) {
    for (let at = points[ring], before = points[ring + 1] - 1; at < points[ring + 1]; before = at++) {
      const [ay, by] = [places[2 * at + 1], places[2 * before + 1]];
      if (ay > y !== by > y && x < ((places[2 * before] - places[2 * at]) * (y - ay)) / (by - ay) + places[2 * at]) inside = !inside;
    }
  }
  return inside;
}

/** Outlines of one feature in base-plane pixels. @param {Block} block @param {number} feature
 * @returns {import("./geometry.js").Point[][]} */
export function ringsOf(block, feature) {
  const rings = [];
  for (let ring = block.rings[feature]; ring < block.rings[feature + 1]; ring++) {
    const ringPoints = [];
    for (let at = block.points[ring]; at < block.points[ring + 1]; at++) {
      ringPoints.push([block.places[2 * at] + block.originX, block.places[2 * at + 1] + block.originY]);
    }
    rings.push(/** @type {import("./geometry.js").Point[]} */ (ringPoints));
  }
  return rings;
}
