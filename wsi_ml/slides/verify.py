"""Checks of stored slide versions: every bit of every file that counts is covered by a checksum here.

`SHA256SUMS` in a version's folder covers the card, thumbnail and guarded images (also for `sha256sum -c`); the card
covers the pyramid file; the index covers the tiles and itself; the version in the folder's name covers the tiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ml.errors import DamagedError, LibraryError
from wsi_ml.geometry import Size
from wsi_ml.slides.card import CARD_FILE, INDEX_FILE, PRIVATE_FOLDER, PYRAMID_FILE, THUMBNAIL_FILE, Card
from wsi_ml.slides.kept import KEPT_FOLDER, KEPT_SUFFIX
from wsi_ml.slides.library import Library
from wsi_ml.slides.pyramid import RECORD, Pyramid

SUMS_FILE = "SHA256SUMS"


@dataclass
class VerifyReport:
    """What `verify` looked at and what it found."""

    versions: int = 0
    tiles: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    """One sentence for each fault; empty when every bit is as it was written."""

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.faults


def version_of(
    records: bytes, stored_size: Size, base_size: Size, stored_mpp: float, tile_side: int, source_sha256: str
) -> str:
    """Version (16 hex digits): content hash of the tile checksums in index order, geometry, µm/px and source file.

    The source belongs in it: two files of equal pixels are two versions, each with its own card.
    """
    digest = hashlib.sha256()
    for start in range(0, len(records), RECORD.size):
        digest.update(records[start + RECORD.size - 16 : start + RECORD.size])
    digest.update(json.dumps([stored_size, base_size, stored_mpp, tile_side, source_sha256]).encode())
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(folder: Path, known: dict[str, str] | None = None) -> str:
    """Text of SHA256SUMS for a version's folder, as `sha256sum -c` reads it; `known` spares hashing a file twice."""
    known = known or {}
    names = [CARD_FILE, INDEX_FILE, PYRAMID_FILE, THUMBNAIL_FILE]
    names += sorted(f"{PRIVATE_FOLDER}/{path.name}" for path in (folder / PRIVATE_FOLDER).glob("*"))
    return "".join(f"{known.get(name) or file_sha256(folder / name)}  {name}\n" for name in names)


def verify(
    library: Library, slide_id: str | None = None, advance: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check all versions of one slide, or the whole library and its rows; `advance(done, total)` counts versions.

    Raises UnknownSlideError for an unknown id. Damage is reported, never raised.
    """
    report = VerifyReport()
    slides = [library.slide(slide_id)] if slide_id is not None else library.slides()
    versions = list(dict.fromkeys(version for slide in slides for version in library.versions(slide.id)))
    for number, version in enumerate(versions):
        if advance:
            advance(number, len(versions))
        _verify_version(library.version_folder(version), version, report)
        _verify_kept(library, version, report)
    if slide_id is None:
        report.faults += library.check()
    if advance:
        advance(len(versions), len(versions))
    return report


def _verify_version(folder: Path, version: str, report: VerifyReport) -> None:
    report.versions += 1
    try:
        stated = (folder / SUMS_FILE).read_text("ascii")
        report.faults += _differences(stated, sums_of(folder), version)
        pyramid = Pyramid(folder)
    except (OSError, UnicodeDecodeError) as error:
        report.faults.append(f"Version {version}: a file cannot be read ({type(error).__name__}).")
        return
    except LibraryError as error:
        report.faults.append(str(error))
        return
    report.bytes += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    report.faults += check_tiles(pyramid, version)
    report.tiles += sum(count.width * count.height for count in pyramid.counts)


def _verify_kept(library: Library, version: str, report: VerifyReport) -> None:
    """Check the file of kept ×40 tiles that a version leads to, and that it has no other."""
    try:
        tiles = library.kept_tiles(version)
    except LibraryError as error:
        report.faults.append(f"Version {version}: {error}")
        return
    for path in sorted((library.version_folder(version) / KEPT_FOLDER).glob(f"*{KEPT_SUFFIX}")):
        if tiles is None or path != tiles.path:
            report.faults.append(f"Version {version}: kept tiles {path.name} have a file but no row.")
    if tiles is None:
        return
    report.tiles += tiles.facts.kept
    report.faults += [f"Version {version}: {fault}" for fault in tiles.check()]
    if tiles.facts.version != version or tiles.facts.key != library.kept_key(version):
        report.faults.append(f"Version {version}: its kept tiles belong to another version or key.")


def _differences(stated: str, found: str, version: str) -> list[str]:
    """Names of the files whose line in SHA256SUMS is not as it should be."""
    if stated == found:
        return []
    lines = set(stated.splitlines())
    names = [line.split("  ", 1)[1] for line in found.splitlines() if line not in lines]
    return [f"Version {version}: {name or SUMS_FILE} does not match its checksum." for name in names or [SUMS_FILE]]


def check_tiles(pyramid: Pyramid, version: str) -> list[str]:
    """Faults of the tiles, the card's size of the file and the version against the pyramid's content."""
    card: Card = pyramid.card
    faults = []
    for level, count in enumerate(pyramid.counts):
        for t_row in range(count.height):
            for t_col in range(count.width):
                try:
                    pyramid.tile_bytes(level, t_col, t_row)
                except DamagedError as error:
                    faults.append(f"Version {version}: {error}")
    if (pyramid.folder / PYRAMID_FILE).stat().st_size != card.pyramid_bytes:
        faults.append(f"Version {version}: {PYRAMID_FILE} has not the size its card states.")
    recomputed = version_of(
        pyramid._records, card.stored_size, card.base_size, card.stored_mpp, card.tile_side, card.source.sha256
    )
    if not version == card.version == recomputed:
        faults.append(f"Version {version}: its content makes version {recomputed}.")
    return faults
