/** Keeps the URL's fragment and the viewer in step: written when the view rests, read on load and when it is edited. */

import { decodeState, encodeState } from "./viewstate.js";

const WRITE_AFTER_MS = 250;
const STYLE = "both";

export class Address {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay
   * @param {import("./review.js").Review} review @param {string} defaultSource */
  constructor(stage, overlay, review, defaultSource) {
    this.stage = stage;
    this.overlay = overlay;
    this.review = review;
    this.defaultSource = defaultSource;
    this.read();
    addEventListener("hashchange", () => this.read());
    for (const name of ["rest", "source", "move"]) stage.addEventListener(name, () => this.schedule());
    for (const each of [overlay, review]) each.addEventListener("change", () => this.schedule());
  }

  schedule() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), WRITE_AFTER_MS);
  }

  /** An address that was edited since the last look is left alone: its `hashchange` is on its way and will be read. */
  write() {
    if (location.hash !== this.known) return;
    const fragment = `#${encodeState(this.state())}`;
    if (fragment !== this.known) history.replaceState(null, "", fragment);
    this.known = location.hash;
  }

  /** @returns {import("./viewstate.js").ViewState} */
  state() {
    const view = this.stage.view(false);
    return {
      x: view.centerX,
      y: view.centerY,
      z: view.scale,
      rotation: ((view.degrees % 360) + 360) % 360,
      mirrored: view.mirrored,
      source: this.stage.active.source === this.defaultSource ? null : this.stage.active.source,
      ...this.layersState(),
      compare: this.review.choice,
    };
  }

  layersState() {
    const entries = [...this.overlay.layers];
    const shown = entries.filter(([, entry]) => entry.shown).map(([id]) => id);
    const opacities = new Set(entries.map(([, entry]) => entry.opacity));
    const opacity = opacities.size === 1 ? [...opacities][0] : this.overlay.opacity;
    const of = (/** @type {(entry: any) => any} */ value, /** @type {(entry: any) => boolean} */ wanted) => (
      entries.filter(([, entry]) => wanted(entry)).map(([id, entry]) => ({ layer: id, value: value(entry) })));
    return {
      layers: shown.length === entries.length ? null : shown,
      hidden: entries.flatMap(([id, entry]) => [...entry.hidden].map((name) => ({ layer: id, name }))),
      opacity,
      opacities: of((entry) => entry.opacity, (entry) => entry.opacity !== opacity),
      thresholds: of((entry) => entry.threshold, (entry) => entry.threshold > 0),
      styles: of((entry) => entry.style, (entry) => entry.style !== STYLE),
      colors: entries.flatMap(([id, { layer }]) => layer.classes.flatMap(({ name, color }) => {
        const given = this.overlay.colorOf(id, name);
        return given === color ? [] : [{ layer: id, name, color: given }];
      })),
    };
  }

  /** Bring the viewer to what the fragment says. */
  read() {
    clearTimeout(this.timer);
    this.known = location.hash;
    const state = decodeState(this.known);
    this.stage.look({ degrees: state.rotation, mirrored: state.mirrored }, true);
    if (state.x === undefined) this.stage.fit(true);
    else this.stage.look({ centerX: state.x, centerY: state.y, scale: state.z }, true);
    this.stage.choose(state.source ?? this.defaultSource);
    this.readLayers(state);
    this.readCompare(state.compare);
  }

  /** @param {import("./viewstate.js").ViewState} state */
  readLayers(state) {
    const { overlay } = this;
    const of = (/** @type {{layer: string, value: any}[]} */ values, /** @type {string} */ id) => (
      values.find((each) => each.layer === id)?.value);
    overlay.setOpacity(state.opacity);
    for (const [id, entry] of overlay.layers) {
      overlay.showLayer(id, state.layers === null || state.layers.includes(id));
      overlay.setLayerOpacity(id, of(state.opacities, id) ?? state.opacity);
      overlay.setThreshold(id, of(state.thresholds, id) ?? 0);
      overlay.setStyle(id, of(state.styles, id) ?? STYLE);
      for (const each of entry.layer.classes) this.readClass(state, id, each, entry.hidden);
    }
  }

  /** Changes only what differs: each change is a drawing. @param {import("./viewstate.js").ViewState} state
   * @param {string} id of the layer @param {import("./api.js").LayerClass} each @param {Set<string>} hidden classes now */
  readClass(state, id, { name, color }, hidden) {
    const isThis = (/** @type {{layer: string, name: string}} */ other) => other.layer === id && other.name === name;
    const shown = !state.hidden.some(isThis);
    if (hidden.has(name) === shown) this.overlay.showClass(id, name, shown);
    const given = state.colors.find(isThis)?.color ?? null;
    if (this.overlay.colorOf(id, name) !== (given ?? color)) this.overlay.setClassColor(id, name, given);
  }

  /** @param {import("./viewstate.js").Compared | null} compared */
  readCompare(compared) {
    const known = compared !== null && [compared.truth, compared.prediction].every((id) => this.overlay.layers.has(id));
    if (known) this.review.choose(compared);
    else this.review.stop();
  }
}
