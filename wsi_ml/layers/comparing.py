"""Two layers to a `Comparison`: read block by block in bounded memory, kept as a file, cut to a view on request."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_ml.errors import BadRequestError
from wsi_ml.layers.columns import NO_SCORE, UNIT
from wsi_ml.layers.compare import MODES, BoxAreas, Comparison, Selection, Side
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.layer import BaseBox, Layer
from wsi_ml.layers.overlaps import Outlines, covered_areas, in_box, overlapping, own_parts
from wsi_ml.layers.store import LayerStore
from wsi_ml.metrics.segmentation import Pairs

FOLDER, LOCK_FILE = "comparisons", "making.lock"
SIDES = ("truth", "prediction")
FORMAT = 1
THREADS = 2
_BLOCKS_KEPT = 48
_COLUMNS = ("classes", "scores", "areas", "own_areas", "boxes")


class LayerOutlines:
    """The outlines of a features file, found by box; the last blocks read stay in memory."""

    def __init__(self, file: FeaturesFile, classes: Sequence[str], mode: str):
        self._file = file
        self._boxes = np.array([block.box for block in file.blocks], np.float64).reshape(-1, 4)
        self._class_of = np.array([classes.index(name) for name in file.class_names], np.uint16)
        self._mode = mode
        self.block = lru_cache(_BLOCKS_KEPT)(self._block)

    def __len__(self) -> int:
        return self._file.count

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return len(self._boxes)

    def side(self) -> Side:
        """Columns of all features; `own_areas` are still zero."""
        count = len(self)
        side = Side(
            np.zeros(count, np.uint16),
            np.full(count, NO_SCORE, np.uint16),
            np.zeros(count),
            np.zeros(count),
            np.zeros((count, 4)),
        )
        for at in range(self.block_count):
            columns = self._file.block(at)
            numbers = columns.numbers
            side.classes[numbers] = self._class_of[columns.class_numbers]
            side.scores[numbers] = columns.scores
            side.boxes[numbers] = columns.boxes / UNIT
            side.areas[numbers] = shapely.area(self.block(at).geometry)
        return side

    def around(self, box: Sequence[float]) -> Outlines:
        """Outlines whose bounds meet a closed box of base-plane pixels."""
        meets = np.flatnonzero(_meets(self._boxes, box))
        blocks = [self.block(int(at)) for at in meets]
        if not blocks:
            empty = np.zeros(0, np.int64)
            return Outlines(empty, np.zeros(0, object), empty, empty)
        joined = Outlines(
            *(np.concatenate([getattr(each, name) for each in blocks]) for name in Outlines.__annotations__)
        )
        return joined.take(_meets(shapely.bounds(joined.geometry), box))

    def _block(self, at: int) -> Outlines:
        columns = self._file.block(at)
        geometry = columns.geometries()
        # Sixteenths of a pixel can make a hair-thin outline cross itself; areas of such are not defined.
        invalid = ~shapely.is_valid(geometry)
        geometry[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
        group = self._class_of[columns.class_numbers].astype(np.int64)
        if self._mode == "any":
            group[:] = 0
        return Outlines(columns.numbers.astype(np.int64), geometry, group, columns.scores.astype(np.int64))


def mode_of(truth: Layer, prediction: Layer, asked: str | None) -> str:
    """The mode asked for, or `match` where the layers share a class name and `any` where they share none.

    Raises BadRequestError for a mode that does not exist.
    """
    if asked is None:
        return "match" if truth.colors.keys() & prediction.colors.keys() else "any"
    if asked not in MODES:
        raise BadRequestError(f"“classes” is one of {', '.join(MODES)}.")
    return asked


class Comparisons:
    """The comparisons of a library's layers; made once, kept in LIBRARY/comparisons and, the last few, in memory."""

    def __init__(self, store: LayerStore):
        self.store = store
        self.folder = Path(store.path).parent / FOLDER
        self.of = lru_cache(4)(self._of)

    def between(
        self, slide_id: str, truth_id: str, prediction_id: str, mode: str | None = None
    ) -> tuple[Layer, Layer, Comparison]:
        """Two layers of a slide and their comparison.

        Raises UnknownLayerError, and BadRequestError for layers of two versions or a wrong mode.
        """
        truth, prediction = (self.store.layer_of(slide_id, each) for each in (truth_id, prediction_id))
        if truth.version != prediction.version:
            raise BadRequestError("The layers belong to two versions of the slide; compare layers of one version.")
        return truth, prediction, self.of(truth_id, prediction_id, mode_of(truth, prediction, mode))

    def areas(self, truth_id: str, prediction_id: str, comparison: Comparison, box: BaseBox) -> BoxAreas:
        """Areas of a comparison as far as they lie in a box."""
        truth, prediction = (self._outlines(each, comparison) for each in (truth_id, prediction_id))
        return box_areas(truth, prediction, comparison, box)

    def _of(self, truth_id: str, prediction_id: str, mode: str) -> Comparison:
        path = self.folder / f"{truth_id}-{prediction_id}-{mode}.npz"
        files = [self.store.features_file(each) for each in (truth_id, prediction_id)]
        classes = tuple(sorted(set(files[0].class_names) | set(files[1].class_names)))
        if (kept := _load(path, mode, classes)) is not None:
            return kept
        # The panel asks for figures, pairs and curve at once: one request measures, in whatever process; others wait.
        with self._making():
            if (kept := _load(path, mode, classes)) is not None:
                return kept
            truth, prediction = (LayerOutlines(each, classes, mode) for each in files)
            made = measure(truth, prediction, mode, classes)
            self._sweep()
            _save(path, made)
        return made

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """Let one thread of one process at a time make comparisons of this library."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / LOCK_FILE).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _outlines(self, layer_id: str, comparison: Comparison) -> LayerOutlines:
        return LayerOutlines(self.store.features_file(layer_id), comparison.classes, comparison.mode)

    def _sweep(self) -> None:
        """Remove what was kept of layers that are gone."""
        known = self.store.layer_ids()
        for path in self.folder.glob("*.npz"):
            if not set(path.stem.split("-")[:2]) <= known:
                path.unlink(missing_ok=True)


def figures(
    truth: Layer, comparison: Comparison, selection: Selection, base_mpp: float, areas: BoxAreas | None = None
) -> dict[str, Any]:
    """Everything to be said at one threshold, as plain JSON values; areas in µm².

    `agreement_with_a_model` is true where the truth layer is itself a prediction: then nothing here proves accuracy.
    """
    facts: dict[str, Any] = {"iou": selection.iou, "min_score": selection.min_score, "mode": comparison.mode}
    facts["agreement_with_a_model"] = truth.kind == "prediction"
    found = comparison.scores(selection, areas)
    for row in (*found["classes"].values(), found["overall"]):
        for side in SIDES:
            row[f"{side}_area_um2"] = row.pop(f"{side}_area") * base_mpp**2
    return facts | found


def measure(truth: LayerOutlines, prediction: LayerOutlines, mode: str, classes: tuple[str, ...]) -> Comparison:
    """Compare two layers; memory holds a few blocks and the numbers."""
    truth_side, prediction_side = truth.side(), prediction.side()
    overlapped = np.zeros(len(truth), bool)
    covered = np.zeros(len(prediction))

    def measure_truths(at: int) -> None:
        here = truth.block(at)
        parts, overlaps = own_parts(here, truth.around(_bounds(here.geometry)))
        truth_side.own_areas[here.number] = shapely.area(parts)
        overlapped[here.number] = overlaps

    def measure_predictions(at: int) -> tuple[np.ndarray, ...]:
        here = prediction.block(at)
        box = _bounds(here.geometry)
        parts, _ = own_parts(here, prediction.around(box))
        near = truth.around(box)
        found = overlapping(here.geometry, near.geometry)
        prediction_side.own_areas[here.number] = shapely.area(parts)
        covered[here.number] = covered_areas(parts, here, near, overlapped[near.number], found)
        return near.number[found.other], here.number[found.at], found.area

    # Shapely lets other threads run while it works; each block writes its own rows.
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(measure_truths, range(truth.block_count)))
        rows = list(pool.map(measure_predictions, range(prediction.block_count)))
    pairs = _pairs(rows, truth_side, prediction_side)
    return Comparison(mode, classes, truth_side, prediction_side, pairs, covered)


def box_areas(truth: LayerOutlines, prediction: LayerOutlines, comparison: Comparison, box: BaseBox) -> BoxAreas:
    """Own areas inside a box: those of features wholly inside as they are, those across its edge cut."""
    areas = BoxAreas(
        _inside(comparison.truth, comparison.truth.own_areas, box),
        _inside(comparison.prediction, comparison.prediction.own_areas, box),
        _inside(comparison.prediction, comparison.covered_areas, box),
    )
    across = _across(truth.around(box), box)
    near = truth.around(_bounds(across.geometry)) if len(across) else across
    parts, _ = own_parts(across, near)
    areas.truth[across.number] = shapely.area(in_box(parts, box))
    across = _across(prediction.around(box), box)
    if len(across):
        bounds = _bounds(across.geometry)
        parts, _ = own_parts(across, prediction.around(bounds))
        parts = in_box(parts, box)
        near = truth.around(bounds)
        found = overlapping(across.geometry, near.geometry)
        # Whether truths overlap each other is not at hand here; to take it for granted is right, only slower.
        overlapped = np.ones(len(near), bool)
        areas.prediction[across.number] = shapely.area(parts)
        areas.covered[across.number] = covered_areas(parts, across, near, overlapped, found)
    return areas


def _inside(side: Side, areas: np.ndarray, box: BaseBox) -> np.ndarray:
    """Areas of the features whose bounds lie wholly in the box, zero for all others."""
    low, high = np.array([box.x0, box.y0]), np.array([box.x1, box.y1])
    inside = (side.boxes[:, :2] >= low).all(axis=1) & (side.boxes[:, 2:] <= high).all(axis=1)
    return np.where(inside, areas, 0.0)


def _across(outlines: Outlines, box: BaseBox) -> Outlines:
    bounds = shapely.bounds(outlines.geometry).reshape(-1, 4)
    low, high = np.array([box.x0, box.y0]), np.array([box.x1, box.y1])
    return outlines.take((bounds[:, :2] < low).any(axis=1) | (bounds[:, 2:] > high).any(axis=1))


def _pairs(rows: list[tuple[np.ndarray, ...]], truth: Side, prediction: Side) -> Pairs:
    # A row of none, so that there are columns also where no block has a pair.
    none = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    t, p, shared = (np.concatenate(column) for column in zip(none, *rows, strict=True))
    return Pairs.sorted(t, p, shared, truth.areas[t] + prediction.areas[p] - shared)


def _meets(boxes: np.ndarray, box: Sequence[float]) -> np.ndarray:
    boxes = boxes.reshape(-1, 4)
    return (boxes[:, 0] <= box[2]) & (boxes[:, 2] >= box[0]) & (boxes[:, 1] <= box[3]) & (boxes[:, 3] >= box[1])


def _bounds(geometries: np.ndarray) -> BaseBox:
    return BaseBox(*shapely.total_bounds(geometries).tolist())


def _save(path: Path, comparison: Comparison) -> None:
    """Keep a comparison; of two writers at once either file is right, and no reader sees half of one."""
    arrays = {f"{side}_{name}": getattr(getattr(comparison, side), name) for side, name in _names()}
    arrays |= {f"pairs_{name}": getattr(comparison.pairs, name) for name in Pairs.__annotations__}
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, format=FORMAT, covered=comparison.covered_areas, **arrays)
        Path(temporary).replace(path)
    except OSError:
        # A kept comparison only saves time: on a full disk it is made again.
        Path(temporary).unlink(missing_ok=True)


def _load(path: Path, mode: str, classes: tuple[str, ...]) -> Comparison | None:
    """A comparison that was kept; None where there is none, or a damaged one, or one of another format."""
    try:
        # NumPy leaves a damaged file open that it has opened itself.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            if int(kept["format"]) != FORMAT:
                return None
            truth, prediction = (Side(*(kept[f"{side}_{name}"] for name in _COLUMNS)) for side in SIDES)
            pairs = Pairs(*(kept[f"pairs_{name}"] for name in Pairs.__annotations__))
            return Comparison(mode, classes, truth, prediction, pairs, kept["covered"])
    except (FileNotFoundError, EOFError, zipfile.BadZipFile, KeyError, ValueError):
        return None


def _names() -> Iterator[tuple[str, str]]:
    return ((side, name) for side in SIDES for name in _COLUMNS)
