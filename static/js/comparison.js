/** Two layers compared: which features are true, false or missed at the present thresholds, among those at hand. */

import { matchPairs, STATES } from "./matching.js";

/** @typedef {import("./layerview.js").LayerView} LayerView */
/** @typedef {import("./blocks.js").Block} Block */

/** @typedef {object} Compared
 * @property {string} truth id of the layer @property {string} prediction id of the other
 * @property {import("./matching.js").Pairs} pairs @property {number} iou above which a pair may match
 * @property {boolean} sameClass whether only features of one class match */

export class Comparison {
  /** @param {Compared} compared @param {LayerView} truth @param {LayerView} prediction */
  constructor(compared, truth, prediction) {
    this.compared = compared;
    this.sides = { truth: new Side(truth), prediction: new Side(prediction) };
  }

  /** States of a layer's features by number, or null for a layer that is not compared. @param {string} id
   * @returns {Uint8Array | null} */
  states(id) {
    this.match();
    if (id === this.compared.truth) return this.sides.truth.states;
    return id === this.compared.prediction ? this.sides.prediction.states : null;
  }

  /** Match anew when something it rests on changed. */
  match() {
    const { truth, prediction } = this.sides;
    const key = `${truth.key()} / ${prediction.key()}`;
    if (key === this.matched) return;
    this.matched = key;
    truth.read();
    prediction.read();
    const rule = {
      iou: this.compared.iou,
      keepsTruth: truth.keeps(),
      keepsPrediction: prediction.keeps(),
      agree: this.compared.sameClass ? agreement(truth, prediction) : undefined,
    };
    const found = matchPairs(this.compared.pairs, rule, truth.states.length, prediction.states.length);
    truth.settle(found.truth, STATES.fn);
    prediction.settle(found.prediction, STATES.fp);
  }
}

const UNREAD = 65534;

/** What is known of one layer's features, by number. */
class Side {
  /** @param {LayerView} view */
  constructor(view) {
    this.view = view;
    const count = view.layer.count;
    this.states = new Uint8Array(count);
    this.scores = new Uint16Array(count).fill(UNREAD);
    this.classes = new Uint16Array(count);
    /** @type {WeakSet<Block>} */
    this.known = new WeakSet();
  }

  key() {
    const { data, least, hidden } = this.view;
    return JSON.stringify([least, [...hidden].sort(), data.arrived]);
  }

  /** Take in the scores and classes of blocks that have come. */
  read() {
    for (const { block } of this.view.data.entries) {
      if (block === null || this.known.has(block)) continue;
      this.known.add(block);
      for (let at = 0; at < block.count; at++) {
        this.scores[block.numbers[at]] = block.scores[at];
        this.classes[block.numbers[at]] = block.classes[at];
      }
    }
  }

  /** Which features stand at the threshold and with the classes that are on. One that has not come yet is taken to. */
  keeps() {
    const { scores, classes } = this;
    const least = this.view.least;
    const off = this.view.classes.map((name) => this.view.hidden.has(name));
    return (/** @type {number} */ number) => scores[number] >= least && (scores[number] === UNREAD || !off[classes[number]]);
  }

  /** @param {Uint8Array} matched @param {number} alone state of a feature without a match */
  settle(matched, alone) {
    const keeps = this.keeps();
    // A new array each time: by its being another one painters see that the states changed.
    this.states = new Uint8Array(matched.length);
    for (let number = 0; number < matched.length; number++) {
      this.states[number] = !keeps(number) ? STATES.none : matched[number] ? STATES.tp : alone;
    }
  }
}

/** Whether two features are of classes of one name. @param {Side} truth @param {Side} prediction */
function agreement(truth, prediction) {
  const numbers = truth.view.classes.map((name) => prediction.view.classes.indexOf(name));
  return (/** @type {number} */ one, /** @type {number} */ other) => (
    truth.scores[one] === UNREAD || prediction.scores[other] === UNREAD || numbers[truth.classes[one]] === prediction.classes[other]);
}
