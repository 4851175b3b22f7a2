/** Ocular's Deep Zoom sources for OpenSeadragon: exact tile places, tiles through the loader. */

import { tileUrl } from "./api.js";
import { keptTest } from "./kept.js";

/** @typedef {import("./api.js").Card} Card */
/** @typedef {import("./api.js").Source} Source */

/**
 * The levels of the base plane; a stored plane of half the size has the same ones less the top.
 * @typedef {{width: number, height: number, side: number, top: number}} Grid
 */

/** @param {Card} card @returns {Grid} */
export function gridOf(card) {
  return { width: card.base.width, height: card.base.height, side: card.tile_side, top: topLevel(card.base) };
}

/** Number of the largest Deep Zoom level. @param {{width: number, height: number}} size */
export function topLevel({ width, height }) {
  let level = 0;
  while (2 ** level < Math.max(width, height)) level += 1;
  return level;
}

/**
 * Box of a tile in base-plane pixels. A level whose sides were rounded up may reach past the plane by less than one of
 * its own pixels: the tile is placed by its pixels, not squeezed into the plane.
 * @param {Grid} grid @param {number} level @param {number} column @param {number} row
 * @returns {import("./geometry.js").Box}
 */
export function tileBox(grid, level, column, row) {
  const step = 2 ** (grid.top - level);
  const [columns, rows] = [Math.ceil(grid.width / step), Math.ceil(grid.height / step)];
  const [left, top] = [column * grid.side, row * grid.side];
  return [left * step, top * step, Math.min(left + grid.side, columns) * step, Math.min(top + grid.side, rows) * step];
}

/**
 * An OpenSeadragon tile source. Coordinates are those of `source`'s own plane divided by its width, as OpenSeadragon
 * wants them; place it with `width: placedWidth(card, source)`.
 * @param {Card} card
 * @param {Source} source
 * @param {boolean} onlyTop offer the ×40 level alone, to lie over the stored source
 * @param {import("./tileloader.js").TileLoader} loader
 * @param {() => boolean} isAligned whether tile edges fall on screen pixels now
 */
export function makeTileSource(card, source, onlyTop, loader, isAligned) {
  const own = { width: source.width, height: source.height, side: card.tile_side, top: topLevel(source) };
  const oneTile = Math.max(0, own.top - Math.max(0, Math.ceil(Math.log2(Math.max(own.width, own.height) / own.side))));
  const isKept = keptTest(source.kept);
  const made = new OpenSeadragon.TileSource({
    width: own.width,
    height: own.height,
    tileSize: own.side,
    tileOverlap: 0,
    minLevel: onlyTop ? own.top : oneTile,
    maxLevel: own.top,
    getTileUrl: (level, column, row) => tileUrl(source, level, column, row),
    // A tile of the scan that was not kept is never asked for: the stored pixels below it show.
    ...(source.kind === "scan" && {
      tileExists: (level, column, row) => level >= 0 && level <= own.top && (level < own.top || isKept(column, row)),
    }),
    getTileBounds: (level, column, row, isSource) => {
      const [left, top, right, bottom] = tileBox(own, level, column, row);
      const step = 2 ** (own.top - level);
      return isSource
        ? new OpenSeadragon.Rect(0, 0, (right - left) / step, (bottom - top) / step)
        : new OpenSeadragon.Rect(left / own.width, top / own.width, (right - left) / own.width, (bottom - top) / own.width);
    },
    hasTransparency: () => false,
    downloadTileStart: (context) => startJob(context, source, loader, isKept),
    downloadTileAbort: (context) => loader.cancel(context.userData.job),
  });
  // The canvas drawer stretches tiles without overlap by a pixel to hide seams. Where there can be none, any overlap
  // but 0 keeps every pixel in its place.
  Object.defineProperty(made, "tileOverlap", { get: () => (isAligned() ? Number.MIN_VALUE : 0) });
  return made;
}

/** Width in viewport units, where the base plane is 1 wide. @param {Card} card @param {Source} source */
export function placedWidth(card, source) {
  const step = 2 ** (topLevel(card.base) - topLevel(source));
  return (source.width * step) / card.base.width;
}

/** @param {any} context OpenSeadragon.ImageJob @param {Source} source @param {import("./tileloader.js").TileLoader} loader
 * @param {(column: number, row: number) => boolean} isKept */
function startJob(context, source, loader, isKept) {
  const tile = context.tile;
  context.userData.job = {
    url: context.src,
    tile,
    slow: source.synthesised && tile.level === topLevel(source) && !isKept(tile.x, tile.y),
    done: (bitmap) => context.finish(bitmap, null, "imageBitmap"),
    // Neither finish() nor fail(): a failed tile would never be asked for again.
    dropped: () => {
      clearTimeout(context.jobId);
      context.jobId = null;
      tile.loading = false;
    },
    failed: (message) => context.fail(message, null),
    renew: () => renew(tile),
  };
  loader.request(context.userData.job);
}

/** Let OpenSeadragon ask for a tile again. @param {any} tile */
function renew(tile) {
  const item = tile.tiledImage;
  tile.exists = true;
  tile.unload(true);
  item?.update(true);
}
