"""Writing of a features file: features in any order, grouped by place, in bounded memory."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from wsi_ml.errors import DiskFullError
from wsi_ml.geometry import Size
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.blocks import decode_block, encode_block, pack_block
from wsi_ml.layers.columns import NO_SCORE, UNIT, UNIT_AREA, FeatureColumns, area_units, columns_of, join
from wsi_ml.layers.features_format import (
    BLOCK_RECORD,
    FILE_MAGIC,
    FOOTER,
    FeaturesFacts,
    FileIndex,
    checksum,
    encode_index,
)
from wsi_ml.layers.spill import Spill
from wsi_ml.layers.summary import entries_of
from wsi_ml.layers.summary_writer import SummaryWriter
from wsi_ml.slides.library import sync_folder

QUAD_SIDE = 2048
"""Side of the smallest quadtree cell in base-plane pixels."""
BLOCK_FEATURES = 2048
BLOCK_POINTS = 1 << 17
"""Points after which a block is closed, so that few large outlines make no giant of it."""
SPILL_POINTS = 1 << 20
"""Points held in memory before they are sorted by place and put aside."""
CELL_POINTS = 1 << 22
"""Points of one quadtree cell that are put in order together; a cell of more is put in order piece by piece."""
ADD_FEATURES = 1 << 15
_LEVEL_SHIFT = 56


class FeaturesWriter:
    """Writes a features file at `path` whole or not at all; a context manager.

    `class_names` are those that the batches' class numbers mean, in any order; the file holds them sorted by name. The
    same batches give the same bytes; so do the same features batched otherwise, but where one quadtree cell holds more
    than CELL_POINTS. Raises DiskFullError.
    """

    def __init__(self, path: Path | str, class_names: Sequence[str], base_size: Size):
        if len(set(class_names)) != len(class_names):
            raise ValueError("Two classes of a layer have one name.")
        self.path = Path(path)
        self.base_size = Size(*base_size)
        self._names = tuple(sorted(class_names))
        self._renumbered = np.array([self._names.index(name) for name in class_names], np.uint16)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._pending: list[FeatureColumns] = []
        self._pending_points = 0
        self._count = 0
        self._counts = np.zeros(len(class_names), np.int64)
        self._areas = np.zeros(len(class_names), np.int64)
        self._scored = False
        self._offset = 0

    def __enter__(self) -> FeaturesWriter:
        with _disk(self.path):
            self._file: BinaryIO = self._part.open("wb")
            self._spill = Spill(self.path.parent)
            self._summary = SummaryWriter(self.path.parent, self.base_size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._spill.close()
        self._summary.close()
        self._part.unlink(missing_ok=True)

    def add(self, batch: FeatureBatch) -> None:
        """Add features, numbered on from those added before.

        Raises ValueError for a class number without a name, for geometries that are not polygons with points and for
        coordinates or scores that are out of range.
        """
        numbers = np.asarray(batch.class_numbers)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= len(self._names)):
            raise ValueError(f"A class number is not one of the {len(self._names)} classes of the layer.")
        for start in range(0, len(batch), ADD_FEATURES):
            rows = slice(start, start + ADD_FEATURES)
            part = FeatureBatch(batch.geometries[rows], self._renumbered[numbers[rows]], batch.scores[rows])
            columns = columns_of(part, self._count)
            self._count += len(part)
            self._pending.append(columns)
            self._pending_points += len(columns.points)
            if self._pending_points >= SPILL_POINTS:
                with _disk(self.path):
                    self._put_aside()

    def finish(self) -> FeaturesFacts:
        """Write the file, make it durable and put it in its place; nothing can be added afterwards."""
        with _disk(self.path):
            self._put_aside()
            self._write(FILE_MAGIC)
            blocks = [
                self._write_block(block) for key in self._spill.sorted_keys() for block in _blocks(self._spill, key)
            ]
            chunks = self._summary.write_to(self._write)
            facts = FeaturesFacts(
                self._names,
                tuple(self._counts.tolist()),
                tuple((self._areas * UNIT_AREA).tolist()),
                self._scored,
            )
            index = encode_index(FileIndex(facts, self.base_size, np.array(blocks, BLOCK_RECORD), chunks))
            self._write(index)
            self._write(FOOTER.pack(self._offset - len(index), len(index), checksum(index), FILE_MAGIC))
            sync_file(self._file)
            self._part.rename(self.path)
            sync_folder(self.path.parent)
        return facts

    def _put_aside(self) -> None:
        """Move what is pending to the spill, grouped by place, and count it."""
        if not self._pending:
            return
        columns = join(self._pending)
        self._pending, self._pending_points = [], 0
        areas = area_units(columns)
        self._counts += np.bincount(columns.class_numbers, minlength=len(self._names))
        np.add.at(self._areas, columns.class_numbers, areas)
        self._scored = self._scored or bool((columns.scores != NO_SCORE).any())
        for entries in entries_of(columns, self.base_size):
            self._summary.add(entries)
        keys = quad_keys(columns.boxes)
        order = np.argsort(keys, kind="stable")
        columns, keys = columns.take(order), keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(keys)], strict=True):
            self._spill.append(int(keys[start]), encode_block(columns.span(start, end)))

    def _write(self, data: bytes) -> int:
        """Write on and return where the data lie."""
        place = self._offset
        self._file.write(data)
        self._offset += len(data)
        return place

    def _write_block(self, columns: FeatureColumns) -> tuple[int, int, int, tuple[int, ...], bytes]:
        packed = pack_block(encode_block(columns))
        box = (*columns.boxes[:, :2].min(axis=0).tolist(), *columns.boxes[:, 2:].max(axis=0).tolist())
        return self._write(packed), len(packed), len(columns), box, checksum(packed)


def quad_keys(boxes: np.ndarray) -> np.ndarray:
    """int64 key of the quadtree cell of each box: first its level, then its place in Morton order.

    The cell is of the smallest side that is no less than the box's longer side, and holds the centre of the box.
    """
    boxes = boxes.astype(np.int64)
    extents = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1)
    levels = np.maximum(np.ceil(np.log2(extents / (QUAD_SIDE * UNIT))), 0).astype(np.int64)
    centres = np.maximum((boxes[:, :2] + boxes[:, 2:]) // 2, 0)
    cells = centres // (QUAD_SIDE * UNIT) >> levels[:, None]
    return levels << _LEVEL_SHIFT | morton(cells)


def morton(places: np.ndarray) -> np.ndarray:
    """int64 numbers along a Z-shaped path of places (N × 2, each from 0 to 2^28 − 1)."""
    spread = places.astype(np.int64)
    for shift, mask in (
        (32, 0x00000000FFFFFFFF),
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        spread = (spread | spread << shift) & mask
    return spread[:, 0] | spread[:, 1] << 1


def _blocks(spill: Spill, key: int) -> Iterator[FeatureColumns]:
    """Blocks of one quadtree cell: along a Z-shaped path where the cell's features fit in memory."""
    held: list[FeatureColumns] = []
    points = 0
    for piece in spill.pieces(key):
        held.append(decode_block(piece))
        points += len(held[-1].points)
        if points >= CELL_POINTS:
            yield from _cut_blocks(join(held))
            held, points = [], 0
    if held:
        yield from _cut_blocks(join(held))


def _cut_blocks(columns: FeatureColumns) -> Iterator[FeatureColumns]:
    if len(columns) > BLOCK_FEATURES or len(columns.points) > BLOCK_POINTS:
        centres = np.maximum((columns.boxes[:, :2].astype(np.int64) + columns.boxes[:, 2:]) // 2, 0)
        columns = columns.take(np.argsort(morton(centres >> 6), kind="stable"))
    ends = columns.feature_point_ends
    start = 0
    while start < len(columns):
        before = ends[start - 1] if start else 0
        full = int(np.searchsorted(ends, before + BLOCK_POINTS, side="right"))
        end = min(max(full, start + 1), start + BLOCK_FEATURES, len(columns))
        yield columns.span(start, end)
        start = end


def sync_file(file: BinaryIO) -> None:
    """Make what was written to a file durable."""
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """A full disk as the named error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"The disk is full: {path.name} was not written.") from error
        raise
