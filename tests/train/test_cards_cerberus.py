"""Runs of paper C as predictors: a run → published → predicted on a slide, polygons where its discs are."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import shapely

from tests.data.task_circles import circles_picture, flat_patches
from tests.inference.fakes import add_picture
from train import cards_cerberus, cerberus, export_cerberus, loop, publish
from train.cerberus_data import CerberusData
from train.evaluate_nuclei import segment, tell
from wsi_ml.data.instance_targets import boxes
from wsi_ml.data.nuclei import VALIDATION, draw_parts
from wsi_ml.data.task_batches import TaskBatches
from wsi_ml.data.task_pictures import DRAWN_TYPES, instance_task
from wsi_ml.data.tissue import CLASSES
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.card import read_card
from wsi_ml.inference.cerberus_maps import halo_for
from wsi_ml.inference.predicting import PredictRequest, predict
from wsi_ml.inference.predictor import WEIGHTS_FOLDER, available_predictors, open_predictor
from wsi_ml.layers.store import LayerStore
from wsi_ml.metrics.label_maps import detection
from wsi_ml.models import checkpoint, parameter_count
from wsi_ml.slides.library import Library

NAMES = tuple(CLASSES.values())
TASKS = "gland,lumen,nuclei,nuclei_type,patch"
SIDE_DISCS = 16
"""Discs in a row of the slide."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of every task and one of nuclei alone, without contours, on drawn discs."""
    root = tmp_path_factory.mktemp("runs")

    def open_circles(config, settings):
        dense = list(dict.fromkeys(instance_task(task) for task in config.tasks if task != "patch"))
        training = {task: [circles_picture(task, n, 96, task == "nuclei", 16) for n in range(4)] for task in dense}
        patches = flat_patches(side=32) if "patch" in config.tasks else []
        source = TaskBatches(training, patches, NAMES, settings, config.seed)
        held_out = {task: own[:1] for task, own in training.items()}
        return CerberusData(source, held_out, patches[:3], ("held",), ("kept",), DRAWN_TYPES)

    values = {
        "preset": "tiny", "width": 4, "batch": 2, "side": 64, "patch_side": 32, "patch_share": 0.1, "threads": 1,
        "nuclei_sets": "drawn", "device": "cpu", "precision": "fp32", "average": 0.9, "rate": 5e-3,
        "validate_every": 1000, "warm_up": 2,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cerberus, "open_data", open_circles)
        patch.setattr(cards_cerberus, "CORE", 128)
        for name, more in {
            "all": {"tasks": TASKS, "steps": 2, "validate_every": 2},
            "discs": {"tasks": "nuclei", "target": "plus", "steps": 45},
            "interiors": {"tasks": "nuclei", "target": "base", "steps": 2},
        }.items():
            keys = {**values, **more, "run": root / name}
            assert cerberus.main([f"--set={key}={value}" for key, value in keys.items()]) == 0
        yield root


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "library")


def published(run, library, *more):
    assert publish.main(["--run", str(run), "--library", str(library.root), *more]) == 0
    return {card.name: card for card in available_predictors([library.root / "models"])}


def test_discs_of_a_slide_become_polygons(runs, library):
    truth = circles_picture("nuclei", 7, 24 * SIDE_DISCS, True, SIDE_DISCS**2)
    slide = add_picture(library, "discs", truth.rgb)
    card = published(runs / "discs", library)["discs"]
    request = PredictRequest(slide, card.name, parameters={"tissue": "all"})
    layer = predict(library.root, request, device="cpu", threads=1)
    features = list(LayerStore(library.root).all_features(layer.id))
    polygons = np.array([shapely.transform(each.geometry, lambda points: points / 2) for each in features])
    boxes_of = [(columns.start, rows.start, columns.stop, rows.stop) for _, (rows, columns) in boxes(truth.labels)]
    middles = shapely.centroid(shapely.box(*np.array(boxes_of).T))
    near = polygons[shapely.STRtree(polygons).nearest(middles)]
    areas = np.bincount(truth.labels.ravel())[1:]
    right = shapely.contains(near, middles) & (np.abs(shapely.area(near) - areas) < 0.35 * areas)
    assert len(features) == pytest.approx(SIDE_DISCS**2, abs=SIDE_DISCS) and right.mean() > 0.9
    assert {layer.classes[0].name} == {"Nucleus"}


def test_every_task_has_a_card_of_the_same_weights(runs, library):
    every = published(runs / "all", library, "--name", "cerb")
    cards = {name: card for name, card in every.items() if name.startswith("cerb")}
    assert sorted(cards) == ["cerb-gland", "cerb-lumen", "cerb-nuclei", "cerb-patch"]
    assert len({card.about["weights"] for card in cards.values()}) == len({card.sha256 for card in cards.values()}) == 1
    assert len({card.digest for card in cards.values()}) == 4
    told = {name: (card.kind, card.side, card.halo, card.stride, card.about["task"]) for name, card in cards.items()}
    assert told["cerb-gland"] == ("instance", 352, 112, 2, "gland")
    assert told["cerb-nuclei"] == ("instance", 352, 112, 1, "nuclei")
    assert told["cerb-patch"] == ("patch", 368, 120, 32, "patch")
    assert cards["cerb-lumen"].postprocess == {"objects": "lumen", "max_object_px": 1024, "within": "gland"}
    assert len(cards["cerb-lumen"].channels) == 4 and cards["cerb-lumen"].drawn == ("Lumen",)
    assert cards["cerb-patch"].drawn == tuple(sorted(set(NAMES) - {"Background"}))
    assert "Windows leave no trace" in cards["cerb-gland"].about["notes"]
    data = cards["cerb-nuclei"].about["data"]
    assert [each["labels"].split(":")[0] for each in data] == ["exact", "weak"]
    assert cards["cerb-nuclei"].about["licence"] == "MIT"
    assert str(runs) not in json.dumps([card.to_json() for card in cards.values()])


def test_types_are_classes_and_every_card_runs(runs, library):
    slide = add_picture(library, "discs", circles_picture("nuclei", 7, 240, True, 100).rgb)
    cards = published(runs / "all", library, "--name", "cerb")
    types = DRAWN_TYPES["nuclei"]
    assert cards["cerb-nuclei"].channels == ("interior", "boundary", *types)
    assert cards["cerb-nuclei"].drawn == tuple(sorted(types))
    for task in ("gland", "lumen", "patch"):
        predictor = open_predictor(f"cerb-{task}", device="cpu", threads=1, folders=[library.root / "models"])
        own = predictor.card
        maps = predictor(np.full((1, own.side, own.side, 3), 200, np.uint8))
        assert maps.shape == (1, len(own.channels), own.map_side, own.map_side)
    request = PredictRequest(slide, "cerb-gland", parameters={"tissue": "all"})
    assert predict(library.root, request, device="cpu", threads=1).count >= 0


def test_interiors_alone_grow(runs, library):
    card = published(runs / "interiors", library)["interiors"]
    assert card.postprocess == {"objects": "nuclei", "max_object_px": 512, "target": "base"}


def test_scores_and_places(runs, library, tmp_path):
    run = tmp_path / "scored"
    shutil.copytree(runs / "discs", run)
    rows = [{"task": "nuclei", "set": "drawn scene", "truth": "exact", "rows": 9, "dice": 0.5, "sq": None},
            {"task": "gland", "set": "drawn scene", "dice": 0.1}]  # fmt: skip
    (run / "results.json").write_text(json.dumps({"rows": rows}))
    about = published(run, library)["scored"].about
    assert about["scores"] == [{"task": "nuclei", "set": "drawn scene", "truth": "exact", "rows": 9, "dice": 0.5}]
    assert about["training"]["steps"] == 45 and about["parameters"] == sum(
        tensor.numel() for name, tensor in loop.part(loop.read_state(run)[2], "model").items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )  # fmt: skip


def test_a_network_without_such_tasks_is_refused(runs, tmp_path):
    run = tmp_path / "odd"
    shutil.copytree(runs / "interiors", run)
    network = json.loads((run / "network.json").read_text())
    network["config"]["tasks"] = {"nuclei_points": 2}
    (run / "network.json").write_text(json.dumps(network))
    with pytest.raises(BadRequestError, match="odd has none of the tasks"):
        cards_cerberus.cards_of_run(run, "x")


def test_the_shipped_card_tells_what_it_learnt_from(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export_cerberus, "read_hand_set", lambda data: dict.fromkeys(("one", "two", *VALIDATION[:1])))
    arguments = ["--run", str(runs / "discs"), "--output", str(tmp_path / "out"), "--commit", "abc"]
    assert export_cerberus.main(arguments) == 0
    predictor = open_predictor(tmp_path / "out" / "nuclei.json", device="cpu", threads=1)
    about = predictor.card.about
    assert (predictor.card.name, about["weights"], about["training"]["commit"]) == (
        "nuclei",
        "nuclei.safetensors",
        "abc",
    )
    assert predictor.card.postprocess["objects"] == "nuclei" and predictor.card.postprocess["max_area_um2"] == 500.0
    assert (
        about["better"] == "nuclei-fast"
        and about["scores"] == []
        and about["licence"] == "MIT"
        and "half the published width" in about["notes"]
    )
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["nuclei.json", "nuclei.safetensors"]
    assert export_cerberus.main(["--run", str(runs / "all"), "--output", str(tmp_path)]) == 2
    assert "all is no run of nuclei alone" in capsys.readouterr().err


def test_the_shipped_card_fits_its_weights():
    file = WEIGHTS_FOLDER / "nuclei.json"
    card, about = read_card(file), read_card(file).about
    model = checkpoint.load(file.parent / about["weights"], card.sha256, about["architecture"], about["config"])
    assert parameter_count(model) == about["parameters"] <= 1_600_000
    assert (card.halo, card.side - 2 * card.halo) == (halo_for(about["config"]["blocks"], "nuclei"), 512)
    assert {each["licence"] for each in about["data"]} == {"CC0 1.0", "MIT"}
    rows = {row["set"].split(":")[0]: row["pq"] for row in about["scores"]}
    assert set(rows) == {"dsb2018 test", "drawn scene", "MoNuSeg 2018 training, 13 pictures"}


def test_the_shipped_network_finds_drawn_nuclei():
    """A part of a scene that nothing was trained on, as a slide would be told."""
    predictor = open_predictor("nuclei", device="cpu", threads=1)
    part = draw_parts(9_000, 1)[0].picture
    told = segment(tell(predictor, part.rgb[:256, :256].copy()), predictor.card)
    assert detection(part.labels[:256, :256], told).pq > 0.8
