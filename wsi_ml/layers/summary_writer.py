"""Gathering of the summary while a features file is written: memory of one chunk's area, however large the slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from wsi_ml.geometry import Size
from wsi_ml.layers.features_format import CHUNK_LEVEL, CHUNK_RECORD, checksum, decode_chunk, encode_chunk
from wsi_ml.layers.spill import Spill
from wsi_ml.layers.summary import SummaryEntries, level_count, reduced

SPILL_ENTRIES = 1 << 19
"""Entries held in memory before they are added up and put aside."""


class SummaryWriter:
    """Adds up entries of level 0 and writes the chunks of all levels."""

    def __init__(self, folder: Path, base_size: Size):
        self._levels = level_count(base_size)
        self._spill = Spill(folder)
        self._pending: list[SummaryEntries] = []
        self._count = 0

    def add(self, entries: SummaryEntries) -> None:
        """Take entries of level 0 in any order; equal cells, classes and bins are added up."""
        if not len(entries):
            return
        self._pending.append(entries)
        self._count += len(entries)
        if self._count >= SPILL_ENTRIES:
            self._put_aside()

    def write_to(self, write: Callable[[bytes], int]) -> np.ndarray:
        """Write the chunks of every level with `write` (which returns their place); gives their records."""
        self._put_aside()
        records: list[tuple[int, ...]] = []
        above: list[SummaryEntries] = []
        for key in self._spill.sorted_keys():
            entries = reduced(list(self._pieces(key)))
            for level in range(min(self._levels, CHUNK_LEVEL + 1)):
                entries = entries.coarser() if level else entries
                records.append(_write_chunk(write, entries, level, key & 0xFFFF, key >> 16))
            above.append(entries)
        for level in range(CHUNK_LEVEL + 1, self._levels) if above else ():
            above = [reduced(above).coarser()]
            records.append(_write_chunk(write, above[0], level, 0, 0))
        return np.array(records, CHUNK_RECORD)

    def close(self) -> None:
        """Let the space on disk go."""
        self._spill.close()

    def _put_aside(self) -> None:
        if not self._pending:
            return
        entries = reduced(self._pending)
        self._pending, self._count = [], 0
        rows, columns = (part.astype(np.int64) >> CHUNK_LEVEL for part in (entries.rows, entries.columns))
        keys = rows << 16 | columns
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(keys)], strict=True):
            piece = entries.take(order[start:end])
            self._spill.append(int(keys[start]), len(piece).to_bytes(4, "little") + encode_chunk(piece))

    def _pieces(self, key: int) -> Iterator[SummaryEntries]:
        for data in self._spill.pieces(key):
            yield decode_chunk(data[4:], int.from_bytes(data[:4], "little"))


def _write_chunk(
    write: Callable[[bytes], int], entries: SummaryEntries, level: int, column: int, row: int
) -> tuple[int, ...]:
    packed = encode_chunk(entries)
    return (write(packed), len(packed), len(entries), level, column, row, 0, checksum(packed))  # type: ignore[return-value]
