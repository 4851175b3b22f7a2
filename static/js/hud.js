/** What the view says about itself: scale bar, magnification, badge of synthesised pixels, loading, for eye and ear. */

import { byId } from "./dom.js";
import { boxAround, boxIsVisible, visibleCorners } from "./geometry.js";
import { keptTest } from "./kept.js";
import { badge } from "./provenance.js";
import { basePower, powerText, scaleBar } from "./scale.js";
import { tileBox } from "./tilesource.js";

/** Width that the scale bar may take, CSS pixels. */
const BAR_ROOM = 160;
/** Quiet before the live region speaks, and loading before it is shown: what is shorter would only flicker. */
const SPEAK_AFTER_MS = 800;
const SHOW_LOADING_AFTER_MS = 400;

export class Hud {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    this.stage = stage;
    this.power = basePower(stage.card);
    this.isKept = keptTest(stage.card.sources.find((each) => each.kept)?.kept);
    this.spoken = "";
    stage.addEventListener("frame", () => this.update());
    stage.addEventListener("change", () => this.updateLoading());
  }

  update() {
    const view = this.stage.view();
    const shown = this.visibleProvenances(view);
    const made = badge(shown);
    const words = this.magnification(view, shown);
    write(byId("magnification"), words);
    this.updateBadge(made);
    this.updateScaleBar(view);
    this.updateLoading();
    this.speak(made ? `${words}. ${made.text}` : words);
  }

  /** Origins of the ×40 tiles that really show. @param {import("./geometry.js").View} view */
  visibleProvenances(view) {
    const top = [...this.stage.drawn.values()].filter((tile) => tile.provenance.kind !== "stored");
    return top.filter((tile) => boxIsVisible(tile.box, view)).map((tile) => tile.provenance);
  }

  /** @param {import("./geometry.js").View} view @param {import("./provenance.js").Provenance[]} shown */
  magnification(view, shown) {
    const perStored = view.scale * 2 ** (this.stage.grid.top - this.stage.storedTop);
    const power = this.power === null ? `${Number(perStored.toPrecision(3))} : 1` : powerText(this.power * view.scale);
    const scanned = shown.some((each) => !each.synthesised);
    if (shown.some((each) => each.synthesised)) return `${power} · synthesised${scanned ? " in part" : ""}`;
    if (scanned) return `${power} · scanned${this.isWhollyScanned(view) ? "" : " in part"}`;
    return perStored > 1.01 ? `${power} · stored, enlarged ${Number(perStored.toPrecision(3))}×` : `${power} · stored`;
  }

  /** Whether no stored pixels show beside those of the scan. @param {import("./geometry.js").View} view */
  isWhollyScanned(view) {
    const { grid } = this.stage;
    const [left, top, right, bottom] = boxAround(visibleCorners(view)).map((place) => Math.max(0, Math.floor(place / grid.side)));
    for (let row = top; row <= bottom && row * grid.side < grid.height; row += 1) {
      for (let column = left; column <= right && column * grid.side < grid.width; column += 1) {
        if (!this.isKept(column, row) && boxIsVisible(tileBox(grid, grid.top, column, row), view)) return false;
      }
    }
    return true;
  }

  /** @param {{text: string, waiting: boolean} | null} made */
  updateBadge(made) {
    const box = byId("badge");
    box.hidden = made === null;
    if (made === null) return;
    box.classList.toggle("badge-waiting", made.waiting);
    write(byId("badge-text"), made.text);
  }

  /** @param {import("./geometry.js").View} view */
  updateScaleBar(view) {
    const mpp = this.stage.card.base.mpp;
    const box = byId("scalebar");
    box.hidden = !mpp;
    if (!mpp) return;
    const bar = scaleBar(mpp / view.scale, BAR_ROOM);
    box.style.width = `${bar.pixels}px`;
    write(byId("scalebar-text"), bar.label);
  }

  updateLoading() {
    const loading = this.stage.loader.counts().pending > 0 || !this.stage.isComplete();
    byId("stage").setAttribute("aria-busy", String(loading));
    if (!loading) {
      clearTimeout(this.loadingTimer);
      this.loadingTimer = undefined;
      byId("progress").hidden = true;
    } else if (this.loadingTimer === undefined) {
      this.loadingTimer = setTimeout(() => (byId("progress").hidden = false), SHOW_LOADING_AFTER_MS);
    }
  }

  /** @param {string} words */
  speak(words) {
    if (words === this.spoken) return;
    this.spoken = words;
    clearTimeout(this.speaker);
    this.speaker = setTimeout(() => write(byId("live"), words), SPEAK_AFTER_MS);
  }
}

/** Set text only when it changed, to spare layout. @param {HTMLElement} target @param {string} text */
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
