/** The precision–recall curve: its points on a plot of 1 × 1, the threshold's place on it, its table. Pure. */

/** `[threshold, precision, recall]`; null where nothing was predicted.
 * @typedef {[number, number | null, number | null]} CurvePoint */

/** Rows of the table behind the plot: every this many hundredths. */
const TABLE_STEP = 10;

/** Points of a row of the server's answer. @param {number[]} thresholds
 * @param {{precision: (number | null)[], recall: (number | null)[]} | undefined} row @returns {CurvePoint[]} */
export function pointsOf(thresholds, row) {
  return row === undefined ? [] : thresholds.map((threshold, at) => [threshold, row.precision[at], row.recall[at]]);
}

/** Points that have a place. @param {CurvePoint[]} points @returns {[number, number, number][]} */
export function placed(points) {
  return /** @type {any} */ (points.filter((point) => point[1] !== null && point[2] !== null));
}

/**
 * `d` of the curve's path: recall to the right, precision up, one unit each, origin top left.
 * @param {CurvePoint[]} points by threshold
 */
export function curvePath(points) {
  const steps = placed(points).map(([, precision, recall]) => `${short(recall)} ${short(1 - precision)}`);
  return steps.length ? `M${steps.join("L")}` : "";
}

/** The point of a threshold, or of the nearest one that has a place. @param {CurvePoint[]} points
 * @param {number} threshold @returns {{threshold: number, precision: number, recall: number} | null} */
export function pointAt(points, threshold) {
  return nearest(placed(points), (point) => Math.abs(point[0] - threshold));
}

/** The point nearest to a place of the plot. @param {CurvePoint[]} points @param {number} recall @param {number} precision */
export function pointNear(points, recall, precision) {
  return nearest(placed(points), (point) => Math.hypot(point[2] - recall, point[1] - precision));
}

/** @param {[number, number, number][]} points @param {(point: [number, number, number]) => number} distance */
function nearest(points, distance) {
  let best = null;
  for (const point of points) if (best === null || distance(point) < distance(best)) best = point;
  return best && { threshold: best[0], precision: best[1], recall: best[2] };
}

/** Points for the table: every tenth and the one of the threshold. @param {CurvePoint[]} points @param {number} threshold */
export function tablePoints(points, threshold) {
  const at = Math.round(threshold * 100);
  return points.filter((point) => {
    const step = Math.round(point[0] * 100);
    return step % TABLE_STEP === 0 || step === at;
  });
}

/** @param {number} value */
function short(value) {
  return Number(value.toFixed(4));
}
