"""A model and a slide to a layer: checked before any work, resumed after any end, published once."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from wsi_ml.errors import BadRequestError, NotPredictableError
from wsi_ml.geometry import Region, Size, ceil_div
from wsi_ml.inference import work
from wsi_ml.inference.card import PredictorCard, read_card
from wsi_ml.inference.grid import Grid, batch_size, chosen_grid, make_grid, step_of
from wsi_ml.inference.maps import HeldMaps, StitchedMaps
from wsi_ml.inference.parameters import TISSUE, PredictParameters, check_parameters
from wsi_ml.inference.predictor import (
    OWN_TISSUE,
    Choosing,
    Opener,
    Predictor,
    Shared,
    SlideFitted,
    WholeSlide,
    find_card,
    open_predictor,
)
from wsi_ml.inference.slide import Cancelled, Progress, compute_windows, refuse_cancelled
from wsi_ml.inference.tissue import everything, find_tissue
from wsi_ml.inference.trust_predictor import TASK, TrustPredictor, fitted, is_trust
from wsi_ml.inference.vectorise import vectorise
from wsi_ml.inference.window_file import WindowFile
from wsi_ml.layers.features_format import FeaturesFacts
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import BaseBox, Layer, NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.card import Card
from wsi_ml.slides.kept import FidelityGrid
from wsi_ml.slides.library import MODELS_FOLDER, Library, utc_now
from wsi_ml.slides.pyramid import Pyramid

ENGINE_CODE = 1
"""Part of every key: raised when the way maps are stitched or drawn changes the features."""
KEY_DIGITS = 32
STAGED_FILE = "layer.features"
LOCAL = "local"


@dataclass(frozen=True)
class PredictRequest:
    """What to predict. `region` is in base-plane pixels; None is the whole slide."""

    slide_id: str
    model: str | Path
    """Name of a model; a `Path` is the file of a card, which only code and the command line can give."""
    version: str | None = None
    """Slide version; None is the current one."""
    region: BaseBox | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    """See `wsi_ml.inference.parameters.HELP`."""
    name: str | None = None
    """Name of the layer; None is that of the model."""
    preview: bool = False
    """A layer that a whole one will replace."""


CohortProgress = Callable[[PredictRequest, int, int, str], None]
"""As `Progress`, with the request that it is about."""


@dataclass(frozen=True)
class Prediction:
    """A checked request: nothing is left to refuse but a slide without tissue."""

    request: PredictRequest
    slide_id: str
    version: str
    card: PredictorCard
    slide: Card
    parameters: PredictParameters
    base_region: tuple[int, int, int, int] | None
    """Left, top, right, bottom in whole base-plane pixels, inside the slide; None is all of it."""
    key: str
    fidelity: FidelityGrid | None = None
    """For a trust map: how faithful the slide's tiles are to the scan, where that is known."""

    @property
    def stored_region(self) -> Region:
        """The region in the stored plane, rounded outwards."""
        if self.base_region is None:
            return Region(0, 0, *self.slide.stored_size)
        x0, y0, x1, y1 = self.base_region
        width, height = ceil_div(x1, 2) - x0 // 2, ceil_div(y1, 2) - y0 // 2
        return Region(x0 // 2, y0 // 2, width, height)

    @property
    def layer_name(self) -> str:
        """Name of the layer."""
        return self.request.name or f"{self.card.name}{' (preview)' if self.request.preview else ''}"


@dataclass(frozen=True)
class Staged:
    """A finished features file that waits in the work folder for its publication."""

    path: Path
    facts: FeaturesFacts
    provenance: dict[str, Any]


def predict(
    library_root: Path | str,
    request: PredictRequest,
    *,
    progress: Progress = lambda done, total, unit: None,
    cancelled: Cancelled = lambda: False,
    before_publish: Callable[[], None] = lambda: None,
    device: str = "auto",
    threads: int = 0,
    opener: Opener = open_predictor,
) -> Layer:
    """Run a model over a slide or a region and publish the layer; the same again returns it without work.

    `progress` is told (done, total, unit), `cancelled` asked several times a second, `before_publish` called last and
    may raise to stop. A process that ends early is gone on from by the next; of two at once one works and both return
    the layer. Raises UnknownSlideError, UnknownVersionError, UnknownModelError, ModelUnavailableError, BadRequestError
    (parameters), NotPredictableError (µm/px, region, no tissue), PredictionCancelledError, ModelOutputError,
    DamagedError, DiskFullError.
    """
    root = Path(library_root)
    prediction = prepare(root, request)
    store = LayerStore(root)
    found = store.layer_by_key(prediction.key)
    if found is not None:
        return found
    work.sweep(root / work.WORK_FOLDER)
    with work.held(root / work.WORK_FOLDER, prediction.key, cancelled) as folder:
        found = store.layer_by_key(prediction.key)
        if found is None:
            predictor = open_for(root, prediction, device, threads, opener)
            staged = stage(root, prediction, folder, predictor, progress=progress, cancelled=cancelled)
            refuse_cancelled(cancelled)
            before_publish()
            found = publish(store, prediction, staged)
        shutil.rmtree(folder, ignore_errors=True)
        return found


def prepare(library_root: Path | str, request: PredictRequest) -> Prediction:
    """Check a request against library, model and slide without computing anything; raises as `predict` does."""
    library = Library(library_root)
    slide = library.slide(request.slide_id)
    facts = library.card(slide.id, request.version)
    card, fidelity = fitted(_card_of(Path(library_root), request.model), library, facts.version)
    parameters = check_parameters(request.parameters)
    if card.about.get("tissue") == OWN_TISSUE and (parameters.tissue != TISSUE[0] or parameters.overlap):
        raise BadRequestError(f"{card.name} tells the patches that it was trained for: no tissue=all and no overlap.")
    step_of(card, parameters.overlap)
    low, high = card.mpp_range
    # Slides say 0.5021 where they mean 0.5: the ends of a range are not that sharp.
    if not low - 1e-3 <= facts.stored_mpp <= high + 1e-3:
        raise NotPredictableError(
            f"The model {card.name} is made for {low:g} to {high:g} µm/px and this slide is stored at "
            f"{facts.stored_mpp:.4g} µm/px; choose a model for that (`ocular models`)."
        )
    base_region = check_region(request.region, facts.base_size)
    key = prediction_key(slide.id, facts.version, card, parameters, base_region, request.preview)
    return Prediction(request, slide.id, facts.version, card, facts, parameters, base_region, key, fidelity)


def prediction_key(
    slide_id: str,
    version: str,
    card: PredictorCard,
    parameters: PredictParameters,
    base_region: tuple[int, int, int, int] | None,
    preview: bool,
) -> str:
    """Hex key of everything that decides the features of a layer."""
    parts = [ENGINE_CODE, slide_id, version, card.digest, parameters.chosen(), base_region, preview]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]


def check_region(region: BaseBox | None, base_size: Size) -> tuple[int, int, int, int] | None:
    """A region in whole base-plane pixels inside the slide, rounded outwards; None where it is all of the slide.

    Raises BadRequestError for numbers that make no box, NotPredictableError for a box off the slide.
    """
    if region is None:
        return None
    if not all(math.isfinite(each) for each in region) or region[0] >= region[2] or region[1] >= region[3]:
        raise BadRequestError(f"The region must be x0,y0,x1,y1 with x0 < x1 and y0 < y1, not {tuple(region)}.")
    x0, y0 = (max(0, math.floor(each)) for each in region[:2])
    x1, y1 = (min(side, math.ceil(each)) for side, each in zip(base_size, region[2:], strict=True))
    if x0 >= x1 or y0 >= y1:
        raise NotPredictableError(
            f"The region lies off the slide, which is {base_size.width} × {base_size.height} px at ×40."
        )
    whole = (x0, y0, x1, y1) == (0, 0, *base_size)
    return None if whole else (x0, y0, x1, y1)


def open_for(
    library_root: Path, prediction: Prediction, device: str = "auto", threads: int = 0, opener: Opener = open_predictor
) -> Predictor:
    """The predictor of a prediction, loaded."""
    return opener(prediction.request.model, device=device, threads=threads, folders=model_folders(library_root))


def model_folders(library_root: Path | str) -> tuple[Path, ...]:
    """Where a library's users keep their own models."""
    return (Path(library_root) / MODELS_FOLDER,)


def stage(
    library_root: Path,
    prediction: Prediction,
    folder: Path,
    predictor: Predictor,
    *,
    progress: Progress = lambda done, total, unit: None,
    cancelled: Cancelled = lambda: False,
    engine: str = LOCAL,
) -> Staged:
    """Compute all windows and draw the features file in the work folder, which the caller holds."""
    started = utc_now()
    refuse_cancelled(cancelled)
    pyramid = Library(library_root).pyramid(prediction.slide_id, prediction.version)
    if isinstance(predictor, TrustPredictor):
        predictor = predictor.fitted(prediction.card, pyramid.card.stored_size, prediction.fidelity)
    elif isinstance(predictor, SlideFitted):
        predictor = predictor.for_slide(pyramid)
    grid = windows_of(pyramid, prediction, predictor)
    numbers = predictor.numbers if isinstance(predictor, Shared) else "cpu"
    batch = prediction.parameters.batch or batch_size(prediction.card, numbers)
    side = prediction.card.map_side
    shape = predictor.part_shape if isinstance(predictor, WholeSlide) else (len(prediction.card.channels), side, side)
    with WindowFile(folder, _plan(prediction, grid, numbers), len(grid), batch, shape) as windows:
        compute_windows(pyramid, predictor, grid, windows, progress=progress, cancelled=cancelled)
        drawing = time.monotonic()
        maps = _stitched(prediction, predictor, grid, windows)
        facts = _draw(maps, prediction, folder / STAGED_FILE, progress, cancelled)
        seconds = windows.active_s + time.monotonic() - drawing
    facts_of_run = {"engine": engine, "numbers": numbers, "started": started, "seconds": round(seconds, 3)}
    provenance = _provenance(prediction) | facts_of_run | {"windows": len(grid), "batch": batch}
    return Staged(folder / STAGED_FILE, facts, provenance)


def publish(store: LayerStore, prediction: Prediction, staged: Staged) -> Layer:
    """Put a staged layer into the library, once for its key."""
    new = NewLayer(prediction.slide_id, prediction.version, prediction.layer_name, "prediction", staged.provenance)
    return store.publish_file(new, staged.path, staged.facts, prediction.card.colors, prediction.key)


def windows_of(pyramid: Pyramid, prediction: Prediction, predictor: Predictor) -> Grid:
    """The windows to compute; raises NotPredictableError where there are none."""
    if isinstance(predictor, Choosing):
        size, own = prediction.slide.stored_size, predictor.windows
        drawn = _not_empty(chosen_grid(prediction.card, size, prediction.stored_region, own), prediction)
        # What tells from the whole slide needs all of it, whatever region is drawn.
        whole = isinstance(predictor, WholeSlide)
        return chosen_grid(prediction.card, size, Region(0, 0, *size), own) if whole else drawn
    all_of_it = "all" in (prediction.parameters.tissue, prediction.card.about.get("tissue"))
    tissue = everything(pyramid) if all_of_it else find_tissue(pyramid)
    size, region = prediction.slide.stored_size, prediction.stored_region
    return _not_empty(make_grid(prediction.card, size, region, tissue, prediction.parameters.overlap), prediction)


def _stitched(prediction: Prediction, predictor: Predictor, grid: Grid, windows: WindowFile) -> StitchedMaps:
    """The maps of the finished windows."""
    if not isinstance(predictor, WholeSlide):
        return StitchedMaps(grid, windows, prediction.card.stride)
    parts = np.stack([windows.window(number) for number in range(len(grid))])
    told, maps = predictor.whole(grid.windows, parts)
    drawn = replace(grid, windows=grid.windows[told], stored_region=prediction.stored_region)
    return StitchedMaps(drawn, HeldMaps(maps), prediction.card.stride)


def _not_empty(grid: Grid, prediction: Prediction) -> Grid:
    if not len(grid):
        where = "on this slide" if prediction.base_region is None else "in this region"
        raise NotPredictableError(f"No tissue was found {where}; tissue=all looks at every pixel.")
    return grid


def _card_of(library_root: Path, model: str | Path) -> PredictorCard:
    return read_card(model) if isinstance(model, Path) else find_card(model, model_folders(library_root))[0]


def _plan(prediction: Prediction, grid: Grid, numbers: str) -> dict[str, Any]:
    """What decides every byte of the window file: work done under another plan is of no use."""
    windows = hashlib.sha256(grid.windows.tobytes()).hexdigest()
    return {"key": prediction.key, "numbers": numbers, "windows": windows}


def _draw(
    maps: StitchedMaps, prediction: Prediction, path: Path, progress: Progress, cancelled: Cancelled
) -> FeaturesFacts:
    base_size = prediction.slide.base_size
    chosen: Mapping[str, Any] = {**prediction.parameters.chosen(), "stored_mpp": prediction.slide.stored_mpp}
    told = lambda done, total: progress(done, total, "blocks")  # noqa: E731
    with FeaturesWriter(path, prediction.card.drawn, base_size) as writer:
        for batch in vectorise(maps, prediction.card, chosen, base_size, cancelled=cancelled, progress=told):
            writer.add(batch)
        refuse_cancelled(cancelled)
        return writer.finish()


def _provenance(prediction: Prediction) -> dict[str, Any]:
    card = prediction.card
    return {
        "model": card.name,
        "model_sha256": card.sha256,
        "kind": card.kind,
        "parameters": prediction.parameters.chosen(),
        "region": None if prediction.base_region is None else list(prediction.base_region),
        "slide_version": prediction.version,
        "ocular": metadata.version("ocular-wsi"),
        "preview": prediction.request.preview,
        "key": prediction.key,
        **({TASK: card.about[TASK]} if is_trust(card) else {}),
    }
