/**
 * The slide on screen: OpenSeadragon with the stored source always below and, past the stored magnification, one source
 * of ×40 tiles above it. So switching sources changes only the upper tiles: the view stays, nothing flashes, and a tile
 * still being made shows the stored pixels under it.
 */

import { boxAround, boxesOverlap, growBox, isAligned, snapShift, visibleCorners } from "./geometry.js";
import { createViewer } from "./osd.js";
import { TileLoader } from "./tileloader.js";
import { gridOf, makeTileSource, placedWidth, tileBox, topLevel } from "./tilesource.js";

/** @typedef {import("./api.js").Card} Card */
/** @typedef {import("./api.js").Source} Source */
/** @typedef {import("./geometry.js").View} View */

/** A tile on screen. @typedef {{source: Source, level: number, column: number, row: number,
 *   box: import("./geometry.js").Box, provenance: import("./provenance.js").Provenance}} DrawnTile */

/** Options with their defaults. */
export const STAGE_OPTIONS = {
  /** CSS pixels per base-plane pixel at most. */
  closest: 4,
  /** CSS pixels per stored pixel from which ×40 tiles are shown: just above 1, where stored pixels run out. */
  beyondStored: 1.01,
  /** Share of the view around it in which tiles still count as wanted. */
  margin: 0.25,
  /** Seconds that zooming and panning take. */
  animationTime: 0.3,
  /** Decoded tiles kept, 1 MB each. */
  tilesKept: 320,
};

/**
 * Fires `frame` after each drawn frame, `move` when the target of the view changes, `rest` when it stands still,
 * `source` when another source was chosen, `open` and `change` (loading state).
 */
export class Stage extends EventTarget {
  /** @param {HTMLElement} element @param {Card} card @param {Partial<typeof STAGE_OPTIONS>} [options] */
  constructor(element, card, options = {}) {
    super();
    this.card = card;
    this.options = { ...STAGE_OPTIONS, ...options };
    this.grid = gridOf(card);
    this.storedTop = topLevel(card.stored);
    this.stored = /** @type {Source} */ (card.sources.find((each) => !each.synthesised));
    /** Those that show something else than the stored one; `auto` may have nothing better. */
    this.sources = card.sources.filter((each) => each === this.stored || topLevel(each) > this.storedTop);
    this.active = this.stored;
    /** @type {Source | null} shown below the active source until that one is complete */
    this.lingering = null;
    /** @type {Map<Source, any>} tiled images by source, once made */
    this.items = new Map();
    /** @type {Map<string, DrawnTile>} */
    this.drawn = new Map();
    /** @type {Map<string, DrawnTile>} of the frame in the making */
    this.drawing = new Map();
    this.crisp = false;
    this.loader = new TileLoader((tile) => this.isWanted(tile));
    this.loader.addEventListener("change", () => this.dispatchEvent(new Event("change")));
    this.viewer = createViewer(element, this.options);
    this.listen();
    this.viewer.open({
      tileSource: this.tileSource(this.stored),
      width: placedWidth(card, this.stored),
    });
  }

  listen() {
    const viewer = this.viewer;
    viewer.addOnceHandler("open", () => {
      this.watch(viewer.world.getItemAt(0), this.stored);
      this.limitZoom();
      this.dispatchEvent(new Event("open"));
    });
    viewer.addHandler("viewport-change", () => this.applyOpacities());
    viewer.addHandler("update-viewport", () => this.finishFrame());
    viewer.addHandler("animation-finish", () => this.rest());
    viewer.addHandler("resize", () => this.limitZoom());
    for (const name of ["pan", "zoom", "rotate", "flip", "resize"]) viewer.addHandler(name, () => this.moved());
  }

  /** Where the stage looks now, or where it is heading. @param {boolean} [current] @returns {View} */
  view(current = true) {
    const viewport = this.viewer.viewport;
    const size = viewport.getContainerSize();
    const center = viewport.getCenter(current);
    return {
      centerX: center.x * this.grid.width,
      centerY: center.y * this.grid.width,
      scale: (viewport.getZoom(current) * size.x) / this.grid.width,
      degrees: viewport.getRotation(current),
      mirrored: viewport.getFlip(),
      width: size.x,
      height: size.y,
    };
  }

  /** Whether the slide is on its way to where it is heading. */
  isMoving() {
    const [now, then] = [this.view(), this.view(false)];
    return Object.entries(now).some(([key, value]) => then[key] !== value);
  }

  /**
   * Look elsewhere; what is not named stays.
   * @param {Partial<{centerX: number, centerY: number, scale: number, degrees: number, mirrored: boolean}>} place
   * @param {boolean} [immediately]
   */
  look(place, immediately = false) {
    const viewport = this.viewer.viewport;
    const view = { ...this.view(false), ...place };
    if (place.mirrored !== undefined) viewport.setFlip(place.mirrored);
    if (place.degrees !== undefined) viewport.setRotation(place.degrees, immediately);
    if (place.scale !== undefined) viewport.zoomTo((view.scale * this.grid.width) / view.width, null, immediately);
    if (place.centerX !== undefined || place.centerY !== undefined) {
      viewport.panTo(new OpenSeadragon.Point(view.centerX / this.grid.width, view.centerY / this.grid.width), immediately);
    }
    viewport.applyConstraints(immediately);
  }

  /** Show the whole slide. @param {boolean} [immediately] */
  fit(immediately = false) {
    const view = this.view(false);
    const turned = view.degrees % 180 !== 0;
    const [width, height] = turned ? [this.grid.height, this.grid.width] : [this.grid.width, this.grid.height];
    const scale = 0.96 * Math.min(view.width / width, view.height / height);
    this.look({ centerX: this.grid.width / 2, centerY: this.grid.height / 2, scale }, immediately);
  }

  /** Choose what is shown past the stored magnification. @param {string} name of a source of the card */
  choose(name) {
    const source = this.sources.find((each) => each.source === name) ?? this.stored;
    if (source === this.active) return;
    this.lingering = source === this.stored || this.active === this.stored ? null : this.active;
    this.active = source;
    if (source === this.stored || this.items.has(source)) this.raise(source);
    else this.addItem(source);
    this.dispatchEvent(new Event("source"));
  }

  /** Square pixels instead of smooth ones when enlarged. @param {boolean} crisp */
  setCrisp(crisp) {
    this.crisp = crisp;
    this.applySmoothing();
    this.viewer.forceRedraw();
  }

  /** @param {Source} source */
  tileSource(source) {
    return makeTileSource(this.card, source, source !== this.stored, this.loader, () => isAligned(this.view(), devicePixelRatio));
  }

  /** @param {Source} source */
  addItem(source) {
    this.viewer.addTiledImage({
      tileSource: this.tileSource(source),
      width: placedWidth(this.card, source),
      opacity: 0,
      success: ({ item }) => {
        const drawArea = item.getDrawArea.bind(item);
        // Its one level must never be asked for in a far view, where it would be thousands of tiles.
        item.getDrawArea = () => this.isBeyondStored() && drawArea();
        this.watch(item, source);
        this.raise(source);
      },
      error: ({ message }) => this.dispatchEvent(new CustomEvent("fault", { detail: message })),
    });
  }

  /** @param {any} item an OpenSeadragon tiled image @param {Source} source */
  watch(item, source) {
    this.items.set(source, item);
    // Every drawer asks for the tiles of a frame here, once; the event of drawn tiles is raised for the first item only.
    const tilesToDraw = item.getTilesToDraw.bind(item);
    item.getTilesToDraw = () => {
      const drawn = tilesToDraw();
      if (item.getOpacity() > 0) this.noteDrawn(source, drawn);
      return drawn;
    };
    item.addHandler("fully-loaded-change", ({ fullyLoaded }) => {
      if (fullyLoaded && source === this.active) this.dropLingering();
      this.dispatchEvent(new Event("change"));
    });
  }

  /** @param {Source} source */
  raise(source) {
    const world = this.viewer.world;
    if (source !== this.stored) world.setItemIndex(this.items.get(source), world.getItemCount() - 1);
    this.applyOpacities();
    this.loader.prune();
    this.viewer.forceRedraw();
  }

  isBeyondStored() {
    return this.view().scale * 2 ** (this.grid.top - this.storedTop) >= this.options.beyondStored;
  }

  applyOpacities() {
    const beyond = this.isBeyondStored();
    for (const [source, item] of this.items) {
      if (source === this.stored) continue;
      const opacity = beyond && (source === this.active || source === this.lingering) ? 1 : 0;
      if (item.getOpacity() !== opacity) item.setOpacity(opacity);
    }
    this.applySmoothing();
  }

  applySmoothing() {
    const step = this.active === this.stored ? 2 ** (this.grid.top - this.storedTop) : 1;
    const smooth = !(this.crisp && this.view().scale * step >= 1);
    if (smooth === this.smooth) return;
    this.smooth = smooth;
    this.viewer.drawer.setImageSmoothingEnabled(smooth);
  }

  dropLingering() {
    if (this.lingering === null) return;
    this.lingering = null;
    this.applyOpacities();
  }

  moved() {
    this.dropLingering();
    this.dispatchEvent(new Event("move"));
  }

  limitZoom() {
    const viewport = this.viewer.viewport;
    const { width, height } = this.view();
    const perScale = this.grid.width / width;
    viewport.maxZoomLevel = this.options.closest * perScale;
    viewport.minZoomLevel = 0.5 * perScale * Math.min(width / this.grid.width, height / this.grid.height);
  }

  /** @param {Source} source @param {{tile: any}[]} tiles drawn of it in this frame */
  noteDrawn(source, tiles) {
    for (const { tile } of tiles) {
      const level = tile.level;
      this.drawing.set(`${level} ${tile.x} ${tile.y}`, {
        source,
        level,
        column: tile.x,
        row: tile.y,
        box: tileBox(this.grid, level, tile.x, tile.y),
        provenance: this.loader.provenance(tile.getUrl()),
      });
    }
  }

  finishFrame() {
    this.drawn = this.drawing;
    this.drawing = new Map();
    this.loader.prune();
    this.dispatchEvent(new Event("frame"));
  }

  /** Put image pixels on screen pixels where one is exactly the other; the slide moves by less than a pixel. */
  rest() {
    const view = this.view();
    const step = 2 ** Math.round(Math.log2(1 / (view.scale * devicePixelRatio)));
    const [dx, dy] = snapShift(view, step, devicePixelRatio);
    if (Math.hypot(dx, dy) * view.scale > 0.005) {
      this.look({ centerX: view.centerX + dx, centerY: view.centerY + dy }, true);
    }
    this.dispatchEvent(new Event("rest"));
  }

  /** Whether a tile still matters for what is shown now or where the view is heading. @param {any} tile */
  isWanted(tile) {
    const source = [...this.items].find((each) => each[1] === tile.tiledImage)?.[0] ?? this.stored;
    if (source !== this.stored && source !== this.active && source !== this.lingering) return false;
    const box = tileBox(this.grid, tile.level, tile.x, tile.y);
    const coarsest = source === this.stored && tile.level === tile.tiledImage?.source.minLevel;
    return [this.view(true), this.view(false)].some((view) => {
      const pixels = view.scale * devicePixelRatio * 2 ** (this.grid.top - tile.level);
      const near = growBox(boxAround(visibleCorners(view)), this.options.margin, Infinity, Infinity);
      return (pixels >= 0.5 || coarsest) && boxesOverlap(box, near);
    });
  }

  /** Whether everything the view needs is there. */
  isComplete() {
    const shown = [...this.items].filter(([, item]) => item.getOpacity() > 0);
    return this.items.size > 0 && shown.every(([, item]) => item.getFullyLoaded());
  }
}
