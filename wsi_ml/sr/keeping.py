"""Faithful ×40: every tile a network would synthesise is compared with the scan; what falls short is kept as scanned.

The vendor file is read in the confined child (slides/scan_strips.py), tiles are synthesised here, and what comes of
them is durable strip by strip (slides/kept_writer.py): a killed comparison goes on where it stopped. Until the last
tile is done the slide is as it was.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ml.errors import DiskFullError, IngestError, ModelOutputError
from wsi_ml.geometry import Region
from wsi_ml.slides import header
from wsi_ml.slides.ingest import DEFAULT_LIMITS, WAIT_S, Progress, ProgressCallback
from wsi_ml.slides.kept import KEPT_FOLDER, KeptFacts, KeptIdentity, KeptTiles, encode_kept
from wsi_ml.slides.kept_writer import KeptWriter, Outcome
from wsi_ml.slides.library import MODELS_FOLDER, STAGING_FOLDER, Library, utc_now
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.slides.sandbox import DISK_FULL_ERRNO, Limits
from wsi_ml.slides.scan_strips import ScanOrder, Strip, scan_strips
from wsi_ml.slides.source_files import check_file
from wsi_ml.slides.staging import held, sweep, try_lock
from wsi_ml.slides.tiles import best_upscaler
from wsi_ml.sr.fidelity import DEFAULT_FLOOR, SERVED_TEXT, served_fidelity
from wsi_ml.sr.synthesis import DecodedTiles, TileKey, check_output, finish_tile, tile_input
from wsi_ml.sr.upscaler import Upscaler, available_upscalers, open_upscaler

LOCK_FILE = "lock"
TILES_AT_ONCE = 16
"""Tiles an upscaler gets in one batch."""
DECODED_BYTES = 128 << 20
LEAST_FREE_BYTES = 128 << 20
"""Room for the scratch files and the first strips, asked for before any work."""
FAILED_FIDELITY = 0.0
"""Stands for a tile of which the network made no usable picture: it is kept whatever the floor."""
CPU_S_PER_TILE = 2
DISK_FULL = (
    "The disk is full: the slide is there, without kept tiles; free some space and run the same command again, "
    "it goes on where it stopped."
)


@dataclass(frozen=True)
class KeepResult:
    """What came of comparing a slide version with its scan."""

    facts: KeptFacts
    created: bool
    """False when the same comparison had been made before."""
    seconds: float


def check_floor(floor: float) -> float:
    """`floor` if it can be one: above 0, at most 1; raises IngestError."""
    if not (math.isfinite(floor) and 0 < floor <= 1):
        raise IngestError(f"--floor {floor:g} is no SSIM: give a value above 0 and at most 1, such as {DEFAULT_FLOOR}.")
    return floor


def keep_tiles(
    path: Path,
    library: Library,
    slide_id: str,
    version: str,
    floor: float,
    *,
    upscaler: Upscaler | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback = lambda progress: None,
) -> KeepResult:
    """Compare every synthesised ×40 tile of a slide version with its scan and keep the scan's where SSIM < `floor`.

    `path` is the very file the version was made from (`ingest` has just hashed it); `upscaler` defaults to the network
    that `auto` shows on this slide. Kept tiles of an earlier comparison are replaced in one step. Raises IngestError
    for a ×20 scan, another file or a slide no network is meant for, DiskFullError, RemovedError, or
    ModelUnavailableError; the slide is then as it was, and the work done is kept for the next try.
    """
    pyramid = library.pyramid(slide_id, version)
    check_floor(floor)
    if not pyramid.card.source.halvings:
        raise IngestError("The scan is no finer than what is stored: it has no ×40 tiles to compare or keep.")
    upscaler = upscaler or _network_for(pyramid, library)
    try:
        return _Keeping(path, library, pyramid, floor, upscaler, limits, progress).run()
    except OSError as error:
        if error.errno in DISK_FULL_ERRNO:
            raise DiskFullError(DISK_FULL) from error
        library.folder(slide_id, version)  # names a removal where that is the cause
        raise IngestError(
            f"The slide is there, without kept tiles: {error.strerror}; run the command again."
        ) from error


def _network_for(pyramid: Pyramid, library: Library) -> Upscaler:
    """The network that `auto` shows on a slide, opened; raises IngestError where there is none."""
    folders = (library.root / MODELS_FOLDER,)
    card = best_upscaler(available_upscalers(folders), pyramid.card.stored_mpp)
    if card is None:
        raise IngestError(
            f"No super-resolution network is meant for {pyramid.card.stored_mpp:.4g} µm per stored pixel, so there is "
            "nothing to compare; the slide is there without kept tiles."
        )
    return open_upscaler(card.name, folders=folders)


class _Keeping:
    """One run of `keep_tiles`."""

    def __init__(
        self,
        path: Path,
        library: Library,
        pyramid: Pyramid,
        floor: float,
        upscaler: Upscaler,
        limits: Limits,
        progress: ProgressCallback,
    ):
        self.path, self.library, self.pyramid, self.floor = path, library, pyramid, floor
        self.upscaler, self.limits, self.progress = upscaler, limits, progress
        self.card = pyramid.card
        model = upscaler.card
        self.identity = KeptIdentity(self.card.version, model.name, model.sha256, floor, SERVED_TEXT)
        self.folder = pyramid.folder / KEPT_FOLDER
        self.decoded = DecodedTiles(DECODED_BYTES)
        self.started = time.monotonic()

    def run(self) -> KeepResult:
        """The whole comparison; the lock on the version's folder of kept tiles is held."""
        self.folder.mkdir(mode=0o750, exist_ok=True)
        with self._locked():
            if self.library.kept_key(self.card.version) == self.identity.key:
                tiles = self.library.kept_tiles(self.card.version)
                if tiles is not None:
                    return self._result(tiles.facts, created=False)
            self._sweep()
            path = self.folder / self.identity.file_name
            facts = KeptTiles(path).facts if path.is_file() else self._make()
            self.library.publish_kept(self.card.version, self.identity.key)
            return self._result(facts, created=True)

    def _make(self) -> KeptFacts:
        """Compare what is not compared yet, then complete the file."""
        check_file(self.path)
        header.vet(self.path)
        self._check_room()
        staging = self.library.root / STAGING_FOLDER
        sweep(staging)
        with (
            KeptWriter(self.folder, self.identity, self.card.base_size, self.card.tile_side) as writer,
            held(staging, f"keep-{self.identity.key[:32]}") as scratch,
            ThreadPoolExecutor(2, "ocular-keep") as pool,
        ):
            if scratch is None:
                raise IngestError("Another process is comparing this slide; run the command again when it is done.")
            self._tell(writer.done, writer.tiles, writer.done)
            if writer.done < writer.tiles:
                first = writer.done
                order = ScanOrder(self.path, self._given_mpp(), self.card.base_size, self.card.tile_side, first)

                def use(strip: Strip, scan: np.ndarray) -> None:
                    writer.add(self._outcomes(strip, scan, pool))
                    self._tell(writer.done, writer.tiles, first)

                cpu_s = 120 + CPU_S_PER_TILE * writer.tiles
                scan_strips(order, scratch, use, self.limits, cpu_s)
            return writer.finish(utc_now())

    def _outcomes(self, strip: Strip, scan: np.ndarray, pool: ThreadPoolExecutor) -> list[Outcome]:
        """What comes of the tiles of one strip, in order."""
        outcomes: list[Outcome] = []
        for start in range(0, strip.tiles, TILES_AT_ONCE):
            numbers = range(start, min(strip.tiles, start + TILES_AT_ONCE))
            keys = [self._key(strip.t_col + number, strip.t_row) for number in numbers]
            inputs = [tile_input(self.pyramid, self.upscaler.card, key, self.decoded) for key in keys]
            made = upscaled_tiles(self.upscaler, [rgb for rgb, _ in inputs])
            side = self.card.tile_side
            scans = [scan[:, number * side : (number + 1) * side] for number in numbers]
            crops = [crop for _, crop in inputs]
            outcomes += pool.map(self._outcome, keys, made, crops, scans)
        return outcomes

    def _outcome(self, key: TileKey, upscaled: np.ndarray | None, crop: Region, scan: np.ndarray) -> Outcome:
        """Whether one tile, as it would be served, comes near enough to the scan's."""
        data = encode_kept(scan)
        if upscaled is None:
            return Outcome(FAILED_FIDELITY, len(data), data)
        value = served_fidelity(finish_tile(key, upscaled, crop), scan)
        return Outcome(value, len(data), data if value < self.floor else None)

    def _key(self, t_col: int, t_row: int) -> TileKey:
        return TileKey(self.card.version, self.identity.model, self.identity.model_sha256, t_col, t_row)

    def _given_mpp(self) -> float | None:
        return self.card.source.l0_mpp if self.card.source.mpp_given else None

    # -- around the work -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock on this version's kept tiles, waiting for it; a killed process lets go of it."""
        lock = self.folder / LOCK_FILE
        while (descriptor := try_lock(lock)) is None:
            self.progress(Progress("wait", 0, 1, 0.0, "another process is comparing the same slide"))
            time.sleep(WAIT_S)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            os.close(descriptor)

    def _sweep(self) -> None:
        """Drop unfinished work of other comparisons (another floor, another model), and files nothing leads to."""
        current = self.library.kept_key(self.card.version)
        spared = {self.identity.key} | ({current} if current else set())
        stems = {self.library.kept_file(self.card.version, key).stem for key in spared}
        for path in self.folder.iterdir():
            if path.name != LOCK_FILE and path.stem not in stems:
                path.unlink(missing_ok=True)

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.library.root).free
        if free < LEAST_FREE_BYTES:
            raise DiskFullError(
                f"The disk of the library has {free >> 20} MB free; comparing needs at least {LEAST_FREE_BYTES >> 20} "
                "MB and what the kept tiles take; the slide is there, without kept tiles."
            )

    def _tell(self, done: int, tiles: int, first: int) -> None:
        seconds = max(1e-6, time.monotonic() - self.started)
        rate = self.card.source.bytes * (done - first) / tiles / 1e6 / seconds
        message = f"comparing {tiles} tiles at ×40 made by {self.identity.model} with the scan, floor {self.floor:g}"
        self.progress(Progress("keep", done, tiles, rate, message))

    def _result(self, facts: KeptFacts, created: bool) -> KeepResult:
        seconds = time.monotonic() - self.started
        self.progress(Progress("done", 1, 1, 0.0, ""))
        return KeepResult(facts, created, seconds)


def upscaled_tiles(upscaler: Upscaler, regions: list[np.ndarray]) -> list[np.ndarray | None]:
    """Upscaled pictures of stored regions, None for each of which the network made none that could be served."""
    try:
        made: list[np.ndarray | None] = [*upscaler.batch(regions)]
    except ModelOutputError:
        made = [_alone(upscaler, rgb) for rgb in regions]
    for number, (rgb, upscaled) in enumerate(zip(regions, made, strict=True)):
        try:
            if upscaled is not None:
                check_output(rgb, upscaled, upscaler.card.scale)
        except ModelOutputError:
            made[number] = None
    return made


def _alone(upscaler: Upscaler, rgb: np.ndarray) -> np.ndarray | None:
    try:
        return upscaler(rgb)
    except ModelOutputError:
        return None
