/** The compare panel: what with what, measures, the curve, and the way from error to error. */

import { button, checkbox, freshId, segments, thresholdControl, write } from "./controls.js";
import { CompareTable } from "./comparetable.js";
import { agreementText, errorText, measureText, stateText } from "./comparewords.js";
import { pointsOf } from "./curve.js";
import { CurveChart } from "./curvechart.js";
import { byId, make } from "./dom.js";
import { countText } from "./format.js";
import { isModelOutput } from "./layerfacts.js";
import { stateMarks } from "./legend.js";

/** @typedef {import("./api.js").Layer} Layer */

const OVERLAPS = ["0.25", "0.5", "0.75"];
const ALL = "";
const NEEDED = "Two layers are needed: a reference made by people or by a model, and a prediction. "
  + "Predict one (J), or import a file.";

export class ComparePanel {
  /** @param {import("./review.js").Review} review @param {import("./overlay.js").Overlay} overlay
   * @param {import("./totals.js").Totals} totals */
  constructor(review, overlay, totals) {
    this.review = review;
    this.overlay = overlay;
    this.totals = totals;
    this.root = byId("compare");
    /** Class whose curve is shown. */
    this.curveClass = ALL;
    this.build();
    for (const each of [review, overlay, totals]) each.addEventListener("change", () => this.update());
    this.update();
  }

  build() {
    this.empty = make("p", { class: "quiet", text: NEEDED });
    this.content = make("div", { class: "groups" }, [this.choosers(), this.measures(), this.errors(), this.curve()]);
    this.stop = button("Stop", () => { this.review.stop(); byId("compare-title").focus(); }, { title: "Compare no longer" });
    this.begin = button("Compare", () => this.review.begin(), { class: "button primary" });
    byId("compare-tools").append(this.stop);
    byId("compare-body").append(this.empty, this.begin, this.content);
  }

  choosers() {
    this.truth = chooser("Reference", (truth) => this.review.pick({ truth }));
    this.prediction = chooser("Prediction", (prediction) => this.review.pick({ prediction }));
    this.title = make("p", { class: "warning" });
    this.threshold = thresholdControl({ of: "the prediction", changed: (value) => this.setThreshold(value) });
    const choosers = [this.truth.root, this.prediction.root, this.title];
    return make("section", { class: "group" }, [...choosers, this.threshold.root, this.options(), this.legend()]);
  }

  options() {
    this.overlap = segments({
      label: "Matched when they overlap by an IoU above", options: OVERLAPS.map((value) => ({ value, text: value })),
      changed: (value) => this.review.choose({ iou: Number(value) }),
    });
    this.sameClass = checkbox((sameClass) => this.review.choose({ sameClass }));
    this.sameClassWords = make("span", { text: "Only within a class" });
    return make("div", { class: "choice" }, [
      make("span", { text: "Match at IoU >" }), this.overlap.root, make("label", {}, [this.sameClass, this.sameClassWords]),
    ]);
  }

  legend() {
    this.colored = checkbox((colored) => this.review.choose({ colored }), { "aria-keyshortcuts": "V" });
    this.marks = stateMarks();
    return make("div", { class: "match-legend" }, [
      make("label", { title: "Colour the slide by what matches (V)" }, [this.colored, make("span", { text: "Colour by match" })]),
      ...this.marks.map(({ root }) => root),
    ]);
  }

  measures() {
    this.scope = segments({
      label: "Measured on", options: [{ value: "view", text: "This view" }, { value: "slide", text: "Whole slide" }],
      changed: (value) => this.review.choose({ wholeSlide: value === "slide" }),
    });
    this.table = new CompareTable();
    this.summary = make("p", { class: "quiet" });
    this.waiting = make("p", { class: "quiet", text: "Comparing …" });
    this.trouble = make("p", { class: "warning", role: "alert" });
    return make("section", { class: "group", "aria-label": "Measures" }, [
      make("div", { class: "group-head" }, [make("h3", { text: "Measures" }), this.scope.root]),
      this.trouble, this.waiting, this.table.root, this.summary,
    ]);
  }

  errors() {
    this.order = segments({
      label: "Errors in order of", options: [{ value: "score", text: "By score" }, { value: "size", text: "By size" }],
      changed: (value) => this.review.sort(/** @type {"size" | "score"} */ (value)),
    });
    this.place = make("p", { class: "quiet error-place", role: "status" });
    const step = (/** @type {string} */ text, /** @type {number} */ by, /** @type {string} */ keys) => (
      button(text, () => this.review.step(by), { "aria-keyshortcuts": keys, title: `${text} (${keys})` }));
    return make("section", { class: "group", "aria-label": "Errors" }, [
      make("div", { class: "group-head" }, [make("h3", { text: "Errors" }), this.order.root]),
      make("div", { class: "layer-actions" }, [step("Previous", -1, "Shift+D"), step("Next", 1, "D")]), this.place,
    ]);
  }

  curve() {
    this.chart = new CurveChart((value) => this.setThreshold(value));
    this.classes = /** @type {HTMLSelectElement} */ (make("select", {
      "aria-label": "Class of the curve", onchange: () => { this.curveClass = this.classes.value; this.update(); },
    }));
    return this.curveGroup = make("section", { class: "group", "aria-label": "Precision and recall" }, [
      make("div", { class: "group-head" }, [make("h3", { text: "Precision and recall" }), this.classes]), this.chart.root,
    ]);
  }

  /** @param {number} value 0 to 1 */
  setThreshold(value) {
    const id = this.review.choice?.prediction;
    if (id !== undefined) this.overlay.setThreshold(id, value);
  }

  /** Call when the panel was opened or closed. @param {boolean} open */
  shown(open) {
    if (open) this.review.begin();
    this.review.watch(open);
    this.update();
  }

  update() {
    if (this.root.hidden) return;
    const { choice } = this.review;
    const layers = [...this.overlay.layers.values()].map((view) => view.layer);
    const possible = layers.some((layer) => layer.kind === "prediction") && layers.length > 1;
    this.empty.hidden = possible;
    this.begin.hidden = !possible || choice !== null;
    this.content.hidden = this.stop.hidden = choice === null;
    const [truth, prediction] = [this.review.layer("truth"), this.review.layer("prediction")];
    if (choice === null || truth === undefined || prediction === undefined) return;
    this.truth.show(layers.filter((layer) => layer.id !== prediction.id), truth.id);
    this.prediction.show(layers.filter((layer) => layer.kind === "prediction" && layer.id !== truth.id), prediction.id);
    this.updateChoice(choice, truth, prediction);
    this.updateMeasures(choice, isModelOutput(truth));
    this.updateErrors(isModelOutput(truth));
    this.updateCurve(prediction);
  }

  /** @param {import("./viewstate.js").Compared} choice @param {Layer} truth @param {Layer} prediction */
  updateChoice(choice, truth, prediction) {
    const agreement = isModelOutput(truth);
    write(this.title, agreementText(truth));
    this.threshold.root.hidden = !prediction.scored;
    this.threshold.show(this.review.threshold);
    const hidden = this.overlay.layers.get(prediction.id)?.hidden;
    const tallies = prediction.scored ? this.totals.of(prediction.id) : null;
    this.threshold.showBars(tallies, this.review.threshold, (name) => !hidden?.has(name));
    this.overlap.show(OVERLAPS.find((value) => Number(value) === choice.iou) ?? null);
    const share = this.review.shareClasses();
    this.sameClass.checked = choice.sameClass;
    this.sameClass.disabled = !share;
    write(this.sameClassWords, share ? "Only within a class" : "No class in common");
    this.colored.checked = choice.colored;
    for (const { state, words } of this.marks) write(words, stateText(state, agreement));
  }

  /** @param {import("./viewstate.js").Compared} choice @param {boolean} agreement */
  updateMeasures(choice, agreement) {
    const { table, stale, error } = this.review;
    this.scope.show(choice.wholeSlide ? "slide" : "view");
    write(this.trouble, error && `Not compared: ${error}`);
    this.table.root.setAttribute("aria-busy", String(stale));
    this.table.root.hidden = this.summary.hidden = table === null;
    this.waiting.hidden = table !== null || error !== "";
    if (table === null) return;
    this.table.show(table, agreement);
    const { aji, sq } = table.overall;
    write(this.summary, `AJI ${measureText(aji)} · mean IoU of the matched ${measureText(sq)}`);
  }

  /** @param {boolean} agreement */
  updateErrors(agreement) {
    const { errors, at, total } = this.review;
    this.order.show(this.review.order);
    const seen = this.review.seen();
    if (errors === null) write(this.place, "Next and Previous go from one to the next.");
    else if (seen.length === 0) write(this.place, total ? "None in the classes that are shown." : "None at this threshold.");
    else {
      const count = countText(seen.length);
      const of = total > errors.length ? `the first ${count} of ${countText(total)}` : count;
      write(this.place, at < 0 ? `${of} in all` : `${at + 1} of ${of}: ${errorText(seen[at], agreement)}`);
    }
  }

  /** @param {Layer} prediction */
  updateCurve(prediction) {
    const { curve, threshold } = this.review;
    this.curveGroup.hidden = !prediction.scored || curve === null;
    if (this.curveGroup.hidden) return;
    const names = Object.keys(curve.classes);
    if (!names.includes(this.curveClass)) this.curveClass = ALL;
    const options = names.map((name) => ({ value: name, text: name }));
    showOptions(this.classes, [{ value: ALL, text: "All classes" }, ...options], this.curveClass);
    const row = this.curveClass === ALL ? curve.overall : curve.classes[this.curveClass];
    this.chart.show(pointsOf(curve.thresholds, row), threshold, row.average_precision);
  }
}

/** A list of layers to choose from. @param {string} label @param {(id: string) => void} changed */
function chooser(label, changed) {
  const id = freshId("chooser");
  const select = /** @type {HTMLSelectElement} */ (make("select", { id, onchange: () => changed(select.value) }));
  return {
    root: make("div", { class: "chooser" }, [make("label", { for: id, text: label }), select]),
    show(/** @type {Layer[]} */ layers, /** @type {string} */ chosen) {
      showOptions(select, layers.map((layer) => ({ value: layer.id, text: layer.name })), chosen);
    },
  };
}

/** @param {HTMLSelectElement} select @param {{value: string, text: string}[]} options @param {string} chosen */
function showOptions(select, options, chosen) {
  const words = (/** @type {{value: string, text: string}[]} */ list) => JSON.stringify(list.map((each) => [each.value, each.text]));
  const isSame = words([...select.options]) === words(options);
  if (!isSame) select.replaceChildren(...options.map(({ value, text }) => make("option", { value, text })));
  if (select.value !== chosen) select.value = chosen;
}
