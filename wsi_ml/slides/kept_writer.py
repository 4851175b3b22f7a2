"""Writer of kept tiles: tile by tile in row order, durable after every strip, going on where a killed one stopped.

Two files grow in the version's folder of kept tiles: `<key>.part` (what becomes the file) and `<key>.journal` (one
checked entry a strip). The part is flushed before its entry, so the journal never speaks of bytes that are not there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsi_ml.errors import LibraryError
from wsi_ml.geometry import DeepZoom, Size
from wsi_ml.slides.kept import (
    HISTOGRAM_BINS,
    MAGIC,
    QUANTILES,
    RECORD,
    KeptFacts,
    KeptIdentity,
    KeptTiles,
    footer_of,
    tail_of,
)
from wsi_ml.slides.library import sync_folder
from wsi_ml.slides.pyramid import CHECK_BYTES, checksum

MEASURE = "SSIM 7×7"
"""The measure of wsi_ml.sr.fidelity, as facts name it."""
ENTRY = np.dtype([("fidelity", "<f4"), ("scan_bytes", "<u4"), ("length", "<u4"), ("check", "V16")])
"""A tile in the journal; `length` 0: not kept."""


class Outcome(NamedTuple):
    """What came of one tile."""

    fidelity: float
    scan_bytes: int
    """Bytes of the scan's tile in the encoding of kept ones, kept or not."""
    data: bytes | None
    """The scan's tile when it is kept."""


class KeptWriter:
    """One file of kept tiles in the making; a context manager. One process at a time may have it (the caller locks)."""

    def __init__(self, folder: Path, identity: KeptIdentity, base_size: Size, tile_side: int):
        self.folder = folder
        self.identity = identity
        self.base_size, self.tile_side = base_size, tile_side
        deep_zoom = DeepZoom(base_size, tile_side)
        counts = deep_zoom.tile_counts(deep_zoom.top)
        self.tiles = counts.width * counts.height
        stem = folder / identity.file_name
        self.path = stem
        self._part_path, self._journal_path = stem.with_suffix(".part"), stem.with_suffix(".journal")
        folder.mkdir(mode=0o750, exist_ok=True)
        self._journal_head = MAGIC + bytes.fromhex(identity.key)
        self._entries = self._recover()
        self._part = self._part_path.open("ab", buffering=0)
        self._journal = self._journal_path.open("ab", buffering=0)

    def __enter__(self) -> KeptWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._part.close()
        self._journal.close()

    @property
    def done(self) -> int:
        """Tiles that are written, kept or not; the next `add` begins with the tile of this number."""
        return len(self._entries)

    def _recover(self) -> np.ndarray:
        """Entries of an earlier run; both files are cut back to them, or begun anew where there are none."""
        journal = self._journal_path.read_bytes() if self._journal_path.is_file() else b""
        entries, at = _sound_entries(journal, self._journal_head)
        end = len(MAGIC) + int(entries["length"].sum(dtype=np.int64))
        part_size = self._part_path.stat().st_size if self._part_path.is_file() else 0
        if not at or part_size < end or len(entries) > self.tiles:
            _begin(self._part_path, MAGIC)
            _begin(self._journal_path, self._journal_head)
            sync_folder(self.folder)
            return np.empty(0, ENTRY)
        os.truncate(self._part_path, end)
        os.truncate(self._journal_path, at)
        return entries

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Write the next tiles in row order and make them durable; raises OSError when the disk is full."""
        entries = np.zeros(len(outcomes), ENTRY)
        for entry, outcome in zip(entries, outcomes, strict=True):
            data = outcome.data or b""
            entry["fidelity"], entry["scan_bytes"], entry["length"] = outcome.fidelity, outcome.scan_bytes, len(data)
            entry["check"] = np.void(checksum(data) if data else bytes(CHECK_BYTES))
        _write_all(self._part.fileno(), b"".join(outcome.data for outcome in outcomes if outcome.data))
        os.fsync(self._part.fileno())
        body = len(entries).to_bytes(4, "little") + entries.tobytes()
        _write_all(self._journal.fileno(), body + checksum(body))
        os.fsync(self._journal.fileno())
        self._entries = np.concatenate([self._entries, entries])

    def finish(self, created: str) -> KeptFacts:
        """Complete the file, check it, and rename it to its name; the journal goes.

        Raises LibraryError when what was written is not what was meant, OSError when the disk is full.
        """
        entries = self._entries
        if len(entries) != self.tiles:
            raise ValueError(f"{len(entries)} of {self.tiles} tiles are written")
        kept = np.flatnonzero(entries["length"])
        records = np.zeros(len(kept), RECORD)
        lengths = entries["length"][kept].astype(np.int64)
        records["number"], records["length"], records["check"] = kept, lengths, entries["check"][kept]
        records["offset"] = len(MAGIC) + np.cumsum(lengths) - lengths
        end = len(MAGIC) + int(lengths.sum())
        facts = self._facts(entries, created)
        tail = tail_of(facts, self.base_size, self.tile_side, entries["fidelity"], records)
        os.truncate(self._part_path, end)
        _write_all(self._part.fileno(), tail + footer_of(end, tail))
        os.fsync(self._part.fileno())
        if faults := KeptTiles(self._part_path).check():
            raise LibraryError(
                f"The kept tiles were not published: what was written is not what was meant. {faults[0]}"
            )
        self._part_path.rename(self.path)
        sync_folder(self.folder)
        self._journal_path.unlink()
        return facts

    def _facts(self, entries: np.ndarray, created: str) -> KeptFacts:
        fidelity = entries["fidelity"].astype(np.float64)
        bins = np.clip((fidelity * HISTOGRAM_BINS).astype(np.int64), 0, HISTOGRAM_BINS - 1)
        identity, kept = self.identity, entries["length"] > 0
        return KeptFacts(
            key=identity.key,
            version=identity.version,
            model=identity.model,
            model_sha256=identity.model_sha256,
            floor=identity.floor,
            compared=identity.compared,
            encoding=identity.encoding,
            measure=MEASURE,
            tiles=len(entries),
            kept=int(kept.sum()),
            bytes_kept=int(entries["length"].sum(dtype=np.int64)),
            bytes_all=int(entries["scan_bytes"].sum(dtype=np.int64)),
            histogram=np.bincount(bins, minlength=HISTOGRAM_BINS).tolist(),
            quantiles=[(share, round(float(np.quantile(fidelity, share)), 4)) for share in QUANTILES],
            created=created,
        )


def _sound_entries(journal: bytes, head: bytes) -> tuple[np.ndarray, int]:
    """(entries of the strips that are whole, bytes of the journal they take); 0 bytes when it is none of ours."""
    if not journal.startswith(head):
        return np.empty(0, ENTRY), 0
    parts, at = [np.empty(0, ENTRY)], len(head)
    while True:
        count = int.from_bytes(journal[at : at + 4], "little")
        end = at + 4 + count * ENTRY.itemsize
        body, check = journal[at:end], journal[end : end + CHECK_BYTES]
        if not count or len(check) != CHECK_BYTES or checksum(body) != check:
            return np.concatenate(parts), at
        parts.append(np.frombuffer(body, ENTRY, offset=4))
        at = end + CHECK_BYTES


def _begin(path: Path, head: bytes) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.flush()
        os.fsync(file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; an unbuffered write may stop short."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
