/** The switch between sources of pixels past the stored magnification. */

import { byId, make } from "./dom.js";

/** @typedef {import("./api.js").Source} Source */

/** What is shown at first: the best there is. @param {Source[]} sources @returns {Source} */
export function defaultSource(sources) {
  const best = ["auto", "sr"].map((kind) => sources.find((each) => each.kind === kind)).find(Boolean);
  return best ?? sources[0];
}

export class SourceSwitch {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    this.stage = stage;
    this.sources = stage.sources;
    const models = this.sources.filter((each) => each.kind === "sr").length;
    byId("sources").append(...this.sources.map((each) => this.option(each, models)));
    stage.addEventListener("source", () => this.update());
    this.update();
  }

  /** @param {Source} source @param {number} models super-resolution models on offer */
  option(source, models) {
    const names = { stored: "Stored", bicubic: "Bicubic", auto: "Auto", scan: "Scan", sr: models > 1 ? source.source : "SR" };
    const radio = make("input", {
      type: "radio", name: "source", value: source.source, class: "visually-hidden",
      onchange: () => this.stage.choose(source.source),
    });
    return make("label", { class: "source", title: `${source.label} (S)` }, [
      radio,
      make("span", { text: names[source.kind] ?? source.source }),
    ]);
  }

  /** Choose the next source. @param {number} step 1 or −1 */
  cycle(step) {
    const at = this.sources.indexOf(this.stage.active);
    this.stage.choose(this.sources[(at + step + this.sources.length) % this.sources.length].source);
  }

  update() {
    for (const radio of byId("sources").querySelectorAll("input")) {
      radio.checked = radio.value === this.stage.active.source;
    }
  }
}
