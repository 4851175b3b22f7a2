"""Reading of a features file: blocks by place, features by box, the summary by level; immutable, shared by threads."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ml.errors import BadRequestError, DamagedError
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.blocks import decode_block, unpack_block
from wsi_ml.layers.columns import UNIT, UNIT_AREA, FeatureColumns, area_units, join, least_steps
from wsi_ml.layers.features_format import (
    CHUNK_LEVEL,
    FILE_MAGIC,
    FOOTER,
    FeaturesFacts,
    FileIndex,
    checksum,
    decode_chunk,
    decode_index,
)
from wsi_ml.layers.layer import BaseBox
from wsi_ml.layers.summary import (
    CELL_SIDE,
    SummaryEntries,
    level_cells,
    level_count,
    no_entries,
    reduced,
)

THIN_OUT = 1 << 16
"""Features that a query with a limit holds beyond twice its limit before it lets the smallest go."""


@dataclass(frozen=True)
class SummaryLevel:
    """One level of a summary: cells of `side` base-plane pixels."""

    level: int
    side: int
    columns: int
    rows: int
    entries: int


@dataclass(frozen=True)
class BlockFacts:
    """One block as the index states it: box in base-plane pixels, place and length of its bytes, checksum in hex."""

    number: int
    box: BaseBox
    count: int
    offset: int
    length: int
    checksum: str


@dataclass(frozen=True)
class FeatureRows:
    """Features of one query, largest first; `total` counts all that match."""

    columns: FeatureColumns | None
    """None when nothing matches."""
    total: int


class FeaturesFile:
    """A features file opened for reading; it closes when the last user lets go.

    Raises DamagedError when the file is not whole, when it is opened and when a damaged part is read.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DamagedError(f"The features file {self.path.name} cannot be opened: {error.strerror}.") from error
        weakref.finalize(self, os.close, self._descriptor)
        self.bytes = os.fstat(self._descriptor).st_size
        self._index, self._index_offset, self.checksum = self._read_index()
        """`checksum` (hex) is the index's, which holds those of all the rest: it tells two files apart."""
        self.facts: FeaturesFacts = self._index.facts
        self.class_names = self.facts.class_names
        self.base_size = self._index.base_size
        self.count = self.facts.count
        self.blocks = [_block_facts(number, record) for number, record in enumerate(self._index.blocks)]

    # -- blocks ----------------------------------------------------------------------------------------------------

    def block_gzip(self, number: int) -> bytes:
        """A block's bytes as they are stored (gzip); raises IndexError for a number that is none, DamagedError."""
        if not 0 <= number < len(self.blocks):
            raise IndexError(f"There is no block {number}; blocks are 0 to {len(self.blocks) - 1}.")
        block = self.blocks[number]
        return self._read(block.offset, block.length, block.checksum, f"Block {number}")

    def block(self, number: int) -> FeatureColumns:
        """A block's columns; raises like `block_gzip`."""
        return decode_block(unpack_block(self.block_gzip(number)))

    def blocks_in(self, bbox: BaseBox | None = None) -> list[int]:
        """Numbers of the blocks whose features' bounds may meet the box, edges included."""
        if bbox is None:
            return list(range(len(self.blocks)))
        boxes = self._index.blocks["box"]
        return np.flatnonzero(_meets(boxes, bbox)).tolist()

    def batches(self) -> Iterator[tuple[np.ndarray, FeatureBatch]]:
        """(numbers, features) of every block, one block in memory at a time."""
        for number in range(len(self.blocks)):
            columns = self.block(number)
            yield columns.numbers, columns.batch()

    # -- features --------------------------------------------------------------------------------------------------

    def query(
        self,
        bbox: BaseBox | None = None,
        classes: Sequence[str] | None = None,
        min_score: float | None = None,
        limit: int | None = None,
    ) -> FeatureRows:
        """Features whose bounds meet `bbox` (edges count), largest first (then by number), at most `limit` of them.

        `classes` keeps those of these names; `min_score` drops those with a lower score in ten-thousandths (those
        without a score stay).
        """
        chosen = None if classes is None else np.isin(self.class_names, list(classes))
        kept: list[FeatureColumns] = []
        held = total = 0
        for number in self.blocks_in(bbox):
            columns = self.block(number)
            rows = np.flatnonzero(_matches(columns, bbox, chosen, min_score))
            total += len(rows)
            if len(rows):
                kept.append(columns.take(rows))
                held += len(rows)
            # Thin out now and then, so that memory follows the limit, not the layer.
            if limit is not None and held > 2 * limit + THIN_OUT:
                kept = [_largest(join(kept), limit)]
                held = len(kept[0])
        return FeatureRows(_largest(join(kept), limit) if kept else None, total)

    # -- summary ---------------------------------------------------------------------------------------------------

    @property
    def summary_levels(self) -> list[SummaryLevel]:
        """All levels, finest first; the last has one cell."""
        chunks = self._index.chunks
        levels = []
        for level in range(level_count(self.base_size)):
            cells = level_cells(self.base_size, level)
            entries = int(chunks["entries"][chunks["level"] == level].sum(dtype=np.int64))
            levels.append(SummaryLevel(level, CELL_SIDE << level, cells.width, cells.height, entries))
        return levels

    def summary(self, level: int, box: BaseBox | None = None, limit: int | None = None) -> SummaryEntries:
        """Entries of the cells of one level, of those that share ground with `box` when given.

        Raises BadRequestError for a level that does not exist and where more than `limit` entries would be read.
        """
        top = level_count(self.base_size) - 1
        if not 0 <= level <= top:
            raise BadRequestError(f"There is no level {level} of the summary; levels are 0 to {top}.")
        side = CELL_SIDE << level
        chunks = self._index.chunks[self._index.chunks["level"] == level]
        cells = None
        if box is not None:
            cells = _cells_in(box, side)
            chunks = chunks[_chunks_in(chunks, level, cells)]
        if limit is not None and chunks["entries"].sum(dtype=np.int64) > limit:
            raise BadRequestError(
                f"Level {level} of the summary has over {limit} entries there; ask a higher level or a smaller box."
            )
        pieces = [self._chunk(record) for record in chunks]
        found = reduced(pieces) if pieces else no_entries()
        if cells is None:
            return found
        inside = (found.columns >= cells[0]) & (found.columns <= cells[2])
        return found.take(inside & (found.rows >= cells[1]) & (found.rows <= cells[3]))

    # -- checks ----------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Every fault, one sentence each: bytes against checksums, counts and areas against what is stated."""
        records = [*self._index.blocks[["offset", "bytes"]].tolist(), *self._index.chunks[["offset", "bytes"]].tolist()]
        ends = [len(FILE_MAGIC)]
        faults = []
        for offset, length in sorted(records):
            if offset != ends[-1]:
                faults.append(f"Bytes {ends[-1]} to {offset} of the features file {self.path.name} belong to nothing.")
            ends.append(offset + length)
        if ends[-1] != self._index_offset:
            faults.append(f"The end of the features file {self.path.name} belongs to nothing.")
        return faults + self._block_faults() + self._summary_faults()

    def _block_faults(self) -> list[str]:
        seen = np.zeros(self.count, bool)
        counts = np.zeros(len(self.class_names), np.int64)
        areas = np.zeros(len(self.class_names), np.int64)
        faults = []
        for block in self.blocks:
            try:
                columns = self.block(block.number)
            except DamagedError as error:
                faults.append(str(error))
                continue
            boxes = columns.boxes / UNIT
            outside = (boxes[:, :2] < block.box[:2]).any() or (boxes[:, 2:] > block.box[2:]).any()
            if len(columns) != block.count or outside or (columns.numbers >= self.count).any():
                faults.append(f"Block {block.number} of the features file {self.path.name} is not as the index states.")
                continue
            seen[columns.numbers] = True
            counts += np.bincount(columns.class_numbers, minlength=len(counts))
            np.add.at(areas, columns.class_numbers, area_units(columns))
        sums = (tuple(counts.tolist()), tuple((areas * UNIT_AREA).tolist()))
        if not faults and (sums != (self.facts.counts, self.facts.base_areas) or not seen.all()):
            faults.append(f"The features file {self.path.name} does not hold the features that it states.")
        return faults

    def _summary_faults(self) -> list[str]:
        faults = []
        for level in range(level_count(self.base_size)):
            try:
                entries = self.summary(level)
            except DamagedError as error:
                faults.append(str(error))
                continue
            sums = np.zeros((2, len(self.class_names)), np.int64)
            np.add.at(sums[0], entries.class_numbers, entries.counts.astype(np.int64))
            np.add.at(sums[1], entries.class_numbers, entries.areas)
            if (tuple(sums[0].tolist()), tuple((sums[1] * UNIT_AREA).tolist())) != (
                self.facts.counts,
                self.facts.base_areas,
            ):
                faults.append(f"Level {level} of the summary in {self.path.name} does not sum to the features.")
        return faults

    # -- bytes -----------------------------------------------------------------------------------------------------

    def _chunk(self, record: np.void) -> SummaryEntries:
        place, length = int(record["offset"]), int(record["bytes"])
        data = self._read(place, length, record["check"].tobytes().hex(), "A part of the summary")
        return decode_chunk(data, int(record["entries"]))

    def _read(self, offset: int, length: int, check: str, what: str) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        if checksum(data).hex() != check:
            raise DamagedError(f"{what} of the features file {self.path.name} does not match its checksum.")
        return data

    def _read_index(self) -> tuple[FileIndex, int, str]:
        fault = DamagedError(f"The features file {self.path.name} is damaged or not whole.")
        if self.bytes < len(FILE_MAGIC) + FOOTER.size:
            raise fault
        footer = os.pread(self._descriptor, FOOTER.size, self.bytes - FOOTER.size)
        offset, length, check, magic = FOOTER.unpack(footer)
        if magic != FILE_MAGIC or offset + length + FOOTER.size != self.bytes:
            raise fault
        data = os.pread(self._descriptor, length, offset)
        if checksum(data) != check or os.pread(self._descriptor, len(FILE_MAGIC), 0) != FILE_MAGIC:
            raise fault
        return decode_index(data), offset, check.hex()


def _block_facts(number: int, record: np.void) -> BlockFacts:
    box = BaseBox(*(record["box"] / UNIT).tolist())
    place, length = int(record["offset"]), int(record["bytes"])
    return BlockFacts(number, box, int(record["count"]), place, length, record["check"].tobytes().hex())


def _meets(boxes: np.ndarray, bbox: BaseBox) -> np.ndarray:
    """Which boxes (units) meet a box in base px, edges included."""
    x0, y0, x1, y1 = (edge * UNIT for edge in bbox)
    return (boxes[:, 0] <= x1) & (boxes[:, 2] >= x0) & (boxes[:, 1] <= y1) & (boxes[:, 3] >= y0)


def _matches(
    columns: FeatureColumns, bbox: BaseBox | None, chosen: np.ndarray | None, min_score: float | None
) -> np.ndarray:
    kept = np.ones(len(columns), bool)
    if bbox is not None:
        kept &= _meets(columns.boxes, bbox)
    if chosen is not None:
        kept &= chosen[columns.class_numbers]
    if min_score is not None:
        kept &= columns.scores >= least_steps(min_score)  # NO_SCORE is above every score
    return kept


def _largest(columns: FeatureColumns, limit: int | None) -> FeatureColumns:
    order = np.lexsort((columns.numbers, -columns.areas))
    return columns.take(order if limit is None else order[:limit])


def _cells_in(box: BaseBox, side: int) -> tuple[int, int, int, int]:
    """First column, first row, last column, last row of the cells that share ground with a box."""
    first_column, first_row = math.floor(box.x0 / side), math.floor(box.y0 / side)
    last_column, last_row = math.ceil(box.x1 / side) - 1, math.ceil(box.y1 / side) - 1
    return first_column, first_row, max(last_column, first_column), max(last_row, first_row)


def _chunks_in(chunks: np.ndarray, level: int, cells: tuple[int, int, int, int]) -> np.ndarray:
    """Which chunks hold cells from first to last column and row."""
    if level > CHUNK_LEVEL:
        return np.ones(len(chunks), bool)
    shift = CHUNK_LEVEL - level
    first_column, first_row, last_column, last_row = (each >> shift for each in cells)
    across = (chunks["column"] >= first_column) & (chunks["column"] <= last_column)
    return across & (chunks["row"] >= first_row) & (chunks["row"] <= last_row)
