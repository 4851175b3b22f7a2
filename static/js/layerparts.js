/** What opens below a layer's buttons: where it comes from, its export, its removal. */

import { ApiError, exportUrl, fetchLosses, removeLayer } from "./api.js";
import { together } from "./classsums.js";
import { button, segments, write } from "./controls.js";
import { make } from "./dom.js";
import { countText, plural } from "./format.js";
import { lossText, provenanceRows } from "./layerfacts.js";

/** @typedef {import("./api.js").Layer} Layer */

const FORMATS = [
  { value: "geojson", text: "GeoJSON", title: "QuPath and most others" },
  { value: "asap", text: "ASAP", title: "XML of ASAP" },
  { value: "coco", text: "COCO", title: "training of networks" },
];
const PLANES = [
  { value: "base", text: "×40", title: "pixels of the scan's plane, as shown here" },
  { value: "stored", text: "×20", title: "pixels of the stored pyramid" },
];

/** @param {Layer} layer @param {number | null} mpp µm per base-plane pixel */
export function aboutPart(layer, mpp) {
  const pairs = provenanceRows(layer, mpp).flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]);
  return make("dl", { class: "facts layer-part", hidden: true }, pairs);
}

export class ExportPart {
  /** @param {string} slideId @param {import("./overlay.js").Overlay} overlay @param {Layer} layer */
  constructor(slideId, overlay, layer) {
    this.slideId = slideId;
    this.overlay = overlay;
    this.layer = layer;
    this.format = "geojson";
    this.plane = "base";
    const formats = segments({ label: "Format", options: FORMATS, changed: (value) => { this.format = value; this.link(); } });
    const planes = segments({ label: "Pixels", options: PLANES, changed: (value) => { this.plane = value; this.link(); } });
    formats.show(this.format);
    planes.show(this.plane);
    this.words = make("p", { class: "quiet" });
    this.anchor = make("a", { class: "button small", download: true, text: "Download" });
    this.ask = button("What is lost?", () => this.report());
    this.losses = make("p", { class: "quiet", role: "status" });
    this.root = make("div", { class: "layer-part export", hidden: true }, [
      make("div", { class: "choice" }, [make("span", { text: "Format" }), formats.root]),
      make("div", { class: "choice" }, [make("span", { text: "Pixels of" }), planes.root]),
      this.words, make("div", { class: "layer-actions" }, [this.anchor, this.ask]), this.losses,
    ]);
  }

  /** @param {Map<string, import("./classsums.js").Sum>} kept features by class, those switched off left out */
  update(kept) {
    const { count } = together(kept.values());
    const { hidden, threshold } = this.view;
    const all = this.layer.classes.length;
    const which = [
      hidden.size ? `${all - hidden.size} of ${all} classes` : "",
      threshold > 0 ? `score ≥ ${threshold.toFixed(2)}` : "",
    ].filter(Boolean).join(", ");
    write(this.words, `${countText(count)} of ${plural(this.layer.count, "feature")}${which && `: ${which}`}`);
    this.anchor.hidden = this.ask.hidden = count === 0;
    this.link();
  }

  link() {
    const url = exportUrl(this.slideId, this.layer.id, this.options());
    if (this.anchor.getAttribute("href") === url) return;
    this.anchor.setAttribute("href", url);
    // What was said was of another file.
    this.asking?.abort();
    write(this.losses, "");
  }

  options() {
    const { hidden, threshold } = this.view;
    const classes = hidden.size ? this.layer.classes.map((each) => each.name).filter((name) => !hidden.has(name)) : null;
    return { format: this.format, plane: this.plane, classes, minScore: threshold };
  }

  /** Say what the file would not keep; the server writes it to know. */
  async report() {
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    write(this.losses, "Looking …");
    try {
      const { losses } = await fetchLosses(this.slideId, this.layer.id, this.options(), signal);
      write(this.losses, losses.length ? `Not in the file: ${lossText(losses)}.` : "Nothing is lost.");
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      write(this.losses, `Not known: ${error.message}`);
    }
  }

  /** @returns {any} */
  get view() {
    return this.overlay.layers.get(this.layer.id);
  }
}

/**
 * @param {string} slideId @param {Layer} layer @param {() => void} removed @param {() => void} kept
 */
export function deletePart(slideId, layer, removed, kept) {
  const trouble = make("p", { class: "warning", role: "alert" });
  const remove = button("Delete", async () => {
    // A disabled button would lose the focus, which is to go on to what is left.
    if (remove.ariaDisabled === "true") return;
    remove.ariaDisabled = "true";
    write(trouble, "");
    try {
      await removeLayer(slideId, layer.id);
      removed();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Somebody else was quicker: what was wanted has happened.
      if (error.status === 404) removed();
      else write(trouble, `Not deleted: ${error.message}`);
    }
    remove.ariaDisabled = "false";
  }, { class: "button small danger" });
  return make("div", { class: "layer-part", hidden: true }, [
    make("p", { text: `Delete “${layer.name}” for everybody? The model can be run again, but this cannot be undone.` }),
    trouble,
    make("div", { class: "layer-actions" }, [remove, button("Keep", kept)]),
  ]);
}
