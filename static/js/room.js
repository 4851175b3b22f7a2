/** The part of the stage that no panel covers: where things are put that are to be seen. */

import { byId } from "./dom.js";
import { apply, invert, viewMatrix } from "./geometry.js";

/** A panel wider than this share of the stage is a sheet over its lower part. */
const SHEET = 0.75;

/** @returns {{width: number, height: number}} CSS pixels from the top left corner of the stage */
export function freeRoom() {
  const stage = byId("stage").getBoundingClientRect();
  const panel = document.querySelector(".panel:not([hidden])")?.getBoundingClientRect();
  if (panel === undefined) return { width: stage.width, height: stage.height };
  const isSheet = panel.width > SHEET * stage.width;
  return {
    width: isSheet ? stage.width : panel.left - stage.left,
    height: isSheet ? panel.top - stage.top : stage.height,
  };
}

/** Bring a place of the slide into the middle of the free room.
 * @param {import("./stage.js").Stage} stage @param {number} baseX @param {number} baseY @param {number} scale CSS pixels
 * per base-plane pixel */
export function lookAt(stage, baseX, baseY, scale) {
  const view = { ...stage.view(false), centerX: baseX, centerY: baseY, scale };
  const { width, height } = freeRoom();
  const [centerX, centerY] = apply(invert(viewMatrix(view)), view.width - width / 2, view.height - height / 2);
  stage.look({ centerX, centerY, scale });
}
