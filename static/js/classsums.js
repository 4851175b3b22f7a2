/** Counts and areas by class at a score threshold, from the score bins of a layer's summary. Pure. */

/** Bin of features without a score, which every threshold keeps; bins 0 to 100 are hundredths of score. */
export const NO_SCORE = 255;
const STEPS = 101;

/** @typedef {{count: number, area: number}} Sum area in base-plane px² */

/**
 * Sums of one class: `counts[k]` and `areas[k]` are what the threshold k/100 keeps; `bins[k]` is how many features have
 * a score of k hundredths.
 * @typedef {{counts: number[], areas: number[], bins: number[]}} Tally
 */

/**
 * @param {{classes: string[], unit_area: number, entries: number[][]}} summary `[column, row, class, bin, area, count]`
 * @returns {Map<string, Tally>} by class name, every class of the layer
 */
export function tallyOf({ classes, unit_area: unitArea, entries }) {
  const tallies = classes.map(() => ({ counts: zeros(), areas: zeros(), bins: zeros(), free: { count: 0, area: 0 } }));
  for (const [, , number, bin, area, count] of entries) {
    const tally = tallies[number];
    if (bin === NO_SCORE) {
      tally.free.count += count;
      tally.free.area += area * unitArea;
    } else {
      tally.bins[bin] += count;
      tally.areas[bin] += area * unitArea;
    }
  }
  return new Map(tallies.map((tally, number) => [classes[number], cumulated(tally)]));
}

/** @param {{areas: number[], bins: number[], free: Sum}} tally @returns {Tally} */
function cumulated({ areas, bins, free }) {
  const counts = [...bins];
  for (let at = STEPS - 2; at >= 0; at--) {
    counts[at] += counts[at + 1];
    areas[at] += areas[at + 1];
  }
  return { counts: counts.map((each) => each + free.count), areas: areas.map((each) => each + free.area), bins };
}

/** @param {Map<string, Tally>} tallies @param {number} threshold 0 to 1 @returns {Map<string, Sum>} by class name */
export function sumsAt(tallies, threshold) {
  const at = stepOf(threshold);
  return new Map([...tallies].map(([name, { counts, areas }]) => [name, { count: counts[at], area: areas[at] }]));
}

/** All classes together. @param {Iterable<Sum>} sums @returns {Sum} */
export function together(sums) {
  const all = { count: 0, area: 0 };
  for (const { count, area } of sums) {
    all.count += count;
    all.area += area;
  }
  return all;
}

/** How many features of the classes have each score. @param {Map<string, Tally>} tallies
 * @param {(name: string) => boolean} [wanted] @returns {number[]} 101 counts */
export function histogramOf(tallies, wanted = () => true) {
  const bars = zeros();
  for (const [name, { bins }] of tallies) if (wanted(name)) bins.forEach((count, at) => (bars[at] += count));
  return bars;
}

/**
 * Bars as the `d` of a path, 101 units wide and 1 high, zero at the bottom; heights by square root, so that the few of a
 * middling score are still seen beside the many that are sure.
 * @param {number[]} bars @param {number} from first bar drawn @param {number} to one past the last
 */
export function barsPath(bars, from, to) {
  const most = Math.sqrt(Math.max(1, ...bars));
  const drawn = bars.slice(from, to).map((count, at) => {
    const height = Number((Math.sqrt(count) / most).toFixed(3));
    return count ? `M${from + at} 1v-${height}h1v${height}z` : "";
  });
  return drawn.join("");
}

/** The hundredth a threshold stands for, 0 to 100. @param {number} threshold */
export function stepOf(threshold) {
  return Math.min(STEPS - 1, Math.max(0, Math.round(threshold * 100)));
}

/** @returns {number[]} */
function zeros() {
  return new Array(STEPS).fill(0);
}
