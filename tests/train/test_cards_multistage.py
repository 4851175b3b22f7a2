"""Runs of paper D as predictors: a run → published → predicted on a slide of a library, equal to the evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from tests.data.drawn_slides import SIDE, SIZE, write_library
from tests.train.test_multistage import THIN
from train import cards_multistage, evaluate_multistage, loop, multistage, publish
from wsi_ml.data import heatmaps
from wsi_ml.data.heatmaps import read_heatmap
from wsi_ml.errors import BadRequestError, ModelUnavailableError, NotPredictableError
from wsi_ml.geometry import Region
from wsi_ml.inference import work
from wsi_ml.inference.predicting import PredictRequest, predict, prepare
from wsi_ml.inference.predictor import Choosing, WholeSlide, available_predictors, open_predictor
from wsi_ml.layers.store import LayerStore
from wsi_ml.models import googlenet
from wsi_ml.slides.library import Library

CELL = 2 * SIDE
"""Base-plane pixels of a patch."""
KEYS = {
    "extractor": {},
    "features": {"extractor": "{root}/extractor"},
    "segmentation": {"maps": "{root}/features", "batch": 1},
    "end-to-end": {"extractor": "{root}/extractor", "segmentation": "{root}/segmentation"},
    "picture": {"batch": 1},
}
"""Of the stages."""
MAP_SIDE = 16
"""Cells on a side of a map: the slide has 20 columns of tissue, so four of them are beyond it."""


@pytest.fixture(scope="module", autouse=True)
def thin():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(googlenet, "MODULES", THIN)
        patch.setattr(googlenet, "POOLED", 16)
        yield


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("slides") / "library", "abc")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, library):
    """All stages on the library's slides, each judged on slide c and its heatmaps written."""
    root = tmp_path_factory.mktemp("runs")
    common = {
        "preset": "tiny", "source": "library", "data": library, "layer": "truth", "validation": "b", "test": "c",
        "threads": 1, "device": "cpu", "precision": "fp32", "steps": 2, "batch": 4, "map_side": MAP_SIDE, "base": 4,
        "validation_patches": 4, "rate": 1e-3,
    }  # fmt: skip
    for stage, more in KEYS.items():
        keys = {**common, "stage": stage, "run": root / stage, **more}
        settings = [f"--set={name}={value}".replace("{root}", str(root)) for name, value in keys.items()]
        assert multistage.main(settings) == 0, stage
        if stage != "features":
            arguments = ["--run", str(root / stage), "--output", str(root / stage), "--device", "cpu", "--threads", "1"]
            assert evaluate_multistage.main([*arguments, "--heatmaps", str(root / stage / "heat")]) == 0
    return root


@pytest.fixture(scope="module", params=["extractor", "segmentation", "end-to-end"])
def published(request, runs, library):
    """(stage, name of the model)."""
    name = f"lesion-{request.param}"
    assert publish.main(["--run", str(runs / request.param), "--library", str(library), "--name", name]) == 0
    return request.param, name


def slide_of(library, name):
    return next(each for each in Library(library).slides() if each.name == name)


def heat_of(runs, stage, name="c"):
    return read_heatmap(runs / stage / "heat" / f"{name}{heatmaps.ENDING}")


def grid_of_layer(store, layer):
    """Score of the feature over the middle of each patch, NaN where there is none."""
    grid = np.full((SIZE.height // SIDE, SIZE.width // SIDE), np.nan)
    rows, columns = (each.ravel() for each in np.indices(grid.shape))
    middles = shapely.points((columns + 0.5) * CELL, (rows + 0.5) * CELL)
    for feature in store.all_features(layer.id):
        inside = shapely.contains(feature.geometry, middles)
        grid[rows[inside], columns[inside]] = feature.score
    return grid


def test_the_layer_is_the_evaluations_heatmap_of_that_slide(published, runs, library):
    stage, name = published
    layer = predict(library, PredictRequest(slide_of(library, "c").id, name, parameters={"threshold": 0}), device="cpu")
    heat, grid = heat_of(runs, stage), grid_of_layer(LayerStore(library), layer)
    told = np.full_like(grid, np.nan)
    told[heat.cells[:, 0], heat.cells[:, 1]] = heat.probability
    # Without tissue, or beyond the map, nothing is told and nothing is drawn; both agree which patches these are.
    assert np.array_equal(np.isnan(grid), np.isnan(told))
    assert np.isnan(told[:2]).all() and (~np.isnan(told)).sum() == (20 if stage == "extractor" else MAP_SIDE) * 16
    # A feature joins the patches of one band of a tenth; its score is their mean.
    bands, inside = np.floor(told * 10), ~np.isnan(told)
    near_edge = np.abs(told * 10 - np.round(told * 10)) < 0.06
    assert (np.abs(bands - np.floor(grid * 10))[inside & ~near_edge] == 0).all()
    assert abs(np.nanmean(grid) - np.nanmean(told)) < 0.004


def test_values_of_patches_are_those_of_the_evaluation(published, runs, library, tmp_path):
    stage, name = published
    predictor = open_predictor(name, device="cpu", threads=1, folders=(library / "models",))
    slide = slide_of(library, "c")
    pyramid = Library(library).pyramid(slide.id)
    fitted = predictor.for_slide(pyramid)
    assert isinstance(fitted, Choosing) and isinstance(fitted, WholeSlide) == (stage != "extractor")
    heat = heat_of(runs, stage)
    assert np.array_equal(fitted.windows[:, ::-1], heat.cells)
    pixels = [pyramid.region(Region(x * SIDE, y * SIDE, SIDE, SIDE)) for x, y in fitted.windows.tolist()]
    parts = fitted(np.stack(pixels))
    if stage == "extractor":
        told = parts[:, 0, 0, 0] / 255
    else:
        assert parts.shape == (len(heat.cells), 4 * 16, 1, 1)
        kept, maps = fitted.whole(fitted.windows, parts)
        assert np.array_equal(kept, np.flatnonzero(~np.isnan(heat.probability)))
        told = np.full(len(heat.cells), np.nan)
        told[kept] = maps[:, 0, 0, 0] / 255
        turned = np.random.default_rng(1).permutation(len(parts))
        again = fitted.whole(fitted.windows[turned], parts[turned])[1]
        assert np.abs(np.sort(again.ravel()).astype(int) - np.sort(maps.ravel())).max() <= 1
    # Weights lie in fp16, values in bytes.
    assert np.nanmax(np.abs(told - heat.probability)) < 0.01


def test_a_region_holds_what_the_whole_slide_has_there(published, library):
    _, name = published
    slide, store = slide_of(library, "c"), LayerStore(library)
    box = (6 * CELL, 5 * CELL, 11 * CELL, 9 * CELL)
    ask = {"parameters": {"threshold": 0}}
    whole = grid_of_layer(store, predict(library, PredictRequest(slide.id, name, **ask), device="cpu"))
    part = grid_of_layer(store, predict(library, PredictRequest(slide.id, name, region=box, **ask), device="cpu"))
    inside = ~np.isnan(part)
    assert inside[5:9, 6:11].all() and inside.sum() == 20
    # Features are joined within the region, so a score is another mean of the same band.
    assert np.abs(part - whole)[inside].max() < 0.1


def test_work_that_was_stopped_is_gone_on_with(runs, library, monkeypatch):
    name = "lesion-stopped"
    assert publish.main(["--run", str(runs / "segmentation"), "--library", str(library), "--name", name]) == 0
    request, seen = PredictRequest(slide_of(library, "b").id, name, parameters={"batch": 32}), []

    def stop_after_four(done, total, unit):
        seen.append(done)

    with pytest.raises(Exception, match="cancelled"):
        predict(library, request, device="cpu", progress=stop_after_four, cancelled=lambda: max(seen, default=0) >= 128)
    stopped = max(seen)
    seen.clear()
    layer = predict(library, request, device="cpu", progress=stop_after_four)
    assert seen[0] >= 128 and seen[0] >= stopped - 32 and layer.count > 0
    assert not [path for path in (library / work.WORK_FOLDER).iterdir() if path.is_dir()]


def test_the_card_says_what_it_is(published, library, runs):
    stage, name = published
    card = next(each for each in available_predictors([library / "models"]) if each.name == name)
    assert (card.kind, card.side, card.stride, card.halo, card.drawn) == ("heatmap", SIDE, SIDE, 0, ("Tumour",))
    assert card.about["tissue"] == "own" and card.about["config"]["map_side"] == MAP_SIDE
    assert (card.about["config"]["segmentation"] is None) == (stage == "extractor")
    results = json.loads((runs / stage / "results.json").read_text())
    assert card.about["scores"][0]["average_precision"] == results["pooled"]["average_precision"]
    assert card.about["data"][0]["held_out"] == ["b", "c"] and card.about["data"][0]["labels"].startswith("own:")
    assert str(runs) not in json.dumps(card.to_json())


def test_what_the_training_did_not_know_is_refused(published, library):
    _, name = published
    slide = slide_of(library, "c").id
    for parameters in ({"tissue": "all"}, {"overlap": 0.5}):
        with pytest.raises(BadRequestError, match="no tissue=all and no overlap"):
            prepare(library, PredictRequest(slide, name, parameters=parameters))
    with pytest.raises(NotPredictableError, match="No tissue"):
        predict(library, PredictRequest(slide, name, region=(0, 0, CELL, CELL), parameters={}), device="cpu")


def test_a_run_is_judged_on_all_slides_of_other_data_and_on_larger_maps(runs, library, tmp_path):
    arguments = ["--run", str(runs / "end-to-end"), "--output", str(tmp_path / "out"), "--data", str(library)]
    assert evaluate_multistage.main([*arguments, "--map-side", "32", "--device", "cpu", "--threads", "1"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["part"] == "other" and [each["slide"] for each in results["slides"]] == ["a", "b", "c"]
    assert results["pooled"]["not_told"] == 0 and results["pooled"]["patches"] == 3 * 320


@pytest.mark.parametrize(("stage", "word"), [("features", "stage features"), ("picture", "stage picture")])
def test_stages_that_tell_no_slides_are_refused(runs, stage, word):
    with pytest.raises(BadRequestError, match=word):
        cards_multistage.cards_of_run(runs / stage, "x")


def test_a_segmentation_without_its_extractor_is_refused(runs, library, tmp_path, capsys):
    hidden = runs / "features" / loop.STATE_FILE
    moved = hidden.rename(tmp_path / "state")
    try:
        with pytest.raises(ModelUnavailableError, match="run of features features, whose extractor"):
            cards_multistage.cards_of_run(runs / "segmentation", "x")
    finally:
        moved.rename(hidden)
