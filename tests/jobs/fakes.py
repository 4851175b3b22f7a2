"""A runner that does what its job's parameter `do` says, without any model; child processes import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import shapely

from wsi_ml.errors import NotPredictableError, PredictionCancelledError
from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import NewLayer
from wsi_ml.layers.store import LayerStore

RUNS_FILE = "runs.txt"
"""One line for each start of a job: its id and the process."""
GO_FILE = "go"
DO_FILE = "do"
"""What jobs without that parameter do."""
WINDOWS = 40


def run(root: Path, job, context) -> str:
    with (root / RUNS_FILE).open("a") as file:
        file.write(f"{job.id} {os.getpid()}\n")
    given = root / DO_FILE
    do = job.parameters.get("do") or (given.read_text() if given.exists() else "publish")
    return globals()[do](root, job, context)


def runs(root: Path) -> list[list[str]]:
    """(job id, process id) of each start, in order."""
    file = root / RUNS_FILE
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def publish(root: Path, job, context) -> str:
    context.before_publish()
    square = Feature(shapely.box(10, 10, 50, 50), "5b1c9d1e-0000-4000-8000-000000000001", "Nucleus")
    provenance = {"job": job.id, "model": job.model, "parameters": job.parameters, "preview": job.preview}
    layer = NewLayer(job.slide_id, job.version, "fake", "prediction", provenance)
    return LayerStore(root).publish(layer, [square]).id


def keyed(root: Path, job, context) -> str:
    """As a prediction publishes: a staged file, under a key that the store takes once."""
    store = LayerStore(root)
    work = root / "work"
    work.mkdir(exist_ok=True)
    staged = work / f"{job.id}-{os.getpid()}.features"
    with FeaturesWriter(staged, ["Nucleus"], Size(300, 200)) as writer:
        squares = np.array([shapely.box(10, 10, 50, 50)], object)
        writer.add(FeatureBatch(squares, np.zeros(1, np.uint16), np.array([0.5], np.float32)))
        facts = writer.finish()
    context.before_publish()
    layer = NewLayer(job.slide_id, job.version, "fake", "prediction", {"job": job.id})
    return store.publish_file(layer, staged, facts, {"Nucleus": None}, job.id).id


def slowly(root: Path, job, context) -> str:
    """Windows of 20 ms, then a layer."""
    for done in range(WINDOWS):
        if context.cancelled():
            raise PredictionCancelledError("cancelled")
        context.progress(done, WINDOWS, "windows")
        time.sleep(0.02)
    context.progress(WINDOWS, WINDOWS, "windows")
    return publish(root, job, context)


def wait(root: Path, job, context) -> str:
    """Goes on until the file `go` is there, asking all the time whether it is cancelled."""
    context.progress(1, 2, "windows")
    while not (root / GO_FILE).exists():
        if context.cancelled():
            raise PredictionCancelledError("cancelled")
        time.sleep(0.02)
    return publish(root, job, context)


def deaf(root: Path, job, context) -> str:
    """As `wait`, without ever asking."""
    while not (root / GO_FILE).exists():
        time.sleep(0.02)
    return publish(root, job, context)


def die(root: Path, job, context) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def killed(root: Path, job, context) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_once(root: Path, job, context) -> str:
    return die(root, job, context) if len(runs(root)) == 1 else publish(root, job, context)


def broken(root: Path, job, context) -> str:
    raise LookupError(f"no key in {root}")


def refused(root: Path, job, context) -> str:
    raise NotPredictableError("There is no tissue on this slide.")


def hungry(root: Path, job, context) -> str:
    kept = []
    while True:
        kept.append(np.ones(8 << 20, np.uint8))
        time.sleep(0.002)
