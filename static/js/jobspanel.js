/** The panel of predictions: choose a model, run it on the slide or on what is in view, follow and stop what runs. */

import { ApiError, cancelJob, fetchModels, startJob } from "./api.js";
import { button, write } from "./controls.js";
import { byId, make } from "./dom.js";
import { boxAround, visibleCorners } from "./geometry.js";
import { JobList } from "./joblist.js";
import {
  defaultOf, inOrder, isPredictor, isQuick, labelsText, modelText, QUICK_SIDE, regionOf, whyNot,
} from "./jobwords.js";
import { regionText, sidesText } from "./layerfacts.js";
import { freeRoom, lookAt } from "./room.js";

/** @typedef {import("./jobwords.js").Model} Model */
/** @typedef {import("./jobwords.js").Job} Job */

/** Wait before models that did not come are asked for again. */
const RETRY_MS = 5000;

export class JobsPanel {
  /** @param {import("./stage.js").Stage} stage @param {import("./overlay.js").Overlay} overlay
   * @param {import("./jobfeed.js").JobFeed} feed @param {(words: string) => void} say tells the user what happened */
  constructor(stage, overlay, feed, say) {
    this.stage = stage;
    this.overlay = overlay;
    this.feed = feed;
    this.say = say;
    this.root = byId("jobs");
    /** @type {Model[] | null} null until they are known */
    this.models = null;
    /** Name of the chosen model. @type {string | null} */
    this.chosen = null;
    this.list = new JobList(feed, stage.card.base.mpp, {
      cancel: (job) => this.cancel(job),
      retry: (job) => this.retry(job),
      show: (job) => this.show(job),
      hasLayer: (id) => overlay.layers.has(id),
    });
    this.build();
    overlay.addEventListener("change", () => this.root.hidden || this.list.update());
    stage.addEventListener("rest", () => this.updateRegion());
    stage.addEventListener("move", () => this.updateRegion());
  }

  build() {
    this.choice = make("div", { class: "models", role: "radiogroup", "aria-labelledby": "models-title" });
    this.modelState = make("p", { class: "quiet", role: "status", text: "Asking which models there are …" });
    this.onSlide = button("Predict the slide", () => this.start(null, false), { class: "button primary" });
    this.onView = button("Predict this view", () => this.start(this.region(), false), { class: "button" });
    const previewKey = { "aria-keyshortcuts": "P", title: "Preview here (P)" };
    this.preview = button("Preview here", () => this.startPreview(), { class: "button", ...previewKey });
    this.regionLine = make("p", { class: "quiet" });
    this.trouble = make("p", { class: "warning", role: "alert" });
    byId("jobs-body").append(
      make("section", { class: "group" }, [
        make("h3", { id: "models-title", text: "Model" }), this.modelState, this.choice,
        make("div", { class: "start" }, [this.onSlide, this.onView, this.preview]), this.regionLine, this.trouble,
      ]),
      make("section", { class: "group" }, [make("h3", { text: "Predictions of this slide" }), this.list.root]),
    );
    this.updateButtons();
  }

  /** Call when the panel was opened or closed. @param {boolean} open */
  shown(open) {
    if (!open) return;
    this.loadModels(); // anew each time: a model may have been published meanwhile
    this.updateRegion();
    this.feed.look();
    this.list.update();
  }

  async loadModels() {
    if (this.loading) return this.loading;
    this.loading = this.askModels();
    await this.loading;
    this.loading = undefined;
  }

  async askModels() {
    try {
      this.takeModels((await fetchModels()).filter(isPredictor));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      write(this.modelState, `The models are not known: ${error.message}`);
      if (error.status !== 404) setTimeout(() => this.models ?? this.loadModels(), RETRY_MS);
    }
  }

  /** Show what there is, in the order of use; a choice that was made stays. @param {Model[]} models */
  takeModels(models) {
    const { mpp } = this.stage.card.stored;
    const ordered = inOrder(models, mpp);
    const changed = JSON.stringify(ordered) !== JSON.stringify(this.models);
    this.models = ordered;
    if (!changed) return this.tellChoice(); // nothing is drawn anew under the user's hand
    const kept = ordered.find((model) => model.name === this.chosen && whyNot(model, mpp) === null);
    this.chosen = (kept ?? defaultOf(ordered, mpp))?.name ?? null;
    this.choice.replaceChildren(...this.models.map((model) => this.modelRow(model)));
    this.tellChoice();
  }

  /** Say what is missing where no model is chosen, and which buttons there are. */
  tellChoice() {
    const { mpp } = this.stage.card.stored;
    const models = this.models ?? [];
    const some = models.some((model) => whyNot(model, mpp) === null) ? "Choose a model." : "No model fits this slide.";
    write(this.modelState, this.chosen !== null ? "" : models.length ? some : "No models are installed.");
    this.updateButtons();
  }

  /** @param {Model} model */
  modelRow(model) {
    const reason = whyNot(model, this.stage.card.stored.mpp);
    const radio = make("input", {
      type: "radio", name: "model", value: model.name, disabled: reason !== null, checked: model.name === this.chosen,
      onchange: () => this.choose(model.name),
    });
    const row = make("label", { class: `model${reason === null ? "" : " unfit"}` }, [radio, make("span", {}, [
      make("strong", { text: model.name }),
      ...[model.title, modelText(model), labelsText(model)].filter(Boolean).map((text) => make("span", { class: "quiet", text })),
      ...(model.research_only ? [make("span", { class: "warning", text: `Research only: ${model.licence}` })] : []),
      ...(reason === null ? [] : [make("span", { class: "warning", text: reason })]),
    ])]);
    // One tab stop for the list, as a group of radio buttons has, and one for the card of what is chosen.
    const card = button("Card", () => {}, {
      "data-model-card": model.name, "aria-label": `Card of ${model.name}`, "aria-haspopup": "dialog",
      tabindex: model.name === (this.chosen ?? this.models?.[0]?.name) ? "0" : "-1",
    });
    return make("div", { class: "model-row" }, [row, card]);
  }

  /** @param {string} name */
  choose(name) {
    this.chosen = name;
    for (const card of this.choice.querySelectorAll("[data-model-card]")) {
      card.tabIndex = card.dataset.modelCard === name ? 0 : -1;
    }
    write(this.trouble, "");
    this.tellChoice();
  }

  updateButtons() {
    for (const each of [this.onSlide, this.onView, this.preview]) each.disabled = this.chosen === null;
    this.updateRegion();
  }

  /** The part of the slide in view, base-plane pixels. */
  region() {
    return regionOf(boxAround(visibleCorners(this.stage.view(false))), this.stage.card.base);
  }

  updateRegion() {
    if (this.root.hidden) return;
    const region = this.region();
    const mpp = this.stage.card.base.mpp;
    const quick = region !== null && isQuick(region);
    this.onView.disabled = this.chosen === null || region === null;
    this.preview.disabled = this.chosen === null || !quick;
    const size = region === null ? "" : sidesText([region[2] - region[0], region[3] - region[1]], mpp);
    if (region === null) write(this.regionLine, "The view shows no part of the slide.");
    else if (quick) write(this.regionLine, `In view: ${size}. A preview is computed at once, and goes when the slide's layer comes.`);
    else write(this.regionLine, `In view: ${size}. For a preview zoom in to ${sidesText([QUICK_SIDE, QUICK_SIDE], mpp)} or less.`);
  }

  /** A quick look at what is in view; by key also while the panel is closed. */
  async startPreview() {
    if (this.models === null) await this.loadModels();
    const region = this.region();
    if (this.chosen === null) this.say(this.modelState.textContent || "No model fits this slide.");
    else if (region === null || !isQuick(region)) this.say("Zoom in for a preview: the view is too large.");
    else await this.start(region, true);
  }

  /** @param {number[] | null} region null: the slide @param {boolean} preview */
  start(region, preview) {
    if (this.chosen === null) return Promise.resolve();
    const { id } = this.stage.card;
    return this.send({ slide: id, model: this.chosen, ...(region && { region }), ...(preview && { preview }) });
  }

  /** @param {Job} job */
  retry({ slide, model, region, parameters, preview }) {
    return this.send({ slide, model, ...(region && { region }), parameters, ...(preview && { preview }) });
  }

  /** @param {Parameters<typeof startJob>[0]} wish */
  async send(wish) {
    write(this.trouble, "");
    try {
      const job = await startJob(wish);
      this.feed.put(job);
      const what = `${job.model}, ${regionText(job.region, job.preview, this.stage.card.base.mpp)}`;
      this.say(job.state === "done" ? `${what}: there already.` : `${what}: started.`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.complain(`Not started: ${error.message}`);
    }
  }

  /** @param {Job} job */
  async cancel(job) {
    try {
      this.feed.put(await cancelJob(job.id));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Ended a moment ago: the list will say how.
      if (error.status === 409 || error.status === 404) this.feed.look();
      else this.complain(`Not cancelled: ${error.message}`);
    }
  }

  /** Show the layer of a job, and go where it is. @param {Job} job */
  show({ layer, region }) {
    this.overlay.showLayer(layer ?? "", true);
    if (region === null) return;
    const [x0, y0, x1, y1] = region;
    const { width, height } = freeRoom();
    const scale = 0.9 * Math.min(width / (x1 - x0), height / (y1 - y0));
    lookAt(this.stage, (x0 + x1) / 2, (y0 + y1) / 2, scale);
  }

  /** @param {string} words */
  complain(words) {
    write(this.trouble, words);
    if (this.root.hidden) this.say(words);
  }
}
