"""Many predictions at once: one after the other in this process, or over the machines of a Ray cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_ml.errors import BadRequestError, EngineUnavailableError, OcularError, PredictionCancelledError
from wsi_ml.inference import work
from wsi_ml.inference.predicting import (
    CohortProgress,
    Prediction,
    PredictRequest,
    Staged,
    predict,
    prepare,
    publish,
)
from wsi_ml.inference.predictor import KeptPredictor
from wsi_ml.inference.slide import Cancelled
from wsi_ml.layers.layer import Layer
from wsi_ml.layers.store import LayerStore

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class CohortResult:
    """What became of one request: a layer, or a named error."""

    request: PredictRequest
    layer: Layer | None = None
    error: OcularError | None = None


def predict_cohort(
    library_root: Path | str,
    requests: Iterable[PredictRequest],
    *,
    engine: str = "local",
    device: str = "auto",
    threads: int = 0,
    progress: CohortProgress = lambda request, done, total, unit: None,
    cancelled: Cancelled = lambda: False,
) -> list[CohortResult]:
    """Predict all requests, each on its own: one that fails does not stop the others. Results in their order.

    `engine` is `local`, or `ray` (needs the extra `[cluster]`; the library lies on a file system that every machine
    sees at the same path). `progress` is told (request, done, total, unit). Raises BadRequestError for another engine,
    EngineUnavailableError without Ray or its cluster, PredictionCancelledError (finished layers stay published).
    """
    requests, root = list(requests), Path(library_root)
    if engine == "local":
        run = _run_local(root, requests, device, threads, progress, cancelled)
    elif engine == "ray":
        run = _run_ray(root, requests, device, threads, progress, cancelled)
    else:
        raise BadRequestError(f"There is no engine {engine!r}; there are {', '.join(ENGINES)}.")
    results = dict(run)
    return [results[number] for number in range(len(requests))]


def _run_local(
    root: Path, requests: Sequence[PredictRequest], device: str, threads: int, progress: CohortProgress,
    cancelled: Cancelled,
) -> Iterator[tuple[int, CohortResult]]:  # fmt: skip
    opener = KeptPredictor()
    for number, request in enumerate(requests):

        def told(done: int, total: int, unit: str, request: PredictRequest = request) -> None:
            progress(request, done, total, unit)

        try:
            options = {"progress": told, "cancelled": cancelled, "device": device, "threads": threads}
            layer = predict(root, request, opener=opener, **options)  # type: ignore[arg-type]
        except PredictionCancelledError:
            raise
        except OcularError as error:
            yield number, CohortResult(request, error=error)
        else:
            yield number, CohortResult(request, layer)


def _run_ray(
    root: Path, requests: Sequence[PredictRequest], device: str, threads: int, progress: CohortProgress,
    cancelled: Cancelled,
) -> Iterator[tuple[int, CohortResult]]:  # fmt: skip
    try:
        from wsi_ml.inference import ray_engine  # an extra: everything else works without it
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise EngineUnavailableError("Ray is not installed; pip install 'ocular-wsi[cluster]' brings it.") from error
    store = LayerStore(root)
    missing: dict[int, Prediction] = {}
    for number, request in enumerate(requests):
        try:
            prediction = prepare(root, request)
        except OcularError as error:
            yield number, CohortResult(request, error=error)
            continue
        layer = store.layer_by_key(prediction.key)
        if layer is None:
            missing[number] = prediction
        else:
            yield number, CohortResult(request, layer)
    run = ray_engine.stage_all(root, missing, device=device, threads=threads, progress=progress, cancelled=cancelled)
    for number, staged in run:
        yield number, _published(store, root, missing[number], staged, cancelled)


def _published(
    store: LayerStore, root: Path, prediction: Prediction, staged: Staged | OcularError, cancelled: Cancelled
) -> CohortResult:
    """Publish what a worker staged: workers write files only, this process alone writes rows."""
    request = prediction.request
    if isinstance(staged, OcularError):
        return CohortResult(request, error=staged)
    with work.held(root / work.WORK_FOLDER, prediction.key, cancelled) as folder:
        try:
            layer = store.layer_by_key(prediction.key) or publish(store, prediction, staged)
        except OcularError as error:
            return CohortResult(request, error=error)
        shutil.rmtree(folder, ignore_errors=True)
    return CohortResult(request, layer)
