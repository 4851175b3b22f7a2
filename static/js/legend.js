/** What the colours of a comparison mean, on the slide, for as long as they are there. */

import { write } from "./controls.js";
import { stateText } from "./comparewords.js";
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
  /** @param {import("./review.js").Review} review */
  constructor(review) {
    this.review = review;
    this.box = byId("legend");
    this.marks = stateMarks();
    this.box.append(...this.marks.map(({ root }) => root));
    review.addEventListener("change", () => this.update());
    this.update();
  }

  update() {
    const { choice, pairs } = this.review;
    this.box.hidden = choice === null || !choice.colored || pairs === null;
    const truth = this.review.layer("truth");
    if (truth === undefined) return;
    for (const { state, words } of this.marks) write(words, stateText(state, isModelOutput(truth)));
  }
}
