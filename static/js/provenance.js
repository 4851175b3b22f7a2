/** Where the pixels of a tile come from, as the server's `X-Tile-Source` says. Pure. */

/**
 * @typedef {object} Provenance
 * @property {string} kind `stored`, `scan`, `sr`, `bicubic`, or `unknown`, which counts as synthesised
 * @property {boolean} synthesised
 * @property {string} [model]
 * @property {string} [sha256] first 12 hex digits of the weights' hash
 * @property {string} [fallbackFor] the model whose tile this one stands in for
 * @property {string} [reason]
 */

const SCANNED = ["stored", "scan"];

/** @param {string} header @returns {Provenance} */
export function parseProvenance(header) {
  const [kind, ...rest] = header.split(";").map((part) => part.trim());
  const values = Object.fromEntries(rest.map((part) => part.split("=", 2)));
  return {
    kind,
    synthesised: !SCANNED.includes(kind),
    ...(values.model && { model: values.model }),
    ...(values.sha256 && { sha256: values.sha256 }),
    ...(values["fallback-for"] && { fallbackFor: values["fallback-for"] }),
    ...(values.reason && { reason: values.reason }),
  };
}

/** One line for a tile or the badge. @param {Provenance} provenance */
export function provenanceText(provenance) {
  if (provenance.fallbackFor) return `bicubic in place of ${provenance.fallbackFor}`;
  if (provenance.kind === "sr") return [provenance.model ?? "sr", provenance.sha256].filter(Boolean).join(" ");
  return provenance.kind === "unknown" ? "origin not stated" : provenance.kind;
}

/**
 * What the badge says about the visible tiles; null when every one of them was scanned.
 * @param {Iterable<Provenance>} visible
 * @returns {{text: string, waiting: boolean} | null} `waiting`: some are stand-ins that will be asked for again
 */
export function badge(visible) {
  const shown = [...visible];
  const made = shown.filter((each) => each.synthesised);
  if (made.length === 0) return null;
  const names = [...new Set(made.map(provenanceText))].sort();
  const part = shown.some((each) => each.kind === "scan") ? " in part" : "";
  return { text: `Synthesised${part} · ${names.join(" + ")}`, waiting: made.some((each) => each.fallbackFor !== undefined) };
}
