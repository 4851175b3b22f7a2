"""A cohort over a local Ray cluster of two workers gives the bytes of the local engine, also when one is killed."""

import os
import secrets
import shutil
import signal
import sys
import time
import warnings

import pytest

from tests.inference.fakes import add_picture, file_bytes, own_model, spotted_picture
from wsi_ml.errors import BadRequestError, EngineUnavailableError, NotPredictableError, PredictionCancelledError
from wsi_ml.geometry import Size
from wsi_ml.inference import work
from wsi_ml.inference.cohort import predict_cohort
from wsi_ml.inference.predicting import PredictRequest
from wsi_ml.layers.layer import BaseBox
from wsi_ml.layers.store import LayerStore

ray = pytest.importorskip("ray", reason="the extra [cluster] is not installed")
# Ray leaves sockets and files of its own to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def cluster():
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one into the home folder
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
        yield
        ray.shutdown()


@pytest.fixture
def cohort(library):
    """Requests for three slides, which the model tells in 50 batches each."""
    own_model(
        library.root / "models", kind="dense", classes=[{"name": "A"}, {"name": "B"}], channels=["A", "B"],
        background=[], activation="softmax", postprocess={"min_area_um2": 5.0},
    )  # fmt: skip
    slides = [add_picture(library, f"s{seed}", spotted_picture(Size(700, 560), seed)) for seed in range(3)]
    return [PredictRequest(slide_id, "own", parameters={"tissue": "all", "batch": 2}) for slide_id in slides]


@pytest.fixture
def local(library, cohort, tmp_path):
    """Features files of the local engine, by slide."""
    copy = tmp_path / "local"
    shutil.copytree(library.root, copy)
    results = predict_cohort(copy, cohort, device="cpu", threads=2)
    assert all(result.layer.count >= 1 for result in results)
    return [file_bytes(copy, result.layer.id) for result in results]


class Slow:
    """A predictor that takes 40 ms longer for each batch, so that there is a midway to be killed at."""

    def __init__(self, predictor):
        self.card, self.numbers, self._predictor = predictor.card, predictor.numbers, predictor

    def callers(self, batches):
        return self._predictor.callers(batches)

    def __call__(self, windows):
        time.sleep(0.04)
        return self._predictor(windows)


@pytest.fixture
def workers(monkeypatch):
    """Process ids of the workers, in the order of their start; they are slow."""
    from wsi_ml.inference import ray_engine

    class SlowWorker(ray_engine.PredictWorker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            opener = self._opener
            self._opener = lambda *names, **options: Slow(opener(*names, **options))

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_engine, "PredictWorker", SlowWorker)
    monkeypatch.setattr(ray_engine, "POLL_S", 0.1)
    started = []
    real = ray_engine.start_worker

    def start(*arguments):
        worker = real(*arguments)
        started.append(ray.get(worker.process_id.remote()))
        return worker

    monkeypatch.setattr(ray_engine, "start_worker", start)
    return started


def files(library, results):
    return [file_bytes(library.root, result.layer.id) for result in results]


def test_ray_equals_local(cluster, library, cohort, local, workers):
    wrong = [PredictRequest(cohort[0].slide_id, "own", region=BaseBox(9999, 0, 10000, 10))]
    results = predict_cohort(library.root, [*cohort, *wrong], engine="ray", device="cpu", threads=1)
    assert files(library, results[:3]) == local
    assert isinstance(results[3].error, NotPredictableError)
    assert [result.layer.provenance["engine"] for result in results[:3]] == ["ray"] * 3
    assert len(set(workers)) == 2 and os.getpid() not in workers
    assert list((library.root / work.WORK_FOLDER).iterdir()) == []
    again = predict_cohort(library.root, cohort, engine="ray", device="cpu")
    assert [result.layer for result in again] == [result.layer for result in results[:3]] and len(workers) == 2


def test_a_worker_killed_midway_changes_nothing(cluster, library, cohort, local, workers):
    killed = []

    def kill_one(request, done, total, unit):
        if not killed and 0.2 * total < done < 0.8 * total:
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    results = predict_cohort(library.root, cohort, engine="ray", device="cpu", threads=1, progress=kill_one)
    assert killed and len(workers) == 3
    assert files(library, results) == local
    assert LayerStore(library.root).check() == []
    assert [len(LayerStore(library.root).layers(request.slide_id)) for request in cohort] == [1, 1, 1]


def test_a_slide_that_kills_every_worker_is_given_up_and_the_others_are_not(
    cluster, library, cohort, local, workers, monkeypatch
):
    from wsi_ml.inference import ray_engine

    class Deadly(ray_engine.PredictWorker):
        def stage(self, request):
            if request.slide_id == self._deadly:
                os._exit(9)
            return super().stage(request)

        _deadly = cohort[1].slide_id

    monkeypatch.setattr(ray_engine, "PredictWorker", Deadly)
    results = predict_cohort(library.root, cohort, engine="ray", device="cpu", threads=1)
    assert isinstance(results[1].error, EngineUnavailableError) and "died 3 times" in str(results[1].error)
    assert [file_bytes(library.root, results[n].layer.id) for n in (0, 2)] == [local[0], local[2]]


def test_cancelling_ends_the_workers_and_the_work_goes_on_later(cluster, library, cohort, local, workers):
    seen = []
    with pytest.raises(PredictionCancelledError):
        predict_cohort(
            library.root, cohort, engine="ray", device="cpu", threads=1,
            progress=lambda request, done, total, unit: seen.append(done), cancelled=lambda: any(seen),
        )  # fmt: skip
    results = predict_cohort(library.root, cohort, engine="local", device="cpu", threads=2)
    assert files(library, results) == local


def test_refusals_of_workers_are_named(cluster, library, cohort):
    request = PredictRequest(cohort[0].slide_id, "own", region=BaseBox(0, 0, 20, 20))
    results = predict_cohort(library.root, [request], engine="ray", device="cpu")
    assert isinstance(results[0].error, NotPredictableError) and "No tissue was found" in str(results[0].error)
    (library.root / "models" / "own.safetensors").write_bytes(b"damaged")
    results = predict_cohort(library.root, cohort[:1], engine="ray", device="cpu")
    assert results[0].error.code == "model_unavailable"
    assert not isinstance(results[0].error, BadRequestError)
