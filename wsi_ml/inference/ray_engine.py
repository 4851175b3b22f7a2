"""Predictions over a Ray cluster: workers hold the model and write staged files; nothing but the driver publishes.

Ray places the workers, one for each GPU or for a share of the cores. A slide is one task. When its worker dies, another
worker goes on from the slide's work folder, at most TRIES times.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from wsi_ml.errors import EngineUnavailableError, OcularError
from wsi_ml.inference import work
from wsi_ml.inference.predicting import (
    CohortProgress,
    Prediction,
    PredictRequest,
    Staged,
    open_for,
    prepare,
    stage,
)  # fmt: skip
from wsi_ml.inference.predictor import KeptPredictor
from wsi_ml.inference.slide import Cancelled, refuse_cancelled
from wsi_ml.inference.window_file import progress_in

TRIES = 3
POLL_S = 0.5
CORES_EACH = 4
"""Cores of a worker on a cluster without GPUs, where nobody says."""
ENGINE = "ray"


class PredictWorker:
    """What runs in a worker process: one predictor, kept from slide to slide."""

    def __init__(self, library_root: str, device: str, threads: int):
        self._root = Path(library_root)
        self._device, self._threads = device, threads
        self._opener = KeptPredictor()

    def process_id(self) -> int:
        """Id of the worker's process on its machine."""
        return os.getpid()

    def stage(self, request: PredictRequest) -> Staged | OcularError:
        """Compute and draw one request in its work folder; a named error is a result, not a failure of the worker."""
        try:
            prediction = prepare(self._root, request)
            with work.held(self._root / work.WORK_FOLDER, prediction.key) as folder:
                predictor = open_for(self._root, prediction, self._device, self._threads, self._opener)
                return stage(self._root, prediction, folder, predictor, engine=ENGINE)
        except OcularError as error:
            return error


@dataclass
class _Task:
    """A slide in hand: which one, who works on it, how often it was tried."""

    number: int
    worker: Any
    tries: int


def stage_all(
    library_root: Path,
    predictions: Mapping[int, Prediction],
    *,
    device: str = "auto",
    threads: int = 0,
    progress: CohortProgress = lambda request, done, total, unit: None,
    cancelled: Cancelled = lambda: False,
) -> Iterator[tuple[int, Staged | OcularError]]:
    """(number, staged file or named error) of every prediction, in the order in which they end.

    Connects to the cluster of RAY_ADDRESS, or the one running on this machine, or starts one here; a caller that is
    connected already decides by that. Raises EngineUnavailableError, PredictionCancelledError (workers are ended).
    """
    if not predictions:
        return
    try:
        connected_before = ray.is_initialized()
        if not connected_before:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield from _run(library_root, predictions, device, threads, progress, cancelled)
        finally:
            if not connected_before:
                ray.shutdown()
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise EngineUnavailableError(
            f"The Ray cluster cannot be used ({type(error).__name__}); see `ray status`, and RAY_ADDRESS."
        ) from error


def _run(
    library_root: Path, predictions: Mapping[int, Prediction], device: str, threads: int, progress: CohortProgress,
    cancelled: Cancelled,
) -> Iterator[tuple[int, Staged | OcularError]]:  # fmt: skip
    count, options, cores = _layout(ray.cluster_resources(), device, threads)
    waiting = deque((number, 0) for number in predictions)
    idle = [start_worker(library_root, device, cores, options) for _ in range(min(count, len(predictions)))]
    running: dict[Any, _Task] = {}
    try:
        while waiting or running:
            while waiting and idle:
                number, tries = waiting.popleft()
                task = _Task(number, idle.pop(), tries + 1)
                running[task.worker.stage.remote(predictions[number].request)] = task
            ready, _ = ray.wait(list(running), timeout=POLL_S)
            refuse_cancelled(cancelled)
            for task in running.values():
                _tell(library_root, predictions[task.number], progress)
            for reference in ready:
                task = running.pop(reference)
                try:
                    staged = ray.get(reference)
                except ray.exceptions.RayActorError:
                    idle.append(start_worker(library_root, device, cores, options))
                    if task.tries < TRIES:
                        waiting.appendleft((task.number, task.tries))
                        continue
                    staged = EngineUnavailableError(f"Its worker died {TRIES} times; see the memory of the machines.")
                else:
                    idle.append(task.worker)
                yield task.number, staged
    finally:
        for worker in [*idle, *(task.worker for task in running.values())]:
            ray.kill(worker)


def start_worker(library_root: Path, device: str, cores: int, options: Mapping[str, float]) -> Any:
    """A worker on the cluster; returns at once, its process starts where Ray finds room."""
    return ray.remote(PredictWorker).options(**options).remote(str(library_root.absolute()), device, cores)


def _layout(resources: Mapping[str, float], device: str, threads: int) -> tuple[int, dict[str, float], int]:
    """(workers, what each takes of the cluster, threads of each)."""
    gpus = int(resources.get("GPU", 0))
    if gpus and device != "cpu":
        return gpus, {"num_gpus": 1, "num_cpus": 1}, threads
    cores = int(resources.get("CPU", 1))
    each = min(threads or CORES_EACH, max(1, cores))
    return max(1, cores // each), {"num_cpus": each}, each


def _tell(library_root: Path, prediction: Prediction, progress: CohortProgress) -> None:
    """Tell the progress of a slide, as its work folder shows it."""
    found = progress_in(library_root / work.WORK_FOLDER / prediction.key)
    if found is not None:
        progress(prediction.request, *found, "windows")
