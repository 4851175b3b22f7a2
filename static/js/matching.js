/** Which prediction stands for which truth feature, by the one rule of server, command line and browser; pure. */

/** Pairs of features that overlap, in order of falling IoU, then truth, then prediction number.
 * @typedef {{truth: Uint32Array, prediction: Uint32Array, iou: Float32Array}} Pairs */

/** What comparison makes of a feature; 0: nothing is known of it. */
export const STATES = { none: 0, tp: 1, fp: 2, fn: 3 };

/**
 * Match greedily: walk the pairs in their order, drop those whose features are not kept or whose IoU is not above the
 * least one, match when both are still free.
 * @param {Pairs} pairs
 * @param {{iou: number, keepsTruth: (number: number) => boolean, keepsPrediction: (number: number) => boolean,
 *   agree?: (truth: number, prediction: number) => boolean}} rule `agree`: whether their classes may match
 * @param {number} truths features of the truth layer @param {number} predictions features of the other
 * @returns {{truth: Uint8Array, prediction: Uint8Array}} 1 for each matched feature, by number
 */
export function matchPairs(pairs, rule, truths, predictions) {
  const matched = { truth: new Uint8Array(truths), prediction: new Uint8Array(predictions) };
  const { truth, prediction, iou } = pairs;
  for (let at = 0; at < truth.length && iou[at] > rule.iou; at++) {
    const [one, other] = [truth[at], prediction[at]];
    if (matched.truth[one] || matched.prediction[other] || !rule.keepsPrediction(other) || !rule.keepsTruth(one)) continue;
    if (rule.agree !== undefined && !rule.agree(one, other)) continue;
    matched.truth[one] = 1;
    matched.prediction[other] = 1;
  }
  return matched;
}
