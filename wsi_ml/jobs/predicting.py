"""A prediction as a job: runs it, publishes its layer, and clears away the previews that it replaces."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsi_ml.inference.predicting import PredictRequest, predict
from wsi_ml.inference.predictor import Predictor, find_card, open_predictor
from wsi_ml.jobs.child import JobContext
from wsi_ml.jobs.job import Job
from wsi_ml.layers.layer import BaseBox, Layer
from wsi_ml.layers.store import LayerStore


class WarmPredictor:
    """Opens predictors and keeps the last one, so that the next job of the same model starts at once."""

    def __init__(self) -> None:
        self._key: tuple[str, str, int] | None = None
        self._kept: Predictor | None = None

    def __call__(
        self, name_or_card: str | Path, device: str = "auto", threads: int = 0, folders: Iterable[Path] = ()
    ) -> Predictor:
        """See `open_predictor`; a model that was replaced under its name is opened anew."""
        folders = tuple(folders)
        if isinstance(name_or_card, Path):
            return open_predictor(name_or_card, device, threads, folders)
        key = (find_card(name_or_card, folders)[0].digest, device, threads)
        if self._kept is None or self._key != key:
            # The old one goes first: two may not fit into memory.
            self._kept = None
            self._kept = open_predictor(name_or_card, device, threads, folders)
            self._key = key
        return self._kept


# State of the process and not of a job, on purpose: this module lives in the jobs' own process only.
_warm = WarmPredictor()


def run(library_root: Path, job: Job, context: JobContext) -> str:
    """Id of the layer of a prediction; raises what `predict` raises."""
    request = PredictRequest(
        slide_id=job.slide_id,
        version=job.version,
        model=job.model,
        region=BaseBox(*job.region) if job.region else None,
        parameters=job.parameters,
        preview=job.preview,
    )
    layer = predict(
        library_root,
        request,
        progress=context.progress,
        cancelled=context.cancelled,
        before_publish=context.before_publish,
        device=context.device,
        threads=context.threads,
        opener=_warm,
    )
    if job.region is None:
        remove_previews(LayerStore(library_root), layer)
    return layer.id


def remove_previews(store: LayerStore, whole: Layer) -> list[str]:
    """Remove the preview layers that a whole-slide layer of the same model and parameters replaces; gives their ids."""
    removed = []
    for layer in store.layers(whole.slide_id, whole.version):
        same = all(layer.provenance.get(name) == whole.provenance.get(name) for name in ("model", "parameters"))
        if layer.kind == "prediction" and layer.provenance.get("preview") is True and same:
            store.remove(layer.id)
            removed.append(layer.id)
    return removed
