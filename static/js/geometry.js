/**
 * Plane and screen arithmetic, pure. Base plane: ×40 pixels of the slide, x right, y down. Screen: CSS pixels of the
 * stage, origin at its top left corner.
 */

/**
 * Where the stage looks.
 * @typedef {object} View
 * @property {number} centerX base-plane pixel in the middle of the stage
 * @property {number} centerY
 * @property {number} scale CSS pixels per base-plane pixel, > 0
 * @property {number} degrees clockwise turn of the slide
 * @property {boolean} mirrored left and right exchanged, after the turn
 * @property {number} width of the stage, CSS pixels
 * @property {number} height
 */

/** @typedef {[number, number, number, number, number, number]} Matrix x' = m0·x + m2·y + m4, y' = m1·x + m3·y + m5 */
/** @typedef {[number, number]} Point */
/** @typedef {[number, number, number, number]} Box left, top, right, bottom */

/**
 * Map from the base plane to the screen. Quarter turns are exact.
 * @param {View} view
 * @returns {Matrix}
 */
export function viewMatrix(view) {
  const [cos, sin] = direction(view.degrees);
  const flip = view.mirrored ? -1 : 1;
  const a = view.scale * cos * flip;
  const b = view.scale * sin;
  const c = -view.scale * sin * flip;
  const d = view.scale * cos;
  const e = view.width / 2 - a * view.centerX - c * view.centerY;
  const f = view.height / 2 - b * view.centerX - d * view.centerY;
  return [a, b, c, d, e, f];
}

/** Cosine and sine of an angle in degrees, exact at quarter turns. @param {number} degrees @returns {Point} */
export function direction(degrees) {
  const turn = ((degrees % 360) + 360) % 360;
  if (turn % 90 === 0) return /** @type {Point} */ ([[1, 0], [0, 1], [-1, 0], [0, -1]][turn / 90]);
  const radians = (turn * Math.PI) / 180;
  return [Math.cos(radians), Math.sin(radians)];
}

/** @param {Matrix} matrix @param {number} x @param {number} y @returns {Point} */
export function apply(matrix, x, y) {
  return [matrix[0] * x + matrix[2] * y + matrix[4], matrix[1] * x + matrix[3] * y + matrix[5]];
}

/** Inverse of a map whose scale is not zero. @param {Matrix} matrix @returns {Matrix} */
export function invert([a, b, c, d, e, f]) {
  const determinant = a * d - b * c;
  const [ia, ib, ic, id] = [d / determinant, -b / determinant, -c / determinant, a / determinant];
  return [ia, ib, ic, id, -(ia * e + ic * f), -(ib * e + id * f)];
}

/** The map that applies `first`, then `second`. @param {Matrix} second @param {Matrix} first @returns {Matrix} */
export function compose(second, first) {
  const [a, b, c, d, e, f] = first;
  const [m0, m1, m2, m3] = second;
  const [x, y] = apply(second, e, f);
  return [m0 * a + m2 * b, m1 * a + m3 * b, m0 * c + m2 * d, m1 * c + m3 * d, x, y];
}

/** Corners of the stage in base-plane pixels, in screen order. @param {View} view @returns {Point[]} */
export function visibleCorners(view) {
  const back = invert(viewMatrix(view));
  return [[0, 0], [view.width, 0], [view.width, view.height], [0, view.height]].map(([x, y]) => apply(back, x, y));
}

/** Smallest box around points. @param {Point[]} points @returns {Box} */
export function boxAround(points) {
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** Whether two boxes share more than an edge. @param {Box} one @param {Box} other */
export function boxesOverlap(one, other) {
  return one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
}

/** Whether two boxes share at least a point. @param {Box} one @param {Box} other */
export function boxesTouch(one, other) {
  return one[0] <= other[2] && other[0] <= one[2] && one[1] <= other[3] && other[1] <= one[3];
}

/** Whether `inner` lies within `outer`. @param {Box} outer @param {Box} inner */
export function boxHolds(outer, inner) {
  return outer[0] <= inner[0] && outer[1] <= inner[1] && outer[2] >= inner[2] && outer[3] >= inner[3];
}

/** `box` grown by a share of its sides on each side, clipped to a plane. @param {Box} box @param {number} share
 * @param {number} width @param {number} height @returns {Box} */
export function growBox(box, share, width, height) {
  const [dx, dy] = [(box[2] - box[0]) * share, (box[3] - box[1]) * share];
  return [Math.max(0, box[0] - dx), Math.max(0, box[1] - dy), Math.min(width, box[2] + dx), Math.min(height, box[3] + dy)];
}

/**
 * Whether an axis-parallel box of the base plane shows at least one screen pixel's worth of area on the stage: exact
 * under rotation (separating axes), where the box around a turned stage would also catch its empty corners.
 * @param {Box} box
 * @param {View} view
 */
export function boxIsVisible(box, view) {
  const slack = 0.5 / view.scale;
  if (!boxesOverlap([box[0] + slack, box[1] + slack, box[2] - slack, box[3] - slack], boxAround(visibleCorners(view)))) return false;
  const matrix = viewMatrix(view);
  const corners = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]];
  const onScreen = boxAround(corners.map(([x, y]) => apply(matrix, x, y)));
  return boxesOverlap(onScreen, [0.5, 0.5, view.width - 0.5, view.height - 0.5]);
}

/**
 * Whether image pixels fall on screen pixels exactly, of this image or one a power of two larger or smaller.
 * @param {View} view @param {number} density device pixels per CSS pixel
 */
export function isAligned(view, density) {
  const doublings = Math.log2(view.scale * density);
  if (view.degrees % 90 !== 0 || Math.abs(doublings - Math.round(doublings)) > 1e-9) return false;
  const corner = apply(viewMatrix(view), 0, 0);
  return corner.every((each) => Math.abs(each * density - Math.round(each * density)) < 0.01);
}

/**
 * Move of the view's centre, in base-plane pixels, after which image pixels fall on screen pixels exactly; [0, 0] where
 * that cannot be (turned by other than quarter turns).
 * @param {View} view
 * @param {number} step base-plane pixels per image pixel: 2 for the stored plane, 1 for the base plane
 * @param {number} density device pixels per CSS pixel
 * @returns {Point}
 */
export function snapShift(view, step, density) {
  if (view.degrees % 90 !== 0 || Math.abs(view.scale * step * density - 1) > 1e-6) return [0, 0];
  const [x, y] = apply(viewMatrix(view), 0, 0);
  const [dx, dy] = [x * density - Math.round(x * density), y * density - Math.round(y * density)];
  const back = invert(viewMatrix(view));
  return [(back[0] * dx + back[2] * dy) / density, (back[1] * dx + back[3] * dy) / density];
}
