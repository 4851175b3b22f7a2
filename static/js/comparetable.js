/** The table of measures: all classes together, then each; the numbers are the server's. */

import { countsText, measureText, MEASURES } from "./comparewords.js";
import { write } from "./controls.js";
import { make } from "./dom.js";

/** @typedef {{root: HTMLElement, counts: HTMLElement, cells: HTMLElement[]}} Group */

export class CompareTable {
  constructor() {
    /** @type {Map<string, Group>} by class name */
    this.groups = new Map();
    this.all = group("All classes", "overall");
    const heads = MEASURES.map(({ head, about }) => (
      make("th", { scope: "col", class: "number" }, [make("abbr", { title: about, text: head })])));
    this.root = make("table", { class: "measures" }, [
      make("caption", { class: "visually-hidden", text: "Measures by class" }),
      make("thead", {}, [make("tr", {}, heads)]), this.all.root,
    ]);
  }

  /** @param {any} table the server's answer @param {boolean} agreement the reference is a model's output */
  show(table, agreement) {
    fill(this.all, table.overall, agreement);
    const names = Object.keys(table.classes);
    if (names.join("\n") !== [...this.groups.keys()].join("\n")) {
      for (const { root } of this.groups.values()) root.remove();
      this.groups = new Map(names.map((name) => [name, group(name)]));
      this.root.append(...[...this.groups.values()].map(({ root }) => root));
    }
    for (const [name, each] of this.groups) fill(each, table.classes[name], agreement);
  }
}

/**
 * The rows of one class: its name has a row of its own, since beside six measures it would be cut off.
 * @param {string} name @param {string} [kind] @returns {Group}
 */
function group(name, kind = "") {
  const counts = make("span", { class: "quiet" });
  const cells = MEASURES.map(() => make("td", { class: "number", text: "–" }));
  const title = make("span", { class: "measured", text: name });
  const head = make("th", { scope: "rowgroup", colspan: String(MEASURES.length) }, [title, counts]);
  return { root: make("tbody", { class: kind }, [make("tr", {}, [head]), make("tr", {}, cells)]), counts, cells };
}

/** @param {Group} group @param {any} measures @param {boolean} agreement */
function fill({ counts, cells }, measures, agreement) {
  MEASURES.forEach(({ key }, at) => write(cells[at], measureText(measures[key])));
  write(counts, countsText(measures, agreement));
}
