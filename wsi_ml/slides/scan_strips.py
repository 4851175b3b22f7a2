"""×40 pixels of a scan, strip by strip: read in the confined child, handed over through two small scratch files.

A strip is part of one row of tiles, so a scratch file takes at most 25 MB however wide the slide is. The child reads
the next strip while the parent works on the last one, and waits until a file is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsi_ml.errors import IngestError
from wsi_ml.geometry import DeepZoom, Region, Size
from wsi_ml.slides.sandbox import Child, Limits, Message

STRIP_READER = "wsi_ml.slides.strip_reading:read_strips"
STRIP_TILES = 32
"""Tiles in one strip at most. Unfinished work has whole strips done, so a change wants a new KEPT_REVISION."""
SLOTS = 2


class Strip(NamedTuple):
    """Tiles that lie side by side in one row of the ×40 plane."""

    t_col: int
    t_row: int
    tiles: int
    base_region: Region


class ScanOrder(NamedTuple):
    """What the child is to read: a vetted vendor file, and the ×40 plane of the slide version made from it."""

    path: Path
    mpp: float | None
    """µm/px of level 0 where it was given by hand at ingestion."""
    base_size: Size
    tile_side: int
    first_tile: int
    """Number of the first tile to read, in row order; strips before it are left out."""


def strips_of(base_size: Size, tile_side: int, first_tile: int = 0) -> Iterator[Strip]:
    """Strips of the ×40 plane in row order, without those whose tiles all come before `first_tile`."""
    deep_zoom = DeepZoom(base_size, tile_side)
    counts = deep_zoom.tile_counts(deep_zoom.top)
    for t_row in range(counts.height):
        for t_col in range(0, counts.width, STRIP_TILES):
            tiles = min(STRIP_TILES, counts.width - t_col)
            if t_row * counts.width + t_col < first_tile:
                continue
            y, height = t_row * tile_side, min(tile_side, base_size.height - t_row * tile_side)
            x, width = t_col * tile_side, min(tiles * tile_side, base_size.width - t_col * tile_side)
            yield Strip(t_col, t_row, tiles, Region(x, y, width, height))


def scan_strips(
    order: ScanOrder, scratch: Path, use: Callable[[Strip, np.ndarray], None], limits: Limits, cpu_s: int
) -> None:
    """Call `use(strip, rgb)` for every strip of the scan's ×40 pixels (sRGB uint8), in row order.

    The file is opened in the confined child only; `scratch` is an empty folder of the caller's. Raises what the child
    names (IngestError, DiskFullError) and what `use` raises.
    """
    strips = list(strips_of(order.base_size, order.tile_side, order.first_tile))

    def handed_over(message: Message) -> None:
        strip, slot = strips[int(message["strip"])], int(message["slot"])
        use(strip, _read_slot(slot_file(scratch, slot), strip.base_region))
        child.tell({"free": slot})

    with Child(STRIP_READER, limits) as child:
        job = {**order._asdict(), "path": str(order.path.resolve()), "scratch": str(scratch.resolve())}
        child.run(job, handed_over, cpu_s)


def slot_file(scratch: Path, slot: int) -> Path:
    """The scratch file of one slot."""
    return scratch / f"{slot}.rgb"


def _read_slot(path: Path, base_region: Region) -> np.ndarray:
    """Pixels the child left in a scratch file; raises IngestError for another size."""
    data = path.read_bytes()
    if len(data) != base_region.width * base_region.height * 3:
        raise IngestError("The scan's pixels did not arrive whole; run the same command again.")
    return np.frombuffer(data, np.uint8).reshape(base_region.height, base_region.width, 3)
