/** GeoJSON features as flat shapes to draw and hit, pure. All coordinates are base-plane pixels. */

import { boxAround, ringArea, ringsHold } from "./geometry.js";

/** @typedef {import("./geometry.js").Point} Point */
/** @typedef {import("./geometry.js").Box} Box */

/**
 * @typedef {object} Shape
 * @property {string} id
 * @property {string} className
 * @property {string} name
 * @property {number | null} score
 * @property {boolean} filled false for lines and points
 * @property {Point[][]} rings outer rings clockwise on screen, holes the other way, so that their areas add up
 * @property {Box} box
 * @property {number} area base-plane px², holes taken off
 */

/** @param {any} feature GeoJSON @returns {Shape | null} null for a feature without a place */
export function toShape(feature) {
  const parts = partsOf(feature.geometry);
  if (parts.length === 0) return null;
  const filled = /Polygon$/.test(feature.geometry.type);
  const rings = parts.flatMap((polygon) => polygon.map((ring, at) => (filled ? wind(ring, at === 0) : ring)));
  const properties = feature.properties ?? {};
  return {
    id: String(feature.id ?? properties.id ?? ""),
    className: String(properties.classification?.name ?? properties.class ?? "Unclassified"),
    name: String(properties.name ?? ""),
    score: typeof properties.measurements?.score === "number" ? properties.measurements.score : null,
    filled,
    rings,
    box: boxAround(rings.flat()),
    area: filled ? rings.reduce((sum, ring) => sum + ringArea(ring), 0) : 0,
  };
}

/** Rings of each polygon; a line is one open ring, a point a ring of one. @param {any} geometry @returns {Point[][][]} */
function partsOf(geometry) {
  switch (geometry?.type) {
    case "Polygon": return [geometry.coordinates];
    case "MultiPolygon": return geometry.coordinates;
    case "LineString": return [[geometry.coordinates]];
    case "MultiLineString": return geometry.coordinates.map((line) => [line]);
    case "Point": return [[[geometry.coordinates]]];
    case "MultiPoint": return geometry.coordinates.map((point) => [[point]]);
    case "GeometryCollection": return geometry.geometries.flatMap(partsOf);
    default: return [];
  }
}

/** @param {Point[]} ring @param {boolean} outer @returns {Point[]} */
function wind(ring, outer) {
  return ringArea(ring) > 0 === outer ? ring : [...ring].reverse();
}

/**
 * The smallest shape under a point: what lies inside another is what the user means.
 * @param {Iterable<Shape>} shapes @param {number} x @param {number} y @param {number} slack base-plane px
 * @returns {Shape | null}
 */
export function shapeAt(shapes, x, y, slack) {
  let best = null;
  for (const shape of shapes) {
    const [left, top, right, bottom] = shape.box;
    if (x < left - slack || x > right + slack || y < top - slack || y > bottom + slack) continue;
    const hit = shape.filled ? ringsHold(shape.rings, x, y) : shape.rings.some((ring) => nearRing(ring, x, y, slack));
    if (hit && (best === null || shape.area < best.area)) best = shape;
  }
  return best;
}

/** @param {Point[]} ring @param {number} x @param {number} y @param {number} slack */
function nearRing(ring, x, y, slack) {
  return ring.some((point, at) => {
    const [ax, ay] = ring[Math.max(0, at - 1)];
    const [dx, dy] = [point[0] - ax, point[1] - ay];
    const along = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(x - ax - along * dx, y - ay - along * dy) <= slack;
  });
}
