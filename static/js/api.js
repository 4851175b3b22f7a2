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
 *   model?: {name: string, sha256: string, research_only?: boolean}, kept?: import("./kept.js").Kept}} Source */
/** @typedef {{name: string, color: string, count: number, area_um2: number | null}} LayerClass */
/** @typedef {{id: string, name: string, kind: string, version: string, created: string, classes: LayerClass[], count: number,
 *   scored?: boolean, provenance: Record<string, any>}} Layer */
/** @typedef {{id: string, name: string, version: string, created: string, state: string, stored: Plane, base: Plane,
 *   objective_power: number | null, tile_side: number, levels: [number, number][], sources: Source[], thumbnail: string,
 *   layers: Layer[], facts: Record<string, any>, faithful?: Record<string, any> | null}} Card */

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

/** @typedef {{unit: number, count: number, classes: string[],
 *   blocks: {box: [number, number, number, number], count: number, bytes: number}[],
 *   summary: {side: number, levels: {level: number, columns: number, rows: number, entries: number}[]}}} BlockIndex */

/** Where the blocks of a layer lie and how large its summary is. @param {string} id @param {string} layer
 * @param {AbortSignal} [signal] @returns {Promise<BlockIndex>} */
export function fetchBlockIndex(id, layer, signal) {
  return fetchJson(`${layerUrl(id, layer)}/blocks`, signal);
}

/** One block of features, unpacked by the browser. @param {string} id @param {string} layer @param {number} number
 * @param {AbortSignal} [signal] @returns {Promise<ArrayBuffer>} */
export function fetchBlock(id, layer, number, signal) {
  return fetchBytes(`${layerUrl(id, layer)}/blocks/${number}`, signal);
}

/**
 * Cells of a level of a layer's summary that meet a box of the base plane.
 * @param {string} id @param {string} layer @param {number} level @param {[number, number, number, number] | null} box null
 * for all @param {AbortSignal} [signal]
 * @returns {Promise<ArrayBuffer>}
 */
export function fetchSummary(id, layer, level, box, signal) {
  const query = new URLSearchParams({ level: String(level), ...(box && { bbox: box.join(",") }) });
  return fetchBytes(`${layerUrl(id, layer)}/summary?${query}`, signal, "application/vnd.ocular.summary");
}

/** The whole slide's counts and areas by class and score bin. @param {string} id @param {string} layer
 * @param {AbortSignal} [signal] @returns {Promise<{classes: string[], unit_area: number, entries: number[][]}>} */
export function fetchTotals(id, layer, signal) {
  return fetchJson(`${layerUrl(id, layer)}/summary`, signal);
}

/** What of a layer goes into a file. @typedef {{format: string, plane: string, classes: string[] | null, minScore: number}}
 * Export `classes` null for all */

/** What a file of a layer would not keep. @param {string} id @param {string} layer @param {Export} options
 * @param {AbortSignal} [signal] @returns {Promise<{losses: {what: string, count: number}[]}>} */
export function fetchLosses(id, layer, options, signal) {
  return fetchJson(exportUrl(id, layer, options, "/report"), signal);
}

/** Address of a layer as a file. @param {string} id @param {string} layer @param {Export} options @param {string} [part] */
export function exportUrl(id, layer, { format, plane, classes, minScore }, part = "") {
  const query = new URLSearchParams({ format, plane });
  for (const name of classes ?? []) query.append("class", name);
  if (minScore > 0) query.set("min_score", String(minScore));
  return `${layerUrl(id, layer)}/export${part}?${query}`;
}

/** Remove a prediction for good. @param {string} id @param {string} layer */
export async function removeLayer(id, layer) {
  await send("DELETE", layerUrl(id, layer));
}

/** @param {AbortSignal} [signal] @returns {Promise<any[]>} cards of upscalers and of models that can be run on slides */
export async function fetchModels(signal) {
  return (await fetchJson("/api/models", signal)).models;
}

/**
 * Jobs of a slide, the newest first; null when nothing changed since the answer with `etag`.
 * @param {string} id @param {string} etag empty at first @param {AbortSignal} [signal]
 * @returns {Promise<{jobs: import("./jobwords.js").Job[], etag: string} | null>}
 */
export async function fetchJobs(id, etag, signal) {
  const url = `/api/jobs?${new URLSearchParams({ slide: id })}`;
  const response = await get(url, signal, signal, etag ? { "If-None-Match": etag } : {});
  if (response.status === 304) return null;
  return { jobs: (await jsonOf(response, signal)).jobs, etag: response.headers.get("ETag") ?? "" };
}

/** @param {{slide: string, model: string, region?: number[] | null, preview?: boolean, parameters?: Record<string, any>}} wish
 * @returns {Promise<import("./jobwords.js").Job>} */
export async function startJob(wish) {
  return jsonOf(await send("POST", "/api/jobs", { kind: "predict", ...wish }));
}

/** @param {string} job @returns {Promise<import("./jobwords.js").Job>} */
export async function cancelJob(job) {
  return jsonOf(await send("DELETE", `/api/jobs/${encodeURIComponent(job)}`));
}

/** What is compared. @typedef {{truth: string, prediction: string, iou: number, sameClass: boolean}} Choice */

/** Measures at a threshold, in a box of the base plane or (null) on the whole slide. @param {string} id @param {Choice} choice
 * @param {number} minScore @param {number[] | null} box @param {AbortSignal} [signal] @returns {Promise<any>} */
export function fetchComparison(id, choice, minScore, box, signal) {
  return fetchJson(compareUrl(id, "", choice, { minScore, box }), signal);
}

/** Precision and recall at every threshold. @param {string} id @param {Choice} choice @param {AbortSignal} [signal]
 * @returns {Promise<any>} */
export function fetchCurve(id, choice, signal) {
  return fetchJson(compareUrl(id, "/curve", choice, {}), signal);
}

/** False positives and missed features in order. @param {string} id @param {Choice} choice @param {number} minScore
 * @param {"size" | "score"} order @param {number} limit @param {AbortSignal} [signal] @returns {Promise<any>} */
export function fetchErrors(id, choice, minScore, order, limit, signal) {
  return fetchJson(compareUrl(id, "/errors", choice, { minScore, order, limit }), signal);
}

/** All pairs of overlapping features, as bytes. @param {string} id @param {Choice} choice @param {AbortSignal} [signal]
 * @returns {Promise<ArrayBuffer>} */
export function fetchPairs(id, { truth, prediction, sameClass }, signal) {
  const query = new URLSearchParams({ truth, prediction, classes: sameClass ? "match" : "any" });
  return fetchBytes(`/api/slides/${encodeURIComponent(id)}/compare/pairs?${query}`, signal);
}

/** @param {string} id @param {string} part @param {Choice} choice
 * @param {{minScore?: number, box?: number[] | null, order?: string, limit?: number}} options */
function compareUrl(id, part, { truth, prediction, iou, sameClass }, { minScore, box, order, limit }) {
  const query = new URLSearchParams({ truth, prediction, iou: String(iou), classes: sameClass ? "match" : "any" });
  if (minScore !== undefined) query.set("min_score", String(minScore));
  if (box) query.set("bbox", box.join(","));
  if (order) query.set("order", order);
  if (limit) query.set("limit", String(limit));
  return `/api/slides/${encodeURIComponent(id)}/compare${part}?${query}`;
}

/** @param {string} id @param {string} layer */
function layerUrl(id, layer) {
  return `/api/slides/${encodeURIComponent(id)}/layers/${encodeURIComponent(layer)}`;
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
  return jsonOf(await get(url, signal, signal), signal);
}

/** @param {Response} response @param {AbortSignal} [signal] @returns {Promise<any>} */
async function jsonOf(response, signal) {
  try {
    return await response.json();
  } catch (error) {
    signal?.throwIfAborted();
    throw new ApiError(`The server's answer cannot be read (${nameOf(error)}).`, 0, "unreadable");
  }
}

/** @param {string} url @param {AbortSignal} [signal] @param {string} [accept] @returns {Promise<ArrayBuffer>} */
async function fetchBytes(url, signal, accept) {
  const response = await get(url, signal, signal, accept ? { Accept: accept } : {});
  try {
    return await response.arrayBuffer();
  } catch (error) {
    signal?.throwIfAborted();
    throw new ApiError(`The server's answer arrived damaged (${nameOf(error)}).`, 0, "damaged");
  }
}

/** @param {string} url @param {AbortSignal | undefined} signal aborts or times out @param {AbortSignal | undefined} caller
 * the caller's own signal: its abort is passed on as it is, anything else becomes an ApiError
 * @param {Record<string, string>} [headers] */
async function get(url, signal, caller, headers = {}) {
  let response;
  try {
    response = await fetch(url, { signal, credentials: "same-origin", headers });
  } catch (error) {
    caller?.throwIfAborted();
    throw new ApiError("The server does not answer.", 0, nameOf(error));
  }
  if (response.ok || response.status === 304) return response;
  throw await problemOf(response);
}

/** @param {string} method @param {string} url @param {any} [body] sent as JSON @returns {Promise<Response>} */
async function send(method, url, body) {
  const headers = { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(url, { method, credentials: "same-origin", headers, body: body && JSON.stringify(body) });
  } catch (error) {
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
