/** The state of the view in the URL's fragment, pure: `#x=6200.5&y=5800&z=0.5&r=90&m=1&s=sr-fast&l=…&h=…&o=0.6`. */

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
 */

/** @type {ViewState} */
export const DEFAULT_STATE = { rotation: 0, mirrored: false, source: null, layers: null, hidden: [], opacity: 0.6 };

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
  return parts.toString();
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
    hidden: parts.getAll("h").filter((each) => each.includes(" ")).map(splitHidden),
    opacity: Math.min(1, Math.max(0, opacity)),
  };
}

/** @param {string} text layer id, a space, class name (which may hold spaces) */
function splitHidden(text) {
  const gap = text.indexOf(" ");
  return { layer: text.slice(0, gap), name: text.slice(gap + 1) };
}

/** @param {string | null} text @returns {number | undefined} */
function numberOf(text) {
  const value = text === null || text.trim() === "" ? Number.NaN : Number(text);
  return Number.isFinite(value) ? value : undefined;
}
