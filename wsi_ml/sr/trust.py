"""Where super-resolution can be believed: fidelity to the scan, or else an estimate, in bands with words for people.

Fidelity is measured on tiles of 512 base-plane pixels as they are served. Where no scan is known, cells of 32 stored
pixels are banded by their estimated difference from a scan, and those whose cycle error is beyond its limit form a
band of their own; an upscaler without calibration is banded by its cycle error alone. Limits of cycle error are chosen
from measurements (docs/trust.md): the JPEG of the store alone puts a pixel of tissue off by 1.6 to 1.8 grey levels in
the mean, and by more than 12 next to nowhere, so less than that is no disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_ml.geometry import Region
from wsi_ml.slides.kept import FidelityGrid
from wsi_ml.sr.cycle import CELL, CycleCells

TRUST_REVISION = 2
"""Part of every trust map's key: raised when limits, cells or measures change."""
FULL = 255
GREY_STEPS = 10
"""A score byte falls by so many for each grey level of estimated difference or mean cycle error."""


@dataclass(frozen=True)
class Band:
    """One class of a trust map."""

    name: str
    color: str
    """`#rrggbb`; colours of one map are told apart by colour-blind eyes (Okabe and Ito; Paul Tol's muted scheme)."""
    limits: str
    """What was measured there, with its unit."""
    words: str
    """What it means to somebody who looks at the slide."""


MATCHES, SMALL = 0.95, 0.90
"""Least SSIM of a tile that matches the scan, and of one with small differences from it."""
AGREES, NEAR = (1.5, 12), (3.0, 24)
"""Most cycle error in grey levels (mean of a cell, single pixel) of a cell that agrees, and of one that nearly does."""
LITTLE, SOME = 2.5, 3.5
"""Most estimated difference in grey levels of a cell of little and of some difference. One grey level apart: nine of
ten cells lie within ±0.3 of their estimate on the test slides, ±0.7 on the worst other one; narrower bands would feign
precision."""

FIDELITY_BANDS = (
    Band(
        "Matches the scan", "#56b4e9", f"SSIM ≥ {MATCHES:.2f}",
        "Synthesised pixels were compared with the scan: fine detail is as scanned.",
    ),
    Band(
        "Small differences", "#f0e442", f"SSIM {SMALL:.2f} to {MATCHES:.2f}",
        "Shapes are as scanned; the finest texture may not be.",
    ),
    Band(
        "Do not judge fine detail here", "#d55e00", f"SSIM below {SMALL:.2f}",
        "Synthesised fine detail is not that of the glass. Look at the stored pixels.",
    ),
    Band(
        "Scan kept here", "#009e73", "SSIM below the slide’s floor",
        "The source “auto” shows the scan itself; synthesised pixels fell below what was asked for.",
    ),
)  # fmt: skip
CYCLE_BANDS = (
    Band(
        "Consistent with itself", "#44aa99", f"mean ≤ {AGREES[0]:g} and every pixel ≤ {AGREES[1]} grey levels",
        "Made smaller again, the picture is the stored one. The detail it adds is not checked.",
    ),
    Band(
        "Slightly inconsistent", "#ddcc77", f"mean ≤ {NEAR[0]:g} and every pixel ≤ {NEAR[1]} grey levels",
        "Made smaller again, the picture is nearly the stored one.",
    ),
    Band(
        "Inconsistent, do not judge detail", "#882255", f"mean > {NEAR[0]:g} or a pixel > {NEAR[1]} grey levels",
        "The picture shows something else than what was stored. Look at the stored pixels.",
    ),
)  # fmt: skip
ESTIMATED_BANDS = (
    Band(
        "Little difference expected", "#44aa99", f"estimated ≤ {LITTLE:g} grey levels",
        "Little fine detail lies here, so little of it can be synthesised wrongly.",
    ),
    Band(
        "Some difference expected", "#ddcc77", f"estimated {LITTLE:g} to {SOME:g} grey levels",
        "As much fine detail as in most tissue; the finest texture may not be that of the glass.",
    ),
    Band(
        "More difference expected", "#332288", f"estimated > {SOME:g} grey levels",
        "Much fine detail lies here, and its finest part is likely to differ. Look at the stored pixels.",
    ),
    Band(
        "Contradicts the stored pixels", "#882255",
        f"made smaller again: mean > {NEAR[0]:g} or a pixel > {NEAR[1]} grey levels off",
        "A fault, whatever the estimate says: the picture shows something else than what was stored.",
    ),
)  # fmt: skip
KEPT_BAND, CONTRADICTS_BAND = 3, 3


def unknown_bands(calibrated: bool) -> tuple[Band, ...]:
    """The bands of places whose scan is not known, for an upscaler with or without a calibration."""
    return ESTIMATED_BANDS if calibrated else CYCLE_BANDS


def bands_for(grid: FidelityGrid | None, calibrated: bool) -> tuple[Band, ...]:
    """The bands that can occur on a slide whose fidelity to the scan is `grid` (None: the scan is not known)."""
    unknown = unknown_bands(calibrated)
    if grid is None:
        return unknown
    fidelity = FIDELITY_BANDS if bool(grid.kept.any()) else FIDELITY_BANDS[:KEPT_BAND]
    return fidelity + unknown if bool(np.isnan(grid.values).any()) else fidelity


def compared_with(grid: FidelityGrid | None, calibrated: bool) -> str:
    """What the bands of a slide come from: `scan`; `estimated` or `stored` (pixels); or the scan and one of these,
    `both-estimated` or `both`.
    """
    if grid is None:
        return "estimated" if calibrated else "stored"
    if not bool(np.isnan(grid.values).any()):
        return "scan"
    return "both-estimated" if calibrated else "both"


def estimated_bands(estimated: np.ndarray, cells: CycleCells) -> tuple[np.ndarray, np.ndarray]:
    """(index into ESTIMATED_BANDS, score byte 1…255) of each cell, of its estimated difference and its cycle error.

    The score is 255 less 10 a grey level of estimated difference; of mean cycle error, where a cell contradicts.
    """
    band = np.where(estimated <= LITTLE, 0, np.where(estimated <= SOME, 1, 2)).astype(np.uint8)
    contradicts = cycle_bands(cells)[0] == len(CYCLE_BANDS) - 1
    band[contradicts] = CONTRADICTS_BAND
    return band, _score(np.where(contradicts, cells.mean, estimated))


def _score(grey_levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(FULL - GREY_STEPS * grey_levels), 1, FULL).astype(np.uint8)


def cycle_bands(cells: CycleCells) -> tuple[np.ndarray, np.ndarray]:
    """(index into CYCLE_BANDS, score byte 1…255) of each cell; the score is 255 less 10 a grey level of mean error."""
    band = np.full(cells.mean.shape, 2, np.uint8)
    band[(cells.mean <= NEAR[0]) & (cells.most <= NEAR[1])] = 1
    band[(cells.mean <= AGREES[0]) & (cells.most <= AGREES[1])] = 0
    return band, _score(cells.mean)


def fidelity_bands(grid: FidelityGrid) -> tuple[np.ndarray, np.ndarray]:
    """(index into FIDELITY_BANDS, score byte) of each tile; the score is SSIM · 255, at least 1; 0 where not known."""
    values = grid.values.astype(np.float32)
    known = ~np.isnan(values)
    values = np.where(known, values, 0)
    # float16 keeps three digits: a tile at a limit is on its better side.
    band = np.where(values >= np.float16(MATCHES), 0, np.where(values >= np.float16(SMALL), 1, 2)).astype(np.uint8)
    band[grid.kept] = KEPT_BAND
    return band, np.where(known, np.clip(np.rint(FULL * values), 1, FULL), 0).astype(np.uint8)


def cells_of_tiles(tiles: np.ndarray, tile_side: int, stored_core: Region) -> np.ndarray:
    """Values of tiles `[t_row, t_col]` at the cells of a region of the stored plane; 0 beyond the tiles.

    The region starts and ends on cells of CELL stored pixels; tiles are of `tile_side` base-plane pixels.
    """
    per_tile = tile_side // (2 * CELL)
    rows = np.arange(stored_core.y // CELL, stored_core.y_end // CELL) // per_tile
    cols = np.arange(stored_core.x // CELL, stored_core.x_end // CELL) // per_tile
    padded = np.pad(tiles, ((0, 1), (0, 1)))
    return padded[np.minimum(rows, tiles.shape[0])[:, None], np.minimum(cols, tiles.shape[1])[None]]


def one_hot(bands: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """uint8 count × rows × columns: the score in the channel of its band, 0 in the others."""
    channels = np.zeros((count, *bands.shape), np.uint8)
    np.put_along_axis(channels, bands[None].astype(np.intp), scores[None], axis=0)
    return channels


def names(bands: Sequence[Band]) -> tuple[str, ...]:
    """Class names of some bands."""
    return tuple(band.name for band in bands)
