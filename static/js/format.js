/** Numbers as readers write them, pure. */

/** `12,345`. @param {number} count */
export function countText(count) {
  return count.toLocaleString("en");
}

/** `1 feature`, `12,345 features`. @param {number} count @param {string} noun */
export function plural(count, noun) {
  return `${countText(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** @param {{width: number, height: number}} size */
export function sizeText({ width, height }) {
  return `${width.toLocaleString("en")} × ${height.toLocaleString("en")} px`;
}

/** @param {number | null | undefined} mpp µm per pixel */
export function mppText(mpp) {
  return mpp ? `${Number(mpp.toPrecision(4))} µm/px` : "µm/px unknown";
}

/** @param {number} bytes */
export function bytesText(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
  return `${Number((bytes / 1000 ** step).toPrecision(3))} ${units[step]}`;
}

/** `2026-11-21 07:30` in the reader's time zone. @param {string} iso */
export function dateText(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return iso;
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
