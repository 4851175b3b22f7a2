/** Words about what does not work: a page that cannot open, tiles that do not come. */

import { byId } from "./dom.js";

/** Trouble shorter than this is not worth a word. */
const SHOW_AFTER_MS = 1000;

/** Say that the page cannot be shown. @param {string} title @param {string} text @param {(() => void) | null} retry */
export function showFailure(title, text, retry) {
  byId("opening").hidden = true;
  byId("failure-title").textContent = title;
  byId("failure-text").textContent = text;
  byId("failure-retry").hidden = retry === null;
  byId("failure-retry").onclick = retry;
  byId("failure").hidden = false;
}

export class TileNotice {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    this.loader = stage.loader;
    this.loader.addEventListener("change", () => this.schedule());
    byId("notice-retry").addEventListener("click", () => this.loader.retry());
  }

  schedule() {
    const words = this.words();
    if (words === "") {
      clearTimeout(this.timer);
      this.timer = undefined;
      byId("notice").hidden = true;
    } else if (this.timer === undefined) {
      this.timer = setTimeout(() => this.show(), SHOW_AFTER_MS);
    } else if (!byId("notice").hidden) {
      this.show();
    }
  }

  show() {
    const words = this.words();
    byId("notice").hidden = words === "";
    if (byId("notice-text").textContent !== words) byId("notice-text").textContent = words;
  }

  words() {
    const { failed, troubled, reason } = this.loader.counts();
    if (failed) return `${failed === 1 ? "One tile" : `${failed} tiles`} could not be loaded. ${reason}`;
    return troubled ? "The server is slow to answer; missing tiles are asked for again." : "";
  }
}
