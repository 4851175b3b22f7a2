/** A picture of a view in whole device pixels, with a rim around it; pure. */

import { compose, viewMatrix } from "./geometry.js";

/** @typedef {import("./geometry.js").View} View */
/** @typedef {import("./geometry.js").Matrix} Matrix */

/**
 * @typedef {object} Frame
 * @property {View} view of the stage alone
 * @property {View} grown of the picture, its rim included
 * @property {number} width device pixels @property {number} height
 * @property {Matrix} matrix from the base plane to device pixels of the picture
 * @property {number} scale device pixels per base-plane pixel
 * @property {number} density device pixels per CSS pixel
 * @property {[number, number]} rim left and top, CSS pixels
 */

/** @param {View} view @param {number} density @param {number} [margin] share of the view around it @returns {Frame} */
export function frameOf(view, density, margin = 0) {
  // A rim of whole pixels, so that the picture lies on the screen's pixels when nothing moves.
  const [rimX, rimY] = [Math.round(view.width * density * margin), Math.round(view.height * density * margin)];
  const width = Math.ceil(view.width * density) + 2 * rimX;
  const height = Math.ceil(view.height * density) + 2 * rimY;
  return {
    view, width, height, density,
    grown: { ...view, width: view.width + (2 * rimX) / density, height: view.height + (2 * rimY) / density },
    matrix: compose([density, 0, 0, density, rimX, rimY], viewMatrix(view)),
    scale: view.scale * density,
    rim: [rimX / density, rimY / density],
  };
}

/** Give a canvas the size of a frame. @param {HTMLCanvasElement} canvas @param {Frame} frame */
export function fit(canvas, { width, height, density }) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  Object.assign(canvas.style, { width: `${width / density}px`, height: `${height / density}px` });
}
