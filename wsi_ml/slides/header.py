"""Vetting of a file by its first bytes and its TIFF directories, before any decoder sees it.

OpenSlide 4.0 asks GLib for as much memory as a tile side claims and aborts the process when it is not there; a deflate
tile of 16384 px costs seconds and gigabytes per read. So sides, sizes and offsets are checked here, from bytes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ml.errors import IngestError
from wsi_ml.geometry import Size, ceil_div
from wsi_ml.slides.tiff_header import (
    HEIGHT,
    SAMPLES,
    STRIP_LENGTHS,
    STRIP_OFFSETS,
    TILE_HEIGHT,
    TILE_LENGTHS,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    Directory,
    TiffHeader,
    shown_name,
)

SNIFF_BYTES = 4096
CHUNK_VALUES = 1 << 16


@dataclass(frozen=True)
class HeaderLimits:
    """What a file may claim."""

    side: int = 300_000
    """Longest side of an image in pixels."""
    pixels: int = 40_000_000_000
    tile_sides: tuple[int, int] = (16, 4096)
    samples: int = 8
    """Channels of a pixel."""
    pieces: int = 8_000_000
    """Tiles and strips of all images together."""


OTHER_FORMATS = (
    (b"<", "a web page or XML file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a Linux program"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"#!", "a script"),
)


def sniff(path: Path) -> str:
    """Container of a slide by content: `tiff`, `dicom`, `mirax`, `vms`, `czi`, `sakura` or `psi` (HDF5).

    Raises IngestError that says what the file is instead. The file's extension counts for nothing, but that MIRAX needs
    its data folder beside it.
    """
    with path.open("rb") as file:
        start = file.read(SNIFF_BYTES)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if start[128:132] == b"DICM":
        return "dicom"
    if (path.parent / path.stem / "Slidedat.ini").is_file():
        return "mirax"
    if b"[Virtual Microscope Specimen]" in start or b"[Uncompressed Virtual Microscope Specimen]" in start:
        return "vms"
    if start.startswith(b"ZISRAWFILE"):
        return "czi"
    if start.startswith(b"SQLite format 3\0"):
        return "sakura"
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "psi"
    found = next(
        (name for magic, name in OTHER_FORMATS if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic)), None
    )
    raise IngestError(
        f"“{shown_name(path)}” is not a whole-slide image: it is {found or 'in no format Ocular knows'}, whatever its "
        "name says; give a file as the scanner wrote it "
        "(.svs, .tif, .ndpi, .scn, .bif, .mrxs, .vms, .czi, .svslide, .dcm, .psi)."
    )


def vet(path: Path, limits: HeaderLimits = HeaderLimits()) -> str:
    """Refuse a file that must not reach OpenSlide, else return its container (see `sniff`).

    Raises IngestError for TIFF directories that loop, lie beyond the end of the file or are too many, for sizes or tile
    sides out of bounds, and for tiles beyond the end of the file (a truncated copy). Reads little and allocates less
    than 64 MB, whatever the file claims. Other containers have their sizes checked inside the confined child.
    """
    container = sniff(path)
    if container == "tiff":
        with TiffHeader(path) as tiff:
            pieces = 0
            for directory in tiff.directories():
                pieces += max(tiff.count(directory, tag) for tag in (TILE_OFFSETS, STRIP_OFFSETS))
                if pieces > limits.pieces:
                    raise tiff.fault(f"it claims more than {limits.pieces} tiles", "the file is damaged or hostile")
                _check_size(tiff, directory, limits)
                if TILE_WIDTH in directory.fields or TILE_HEIGHT in directory.fields:
                    _check_tiles(tiff, directory, limits)
                elif not tiff.ndpi:  # NDPI keeps the upper halves of long offsets elsewhere
                    _check_extents(tiff, directory, STRIP_OFFSETS, STRIP_LENGTHS, None)
    return container


def _check_size(tiff: TiffHeader, directory: Directory, limits: HeaderLimits) -> None:
    size = Size(tiff.first(directory, WIDTH), tiff.first(directory, HEIGHT))
    if min(size) < 1:
        raise tiff.fault(
            f"image {directory.number} has no pixels ({size.width} × {size.height})", "the file is damaged"
        )
    if tiff.first(directory, SAMPLES, 1) > limits.samples:
        raise tiff.fault(f"image {directory.number} claims more than {limits.samples} channels", "it is no slide")
    check_claim(f"image {directory.number} of “{tiff.name}”", size, limits)


def check_claim(what: str, size: Size, limits: HeaderLimits = HeaderLimits()) -> None:
    """Refuse an image that claims more pixels than allowed; raises IngestError."""
    if max(size) > limits.side or size.width * size.height > limits.pixels:
        raise IngestError(
            f"The file was not opened: {what} claims {size.width} × {size.height} px, more than the {limits.side} px a "
            f"side or {limits.pixels / 1e9:g} gigapixels allowed; the file is damaged or hostile."
        )


def _check_tiles(tiff: TiffHeader, directory: Directory, limits: HeaderLimits) -> None:
    low, high = limits.tile_sides
    tile = Size(tiff.first(directory, TILE_WIDTH), tiff.first(directory, TILE_HEIGHT))
    if not (low <= min(tile) and max(tile) <= high and tile.width % 16 == 0 == tile.height % 16):
        raise tiff.fault(
            f"image {directory.number} claims tiles of {tile.width} × {tile.height} px; sides must be multiples of "
            f"16 from {low} to {high}",
            "write it again with tiles of 256 px",
        )
    across = ceil_div(tiff.first(directory, WIDTH), tile.width)
    _check_extents(tiff, directory, TILE_OFFSETS, TILE_LENGTHS, across)


def _check_extents(
    tiff: TiffHeader, directory: Directory, offsets_tag: int, lengths_tag: int, across: int | None
) -> None:
    """Every tile (`across` in a row) or strip must end inside the file; an empty one (length 0) is left out."""
    counts = tiff.count(directory, offsets_tag), tiff.count(directory, lengths_tag)
    if counts[0] != counts[1]:
        raise tiff.fault(
            f"image {directory.number} has {counts[0]} pieces but {counts[1]} lengths", "the file is damaged"
        )
    size = np.uint64(tiff.size)
    for start in range(0, counts[0], CHUNK_VALUES):
        offsets = tiff.integers(directory, offsets_tag, start, CHUNK_VALUES)
        lengths = tiff.integers(directory, lengths_tag, start, CHUNK_VALUES)
        beyond = np.flatnonzero((lengths > 0) & ((offsets > size) | (lengths > size) | (offsets + lengths > size)))
        if len(beyond):
            number = start + int(beyond[0])
            place = f"strip {number}" if across is None else f"tile column {number % across}, row {number // across}"
            raise IngestError(
                f"“{tiff.name}” is truncated: {place} of image {directory.number} lies beyond its end at {tiff.size} "
                "bytes; copy the file again from the scanner."
            )
