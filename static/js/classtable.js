/** The classes of one layer in the panel: switch, colour, count and area in view and on the slide. */

import { checkbox, write } from "./controls.js";
import { make } from "./dom.js";
import { countText } from "./format.js";
import { areaText } from "./scale.js";

/** @typedef {import("./api.js").Layer} Layer */
/** @typedef {import("./classsums.js").Sum} Sum */
/** @typedef {{count: HTMLElement, area: HTMLElement}} Cell */

export class ClassTable {
  /** @param {import("./overlay.js").Overlay} overlay @param {Layer} layer @param {number | null} mpp µm per base-plane pixel */
  constructor(overlay, layer, mpp) {
    this.overlay = overlay;
    this.layer = layer;
    this.mpp = mpp;
    this.rows = layer.classes.map((each) => this.row(each.name));
    this.seenHead = make("th", { scope: "col", class: "number", text: "In view" });
    this.root = make("table", { class: "classes" }, [
      make("caption", { class: "visually-hidden", text: `Classes of ${layer.name}: features and area` }),
      make("thead", {}, [make("tr", {}, [
        make("th", { scope: "col", text: "Class" }), this.seenHead, make("th", { scope: "col", class: "number", text: "Slide" }),
      ])]),
      make("tbody", {}, this.rows.map((row) => row.root)),
    ]);
  }

  /** @param {string} name of a class */
  row(name) {
    const { layer } = this;
    const box = checkbox((shown) => this.overlay.showClass(layer.id, name, shown), { "data-layer": layer.id, "data-class": name });
    const color = /** @type {HTMLInputElement} */ (make("input", {
      type: "color", class: "color", title: `Colour of ${name}`, "aria-label": `Colour of ${name}`,
      oninput: () => this.overlay.setClassColor(layer.id, name, color.value),
    }));
    const only = make("button", { type: "button", class: "only", text: "only", onclick: () => this.solo(name) });
    const title = make("span", { class: "class-name", text: name, title: name });
    const label = make("label", { ondblclick: () => this.solo(name) }, [box, title]);
    const [seen, whole] = [numbers(), numbers()];
    const head = make("th", { scope: "row" }, [make("div", { class: "class-head" }, [color, label, only])]);
    const root = make("tr", { class: "class-row" }, [head, seen.root, whole.root]);
    return { name, root, box, color, only, seen, whole };
  }

  /** Show one class alone; again, all of them. @param {string} name */
  solo(name) {
    const alone = this.isAlone(name);
    for (const each of this.layer.classes) {
      const shown = alone || each.name === name;
      if (this.view.hidden.has(each.name) === shown) this.overlay.showClass(this.layer.id, each.name, shown);
    }
  }

  /** @param {string} name */
  isAlone(name) {
    const { classes } = this.layer;
    return classes.length > 1 && classes.every((each) => this.view.hidden.has(each.name) === (each.name !== name));
  }

  /** What the overlay knows of the layer. @returns {any} */
  get view() {
    return this.overlay.layers.get(this.layer.id);
  }

  /** Bring switches and colours in line with the overlay. */
  update() {
    const { hidden, shown } = this.view;
    for (const { name, root, box, color, only } of this.rows) {
      box.checked = !hidden.has(name);
      root.classList.toggle("faint", !shown || hidden.has(name));
      const paint = this.overlay.colorOf(this.layer.id, name);
      if (color.value !== paint) color.value = paint;
      const alone = this.isAlone(name);
      write(only, alone ? "all" : "only");
      only.setAttribute("aria-label", alone ? "Show all classes" : `Show only ${name}`);
    }
  }

  /**
   * @param {Map<string, Sum>} sums of the slide, areas in base-plane px²
   * @param {{complete: boolean, classes: Map<string, Sum>} | null} seen of the view; null while the layer is off
   */
  updateNumbers(sums, seen) {
    this.seenHead.classList.toggle("unsure", seen !== null && !seen.complete);
    write(this.seenHead, seen !== null && !seen.complete ? "In view …" : "In view");
    for (const row of this.rows) {
      this.fill(row.seen, seen === null ? null : seen.classes.get(row.name) ?? { count: 0, area: 0 });
      this.fill(row.whole, sums.get(row.name) ?? null);
    }
  }

  /** @param {Cell} cell @param {Sum | null} sum */
  fill(cell, sum) {
    write(cell.count, sum === null ? "–" : countText(sum.count));
    write(cell.area, sum === null || sum.count === 0 ? "" : areaOf(sum.area, this.mpp));
  }
}

/** @param {number} area base-plane px² @param {number | null} mpp */
export function areaOf(area, mpp) {
  return mpp ? areaText(area * mpp * mpp) : `${countText(Math.round(area))} px²`;
}

/** @returns {Cell & {root: HTMLElement}} */
function numbers() {
  const [count, area] = [make("span", { class: "count" }), make("span", { class: "area" })];
  return { root: make("td", { class: "number" }, [count, area]), count, area };
}
