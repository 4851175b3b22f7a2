/** Which ×40 tiles of the scan were kept beside a slide, as the server says in a source's `kept`. Pure. */

/**
 * @typedef {object} Kept
 * @property {number} tiles all tiles of the ×40 level
 * @property {number} kept those whose scanned pixels are kept
 * @property {number} columns @property {number} rows of the grid of tiles
 * @property {string} bits base64, one bit a tile in row order, the first in the highest bit; set where it is kept
 */

/** Whether a tile is kept. @param {Kept | undefined} kept @returns {(column: number, row: number) => boolean} */
export function keptTest(kept) {
  if (!kept) return () => false;
  const bytes = Uint8Array.from(atob(kept.bits), (letter) => letter.charCodeAt(0));
  return (column, row) => {
    if (column < 0 || row < 0 || column >= kept.columns || row >= kept.rows) return false;
    const at = row * kept.columns + column;
    return ((bytes[at >> 3] >> (7 - (at & 7))) & 1) === 1;
  };
}
