/**
 * A small software rasteriser for crowds of small polygons; pure. One polygon of a nucleus's size costs about a tenth of
 * what a canvas path does, since its outline and its filling are one pass of coverage over its few pixels.
 *
 * Coverage is summed along edges (each edge adds, to every pixel right of it, the part of the pixel's height that it
 * passes), so edges need no sorting and pixels on the rim get their exact share. An outline of width w is the polygon
 * grown by w/2 less the polygon shrunk by w/2; with their alphas as weights both, and the filling, add up in one sum.
 */

/** Longest side of the box of a polygon drawn here, device pixels; turned, it may take √2 times as much. */
export const LARGEST = 64;
const STRIDE = 112;
/** Points of a ring drawn here at most, after those too near to the last are left out. */
const MOST_POINTS = 1024;
/** Points nearer to the last one than this, device pixels, are left out; of features without an outline of their own
 * those nearer than the second. */
const STEP = 0.35;
const SOLID_STEP = 0.75;
/** Corners are drawn out no further than at a right angle, in half widths. */
const MITRE = Math.SQRT2;

/** Outlines thinner than this, device pixels, are left out. */
const LEAST_WIDTH = 0.1;

/** Alphas and line width, device pixels, of a polygon. @typedef {{fill: number, line: number, width: number}} Stroke */

export class Raster {
  constructor() {
    this.width = 0;
    this.height = 0;
    /** 0xaabbggrr, not premultiplied; signed, since the engine counts with those faster. */
    this.pixels = new Int32Array(0);
    this.sums = new Float32Array(STRIDE * STRIDE);
    this.ring = new Float32Array(2 * MOST_POINTS + 2);
    this.grown = new Float32Array(2 * MOST_POINTS + 2);
    this.left = 0;
    this.top = 0;
    this.right = 0;
    this.bottom = 0;
  }

  /** Begin a clear picture. @param {number} width device pixels @param {number} height */
  begin(width, height) {
    if (width === this.width && height === this.height) this.pixels.fill(0);
    else Object.assign(this, { width, height, pixels: new Int32Array(width * height) });
  }

  /** The picture, sharing memory with the raster. @returns {ImageData} */
  image() {
    return new ImageData(new Uint8ClampedArray(this.pixels.buffer), this.width, this.height);
  }

  /**
   * A square of a feature's area where it is too small for a shape.
   * @param {number} x middle, device pixels @param {number} y @param {number} side device pixels
   * @param {number} alpha @param {number} color 0xbbggrr
   */
  dot(x, y, side, alpha, color) {
    const reach = side < 1 ? 0.5 : side / 2;
    const weight = side < 1 ? 255 * alpha * side * side : 255 * alpha;
    const left = Math.max(0, x - reach);
    const top = Math.max(0, y - reach);
    const right = Math.min(this.width, x + reach);
    const bottom = Math.min(this.height, y + reach);
    for (let row = top | 0; row < bottom; row++) {
      const rowWeight = weight * ((row + 1 < bottom ? row + 1 : bottom) - (row > top ? row : top));
      const start = row * this.width;
      for (let column = left | 0; column < right; column++) {
        const share = (column + 1 < right ? column + 1 : right) - (column > left ? column : left);
        blend(this.pixels, start + column, (rowWeight * share + 0.5) | 0, color);
      }
    }
  }

  /**
   * A polygon no larger than LARGEST.
   * @param {import("./blocks.js").Block} block @param {number} feature
   * @param {import("./geometry.js").Matrix} matrix from the block's places to device pixels
   * @param {Stroke} stroke @param {number} color 0xbbggrr
   */
  polygon(block, feature, matrix, stroke, color) {
    this.frame(block.boxes, 4 * feature, matrix, (stroke.width / 2) * MITRE + 0.01);
    if (this.right <= 0 || this.bottom <= 0 || this.left >= this.width || this.top >= this.height) return;
    const sign = matrix[0] * matrix[3] - matrix[1] * matrix[2] > 0 ? 1 : -1;
    const solid = stroke.line <= stroke.fill || stroke.width < LEAST_WIDTH;
    for (let ring = block.rings[feature]; ring < block.rings[feature + 1]; ring++) {
      const count = this.project(block, ring, matrix, solid ? SOLID_STEP : STEP);
      if (count < 3) continue;
      if (solid) {
        this.edges(this.ring, count, -sign * stroke.fill);
        continue;
      }
      this.grow(count, (sign * stroke.width) / 2);
      this.edges(this.grown, count, -sign * stroke.line);
      this.grow(count, (-sign * stroke.width) / 2);
      this.edges(this.grown, count, sign * (stroke.line - stroke.fill));
    }
    this.sweep(Math.max(stroke.line, stroke.fill), color);
  }

  /** Put the window of whole pixels around a feature. @param {Float32Array} boxes @param {number} at
   * @param {import("./geometry.js").Matrix} matrix @param {number} margin device pixels */
  frame(boxes, at, matrix, margin) {
    const x = (boxes[at] + boxes[at + 2]) / 2;
    const y = (boxes[at + 1] + boxes[at + 3]) / 2;
    const halfWidth = (boxes[at + 2] - boxes[at]) / 2;
    const halfHeight = (boxes[at + 3] - boxes[at + 1]) / 2;
    const spreadX = Math.abs(matrix[0]) * halfWidth + Math.abs(matrix[2]) * halfHeight + margin;
    const spreadY = Math.abs(matrix[1]) * halfWidth + Math.abs(matrix[3]) * halfHeight + margin;
    const middleX = matrix[0] * x + matrix[2] * y + matrix[4];
    const middleY = matrix[1] * x + matrix[3] * y + matrix[5];
    this.left = Math.floor(middleX - spreadX);
    this.top = Math.floor(middleY - spreadY);
    this.right = Math.min(this.left + STRIDE - 2, Math.ceil(middleX + spreadX));
    this.bottom = Math.min(this.top + STRIDE - 2, Math.ceil(middleY + spreadY));
  }

  /** A ring's points in the window, without those too near to the last. @param {import("./blocks.js").Block} block
   * @param {number} ring @param {import("./geometry.js").Matrix} matrix @param {number} step
   * @returns {number} how many */
  project(block, ring, matrix, step) {
    const places = block.places;
    const end = block.points[ring + 1];
    const out = this.ring;
    const [a, b, c, d] = matrix;
    const e = matrix[4] - this.left;
    const f = matrix[5] - this.top;
    let lastX = Infinity;
    let lastY = Infinity;
    let count = 0;
    for (let at = block.points[ring]; at < end && count < MOST_POINTS; at++) {
      const x = a * places[2 * at] + c * places[2 * at + 1] + e;
      const y = b * places[2 * at] + d * places[2 * at + 1] + f;
      if (Math.abs(x - lastX) < step && Math.abs(y - lastY) < step) continue;
      out[2 * count] = lastX = x;
      out[2 * count + 1] = lastY = y;
      count += 1;
    }
    return count;
  }

  /** Move each corner of the ring outwards, along the mean of its edges' normals. @param {number} count
   * @param {number} by device pixels; negative inwards */
  grow(count, by) {
    const { ring, grown } = this;
    let [fromX, fromY] = [ring[0] - ring[2 * count - 2], ring[1] - ring[2 * count - 1]];
    let length = Math.sqrt(fromX * fromX + fromY * fromY) || 1;
    fromX /= length;
    fromY /= length;
    for (let at = 0; at < count; at++) {
      const next = at + 1 === count ? 0 : at + 1;
      let toX = ring[2 * next] - ring[2 * at];
      let toY = ring[2 * next + 1] - ring[2 * at + 1];
      length = Math.sqrt(toX * toX + toY * toY) || 1;
      toX /= length;
      toY /= length;
      const sumX = fromX + toX;
      const sumY = fromY + toY;
      // Half the sum has length cos(turn / 2); the corner of the moved edges lies 1 / cos away.
      const scale = by * Math.min(1, 2 / Math.max(1e-6, sumX * sumX + sumY * sumY));
      grown[2 * at] = ring[2 * at] + sumY * scale;
      grown[2 * at + 1] = ring[2 * at + 1] - sumX * scale;
      fromX = toX;
      fromY = toY;
    }
  }

  /** Add the coverage right of every edge of a ring. @param {Float32Array} ring @param {number} count @param {number} weight */
  edges(ring, count, weight) {
    const sums = this.sums;
    let x0 = ring[2 * count - 2];
    let y0 = ring[2 * count - 1];
    for (let at = 0; at < count; at++) {
      const x1 = ring[2 * at];
      const y1 = ring[2 * at + 1];
      if (y0 < y1) edge(sums, x0, y0, x1, y1, weight);
      else if (y1 < y0) edge(sums, x1, y1, x0, y0, -weight);
      x0 = x1;
      y0 = y1;
    }
  }

  /** Blend the summed alphas of the window into the picture, and clear them. @param {number} most alpha
   * @param {number} color */
  sweep(most, color) {
    const { sums, pixels, width, left, right } = this;
    const most255 = 255 * most;
    for (let row = this.top; row < this.bottom; row++) {
      let at = (row - this.top) * STRIDE;
      const end = at + right - left;
      if (row >= 0 && row < this.height) {
        let sum = 0;
        let to = row * width + left;
        for (let column = left; column < right; column++, at++, to++) {
          sum += sums[at];
          sums[at] = 0;
          if (sum < 0.002 || column < 0 || column >= width) continue;
          const over = 255 * sum;
          blend(pixels, to, ((over < most255 ? over : most255) + 0.5) | 0, color);
        }
      }
      while (at < end + 2) sums[at++] = 0;
    }
  }
}

/** Lay a colour over a pixel. @param {Int32Array} pixels @param {number} at @param {number} over its alpha, 0 to 255
 * @param {number} color 0xbbggrr */
function blend(pixels, at, over, color) {
  const under = pixels[at];
  if (under === 0) {
    if (over > 0) pixels[at] = color | (over << 24);
    return;
  }
  const left = ((under >>> 24) * (255 - over) * 257 + 32768) >> 16;
  const share = over / (over + left);
  const red = under & 255;
  const green = (under >>> 8) & 255;
  const blue = (under >>> 16) & 255;
  pixels[at] = (red + ((color & 255) - red) * share + 0.5)
    | ((green + (((color >>> 8) & 255) - green) * share + 0.5) << 8)
    | ((blue + (((color >>> 16) & 255) - blue) * share + 0.5) << 16)
    | ((over + left) << 24);
}

/** Add the coverage right of one edge. @param {Float32Array} sums @param {number} x0 @param {number} y0 upper end
 * @param {number} x1 @param {number} y1 lower end @param {number} weight */
function edge(sums, x0, y0, x1, y1, weight) {
  const slope = (x1 - x0) / (y1 - y0);
  let x = x0;
  let y = y0;
  for (let row = y0 | 0; y < y1; row++) {
    const end = row + 1 < y1 ? row + 1 : y1;
    const height = end - y;
    const next = x + slope * height;
    const left = x < next ? x : next;
    const right = x < next ? next : x;
    const first = left | 0;
    const at = row * STRIDE + first;
    const passed = weight * height;
    if (right <= first + 1) {
      const share = passed * ((left + right) / 2 - first);
      sums[at] += passed - share;
      sums[at + 1] += share;
    } else {
      spread(sums, at, left - first, right - first, passed);
    }
    x = next;
    y = end;
  }
}

/** Share out an edge's passage of one row over the several pixels it crosses. @param {Float32Array} sums @param {number} at
 * index of the first pixel @param {number} left in pixels from there @param {number} right @param {number} passed */
function spread(sums, at, left, right, passed) {
  const per = passed / (right - left);
  const last = Math.ceil(right) - 1;
  let before = 0;
  let covered = 0;
  for (let pixel = 0; pixel <= last; pixel++) {
    const from = pixel === 0 ? left : pixel;
    const to = pixel === last ? right : pixel + 1;
    const passing = per * (to - from);
    const cover = before + passing * (pixel + 1 - (from + to) / 2);
    sums[at + pixel] += cover - covered;
    covered = cover;
    before += passing;
  }
  sums[at + last + 1] += passed - covered;
}
