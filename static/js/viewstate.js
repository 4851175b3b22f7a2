/** The state of the view in the URL's fragment, pure: `#x=6200.5&y=5800&z=0.5&r=90&m=1&s=sr-fast&l=…&h=…&o=0.6&t=…&c=…`. */

/**
 * @typedef {object} ViewState
 * @property {number} [x] centre, base-plane pixels
 * @property {number} [y]
 * @property {number} [z] CSS pixels per base-plane pixel
 * @property {number} rotation degrees clockwise, 0 ≤ rotation < 360
 * @property {boolean} mirrored
 * @property {string | null} source name of the source beyond the stored magnification; null: the slide's default
 * @property {string[] | null} layers ids of the layers shown; null: the slide's default
 * @property {{layer: string, name: string}[]} hidden classes switched off
 * @property {number} opacity of the layers, 0 to 1
 * @property {{layer: string, value: number}[]} opacities of layers that differ from the rest
 * @property {{layer: string, value: number}[]} thresholds above 0
 * @property {{layer: string, value: string}[]} styles other than the default
 * @property {{layer: string, name: string, color: string}[]} colors that the reader gave to classes, `#rrggbb`
 * @property {Compared | null} compare
 */
/** Two layers against each other. @typedef {{truth: string, prediction: string, iou: number, sameClass: boolean,
 *   wholeSlide: boolean, colored: boolean}} Compared */

/** @type {ViewState} */
export const DEFAULT_STATE = {
  rotation: 0, mirrored: false, source: null, layers: null, hidden: [], opacity: 0.6,
  opacities: [], thresholds: [], styles: [], colors: [], compare: null,
};

export const STYLES = ["outline", "fill", "both"];
const COLOR = /^[0-9a-f]{6}$/;

/** @param {ViewState} state @returns {string} without the leading `#` */
export function encodeState(state) {
  const parts = new URLSearchParams();
  if (state.x !== undefined && state.y !== undefined && state.z !== undefined) {
    parts.set("x", String(Number(state.x.toFixed(3))));
    parts.set("y", String(Number(state.y.toFixed(3))));
    parts.set("z", String(Number(state.z.toPrecision(9))));
  }
  if (state.rotation) parts.set("r", String(Number(state.rotation.toFixed(3))));
  if (state.mirrored) parts.set("m", "1");
  if (state.source !== null) parts.set("s", state.source);
  if (state.layers !== null) parts.set("l", state.layers.join(" "));
  for (const each of state.hidden) parts.append("h", `${each.layer} ${each.name}`);
  if (state.opacity !== DEFAULT_STATE.opacity) parts.set("o", String(Number(state.opacity.toFixed(3))));
  for (const each of state.opacities) parts.append("a", `${each.layer} ${Number(each.value.toFixed(3))}`);
  for (const each of state.thresholds) parts.append("t", `${each.layer} ${Number(each.value.toFixed(2))}`);
  for (const each of state.styles) parts.append("f", `${each.layer} ${each.value}`);
  for (const each of state.colors) parts.append("k", `${each.layer} ${each.color.slice(1)} ${each.name}`);
  if (state.compare !== null) parts.set("c", comparedText(state.compare));
  return parts.toString();
}

/** Two ids, and then a word for what is not as usual. @param {Compared} compared */
function comparedText({ truth, prediction, iou, sameClass, wholeSlide, colored }) {
  const words = [iou === 0.5 ? "" : String(iou), sameClass ? "" : "any", wholeSlide ? "slide" : "", colored ? "" : "plain"];
  return [truth, prediction, ...words.filter(Boolean)].join(" ");
}

/**
 * State of a fragment; values that make no sense are left at their defaults, since anybody can type an address.
 * @param {string} fragment with or without the leading `#`
 * @returns {ViewState}
 */
export function decodeState(fragment) {
  const parts = new URLSearchParams(fragment.replace(/^#/, ""));
  const [x, y, z] = ["x", "y", "z"].map((key) => numberOf(parts.get(key)));
  const rotation = numberOf(parts.get("r")) ?? 0;
  const opacity = numberOf(parts.get("o")) ?? DEFAULT_STATE.opacity;
  const place = x !== undefined && y !== undefined && z !== undefined && z > 0 ? { x, y, z } : {};
  return {
    ...place,
    rotation: ((rotation % 360) + 360) % 360,
    mirrored: parts.get("m") === "1",
    source: parts.get("s"),
    layers: parts.get("l")?.split(" ").filter(Boolean) ?? null,
    hidden: pairsOf(parts, "h").map(([layer, name]) => ({ layer, name })),
    opacity: inUnit(opacity),
    opacities: numbersOf(parts, "a"),
    thresholds: numbersOf(parts, "t"),
    styles: pairsOf(parts, "f").filter((pair) => STYLES.includes(pair[1])).map(([layer, value]) => ({ layer, value })),
    colors: pairsOf(parts, "k").flatMap(colorOf),
    compare: comparedOf(parts.get("c")),
  };
}

/** Layer id and the rest (which may hold spaces) of each value of a key. @param {URLSearchParams} parts @param {string} key */
function pairsOf(parts, key) {
  return parts.getAll(key).filter((each) => each.includes(" ")).map((each) => splitAt(each));
}

/** @param {string} text @returns {[string, string]} before and after the first space */
function splitAt(text) {
  const gap = text.indexOf(" ");
  return [text.slice(0, gap), text.slice(gap + 1)];
}

/** @param {URLSearchParams} parts @param {string} key @returns {{layer: string, value: number}[]} values from 0 to 1 */
function numbersOf(parts, key) {
  return pairsOf(parts, key).flatMap(([layer, text]) => {
    const value = numberOf(text);
    return value === undefined ? [] : [{ layer, value: inUnit(value) }];
  });
}

/** @param {[string, string]} pair layer id, and `rrggbb name` */
function colorOf([layer, rest]) {
  const [color, name] = rest.includes(" ") ? splitAt(rest) : ["", ""];
  return COLOR.test(color) ? [{ layer, name, color: `#${color}` }] : [];
}

/** @param {string | null} text @returns {Compared | null} */
function comparedOf(text) {
  const [truth, prediction, ...words] = text?.split(" ").filter(Boolean) ?? [];
  if (prediction === undefined) return null;
  const iou = words.map(numberOf).find((each) => each !== undefined && each >= 0 && each < 1) ?? 0.5;
  const has = (/** @type {string} */ word) => words.includes(word);
  return { truth, prediction, iou, sameClass: !has("any"), wholeSlide: has("slide"), colored: !has("plain") };
}

/** @param {number} value */
function inUnit(value) {
  return Math.min(1, Math.max(0, value));
}

/** @param {string | null} text @returns {number | undefined} */
function numberOf(text) {
  const value = text === null || text.trim() === "" ? Number.NaN : Number(text);
  return Number.isFinite(value) ? value : undefined;
}
