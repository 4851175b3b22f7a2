/** Keeps the URL's fragment and the viewer in step: written when the view rests, read on load and when it is edited. */

import { decodeState, encodeState } from "./viewstate.js";

const WRITE_AFTER_MS = 250;

export class Address {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay
   * @param {string} defaultSource */
  constructor(stage, overlay, defaultSource) {
    this.stage = stage;
    this.overlay = overlay;
    this.defaultSource = defaultSource;
    this.read();
    addEventListener("hashchange", () => this.read());
    for (const name of ["rest", "source", "move"]) stage.addEventListener(name, () => this.schedule());
    overlay.addEventListener("change", () => this.schedule());
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
    const entries = [...this.overlay.layers];
    const shown = entries.filter(([, entry]) => entry.shown).map(([id]) => id);
    return {
      x: view.centerX,
      y: view.centerY,
      z: view.scale,
      rotation: ((view.degrees % 360) + 360) % 360,
      mirrored: view.mirrored,
      source: this.stage.active.source === this.defaultSource ? null : this.stage.active.source,
      layers: shown.length === entries.length ? null : shown,
      hidden: entries.flatMap(([id, entry]) => [...entry.hidden].map((name) => ({ layer: id, name }))),
      opacity: this.overlay.opacity,
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
  }

  /** @param {import("./viewstate.js").ViewState} state */
  readLayers(state) {
    for (const [id, entry] of this.overlay.layers) {
      entry.shown = state.layers === null || state.layers.includes(id);
      entry.hidden = new Set(state.hidden.filter((each) => each.layer === id).map((each) => each.name));
    }
    this.overlay.opacity = state.opacity;
    this.overlay.fetch();
    this.overlay.changed();
  }
}
