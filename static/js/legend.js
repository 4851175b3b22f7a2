/** What the colours of a comparison mean, on the slide, for as long as they are there. */

import { stateText } from "./comparewords.js";
import { write } from "./controls.js";
import { byId, make } from "./dom.js";
import { isModelOutput } from "./layerfacts.js";

/** A sample of each state with room for its name, as panel and slide show it. */
export function stateMarks() {
  return /** @type {const} */ (["tp", "fp", "fn"]).map((state) => {
    const words = make("span");
    const sample = make("span", { class: `mark-${state}`, "aria-hidden": "true" });
    return { state, words, root: make("span", { class: "mark" }, [sample, words]) };
  });
}

export class Legend {
  /** @param {import("./review.js").Review} review @param {import("./overlay.js").Overlay} overlay */
  constructor(review, overlay) {
    this.review = review;
    this.overlay = overlay;
    this.box = byId("legend");
    this.marks = stateMarks();
    this.hint = make("span", { class: "quiet", text: "zoom in to see them" });
    this.box.append(...this.marks.map(({ root }) => root), this.hint);
    for (const each of [review, overlay]) each.addEventListener("change", () => this.update());
    overlay.stage.addEventListener("rest", () => this.update());
    this.update();
  }

  update() {
    const { choice, pairs } = this.review;
    this.box.hidden = choice === null || !choice.colored || pairs === null;
    // The map that stands for the features in a far view has the colours of the classes.
    const modes = [choice?.truth, choice?.prediction].map((id) => this.overlay.layers.get(id ?? "")?.state.mode);
    this.hint.hidden = !modes.includes("summary");
    const truth = this.review.layer("truth");
    if (truth === undefined) return;
    for (const { state, words } of this.marks) write(words, stateText(state, isModelOutput(truth)));
  }
}
