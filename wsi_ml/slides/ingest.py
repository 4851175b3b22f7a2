"""Ingestion: a vendor file becomes an immutable version in the library, or nothing at all.

The order: vet the header, hash the source, look the result up, convert in a confined child, verify what it wrote,
write the card, rename the folder into place and add the row.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ml.errors import DiskFullError, IngestError
from wsi_ml.geometry import TILE_SIDE, Size, ceil_div, pyramid_sizes
from wsi_ml.slides import header
from wsi_ml.slides.card import CARD_FILE, INDEX_FILE, PYRAMID_FILE, Card, SourceFacts
from wsi_ml.slides.codec import STORE_STEPS, STORE_STEPS_SUBSAMPLING, steps_text
from wsi_ml.slides.library import STAGING_FOLDER, Library, utc_now
from wsi_ml.slides.plan import STORED_MPP, check_mpp
from wsi_ml.slides.pyramid import Pyramid, read_index
from wsi_ml.slides.sandbox import DISK_FULL, DISK_FULL_ERRNO, Child, Limits, Message
from wsi_ml.slides.source_files import SourceFiles, check_file, source_files
from wsi_ml.slides.staging import held, sweep
from wsi_ml.slides.tiff_header import shown_name
from wsi_ml.slides.verify import SUMS_FILE, check_tiles, file_sha256, sums_of, version_of

CONVERTER = "wsi_ml.slides.convert:convert"
REVISION = 2
"""Goes up when the same source would give other pixels, so that it is ingested anew."""
BYTES_PER_PIXEL = 0.8
"""Generous estimate of what a stored pixel takes on disk, all levels together."""
WAIT_S = 0.2
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Progress:
    """One step of an ingestion: `done` of `total` in the phase's own unit, and the speed in MB of source per second."""

    phase: str
    """`check`, `hash` (bytes), `wait`, `convert` (stored pixels), `verify`, `publish`, `done`."""
    done: int
    total: int
    mb_per_s: float
    message: str
    """Facts for the user, such as sizes and µm/px; holds no vendor text."""


@dataclass(frozen=True)
class IngestResult:
    """What an ingestion came to."""

    slide_id: str
    version: str
    name: str
    card: Card
    created: bool
    """False when the library already held this file, ingested with the same parameters."""
    seconds: float


MAX_NAME = 200


def check_name(name: str) -> str:
    """`name` without outer spaces if it can name a slide; raises IngestError for an empty, long or unprintable one."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise IngestError(f"--name must have 1 to {MAX_NAME} printable characters.")
    return name


ProgressCallback = Callable[[Progress], None]


def ingest(
    path: Path | str,
    library_root: Path | str,
    *,
    mpp: float | None = None,
    name: str | None = None,
    dct: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback = lambda progress: None,
) -> IngestResult:
    """Take a whole-slide file into the library in `library_root` (made when missing) and return its slide.

    `mpp` is the scan's µm/px where the file states none or a wrong one; `name` defaults to the file's stem; `dct`
    allows decoding JPEG tiles at half size. All or nothing: raises IngestError or DiskFullError with one sentence and
    leaves nothing behind; a killed ingestion leaves a staging folder that the next one sweeps away.
    """
    try:
        return _Ingestion(Path(path), Library.create(library_root), mpp, name, dct, limits, progress).run()
    except OSError as error:
        if error.errno in DISK_FULL_ERRNO:
            raise DiskFullError(DISK_FULL) from error
        raise IngestError(f"The slide was not ingested: {error.strerror}; nothing was kept.") from error


class _Ingestion:
    """One run of `ingest`: its arguments and what is known so far."""

    def __init__(
        self,
        path: Path,
        library: Library,
        mpp: float | None,
        name: str | None,
        dct: bool,
        limits: Limits,
        progress: ProgressCallback,
    ):
        self.path = path
        self.library = library
        self.staging = library.root / STAGING_FOLDER
        self.mpp = None if mpp is None else check_mpp(mpp)
        self.name = None if name is None else check_name(name)
        self.dct = dct
        self.limits = limits
        self.progress = progress
        self.started = time.monotonic()

    def run(self) -> IngestResult:
        """The whole ingestion, in order."""
        self.progress(Progress("check", 0, 1, 0.0, ""))
        with Child(CONVERTER, self.limits) as child:  # first, so that it imports while the file is vetted and hashed
            sweep(self.staging)
            check_file(self.path)
            files = source_files(self.path, header.vet(self.path))
            sha256 = files.sha256(lambda done, total: self._tell("hash", done, total, done))
            while True:
                if found := self.library.find(self._key(sha256)):
                    return self._result(*found, created=False)
                with held(self.staging, sha256[:32]) as folder:
                    if folder is None:
                        self.progress(Progress("wait", 0, 1, 0.0, "another process is ingesting the same file"))
                        time.sleep(WAIT_S)
                        continue
                    if found := self.library.find(self._key(sha256)):
                        return self._result(*found, created=False)
                    return self._make(child, files, sha256, folder)

    def _make(self, child: Child, files: SourceFiles, sha256: str, folder: Path) -> IngestResult:
        """Convert, verify and publish while the lock on the source is held."""
        slide_id, name = self._slide_for(sha256)
        known: Message = {}
        job = {"path": str(files.path.resolve()), "folder": str(folder.resolve()), "mpp": self.mpp, "dct": self.dct}
        made = child.run(job, lambda message: self._on_message(message, known, files.bytes), _cpu_limit(files))
        self.progress(Progress("verify", 0, 1, 0.0, ""))
        card = self._card(folder, files, sha256, known, made)
        _write(folder / CARD_FILE, json.dumps(card.to_json(), indent=1).encode())
        _write(folder / SUMS_FILE, sums_of(folder, {PYRAMID_FILE: card.pyramid_sha256}).encode())
        if faults := check_tiles(Pyramid(folder), card.version):
            raise IngestError(f"The slide was not ingested: what was written is not what was meant. {faults[0]}")
        self.progress(Progress("publish", 0, 1, 0.0, ""))
        slide_id = self.library.add(folder, card, name, slide_id)
        return self._result(slide_id, card.version, created=True)

    # -- names and keys --------------------------------------------------------------------------------------------

    def _key(self, sha256: str) -> str:
        """Hash of the source and of every parameter that shapes the result."""
        parameters = [
            REVISION,
            sha256,
            self.mpp,
            self.dct,
            STORED_MPP,
            TILE_SIDE,
            STORE_STEPS,
            STORE_STEPS_SUBSAMPLING,
        ]
        return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()

    def _slide_for(self, sha256: str) -> tuple[str | None, str]:
        """(slide that gets the version or None for a new one, its name); raises IngestError where the name is taken."""
        name = self.name or shown_name(self.path.with_suffix(""))[:MAX_NAME]
        if self.name is None and (known := self.library.find_source(sha256)):
            return known, self.library.slide(known).name
        slide = self.library.slide_by_name(name)
        if slide is None:
            return None, name
        if self.name is None:
            raise IngestError(
                f"A slide named “{name}” is already in the library with other content; give --name NAME: a new name "
                "makes a new slide, the name of an existing slide makes a new version of it."
            )
        return slide.id, name

    def _result(self, slide_id: str, version: str, created: bool) -> IngestResult:
        card = self.library.card(slide_id, version)
        seconds = time.monotonic() - self.started
        self._tell("done", 1, 1, card.source.bytes)
        return IngestResult(slide_id, version, self.library.slide(slide_id).name, card, created, seconds)

    # -- the child's messages and its work -------------------------------------------------------------------------

    def _on_message(self, message: Message, known: Message, source_bytes: int) -> None:
        if "facts" in message:
            known.update(message)
            known["text"] = _sentence(message)
            self._check_room(Size(*message["plan"]["stored_size"]))
            self._tell("convert", 0, 1, 0, known["text"])
        else:
            done, total = int(message["done"]), int(message["total"])
            self._tell("convert", done, total, source_bytes * done / total, known.get("text", ""))

    def _check_room(self, stored_size: Size) -> None:
        """Refuse early when the disk has less than twice what the pyramid will take."""
        estimate = int(stored_size.width * stored_size.height * BYTES_PER_PIXEL) + (1 << 20)
        free = shutil.disk_usage(self.library.root).free
        if free < 2 * estimate:
            raise DiskFullError(
                f"The disk of the library has {free >> 20} MB free and this slide may need {2 * estimate >> 20} MB; "
                "free some space and ingest it again."
            )

    def _card(self, folder: Path, files: SourceFiles, sha256: str, known: Message, made: Message) -> Card:
        """The card of what the child made, from what it reported and from the files themselves."""
        facts, plan = known["facts"], known["plan"]
        stored_size, base_size = Size(*plan["stored_size"]), Size(*plan["base_size"])
        records = read_index(folder / INDEX_FILE, tile_count(stored_size))
        source = SourceFacts(
            sha256=sha256,
            bytes=files.bytes,
            vendor=facts["vendor"],
            l0_size=Size(*facts["l0_size"]),
            l0_mpp=plan["l0_mpp"],
            mpp_given=plan["mpp_given"],
            objective_power=facts["objective_power"],
            l0_bounds_offset=(plan["l0_bounds"][0], plan["l0_bounds"][1]),
            level=plan["scan_level"],
            halvings=plan["halvings"],
        )
        return Card(
            version=version_of(records, stored_size, base_size, plan["stored_mpp"], TILE_SIDE, sha256),
            stored_size=stored_size,
            base_size=base_size,
            stored_mpp=plan["stored_mpp"],
            levels=pyramid_sizes(stored_size),
            encoding=steps_text(),
            kernel=made["kernel"],
            icc=made["icc"],
            source=source,
            pyramid_bytes=(folder / PYRAMID_FILE).stat().st_size,
            pyramid_sha256=file_sha256(folder / PYRAMID_FILE),
            ingest_key=self._key(sha256),
            created=utc_now(),
            associated=made["associated"],
        )

    def _tell(self, phase: str, done: int, total: int, source_bytes: float, message: str = "") -> None:
        seconds = max(1e-6, time.monotonic() - self.started)
        self.progress(Progress(phase, done, total, source_bytes / 1e6 / seconds, message))


def _cpu_limit(files: SourceFiles) -> int:
    """CPU seconds a conversion may take: many times what the slowest format needs for a file of this size."""
    return 120 + files.bytes // 100_000


def _sentence(message: dict[str, Any]) -> str:
    """Sizes and µm/px of scan and stored plane, for the progress bar."""
    plan = message["plan"]
    _, _, width, height = plan["l0_bounds"]
    stored_width, stored_height = plan["stored_size"]
    return (
        f"{width} × {height} px at {plan['l0_mpp']:.4g} µm/px → "
        f"{stored_width} × {stored_height} px at {plan['stored_mpp']:.4g} µm/px"
    )


def tile_count(stored_size: Size) -> int:
    """Number of tiles in all levels of a stored plane."""
    return sum(ceil_div(w, TILE_SIDE) * ceil_div(h, TILE_SIDE) for w, h in pyramid_sizes(stored_size))


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
