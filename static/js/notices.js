/** Words about what happens: a page that cannot open, tiles that do not come, something that was done. */

import { byId } from "./dom.js";

/** Trouble shorter than this is not worth a word. */
const SHOW_AFTER_MS = 1000;
/** A note stays this long, and a little longer for each letter. */
const NOTE_MS = 3500;
const NOTE_LETTER_MS = 40;

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

/** One sentence for eye and ear that goes by itself; the next one takes its place. */
export class Note {
  constructor() {
    this.box = byId("note");
  }

  /** @param {string} words */
  say(words) {
    clearTimeout(this.timer);
    this.box.textContent = words;
    this.box.classList.add("note-shown");
    this.timer = setTimeout(() => this.clear(), NOTE_MS + NOTE_LETTER_MS * words.length);
  }

  clear() {
    this.box.classList.remove("note-shown");
    this.box.textContent = "";
  }
}
