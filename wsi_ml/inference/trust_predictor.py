"""Trust maps as predictors: `trust-<upscaler>` tells of every part of a slide how far that upscaler can be believed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_ml.geometry import Region, Size, clip
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.slides.kept import FidelityGrid
from wsi_ml.slides.library import Library
from wsi_ml.sr.calibration import Calibration, calibration_from_knots, calibration_of, detail_picture
from wsi_ml.sr.cycle import CELL, cell_means, cycle_cells
from wsi_ml.sr.trust import (
    FULL,
    TRUST_REVISION,
    Band,
    bands_for,
    cells_of_tiles,
    compared_with,
    cycle_bands,
    estimated_bands,
    fidelity_bands,
    names,
    one_hot,
    unknown_bands,
)
from wsi_ml.sr.upscaler import Upscaler, UpscalerCard, available_upscalers, find_upscaler, open_upscaler

PREFIX = "trust-"
TASK = "trust"
CORE = 512
"""Stored pixels on a side that a window tells: two served tiles, so that halos cost little."""
USUAL_MPP = 0.5
GPU_CALLERS = 2
MEASURES = {
    "scan": "structural similarity (SSIM, 7×7 px, mean of the colours, 0 to 1) of each served tile of 512 × 512 pixels "
    "at ×40 with the scan",
    "stored": "cycle error: synthesised pixels made smaller again by the store’s kernel, less the stored pixels, in "
    "grey levels of 255, in cells of 32 × 32 stored pixels",
    "estimated": "mean difference to be expected between synthesised pixels and a scan, estimated in cells of 32 × 32 "
    "stored pixels from how much fine detail (mean absolute Laplacian) lies there, by a table fitted on other slides "
    "whose scan is known; one grey level is 1/255 of the way from black to white. Besides, synthesised pixels are made "
    "smaller again and compared with the stored ones (cycle error)",
}
MEASURES["both"] = f"{MEASURES['scan']}; where the scan is not known, {MEASURES['stored']}"
MEASURES["both-estimated"] = f"{MEASURES['scan']}; where the scan is not known, {MEASURES['estimated']}"
SCORES = {
    "stored": "of a feature: mean SSIM; without a scan 1 less mean cycle error ÷ 25.5 grey levels",
    "estimated": "of a feature: mean SSIM; without a scan 1 less mean estimated difference ÷ 25.5 grey levels (where "
    "the stored pixels are contradicted, mean cycle error)",
}


def trust_card(upscaler: UpscalerCard) -> PredictorCard:
    """Card of the trust map of an upscaler, on a slide whose scan is not known."""
    low, high = upscaler.mpp_range
    calibration = calibration_of(upscaler.trust, upscaler.sha256)
    knots = None if calibration is None else [list(knot) for knot in calibration.knots]
    card = PredictorCard(
        name=PREFIX + upscaler.name,
        kind="dense",
        classes=(),
        channels=(),
        mpp=min(max(USUAL_MPP, low), high),
        mpp_range=(low, high),
        side=CORE + 2 * upscaler.halo,
        halo=upscaler.halo,
        stride=CELL,
        sha256=upscaler.sha256,
        postprocess={"simplify_px": 0.0},
        about={
            "task": TASK, "tissue": "all", "multiple": CELL, "parameters": upscaler.parameters,
            "licence": upscaler.licence, "config": {"revision": TRUST_REVISION, "knots": knots},
            TASK: {"held_out": upscaler.trust.get("held_out", []) if knots else []},
        },
    )  # fmt: skip
    return _banded(card, None)


def _calibration(card: PredictorCard) -> Calibration | None:
    """The calibration that a trust map's card was made with."""
    knots = card.about["config"]["knots"]
    return None if knots is None else calibration_from_knots(knots)


def _banded(card: PredictorCard, grid: FidelityGrid | None) -> PredictorCard:
    """A trust map's card with the bands that can occur, and with what decides them."""
    calibrated = _calibration(card) is not None
    bands, compared = bands_for(grid, calibrated), compared_with(grid, calibrated)
    told = {
        **card.about[TASK],
        "upscaler": card.name.removeprefix(PREFIX),
        "upscaler_sha256": card.sha256,
        "compared": compared,
        "measure": MEASURES[compared],
        "score": SCORES["estimated" if calibrated else "stored"],
        "floor": None if grid is None else grid.floor,
        "bands": [{"name": band.name, "limits": band.limits, "words": band.words} for band in bands],
    }
    config = {**card.about["config"], "fidelity": None if grid is None else _digest(grid)}
    classes = tuple(PredictorClass(band.name, band.color) for band in bands)
    about = {**card.about, "config": config, TASK: told}
    return replace(card, classes=classes, channels=names(bands), about=about)


def _digest(grid: FidelityGrid) -> str:
    """Hex SHA-256 of what a slide's tiles were found to be."""
    return hashlib.sha256(grid.values.astype("<f2").tobytes() + grid.kept.tobytes()).hexdigest()


def trust_cards(folders: Iterable[Path] = ()) -> list[PredictorCard]:
    """Cards of the trust maps of upscalers that ship or lie in `folders`, damaged ones left out; reads JSON only."""
    return [trust_card(card) for card in available_upscalers(folders) if card.kind == "sr"]


def find_trust(name: str, folders: Iterable[Path] = ()) -> tuple[PredictorCard, Path] | None:
    """Card of the trust map of that name, and the file of its upscaler's card; None where there is no such upscaler."""
    folders = tuple(folders)
    card = next((card for card in trust_cards(folders) if card.name == name), None)
    return None if card is None else (card, find_upscaler(name.removeprefix(PREFIX), folders))


def open_trust(file: Path, device: str = "auto", threads: int = 0) -> TrustPredictor:
    """The trust map of the upscaler whose card is `file`, ready to be called; raises as `open_upscaler` does."""
    upscaler = open_upscaler(file, device)
    return TrustPredictor(upscaler, trust_card(upscaler.card), threads)


def is_trust(card: PredictorCard) -> bool:
    """True for the card of a trust map."""
    return card.about.get("task") == TASK


def fitted(card: PredictorCard, library: Library, version: str) -> tuple[PredictorCard, FidelityGrid | None]:
    """A card as it holds for a slide version, with the fidelity of its tiles; any card but a trust map's as it is.

    Fidelity counts only where it was measured with the very weights of the card.
    """
    if not is_trust(card):
        return card, None
    kept = library.kept_tiles(version)
    if kept is None or kept.fidelity.model_sha256 != card.sha256:
        return card, None
    return _banded(card, kept.fidelity), kept.fidelity


def _numbers(upscaler: Upscaler) -> str:
    """What an upscaler computes with, as `Shared.numbers`."""
    device, dtype = getattr(upscaler, "device", None), getattr(upscaler, "dtype", None)
    return "cpu integers" if device is None else f"{device.type} {str(dtype).removeprefix('torch.')}"


def _core(stored_window: Region, halo: int) -> Region:
    """What a window tells."""
    return Region(
        stored_window.x + halo, stored_window.y + halo, stored_window.width - 2 * halo, stored_window.height - 2 * halo
    )


class TrustPredictor:
    """See `wsi_ml.inference.predictor.Predictor` and `Placed`; synthesises only where no scan is known."""

    def __init__(self, upscaler: Upscaler, card: PredictorCard, threads: int = 0):
        self.card = card
        self.upscaler = upscaler
        self.numbers = _numbers(upscaler)
        self._threads = threads
        self._threads_each = 1
        # Of the card and not of the upscaler: a kept upscaler may be older than the calibration in its file.
        self._calibration = _calibration(card)
        self._bands: tuple[Band, ...] = bands_for(None, self._calibration is not None)
        self._size: Size | None = None
        self._known: tuple[FidelityGrid, np.ndarray, np.ndarray] | None = None

    def fitted(self, card: PredictorCard, stored_size: Size, grid: FidelityGrid | None) -> TrustPredictor:
        """The predictor for one slide, with the card that `fitted` gave for it."""
        predictor = TrustPredictor(self.upscaler, card, self._threads)
        predictor._bands = bands_for(grid, predictor._calibration is not None)
        predictor._size = stored_size
        predictor._known = None if grid is None else (grid, *fidelity_bands(grid))
        return predictor

    def callers(self, batches: int) -> int:
        """See `wsi_ml.inference.predictor.Shared`: a core each, for teams of threads wait for each other.

        Only a run of fewer batches than cores shares the cores among them.
        """
        if self.numbers.startswith("cuda"):
            return min(GPU_CALLERS, max(1, batches))
        cores = self._threads or len(os.sched_getaffinity(0))
        count = max(1, min(cores, batches))
        self._threads_each = cores // count
        return count

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """N×side×side×3 → N×bands×16×16 of windows that lie inside a slide whose scan is not known."""
        inside = Region(0, 0, self.card.side, self.card.side)
        return self.at(windows, [inside] * len(windows))

    def at(self, windows: np.ndarray, stored_windows: Sequence[Region]) -> np.ndarray:
        """As the call, for windows at their places in the stored plane, halo included; see `Placed`."""
        cells = [self._fidelity(_core(place, self.card.halo)) for place in stored_windows]
        unknown = [number for number, (_, score) in enumerate(cells) if not score.all()]
        for number, (band, score) in zip(unknown, self._synthesised(windows, stored_windows, unknown), strict=True):
            known_band, known_score = cells[number]
            is_known = known_score > 0
            cells[number] = np.where(is_known, known_band, band), np.where(is_known, known_score, score)
        return np.stack([one_hot(band, score, len(self._bands)) for band, score in cells])

    def _fidelity(self, stored_core: Region) -> tuple[np.ndarray, np.ndarray]:
        """(band, score) of the cells of a window as far as the scan is known; score 0 elsewhere."""
        if self._known is None:
            none = np.zeros((self.card.map_side, self.card.map_side), np.uint8)
            return none, none
        grid, bands, scores = self._known
        band, score = (cells_of_tiles(each, grid.tile_side, stored_core) for each in (bands, scores))
        # Cells beyond the slide are told by nobody and drawn by nobody: they need no pixels.
        size = self._size or Size(stored_core.x_end, stored_core.y_end)
        rows = np.arange(stored_core.y, stored_core.y_end, CELL) >= size.height
        cols = np.arange(stored_core.x, stored_core.x_end, CELL) >= size.width
        score[rows[:, None] | cols[None]] = FULL
        return band, score

    def _synthesised(
        self, windows: np.ndarray, places: Sequence[Region], chosen: Sequence[int]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """(band, score) of the cells of the chosen windows, where no scan is known."""
        inside = [self._inside(places[number]) for number in chosen]
        pixels = [
            windows[number][part.y : part.y_end, part.x : part.x_end]
            for number, part in zip(chosen, inside, strict=True)
        ]
        if hasattr(self.upscaler, "use_threads"):
            self.upscaler.use_threads(self._threads_each)
        made = self.upscaler.batch(pixels)
        return [self._cells(*each) for each in zip(pixels, made, inside, strict=True)]

    def _inside(self, place: Region) -> Region:
        """The part of a window that lies on the slide, in the window: what the upscaler sees when it makes tiles."""
        part = clip(place, self._size) if self._size else place
        return Region(part.x - place.x, part.y - place.y, part.width, part.height)

    def _cells(self, pixels: np.ndarray, made: np.ndarray, part: Region) -> tuple[np.ndarray, np.ndarray]:
        """(band, score) of a window's cells; cells beyond the slide repeat what does not matter."""
        halo, core = self.card.halo, self.card.core
        x, y = max(halo - part.x, 0), max(halo - part.y, 0)
        x_end, y_end = min(halo + core - part.x, part.width), min(halo + core - part.y, part.height)
        cycle = cycle_cells(pixels[y:y_end, x:x_end], made[2 * y : 2 * y_end, 2 * x : 2 * x_end])
        if self._calibration is None:
            band, score = cycle_bands(cycle)
        else:
            # The detail of the halo too, so that cells of neighbouring windows see the same pixels.
            detail = cell_means(detail_picture(pixels)[y:y_end, x:x_end], CELL)
            band, score = estimated_bands(self._calibration(detail), cycle)
        first = len(self._bands) - len(unknown_bands(self._calibration is not None))
        side = self.card.map_side
        missing = ((0, side - band.shape[0]), (0, side - band.shape[1]))
        return np.pad(band + np.uint8(first), missing, mode="edge"), np.pad(score, missing, mode="edge")
