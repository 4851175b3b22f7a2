/** The switch between sources of pixels past the stored magnification. */

import { byId, make } from "./dom.js";

/** @typedef {import("./api.js").Source} Source */

/** What is shown at first: the best there is. @param {Source[]} sources @returns {Source} */
export function defaultSource(sources) {
  const best = ["auto", "sr"].map((kind) => sources.find((each) => each.kind === kind)).find(Boolean);
  return best ?? sources[0];
}

/** More networks than these share one button and a list: names side by side would not fit. */
const MOST_BUTTONS = matchMedia("(max-width: 48rem)").matches ? 1 : 3;

export class SourceSwitch {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    this.stage = stage;
    this.sources = stage.sources;
    const networks = this.sources.filter((each) => each.kind === "sr");
    this.listed = networks.length > MOST_BUTTONS ? networks : [];
    byId("sources").append(...this.sources.flatMap((each) => this.parts(each, networks.length)));
    stage.addEventListener("source", () => this.update());
    this.update();
  }

  /** @param {Source} source @param {number} networks super-resolution models on offer */
  parts(source, networks) {
    if (!this.listed.includes(source)) {
      const own = networks > 1 || source.model?.research_only ? nameOf(source) : "SR";
      const names = { stored: "Stored", bicubic: "Bicubic", auto: "Auto", scan: "Scan", sr: own };
      return [this.option(source.source, names[source.kind] ?? source.source, source.label)];
    }
    return source === this.listed[0] ? [this.option(source.source, "SR", "Super-resolution by the model beside"), this.list()] : [];
  }

  /** @param {string} value @param {string} text @param {string} about */
  option(value, text, about) {
    const radio = /** @type {HTMLInputElement} */ (make("input", {
      type: "radio", name: "source", value, class: "visually-hidden", onchange: () => this.stage.choose(radio.value),
    }));
    return make("label", { class: "source", title: `${about} (S)` }, [radio, make("span", { text })]);
  }

  /** The list of networks beside their button. */
  list() {
    this.choice = /** @type {HTMLSelectElement} */ (make("select", {
      class: "source-models", "aria-label": "Super-resolution model", onchange: () => this.stage.choose(this.choice.value),
    }, this.listed.map((each) => make("option", { value: each.source, text: nameOf(each), title: each.label }))));
    return this.choice;
  }

  /** Choose the next source. @param {number} step 1 or −1 */
  cycle(step) {
    const at = this.sources.indexOf(this.stage.active);
    this.stage.choose(this.sources[(at + step + this.sources.length) % this.sources.length].source);
  }

  update() {
    const { active } = this.stage;
    if (this.choice && this.listed.includes(active)) {
      const radio = this.choice.previousElementSibling?.querySelector("input");
      if (radio) radio.value = active.source;
      this.choice.value = active.source;
    }
    for (const radio of byId("sources").querySelectorAll("input")) radio.checked = radio.value === active.source;
  }
}

/** Name of a network, with the word that its licence asks for. @param {Source} source */
function nameOf(source) {
  return source.model?.research_only ? `${source.source} (research only)` : source.source;
}
