/** Keeps the layers on screen those of the library: finished predictions come, previews and deleted layers go. */

import { ApiError, fetchLayers } from "./api.js";
import { endText } from "./jobwords.js";

/** Wait before a list that did not come is asked for again. */
const RETRY_MS = 3000;

export class LayerSync {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay
   * @param {import("./jobfeed.js").JobFeed} feed @param {(words: string) => void} say tells the user what happened */
  constructor(stage, overlay, feed, say) {
    this.card = stage.card;
    this.overlay = overlay;
    this.say = say;
    /** Layers of jobs that were looked for already: one that was deleted since is not looked for again. @type {Set<string>} */
    this.looked = new Set();
    feed.addEventListener("change", () => this.follow(feed.jobs));
    feed.addEventListener("ended", (event) => this.ended(/** @type {any} */ (event).detail));
    document.addEventListener("visibilitychange", () => document.hidden || this.sync());
  }

  /** @param {import("./jobwords.js").Job[]} jobs */
  follow(jobs) {
    const made = jobs.flatMap((job) => (job.state === "done" && job.layer ? [job.layer] : []));
    const missing = made.filter((id) => !this.overlay.layers.has(id) && !this.looked.has(id));
    for (const id of missing) this.looked.add(id);
    if (missing.length) this.sync();
  }

  /** @param {import("./jobwords.js").Job} job */
  async ended(job) {
    await this.syncing;
    const layer = this.overlay.layers.get(job.layer ?? "")?.layer;
    this.say(endText(job, this.card.base.mpp, layer?.count ?? null));
  }

  /** Ask which layers there are, and show those. Settles when the answer is there or has failed once. */
  sync() {
    this.again = this.syncing !== undefined;
    this.syncing ??= this.ask().finally(() => {
      this.syncing = undefined;
      // What was asked for meanwhile may be younger than the answer.
      if (this.again) this.sync();
    });
    return this.syncing;
  }

  async ask() {
    clearTimeout(this.timer);
    try {
      this.take(await fetchLayers(this.card.id));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.timer = setTimeout(() => this.sync(), RETRY_MS);
    }
  }

  /** @param {import("./api.js").Layer[]} layers */
  take(layers) {
    // A slide ingested anew has layers of another version, which would be drawn shifted here.
    const ours = new Map(layers.filter((layer) => layer.version === this.card.version).map((layer) => [layer.id, layer]));
    for (const id of [...this.overlay.layers.keys()]) if (!ours.has(id)) this.overlay.removeLayer(id);
    for (const [id, layer] of ours) if (!this.overlay.layers.has(id)) this.overlay.addLayer(layer);
  }
}
