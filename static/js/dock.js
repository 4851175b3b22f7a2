/** The place of the panels: one is open at a time, and the buttons in the top bar say which. */

import { byId } from "./dom.js";

/** Fires `change` (detail: names of the panels opened and closed, or null). */
export class Dock extends EventTarget {
  /** @param {string[]} names ids of the panels; each is also the command of its button, and `<name>-title` its heading */
  constructor(names) {
    super();
    this.names = names;
    /** @type {string | null} */
    this.open = null;
    for (const button of document.querySelectorAll("button[data-close-panel]")) {
      button.addEventListener("click", () => this.close());
    }
  }

  /**
   * Open a panel, or close it when it is open.
   * @param {string} name @param {boolean} byKey the focus follows, so that the next Tab is in the panel
   */
  toggle(name, byKey) {
    if (this.open === name) this.close();
    else this.show(name, byKey);
  }

  /** @param {string} name @param {boolean} [focus] */
  show(name, focus = false) {
    this.set(name);
    if (focus) byId(`${name}-title`).focus({ preventScroll: true });
  }

  /** Close what is open; a focus inside goes back to the slide. */
  close() {
    if (this.open === null) return;
    const inside = byId(this.open).contains(document.activeElement);
    this.set(null);
    if (inside) byId("stage").focus({ preventScroll: true });
  }

  /** @param {string | null} name */
  set(name) {
    const closed = this.open;
    this.open = name;
    for (const each of this.names) {
      byId(each).hidden = each !== name;
      document.querySelector(`button[data-command="${each}"]`)?.setAttribute("aria-pressed", String(each === name));
    }
    if (closed !== name) this.dispatchEvent(new CustomEvent("change", { detail: { opened: name, closed } }));
  }
}
