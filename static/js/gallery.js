/** The gallery: a card for every slide of the library. */

import { ApiError, fetchSlides, viewerUrl } from "./api.js";
import { byId, make } from "./dom.js";
import { mppText, sizeText } from "./format.js";

/** @typedef {import("./api.js").Card} Card */

const LOOK_AGAIN_MS = 10_000;

/** @param {Card} card @returns {HTMLElement} */
function slideItem(card) {
  const item = byId("card").content.cloneNode(true).firstElementChild;
  const link = item.querySelector("a");
  const picture = item.querySelector("img");
  link.href = viewerUrl(card.id);
  picture.addEventListener("error", () => picture.parentElement.classList.add("no-picture"));
  picture.src = card.thumbnail;
  item.querySelector(".card-name").textContent = card.name;
  item.querySelector(".card-name").title = card.name;
  item.querySelector(".card-facts").append(...facts(card).flatMap(([name, value, mark]) => [
    make("dt", { text: name }),
    make("dd", { text: value, ...(mark && { class: mark }) }),
  ]));
  item.dataset.name = card.name.toLowerCase();
  return item;
}

/** What was scanned, not the ×40 plane that may be synthesised. @param {Card} card @returns {[string, string, string?][]} */
function facts(card) {
  const [width, height] = card.facts.scan_size ?? [card.stored.width, card.stored.height];
  return [
    ["Scan", sizeText({ width, height })],
    ["Pixel size", mppText(card.facts.scan_mpp ?? card.stored.mpp)],
    ["Sources", card.sources.map(sourceName).join(", ")],
    ["Layers", String(card.layers.length)],
    ["State", card.state, card.state === "ready" ? "" : "state-busy"],
  ];
}

/** @param {import("./api.js").Source} source */
function sourceName(source) {
  return source.kind === "sr" ? source.source : source.kind;
}

/** Show the cards whose name holds what was typed. */
function filter() {
  const wanted = byId("search").value.trim().toLowerCase();
  const items = [...byId("slides").children];
  for (const item of items) item.hidden = !item.dataset.name.includes(wanted);
  const none = items.length > 0 && items.every((item) => item.hidden);
  say(none ? `No slide is called “${byId("search").value.trim()}”.` : "");
}

/** @param {string} words */
function say(words) {
  byId("message").textContent = words;
  byId("message").hidden = words === "";
}

/** What the list shows now, to tell whether another look found anything new. */
let shown = "";

/** @param {Card[]} cards */
function show(cards) {
  const found = JSON.stringify(cards.map((card) => [card.id, card.version, card.name, card.state, card.layers.length]));
  if (found === shown) return;
  shown = found;
  const focused = byId("slides").contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  byId("slides").replaceChildren(...cards.map(slideItem));
  if (focused) byId("slides").querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  say(cards.length ? "" : "The library is empty. Add a slide with: ocular ingest FILE");
  if (cards.length) filter();
}

async function load() {
  byId("retry").hidden = true;
  say("Loading slides …");
  shown = "";
  try {
    show(await fetchSlides());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say(`The slides cannot be listed. ${error.message}`);
    byId("retry").hidden = false;
  }
}

/** Slides arrive while the page is open: an ingestion that ends, the demo's drawn slide. */
async function lookAgain() {
  if (document.hidden || !byId("retry").hidden) return;
  try {
    show(await fetchSlides());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
}

byId("search").addEventListener("input", filter);
byId("retry").addEventListener("click", load);
await load();
setInterval(lookAgain, LOOK_AGAIN_MS);
