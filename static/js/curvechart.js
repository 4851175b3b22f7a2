/** The precision–recall curve as a plot with the present threshold on it, and as a table behind it. */

import { measureText } from "./comparewords.js";
import { makeSvg, opener, write } from "./controls.js";
import { curvePath, placed, pointAt, pointNear, tablePoints } from "./curve.js";
import { make } from "./dom.js";

/** @typedef {import("./curve.js").CurvePoint} CurvePoint */

export class CurveChart {
  /** @param {(threshold: number) => void} chosen called when a place of the curve is clicked */
  constructor(chosen) {
    /** @type {CurvePoint[]} */
    this.points = [];
    this.line = makeSvg("path", { class: "curve-line" });
    this.plot = makeSvg("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, [
      makeSvg("path", { class: "curve-grid", d: "M0 .25h1M0 .5h1M0 .75h1M.25 0v1M.5 0v1M.75 0v1" }), this.line,
    ]);
    this.dot = make("span", { class: "curve-dot" });
    this.area = make("div", {
      class: "curve-area", role: "img", onclick: (event) => this.click(/** @type {MouseEvent} */ (event), chosen),
    }, [this.plot, this.dot]);
    this.words = make("p", { class: "quiet" });
    this.rows = make("tbody");
    const head = ["Threshold", "Precision", "Recall"].map((text) => make("th", { scope: "col", class: "number", text }));
    const table = make("table", { class: "points" }, [
      make("caption", { class: "visually-hidden", text: "Precision and recall by threshold" }),
      make("thead", {}, [make("tr", {}, head)]), this.rows,
    ]);
    const part = make("div", { hidden: true }, [table]);
    this.root = make("div", { class: "curve" }, [
      make("div", { class: "curve-plot" }, [
        make("span", { class: "axis axis-y", text: "precision", "aria-hidden": "true" }), this.area,
        make("span", { class: "axis axis-x", text: "recall", "aria-hidden": "true" }),
      ]),
      this.words, opener("As a table", part).root, part,
    ]);
  }

  /** @param {MouseEvent} event @param {(threshold: number) => void} chosen */
  click(event, chosen) {
    const box = this.area.getBoundingClientRect();
    const point = pointNear(this.points, (event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height);
    if (point !== null) chosen(point.threshold);
  }

  /** @param {CurvePoint[]} points @param {number} threshold @param {number | null} average precision */
  show(points, threshold, average) {
    this.points = points;
    const path = curvePath(points);
    if (this.line.getAttribute("d") !== path) this.line.setAttribute("d", path);
    const now = pointAt(points, threshold);
    this.dot.hidden = now === null;
    if (now !== null) {
      this.dot.style.left = `${100 * now.recall}%`;
      this.dot.style.top = `${100 * (1 - now.precision)}%`;
    }
    const here = now === null
      ? "No prediction has a place on the curve."
      : `At ${threshold.toFixed(2)}: precision ${measureText(now.precision)}, recall ${measureText(now.recall)}.`;
    write(this.words, `${here} Average precision ${measureText(average)}.`);
    const count = placed(points).length;
    this.area.setAttribute("aria-label", `Precision–recall curve of ${count} thresholds. ${this.words.textContent}`);
    this.showRows(tablePoints(points, threshold), threshold);
  }

  /** @param {CurvePoint[]} points @param {number} threshold */
  showRows(points, threshold) {
    const rows = points.map(([at, precision, recall]) => {
      const cells = [measureText(precision), measureText(recall)].map((text) => make("td", { class: "number", text }));
      const present = Math.round(at * 100) === Math.round(threshold * 100);
      const head = make("th", { scope: "row", class: "number", text: at.toFixed(2) });
      return make("tr", present ? { class: "present", "aria-current": "true" } : {}, [head, ...cells]);
    });
    this.rows.replaceChildren(...rows);
  }
}
