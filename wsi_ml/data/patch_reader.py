"""Patches of one slide at ×20 and, where it was scanned finer, at ×40: from its levels or as the store makes them."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import shapely

from wsi_ml.data.entropy import SMALL
from wsi_ml.data.read_patch import BLOCK_SIDE, MARGIN, ReadPatch
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size, grow, is_close_level, power_of_two_steps
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.plan import STORED_MPP
from wsi_ml.slides.reading import SlideReader, StoredReader

PAIRS = ("store", "levels")
STORED_RANGE = (0.35, 0.71)
"""µm/px of a stored plane that patches are cut from: half a halving to either side of 0.5."""
OVERVIEW_SIDE = 4096
OVERVIEW_PATCH = 4
BAND_ROWS = 256
MAX_LEVEL_PIXELS = 1 << 28


class PatchReader:
    """Patches of a slide by their place in its stored plane (×20); open in as many processes as wanted.

    `pairs` says how a ×40 scan becomes a pair: `store` reads ×40 and makes ×20 of it by the store's kernel and JPEG, as
    the product will see it; `levels` takes both from the scan's own levels, as paper A does. A scan at ×20 and a slide
    of the library have no ×40 picture. `mpp` is the µm/px of a slide that states none. Raises BadRequestError where
    the slide has no ×20 plane or, for `levels`, no such level.
    """

    def __init__(self, reader: SlideReader, pairs: str = "store", mpp: float | None = None):
        if pairs not in PAIRS:
            raise BadRequestError(f"Pairs are made by {' or '.join(PAIRS)}, not by {pairs!r}.")
        self.reader, self.name, self.pairs = reader, reader.name, pairs
        l0_mpp = reader.mpp if reader.mpp is not None else mpp
        if l0_mpp is None:
            raise BadRequestError(f"“{self.name}” states no µm/px; give it with the key mpp (0.25 for a ×40 scan).")
        self.steps = power_of_two_steps(STORED_MPP / l0_mpp)
        self.stored_mpp = l0_mpp * 2**self.steps
        if not STORED_RANGE[0] <= self.stored_mpp <= STORED_RANGE[1]:
            raise BadRequestError(
                f"“{self.name}” has no ×20 plane: the nearest is {self.stored_mpp:.3g} µm/px, patches need "
                f"{STORED_RANGE[0]:g} to {STORED_RANGE[1]:g}."
            )
        self.has_base = self.steps > 0
        # The level each picture is read from and the halvings that remain; in `store` all is made from ×40.
        self._base_level, self._base_halvings = self._level(self.steps - 1) if self.has_base else (0, 0)
        self._stored_level = self._exact_level(self.steps) if pairs == "levels" or not self.has_base else None
        self.size = self._stored_size()
        """Size of the stored plane in which whole patches can be had."""

    @property
    def region_scale(self) -> float:
        """Pixels of the plane that outlines are drawn in, per stored pixel: the file's level 0, or the base plane."""
        return 2.0 if isinstance(self.reader, StoredReader) else float(2**self.steps)

    @property
    def outline_size(self) -> Size:
        """Size of the plane that outlines are drawn in."""
        return self.reader.base_size if isinstance(self.reader, StoredReader) else self.reader.size

    def read(self, x: int, y: int, side: int) -> ReadPatch:
        """The pixels at a place, which must lie inside; raises OutsideError."""
        if self._stored_level is None:
            area = self._read_base(Region(2 * x, 2 * y, 2 * side, 2 * side), MARGIN)
            return ReadPatch(None, area, (x % BLOCK_SIDE, y % BLOCK_SIDE))
        base = self._read_base(Region(2 * x, 2 * y, 2 * side, 2 * side), 0) if self.has_base else None
        return ReadPatch(self.reader.region(self._stored_level, Region(x, y, side, side)), base)

    def reduced(self, step: int) -> np.ndarray:
        """The whole stored plane at one pixel for step × step, uint8 ⌊H/step⌋×⌊W/step⌋×3: means, read in bands.

        From the coarsest level that is fine enough. Raises BadRequestError where that level is too large for memory.
        """
        steps = [each.downsample / 2**self.steps for each in self.reader.levels]
        level = max((number for number, each in enumerate(steps) if each <= step * 1.01), default=0)
        size, factor = self.reader.levels[level].size, step / steps[level]
        if size.width * size.height > MAX_LEVEL_PIXELS:
            raise BadRequestError(f"“{self.name}” has no small level from which a picture could be made; ingest it.")
        columns, rows = self.size.width // step, self.size.height // step
        width = min(size.width, round(columns * factor))
        picture = np.empty((rows, columns, 3), np.uint8)
        for top in range(0, rows, BAND_ROWS):
            end = min(rows, top + BAND_ROWS)
            y, y_end = round(top * factor), min(size.height, round(end * factor))
            band = self.reader.region(level, Region(0, y, width, y_end - y))
            picture[top:end] = cv2.resize(band, (columns, end - top), interpolation=cv2.INTER_AREA)
        return picture

    def overview(self, side: int) -> Overview | None:
        """Brightness of the whole slide at a coarse level; None where no level shows a patch by 4 to 64 px or so."""
        for level in range(len(self.reader.levels) - 1, -1, -1):
            size, downsample = self.reader.levels[level]
            step = downsample / 2**self.steps
            if side / step >= OVERVIEW_PATCH and max(size) <= OVERVIEW_SIDE:
                rgb = self.reader.region(level, Region(0, 0, *size))
                p = rgb.sum(2, dtype=np.float32) / 765.0
                return Overview(-p * np.log2(p + SMALL), step)
        return None

    def _read_base(self, base_region: Region, margin: int) -> np.ndarray:
        """A region of the ×40 plane with a margin; beyond the slide its last row or column is repeated, as stored."""
        size = self._base_size
        inside = grow(base_region, margin, size)
        step = 1 << self._base_halvings
        pixels = self.reader.region(self._base_level, Region(*(step * value for value in inside)))
        for _ in range(self._base_halvings):
            pixels = halve_pixels(pixels)
        left, top = inside.x - base_region.x + margin, inside.y - base_region.y + margin
        right, bottom = base_region.x_end + margin - inside.x_end, base_region.y_end + margin - inside.y_end
        if left or top or right or bottom:
            pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), "edge")
        return pixels

    def _level(self, steps: int) -> tuple[int, int]:
        """(level, halvings left) for a plane `steps` halvings below level 0, from the coarsest level that gives it."""
        for wanted in range(steps, -1, -1):
            for level, (_, downsample) in enumerate(self.reader.levels):
                if is_close_level(downsample, 2**wanted):
                    return level, steps - wanted
        return 0, steps

    def _exact_level(self, steps: int) -> int:
        level, halvings = self._level(steps)
        if halvings:
            raise BadRequestError(
                f"“{self.name}” has no level at ×20 ({self.stored_mpp:.3g} µm/px), only downsamples "
                f"{', '.join(f'{each.downsample:g}' for each in self.reader.levels)}; set pairs=store."
            )
        return level

    def _stored_size(self) -> Size:
        sizes = [] if self._stored_level is None else [self.reader.levels[self._stored_level].size]
        if self.has_base:
            sizes.append(Size(self._base_size.width // 2, self._base_size.height // 2))
        return Size(min(size.width for size in sizes), min(size.height for size in sizes))

    @property
    def _base_size(self) -> Size:
        """The ×40 plane as far as it is whole."""
        size = self.reader.levels[self._base_level].size
        return Size(size.width >> self._base_halvings, size.height >> self._base_halvings)


class Overview(NamedTuple):
    """The summand of the brightness entropy at a coarse level, and stored pixels per pixel of it.

    The summand is concave, so its value for a mean of pixels is never below the mean of its values: a place whose
    overview fails the gate by a margin fails it at full size, and need not be read.
    """

    entropy: np.ndarray
    step: float

    def at(self, x: int, y: int, side: int) -> float:
        """Mean over the square of `side` stored pixels at x, y."""
        left, top = int(x / self.step), int(y / self.step)
        length = max(1, round(side / self.step))
        return float(self.entropy[top : top + length + 1, left : left + length + 1].mean())


class AnnotatedSlide(NamedTuple):
    """A slide and its regions by class, in pixels of its stored plane."""

    pixels: PatchReader
    regions: dict[str, list[shapely.Polygon]]
