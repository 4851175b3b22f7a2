/** The viewer page: fetches the slide's card and joins the parts. */

import { Address } from "./address.js";
import { ApiError, fetchSlide } from "./api.js";
import { ComparePanel } from "./comparepanel.js";
import { Dock } from "./dock.js";
import { byId } from "./dom.js";
import { direction } from "./geometry.js";
import { Hud } from "./hud.js";
import { JobFeed } from "./jobfeed.js";
import { JobsPanel } from "./jobspanel.js";
import { keyHelp, listenToKeys } from "./keys.js";
import { LayerKeys } from "./layerkeys.js";
import { LayersPanel } from "./layerspanel.js";
import { LayerSync } from "./layersync.js";
import { Legend } from "./legend.js";
import { ModelSheet } from "./modelsheet.js";
import { Navigator } from "./navigator.js";
import { Note, showFailure, TileNotice } from "./notices.js";
import { Overlay } from "./overlay.js";
import { Reading } from "./reading.js";
import { Review } from "./review.js";
import { basePower, PRESETS } from "./scale.js";
import { slideCard } from "./slidecard.js";
import { defaultSource, SourceSwitch } from "./sourceswitch.js";
import { Stage } from "./stage.js";
import { Totals } from "./totals.js";

/** CSS pixels that an arrow key pans. */
const PAN_STEP = 80;
const ZOOM_STEP = 1.5;
const NARROW = matchMedia("(max-width: 48rem)");

class Viewer {
  /** @param {Stage} stage with an open slide */
  constructor(stage) {
    this.stage = stage;
    this.overlay = new Overlay(stage);
    this.sources = new SourceSwitch(stage);
    this.modelSheet = new ModelSheet(stage);
    this.navigator = new Navigator(stage);
    this.review = new Review(stage, this.overlay);
    this.reading = new Reading(stage, this.overlay, this.review);
    new Hud(stage);
    new TileNotice(stage);
    this.openPanels();
    new Address(stage, this.overlay, this.review, defaultSource(stage.sources).source);
    if (NARROW.matches) this.toggleNavigator();
    listenToKeys((name, event) => this.run(name, event));
    for (const button of document.querySelectorAll("button[data-command]")) {
      button.addEventListener("click", () => this.run(/** @type {HTMLElement} */ (button).dataset.command ?? "", null));
    }
  }

  openPanels() {
    const { stage, overlay } = this;
    const note = new Note();
    const say = (/** @type {string} */ words) => note.say(words);
    this.review.addEventListener("found", (event) => this.reading.lookAt(/** @type {any} */ (event).detail));
    this.layerKeys = new LayerKeys(overlay, this.review, say);
    const feed = new JobFeed(stage.card.id);
    const totals = new Totals(stage.card.id);
    new LayerSync(stage, overlay, feed, say);
    this.panels = {
      layers: new LayersPanel(stage, overlay, totals, say),
      jobs: new JobsPanel(stage, overlay, feed, say),
      compare: new ComparePanel(this.review, overlay, totals),
    };
    new Legend(this.review, overlay);
    this.dock = new Dock(Object.keys(this.panels));
    this.dock.addEventListener("change", (event) => {
      const { opened, closed } = /** @type {any} */ (event).detail;
      this.panels[closed]?.shown(false);
      this.panels[opened]?.shown(true);
    });
  }

  /** @param {string} name of a command in keys.js @param {KeyboardEvent | null} event null when a button was pressed */
  run(name, event) {
    const far = event?.shiftKey ?? false;
    const stage = this.stage;
    const commands = {
      left: () => this.pan(-1, 0, far),
      right: () => this.pan(1, 0, far),
      up: () => this.pan(0, -1, far),
      down: () => this.pan(0, 1, far),
      "zoom-in": () => stage.look({ scale: stage.view(false).scale * ZOOM_STEP }),
      "zoom-out": () => stage.look({ scale: stage.view(false).scale / ZOOM_STEP }),
      preset: () => this.preset(Number(event?.key) - 1),
      fit: () => stage.fit(),
      "rotate-left": () => this.turn(-90),
      "rotate-right": () => this.turn(far ? -90 : 90),
      "turn-left": () => this.turn(-5),
      "turn-right": () => this.turn(5),
      mirror: () => this.mirror(),
      source: () => this.sources.cycle(far ? -1 : 1),
      model: () => this.modelSheet.open(),
      frames: () => this.overlay.setFrames(press("frames", !this.overlay.frames)),
      crisp: () => stage.setCrisp(press("crisp", !stage.crisp)),
      layers: () => this.dock.toggle("layers", event !== null),
      "hide-layers": () => this.panels.layers.toggleAll(),
      style: () => this.layerKeys.nextStyle(),
      "threshold-down": () => this.layerKeys.moveThreshold(-1),
      "threshold-up": () => this.layerKeys.moveThreshold(1),
      jobs: () => this.dock.toggle("jobs", event !== null),
      preview: () => this.panels.jobs.startPreview(),
      compare: () => this.dock.toggle("compare", event !== null),
      colors: () => this.layerKeys.toggleColors(),
      "next-error": () => this.layerKeys.nextError(far ? -1 : 1),
      read: () => this.reading.readMiddle(),
      navigator: () => this.toggleNavigator(),
      facts: () => byId("facts").showModal(),
      help: () => byId("help").showModal(),
      fullscreen: () => toggleFullscreen(),
      gallery: () => location.assign("/"),
      close: () => this.close(),
    };
    commands[name]?.();
  }

  /** @param {number} right @param {number} down steps on screen @param {boolean} far half a view instead of a step */
  pan(right, down, far) {
    const view = this.stage.view(false);
    const [x, y] = [right * (far ? view.width / 2 : PAN_STEP), down * (far ? view.height / 2 : PAN_STEP)];
    const [cos, sin] = direction(view.degrees);
    const flipped = view.mirrored ? -x : x;
    this.stage.look({
      centerX: view.centerX + (cos * flipped + sin * y) / view.scale,
      centerY: view.centerY + (cos * y - sin * flipped) / view.scale,
    });
  }

  /** @param {number} at index into PRESETS */
  preset(at) {
    const power = basePower(this.stage.card) ?? 40;
    this.stage.look({ scale: PRESETS[at] / power });
  }

  /** @param {number} degrees clockwise on screen */
  turn(degrees) {
    const view = this.stage.view(false);
    this.stage.look({ degrees: view.degrees + (view.mirrored ? -degrees : degrees) });
  }

  mirror() {
    this.stage.look({ mirrored: press("mirror", !this.stage.view().mirrored) });
  }

  toggleNavigator() {
    this.navigator.show(press("navigator", byId("navigator").hidden));
  }

  close() {
    this.reading.clear();
    this.dock.close();
  }
}

/** Show a toggle button's state. @param {string} command @param {boolean} pressed */
function press(command, pressed) {
  document.querySelector(`button[data-command="${command}"]`)?.setAttribute("aria-pressed", String(pressed));
  return pressed;
}

function toggleFullscreen() {
  const done = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen?.();
  done?.catch(() => {}); // refused by the browser: the window stays as it is, which says enough
}

/** @param {import("./api.js").Card} card */
function openSlide(card) {
  document.title = `${card.name} · Ocular`;
  byId("slide-name").textContent = card.name;
  byId("slide-name").title = card.name;
  byId("stage").setAttribute("aria-label", `Slide ${card.name}`);
  byId("facts-body").replaceChildren(...slideCard(card));
  const stage = new Stage(byId("stage"), card);
  stage.addEventListener("fault", (event) => showFailure("This source cannot be shown", /** @type {any} */ (event).detail, null));
  stage.addEventListener("open", () => {
    byId("opening").hidden = true;
    new Viewer(stage);
  }, { once: true });
}

async function main() {
  byId("help-body").replaceChildren(...keyHelp());
  if (typeof OpenSeadragon === "undefined") {
    showFailure("OpenSeadragon is missing", "The front-end packages are not installed on the server: run `make setup` there.", null);
    return;
  }
  try {
    openSlide(await fetchSlide(document.body.dataset.slide ?? ""));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const gone = error.status === 404 || error.status === 410;
    showFailure(gone ? "No such slide" : "The slide cannot be opened", error.message, gone ? null : () => location.reload());
  }
}

await main();
