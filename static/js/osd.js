/** OpenSeadragon as this viewer wants it: strict policy, the drawer that is fast here, our keys, our loader. */

/**
 * @param {HTMLElement} element
 * @param {{animationTime: number, tilesKept: number}} options see STAGE_OPTIONS in stage.js
 */
export function createViewer(element, options) {
  forestallInlineStyle();
  return OpenSeadragon(viewerOptions(element, options));
}

/**
 * OpenSeadragon adds an inline style sheet, which the Content-Security-Policy forbids, unless it finds one so marked.
 * Of no namespace, this one is a name and nothing more. Our own style sheet does what OpenSeadragon's would.
 */
function forestallInlineStyle() {
  const sheet = document.createElementNS(null, "style");
  sheet.setAttribute("data-openseadragon-mobile-css", "");
  document.head.append(sheet);
}

/** Renderers that are no graphics card. */
const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;

/** Whether a graphics card does the drawing: WebGL in software took 0.4 s a frame where the 2D canvas took 0.02 s. */
export function hasFastWebgl() {
  const context = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (context === null) return false;
  const names = context.getExtension("WEBGL_debug_renderer_info");
  const renderer = String(context.getParameter(names?.UNMASKED_RENDERER_WEBGL ?? context.RENDERER));
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return !SOFTWARE.test(renderer);
}

/** @param {HTMLElement} element @param {{animationTime: number, tilesKept: number}} options */
function viewerOptions(element, options) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const gestures = { clickToZoom: false, dblClickToZoom: true, flickEnabled: !still };
  return {
    element,
    tabIndex: "",
    prefixUrl: "",
    showNavigationControl: false,
    showNavigator: false,
    keyboardNavEnabled: false,
    drawer: hasFastWebgl() ? ["webgl", "canvas"] : "canvas",
    animationTime: still ? 0.001 : options.animationTime,
    springStiffness: 8,
    zoomPerScroll: 1.25,
    minScrollDeltaTime: 20,
    visibilityRatio: 0.2,
    minPixelRatio: 0.51,
    maxTilesPerFrame: 12,
    maxImageCacheCount: options.tilesKept,
    timeout: 2 ** 31 - 1,
    gestureSettingsMouse: gestures,
    gestureSettingsPen: gestures,
    gestureSettingsTouch: { ...gestures, pinchRotate: false },
  };
}
