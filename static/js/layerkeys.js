/** What keys do to layers: threshold, style, colours by match, next error; each says what it did. */

import { together } from "./classsums.js";
import { errorText } from "./comparewords.js";
import { countText } from "./format.js";
import { isModelOutput } from "./layerfacts.js";
import { STYLES } from "./viewstate.js";

const STEP = 5;
const NO_CHOICE = "Nothing to compare: a reference and a prediction are needed.";

export class LayerKeys {
  /** @param {import("./overlay.js").Overlay} overlay @param {import("./review.js").Review} review
   * @param {(words: string) => void} say tells the user what happened */
  constructor(overlay, review, say) {
    this.overlay = overlay;
    this.review = review;
    this.say = say;
    /** Scored layer whose threshold was moved last. @type {string | null} */
    this.last = null;
    /** @type {Map<string, number>} */
    this.known = new Map();
    overlay.addEventListener("change", () => this.watch());
  }

  /** Remember which layer's threshold the user is at. */
  watch() {
    for (const [id, { threshold }] of this.overlay.layers) {
      if (this.known.has(id) && this.known.get(id) !== threshold) this.last = id;
      this.known.set(id, threshold);
    }
  }

  /** The layer the threshold keys move: that of the comparison, else the last one moved, else the newest shown. */
  scored() {
    const scored = [...this.overlay.layers].filter(([, view]) => view.shown && view.layer.scored).map(([id]) => id);
    const first = [this.review.choice?.prediction, this.last].find((id) => id !== undefined && id !== null && scored.includes(id));
    return first ?? scored.at(-1) ?? null;
  }

  /** @param {1 | -1} direction by a twentieth, to the next whole one */
  moveThreshold(direction) {
    const id = this.scored();
    if (id === null) return this.say("No layer with scores is shown.");
    const { threshold, layer } = /** @type {any} */ (this.overlay.layers.get(id));
    const steps = (100 * threshold) / STEP;
    const next = direction > 0 ? Math.floor(steps + 1e-6) + 1 : Math.ceil(steps - 1e-6) - 1;
    const value = Math.min(100, Math.max(0, next * STEP)) / 100;
    this.overlay.setThreshold(id, value);
    const seen = together(this.overlay.visibleCounts(id).classes.values()).count;
    this.say(`${layer.name}: score ≥ ${value.toFixed(2)}, ${countText(seen)} in view.`);
  }

  /** The next style, for all layers. */
  nextStyle() {
    const views = [...this.overlay.layers];
    if (views.length === 0) return this.say("There are no layers.");
    const next = STYLES[(STYLES.indexOf(views[0][1].style) + 1) % STYLES.length];
    for (const [id] of views) this.overlay.setStyle(id, /** @type {any} */ (next));
    this.say(`Layers drawn as ${next === "both" ? "outline and fill" : next}.`);
  }

  /** Colour the slide by what matches, or by class. */
  toggleColors() {
    const { review } = this;
    if (review.choice === null) return review.begin() || this.say(NO_CHOICE);
    review.choose({ colored: !review.choice.colored });
    this.say(review.choice.colored ? "Coloured by match." : "Coloured by class.");
  }

  /** @param {1 | -1} step */
  async nextError(step) {
    const { review } = this;
    if (!review.begin()) return this.say(NO_CHOICE);
    await review.step(step);
    const truth = review.layer("truth");
    const error = review.seen()[review.at];
    if (truth === undefined) return;
    if (error === undefined) this.say(review.error ? `Not compared: ${review.error}` : "No errors at this threshold.");
    else this.say(`${review.at + 1} of ${countText(review.seen().length)}: ${errorText(error, isModelOutput(truth))}`);
  }
}
