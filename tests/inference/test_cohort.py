"""A cohort: every slide is tried, results keep their order, the model is loaded once, engines are named."""

import builtins

import numpy as np
import pytest

from tests.inference.fakes import GLASS, add_picture, open_fake, own_model, spotted_picture
from wsi_ml.errors import (
    BadRequestError,
    EngineUnavailableError,
    NotPredictableError,
    PredictionCancelledError,
    UnknownSlideError,
)
from wsi_ml.geometry import Size
from wsi_ml.inference.cohort import predict_cohort
from wsi_ml.inference.predicting import PredictRequest
from wsi_ml.inference.predictor import KeptPredictor
from wsi_ml.layers.store import LayerStore


@pytest.fixture
def slides(library):
    blank = add_picture(library, "blank", np.full((500, 600, 3), GLASS, np.uint8))
    stained = [add_picture(library, f"s{seed}", spotted_picture(Size(900, 700), seed)) for seed in (1, 2)]
    return [stained[0], "nobodys1id23", blank, stained[1]]


def test_one_slide_that_fails_does_not_stop_the_others(library, slides):
    requests = [PredictRequest(slide_id, "tissue") for slide_id in slides]
    told = set()
    results = predict_cohort(
        library.root, requests, progress=lambda request, done, total, unit: told.add((request.slide_id, unit))
    )
    assert [result.request for result in results] == requests
    assert [type(result.error) for result in results] == [
        type(None),
        UnknownSlideError,
        NotPredictableError,
        type(None),
    ]
    store = LayerStore(library.root)
    for slide_id, result in ((slides[0], results[0]), (slides[3], results[3])):
        assert store.layers(slide_id) == [result.layer] and result.layer.count >= 1
    assert told == {(slides[n], unit) for n in (0, 3) for unit in ("windows", "blocks")}
    assert [result.layer for result in predict_cohort(library.root, requests)] == [result.layer for result in results]


def test_a_cancelled_cohort_keeps_the_layers_that_are_finished(library, slides):
    requests = [PredictRequest(slides[n], "tissue") for n in (0, 3)]
    store = LayerStore(library.root)
    with pytest.raises(PredictionCancelledError):
        predict_cohort(library.root, requests, cancelled=lambda: bool(store.layers(slides[0])))
    assert len(store.layers(slides[0])) == 1 and store.layers(slides[3]) == []


def test_a_predictor_is_kept_from_slide_to_slide(library):
    own_model(library.root / "models")
    opened = []

    def opener(model, **options):
        opened.append((model, options["threads"]))
        return object()

    kept = KeptPredictor(opener)
    first = kept("own", threads=1)
    assert kept("own", threads=1) is first and kept("own", threads=2) is not first
    assert opened == [("own", 1), ("own", 2)]
    assert KeptPredictor().__call__ is not open_fake


def test_an_unknown_engine_is_refused_by_name(library, slides):
    with pytest.raises(BadRequestError, match="no engine 'spark'; there are local, ray"):
        predict_cohort(library.root, [PredictRequest(slides[0], "tissue")], engine="spark")


def test_ray_that_is_not_installed_is_named(library, slides, monkeypatch):
    real = builtins.__import__

    def without_ray(name, *arguments, **options):
        if name == "ray" or name.startswith("ray."):
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *arguments, **options)

    monkeypatch.delitem(__import__("sys").modules, "wsi_ml.inference.ray_engine", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(EngineUnavailableError, match=r"pip install 'ocular-wsi\[cluster\]'"):
        predict_cohort(library.root, [PredictRequest(slides[0], "tissue")], engine="ray")
