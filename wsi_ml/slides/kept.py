"""Kept tiles: ×40 tiles of the scan that super-resolution fell short of, in one immutable file of a slide version.

The file `kept/<key>.kept` in a version's folder holds the JPEGs one after the other, then how faithful every tile of
the ×40 plane came out, kept or not. Every byte is covered: tiles by a checksum each, the rest by one checksum.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsi_ml.errors import DamagedError, LibraryError, OutsideError, TileNotKeptError
from wsi_ml.geometry import DeepZoom, Region, Size
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg
from wsi_ml.slides.pyramid import checksum

KEPT_FOLDER = "kept"
KEPT_SUFFIX = ".kept"
MAGIC = b"OCKEPT01"
FOOTER = struct.Struct("<Q16s8s")
HEAD = struct.Struct("<I")
RECORD = np.dtype([("number", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("check", "V16")])
KEPT_REVISION = 1
"""Part of every key: goes up when tiles are cut, compared or written another way."""
KEY_NAME_DIGITS = 16
KEPT_QUALITY, KEPT_SUBSAMPLING = 90, "444"
KEPT_ENCODING = f"JPEG quality {KEPT_QUALITY} 4:4:4"
HISTOGRAM_BINS = 50
"""Bins of equal width from 0 to 1; what lies below 0 counts in the first."""
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def encode_kept(scan_rgb: np.ndarray) -> bytes:
    """A scanned tile as it is kept: RGB uint8 of any size as one JPEG."""
    return encode_jpeg(scan_rgb, KEPT_QUALITY, KEPT_SUBSAMPLING)


@dataclass(frozen=True)
class KeptIdentity:
    """Everything that decides which tiles are kept, and as what bytes."""

    version: str
    model: str
    model_sha256: str
    """Hash of the weights that made the compared tiles, hex, whole."""
    floor: float
    """Least SSIM that a synthesised tile must reach, 0…1."""
    compared: str
    """How the compared tile is synthesised and encoded when it is served."""
    encoding: str = KEPT_ENCODING

    @property
    def key(self) -> str:
        """SHA-256 over all of it, hex: the address of the file and of the pixels in it."""
        parts = [KEPT_REVISION, self.version, self.model_sha256, self.floor, self.compared, self.encoding]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """Name of the file in the version's folder of kept tiles."""
        return self.key[:KEY_NAME_DIGITS] + KEPT_SUFFIX


@dataclass(frozen=True)
class KeptFacts:
    """What came of comparing every ×40 tile of a slide version with the scan."""

    key: str
    version: str
    model: str
    model_sha256: str
    floor: float
    compared: str
    encoding: str
    measure: str
    tiles: int
    """Tiles of the ×40 plane, all of them compared."""
    kept: int
    bytes_kept: int
    bytes_all: int
    """Bytes that keeping every tile in the same encoding would take."""
    histogram: list[int]
    """Tiles in each of HISTOGRAM_BINS bins of equal width from 0 to 1."""
    quantiles: list[tuple[float, float]]
    """(share of tiles, fidelity that this share does not exceed), rising."""
    created: str

    @property
    def kept_share(self) -> float:
        """Share of the tiles that is kept, 0…1."""
        return self.kept / self.tiles

    @property
    def bytes_saved(self) -> int:
        """Bytes spared against keeping every tile."""
        return self.bytes_all - self.bytes_kept

    def to_json(self) -> dict[str, Any]:
        """The facts as plain JSON values, with `kept_share` and `bytes_saved`."""
        return {**dataclasses.asdict(self), "kept_share": self.kept_share, "bytes_saved": self.bytes_saved}


@dataclass(frozen=True)
class FidelityGrid:
    """How faithful each synthesised ×40 tile is to the scan: one cell a tile, `[t_row, t_col]`."""

    values: np.ndarray
    """SSIM (float16, −1…1) of the tile as served against the scan."""
    kept: np.ndarray
    """True where the scan's own tile is kept, and shown by the source `auto`."""
    base_size: Size
    tile_side: int
    """Side of a cell in base-plane pixels; cells at the right and bottom edge are cut."""
    model: str
    model_sha256: str
    floor: float

    def base_region(self, t_col: int, t_row: int) -> Region:
        """The cell's pixels in the base plane; raises OutsideError for a cell outside."""
        deep_zoom = DeepZoom(self.base_size, self.tile_side)
        return deep_zoom.tile_region(deep_zoom.top, t_col, t_row)


class KeptTiles:
    """One file of kept tiles, opened for reading; any number of threads may share it, and it closes with its last user.

    Raises LibraryError when the file cannot be read or is damaged outside its tiles.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LibraryError(f"The kept tiles {self.path.name} cannot be opened: {type(error).__name__}.") from error
        weakref.finalize(self, os.close, self._descriptor)
        self.data_end, tail = self._tail()
        self.facts, base_size, tile_side, arrays = _parse_head(tail, self.path.name)
        deep_zoom = DeepZoom(base_size, tile_side)
        counts = deep_zoom.tile_counts(deep_zoom.top)
        cells = counts.width * counts.height
        if len(arrays) != 2 * cells + RECORD.itemsize * self.facts.kept or self.facts.tiles != cells:
            raise _damaged(self.path.name)
        values = np.frombuffer(arrays, "<f2", cells).reshape(counts.height, counts.width)
        self.records = np.frombuffer(arrays, RECORD, offset=2 * cells)
        if self.facts.kept and int(self.records["number"].max()) >= cells:
            raise _damaged(self.path.name)
        place = np.full(cells, -1, np.int32)
        place[self.records["number"]] = np.arange(self.facts.kept)
        self._place: np.ndarray = place.reshape(values.shape)
        facts = self.facts
        self.fidelity = FidelityGrid(
            values, self._place >= 0, base_size, tile_side, facts.model, facts.model_sha256, facts.floor
        )

    def _tail(self) -> tuple[int, bytes]:
        """Where the tiles end, and all that follows them but the footer, checked."""
        size = os.fstat(self._descriptor).st_size
        footer = os.pread(self._descriptor, FOOTER.size, max(0, size - FOOTER.size))
        if len(footer) != FOOTER.size or os.pread(self._descriptor, len(MAGIC), 0) != MAGIC:
            raise _damaged(self.path.name)
        start, check, magic = FOOTER.unpack(footer)
        if magic != MAGIC or not len(MAGIC) <= start <= size - FOOTER.size:
            raise _damaged(self.path.name)
        tail = os.pread(self._descriptor, size - FOOTER.size - start, start)
        if checksum(tail) != check:
            raise _damaged(self.path.name)
        return start, tail

    def has(self, t_col: int, t_row: int) -> bool:
        """True where the scan's tile is kept; an address outside the plane is not."""
        rows, cols = self._place.shape
        return 0 <= t_col < cols and 0 <= t_row < rows and bool(self._place[t_row, t_col] >= 0)

    def require(self, t_col: int, t_row: int) -> int:
        """Number of a kept tile's record.

        Raises OutsideError for an address outside the ×40 plane, TileNotKeptError where super-resolution was good
        enough.
        """
        rows, cols = self._place.shape
        if not (0 <= t_col < cols and 0 <= t_row < rows):
            raise OutsideError(f"Tile {t_col}_{t_row} lies outside the ×40 plane.")
        if not self.has(t_col, t_row):
            raise TileNotKeptError(
                f"The scan's tile {t_col}_{t_row} is not kept: {self.facts.model} reaches the floor of "
                f"{self.facts.floor:g} there; the source “auto” shows that."
            )
        return int(self._place[t_row, t_col])

    def tile_bytes(self, t_col: int, t_row: int) -> bytes:
        """The JPEG of a kept tile, cut at the slide's edge.

        Raises like `require`, and DamagedError when the bytes do not match their checksum.
        """
        record = self.records[self.require(t_col, t_row)]
        data = os.pread(self._descriptor, int(record["length"]), int(record["offset"]))
        if checksum(data) != record["check"].tobytes():
            raise DamagedError(f"Kept tile {t_col}_{t_row} does not match its checksum.")
        return data

    def tile_pixels(self, t_col: int, t_row: int) -> np.ndarray:
        """RGB uint8 of a kept tile; raises like `tile_bytes`."""
        return decode_jpeg(self.tile_bytes(t_col, t_row))

    def check(self) -> list[str]:
        """Every fault of the tiles and of what is said of them, one sentence each; empty when all is well."""
        faults, end = [], len(MAGIC)
        cols = self._place.shape[1]
        for record in self.records:
            if int(record["offset"]) != end:
                faults.append(f"{self.path.name}: tile {record['number']} does not follow the one before it.")
            end = int(record["offset"]) + int(record["length"])
            try:
                self.tile_bytes(int(record["number"]) % cols, int(record["number"]) // cols)
            except DamagedError as error:
                faults.append(f"{self.path.name}: {error}")
        identity = {field.name: getattr(self.facts, field.name) for field in dataclasses.fields(KeptIdentity)}
        if end != self.data_end or KeptIdentity(**identity).key != self.facts.key:
            faults.append(f"{self.path.name}: its facts do not fit its tiles.")
        return faults


def _parse_head(tail: bytes, name: str) -> tuple[KeptFacts, Size, int, bytes]:
    """(facts, size of the ×40 plane, tile side, arrays) of a checked tail; raises LibraryError."""
    try:
        (length,) = HEAD.unpack_from(tail)
        head = json.loads(tail[HEAD.size : HEAD.size + length])
        facts = KeptFacts(**{**head["facts"], "quantiles": [tuple(each) for each in head["facts"]["quantiles"]]})
        return facts, Size(*head["base_size"]), int(head["tile_side"]), tail[HEAD.size + length :]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise _damaged(name) from error


def _damaged(name: str) -> LibraryError:
    return LibraryError(f"The kept tiles {name} are damaged; run `ocular verify`.")


def tail_of(facts: KeptFacts, base_size: Size, tile_side: int, fidelity: np.ndarray, records: np.ndarray) -> bytes:
    """What follows the tiles in a file: facts, fidelity of every tile in row order, RECORD of each kept one."""
    head = json.dumps({"facts": dataclasses.asdict(facts), "base_size": base_size, "tile_side": tile_side}).encode()
    return HEAD.pack(len(head)) + head + fidelity.astype("<f2").tobytes() + records.astype(RECORD).tobytes()


def footer_of(data_end: int, tail: bytes) -> bytes:
    """The last bytes of a file, whose tiles end at `data_end`."""
    return FOOTER.pack(data_end, checksum(tail), MAGIC)
