"""What of a slide is tumour, normal tissue and glass, in shares of a grid's cells: from outlines, masks, colours."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import shapely
import tifffile

from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size

CELL_PIXELS = 8
"""A cell is looked at by at least so many pixels a side, where the slide has such a level."""
MAX_PIXELS = 1 << 28
"""Of the level that tissue is looked for in, and of a mask."""
BAND_ROWS = 1024
LEAST_SATURATION = 0.05
"""Otsu's threshold is raised to this: a blank slide has only noise to part."""
TISSUE_RULES = ("saturation", "grey", "all")
EDGE_TOLERANCE = 0.01
"""By which share the sides of a mask and of its slide may differ in ratio."""


class CellGrid(NamedTuple):
    """Square cells of `side` stored pixels from the slide's top left corner; what is left over belongs to none."""

    rows: int
    columns: int
    side: int


class Truth(Protocol):
    """Where a slide is annotated."""

    def shares(self, grid: CellGrid) -> tuple[np.ndarray, np.ndarray]:
        """Shares of each cell annotated as tumour and as normal, float64 rows×columns, 0…1."""
        ...


@dataclass(frozen=True)
class OutlineTruth:
    """Outlines in stored pixels; overlapping ones count once."""

    tumour: Sequence[shapely.Geometry]
    normal: Sequence[shapely.Geometry] | None = None
    """None: all that is not tumour is annotated as normal, as on CAMELYON's slides."""

    def shares(self, grid: CellGrid) -> tuple[np.ndarray, np.ndarray]:
        """See `Truth`; the areas are exact."""
        tumour = outline_shares(self.tumour, grid)
        return tumour, 1.0 - tumour if self.normal is None else outline_shares(self.normal, grid)


@dataclass(frozen=True)
class MaskTruth:
    """A TIFF of class numbers with the slide's outline, at any resolution: CAMELYON's masks have 0, 1 and 2."""

    path: Path
    size: Size
    """Of the slide's stored plane."""
    tumour: int = 2
    normal: int = 1

    def shares(self, grid: CellGrid) -> tuple[np.ndarray, np.ndarray]:
        """See `Truth`; raises BadRequestError for a mask of another slide or with another class."""
        mask = read_mask(self.path, self.size.width / grid.side)
        ratio = (mask.shape[1] / self.size.width) / (mask.shape[0] / self.size.height)
        if abs(ratio - 1) > EDGE_TOLERANCE + 1 / min(mask.shape):
            raise BadRequestError(
                f"The mask “{self.path.name}” of {mask.shape[1]} × {mask.shape[0]} px has not the outline of its "
                f"slide of {self.size.width} × {self.size.height} px."
            )
        unknown = sorted(set(np.unique(mask).tolist()) - {0, self.normal, self.tumour})
        if unknown:
            raise BadRequestError(
                f"The mask “{self.path.name}” has the class {unknown[0]}; known are 0 (none), {self.normal} (normal) "
                f"and {self.tumour} (tumour): name others with mask_tumour and mask_normal."
            )
        step = self.size.width / mask.shape[1]
        return mask_shares(mask == self.tumour, step, grid), mask_shares(mask == self.normal, step, grid)


def grid_of(size: Size, side: int) -> CellGrid:
    """The whole cells of a stored plane; raises BadRequestError where not even one fits."""
    if side < 1 or min(size) < side:
        raise BadRequestError(f"A slide of {size.width} × {size.height} stored px has no patch of {side} px.")
    return CellGrid(size.height // side, size.width // side, side)


def outline_shares(outlines: Sequence[shapely.Geometry], grid: CellGrid) -> np.ndarray:
    """Share of each cell that lies in the union of the outlines (stored pixels), float64 rows×columns."""
    area = np.zeros((grid.rows, grid.columns))
    for part in shapely.get_parts(shapely.union_all(list(outlines))):
        left, top, right, bottom = (np.array(part.bounds) / grid.side).tolist()
        rows = np.arange(max(0, int(top)), min(grid.rows, int(bottom) + 1))
        columns = np.arange(max(0, int(left)), min(grid.columns, int(right) + 1))
        row, column = (each.ravel() for each in np.meshgrid(rows, columns, indexing="ij"))
        cells = shapely.box(
            column * grid.side, row * grid.side, (column + 1) * grid.side, (row + 1) * grid.side
        )  # fmt: skip
        shapely.prepare(part)
        touched = shapely.intersects(part, cells)
        row, column, cells = row[touched], column[touched], cells[touched]
        whole = shapely.covers(part, cells)
        # Most cells lie wholly inside; only the rim is worth an intersection.
        areas = np.full(len(cells), float(grid.side) ** 2)
        areas[~whole] = shapely.area(shapely.intersection(part, cells[~whole]))
        area[row, column] += areas
    return area / grid.side**2


def mask_shares(mask: np.ndarray, step: float, grid: CellGrid) -> np.ndarray:
    """Share of true pixels in each cell of a mask with `step` stored pixels a pixel, float64 rows×columns.

    Cells begin at the nearest pixel, exactly where `step` divides the side.
    """
    edges = [
        np.rint(np.arange(count + 1) * grid.side / step).astype(int).clip(0, length)
        for count, length in zip((grid.rows, grid.columns), mask.shape, strict=True)
    ]
    sums = cv2.integral(np.ascontiguousarray(mask, np.uint8)).astype(np.int64)[np.ix_(*edges)]
    inside = np.diff(np.diff(sums, axis=0), axis=1)
    pixels = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    return inside / np.maximum(pixels, 1)


def read_mask(path: Path, columns: float) -> np.ndarray:
    """Class numbers uint8 of the coarsest page of a TIFF with CELL_PIXELS pixels or more for each of `columns` cells.

    Raises BadRequestError for a file that is no mask of one channel.
    """
    try:
        with tifffile.TiffFile(path) as file:
            levels = [level for level in file.series[0].levels if level.shape[1] >= CELL_PIXELS * columns]
            chosen = levels[-1] if levels else file.series[0].levels[0]
            if len(chosen.shape) != 2 or chosen.shape[0] * chosen.shape[1] > MAX_PIXELS:
                raise BadRequestError(f"“{path.name}” is no mask: a TIFF of one channel of class numbers is needed.")
            return chosen.asarray().astype(np.uint8, copy=False)
    except (OSError, IndexError, ValueError, struct.error, tifffile.TiffFileError) as error:
        raise BadRequestError(f"The mask “{path.name}” cannot be read: {error}.") from error


def tissue_shares(pixels: PatchReader, grid: CellGrid, rule: str = "saturation") -> np.ndarray:
    """Share of each cell above Otsu's threshold, float64 rows×columns; the paper names neither level nor channel.

    `saturation` of HSV, `grey` (darkness), or `all`: every cell is tissue. Raises BadRequestError for another rule and
    for a slide without a level that fits into memory.
    """
    if rule not in TISSUE_RULES:
        raise BadRequestError(f"Tissue is found by {', '.join(TISSUE_RULES)}, not by {rule!r}.")
    if rule == "all":
        return np.ones((grid.rows, grid.columns))
    level, step = _tissue_level(pixels, grid.side)
    channel = _channel(pixels, level, rule)
    otsu = cv2.threshold(channel.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    return mask_shares(channel > max(otsu, LEAST_SATURATION * 255), step, grid)


def _tissue_level(pixels: PatchReader, side: int) -> tuple[int, float]:
    """(level, stored pixels a pixel of it): the coarsest with pixels enough a cell, else the finest."""
    steps = [each.downsample / 2**pixels.steps for each in pixels.reader.levels]
    fine = [level for level, step in enumerate(steps) if side / step >= CELL_PIXELS]
    level = fine[-1] if fine else 0
    if pixels.reader.levels[level].size.width * pixels.reader.levels[level].size.height > MAX_PIXELS:
        raise BadRequestError(f"“{pixels.name}” has no small level in which tissue could be looked for; ingest it.")
    return level, steps[level]


def _channel(pixels: PatchReader, level: int, rule: str) -> np.ndarray:
    """Saturation or darkness of a whole level, uint8, read in bands."""
    size = pixels.reader.levels[level].size
    channel = np.empty((size.height, size.width), np.uint8)
    for y in range(0, size.height, BAND_ROWS):
        rgb = pixels.reader.region(level, Region(0, y, size.width, min(BAND_ROWS, size.height - y)))
        if rule == "saturation":
            band = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
        else:
            band = 255 - cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        channel[y : y + len(band)] = band
    return channel
