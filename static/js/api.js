/** The only place that fetches and the only builder of addresses. */

const TILE_TIMEOUT_MS = 180_000;

/** An answer that is not 2xx, or none at all (`status` 0). */
export class ApiError extends Error {
  /** @param {string} message @param {number} status @param {string} code @param {number | null} retryAfterS */
  constructor(message, status, code, retryAfterS = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/** @typedef {{width: number, height: number, mpp: number | null}} Plane */
/** @typedef {{source: string, kind: string, label: string, dzi: string, width: number, height: number, synthesised: boolean,
 *   model?: {name: string, sha256: string}}} Source */
/** @typedef {{name: string, color: string, count: number, area_um2: number | null}} LayerClass */
/** @typedef {{id: string, name: string, kind: string, classes: LayerClass[], count: number}} Layer */
/** @typedef {{id: string, name: string, version: string, created: string, state: string, stored: Plane, base: Plane,
 *   objective_power: number | null, tile_side: number, levels: [number, number][], sources: Source[], thumbnail: string,
 *   layers: Layer[], facts: Record<string, any>}} Card */

/** @param {AbortSignal} [signal] @returns {Promise<Card[]>} cards of all slides */
export async function fetchSlides(signal) {
  return (await fetchJson("/api/slides", signal)).slides;
}

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Card>} */
export function fetchSlide(id, signal) {
  return fetchJson(`/api/slides/${encodeURIComponent(id)}`, signal);
}

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Layer[]>} */
export async function fetchLayers(id, signal) {
  return (await fetchJson(`/api/slides/${encodeURIComponent(id)}/layers`, signal)).layers;
}

/**
 * Features of a layer that touch a box of the base plane.
 * @param {string} id @param {string} layer @param {[number, number, number, number]} box @param {number} limit
 * @param {AbortSignal} signal
 * @returns {Promise<{features: any[], total: number, truncated: boolean}>}
 */
export function fetchFeatures(id, layer, box, limit, signal) {
  const query = new URLSearchParams({ bbox: box.map((each) => each.toFixed(1)).join(","), limit: String(limit) });
  return fetchJson(`/api/slides/${encodeURIComponent(id)}/layers/${encodeURIComponent(layer)}/features?${query}`, signal);
}

/** Address of a Deep Zoom tile. @param {Source} source @param {number} level @param {number} column @param {number} row */
export function tileUrl(source, level, column, row) {
  return `${source.dzi.replace(/\.dzi$/, "")}_files/${level}/${column}_${row}.jpg`;
}

/** Address of a slide's viewer. @param {string} id */
export function viewerUrl(id) {
  return `/slides/${encodeURIComponent(id)}`;
}

/**
 * One tile, decoded, with the server's word on where its pixels come from.
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {Promise<{bitmap: ImageBitmap, provenance: string}>}
 */
export async function fetchTile(url, signal) {
  const response = await get(url, AbortSignal.any([signal, AbortSignal.timeout(TILE_TIMEOUT_MS)]), signal);
  const provenance = response.headers.get("X-Tile-Source") ?? "unknown";
  try {
    return { bitmap: await createImageBitmap(await response.blob()), provenance };
  } catch (error) {
    signal.throwIfAborted();
    throw new ApiError(`The tile arrived damaged (${nameOf(error)}).`, 0, "damaged");
  }
}

/** @param {string} url @param {AbortSignal} [signal] @returns {Promise<any>} */
async function fetchJson(url, signal) {
  const response = await get(url, signal, signal);
  try {
    return await response.json();
  } catch (error) {
    signal?.throwIfAborted();
    throw new ApiError(`The server's answer cannot be read (${nameOf(error)}).`, 0, "unreadable");
  }
}

/** @param {string} url @param {AbortSignal | undefined} signal aborts or times out @param {AbortSignal | undefined} caller
 * the caller's own signal: its abort is passed on as it is, anything else becomes an ApiError */
async function get(url, signal, caller) {
  let response;
  try {
    response = await fetch(url, { signal, credentials: "same-origin" });
  } catch (error) {
    caller?.throwIfAborted();
    throw new ApiError("The server does not answer.", 0, nameOf(error));
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

/** @param {Response} response @returns {Promise<ApiError>} */
async function problemOf(response) {
  const retryAfter = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const problem = await response.json().catch(() => ({}));
  const message = problem.detail || problem.title || `The server answered ${response.status}.`;
  return new ApiError(message, response.status, problem.code ?? "", Number.isFinite(retryAfter) ? retryAfter : null);
}

/** @param {unknown} error */
function nameOf(error) {
  return error instanceof Error ? error.name : "error";
}
