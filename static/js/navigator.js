/** The overview: the whole slide from its coarsest tile, with the view's outline; a click or drag goes there. */

import { fetchTile, tileUrl } from "./api.js";
import { byId } from "./dom.js";
import { visibleCorners } from "./geometry.js";
import { topLevel } from "./tilesource.js";

const LONG_SIDE = 200;
const SMALLEST_OUTLINE = 6;
const RETRY_MS = 3000;

export class Navigator {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    this.stage = stage;
    this.root = byId("navigator");
    this.canvas = byId("navigator-canvas");
    this.bitmap = null;
    const { width, height } = stage.card.base;
    this.scale = LONG_SIDE / Math.max(width, height);
    this.size = [Math.max(1, Math.round(width * this.scale)), Math.max(1, Math.round(height * this.scale))];
    this.root.style.width = `${this.size[0]}px`;
    this.root.style.height = `${this.size[1]}px`;
    stage.addEventListener("frame", () => this.draw());
    this.root.addEventListener("pointerdown", (event) => this.grab(event));
    this.root.addEventListener("pointermove", (event) => event.buttons & 1 && this.go(event));
    this.load();
  }

  /** @param {boolean} shown */
  show(shown) {
    this.root.hidden = !shown;
    this.draw();
  }

  async load() {
    const { card, stored } = this.stage;
    const level = topLevel(stored) - (card.levels.length - 1);
    try {
      this.bitmap = (await fetchTile(tileUrl(stored, level, 0, 0), new AbortController().signal)).bitmap;
      this.draw();
    } catch {
      setTimeout(() => this.load(), RETRY_MS);
    }
  }

  draw() {
    if (this.root.hidden || this.stage.items.size === 0) return;
    const [width, height] = this.size;
    Object.assign(this.canvas, { width: width * devicePixelRatio, height: height * devicePixelRatio });
    const context = this.canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    context.imageSmoothingQuality = "high";
    if (this.bitmap) context.drawImage(this.bitmap, 0, 0, width, height);
    this.outline(context);
  }

  /** @param {CanvasRenderingContext2D} context */
  outline(context) {
    const corners = visibleCorners(this.stage.view()).map(([x, y]) => [x * this.scale, y * this.scale]);
    const [middleX, middleY] = [(corners[0][0] + corners[2][0]) / 2, (corners[0][1] + corners[2][1]) / 2];
    const side = Math.hypot(corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]);
    const grow = Math.max(1, SMALLEST_OUTLINE / side);
    context.beginPath();
    for (const [x, y] of corners) context.lineTo(middleX + (x - middleX) * grow, middleY + (y - middleY) * grow);
    context.closePath();
    for (const [strokeStyle, lineWidth] of [["#ffffff", 4], ["#1d5f96", 2]]) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.stroke();
    }
  }

  /** @param {PointerEvent} event */
  grab(event) {
    event.preventDefault();
    this.root.setPointerCapture(event.pointerId);
    this.go(event);
  }

  /** @param {PointerEvent} event */
  go(event) {
    const place = this.root.getBoundingClientRect();
    const centerX = (event.clientX - place.left - this.root.clientLeft) / this.scale;
    const centerY = (event.clientY - place.top - this.root.clientTop) / this.scale;
    this.stage.look({ centerX, centerY });
  }
}
