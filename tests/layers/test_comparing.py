"""Comparison of two layers, against shapely's own unions and against numbers known from the drawing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ml.geometry import Size
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.compare import Comparison, Selection
from wsi_ml.layers.comparing import LayerOutlines, box_areas, measure
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import BaseBox

SIZE = Size(40_000, 30_000)
Row = tuple[shapely.Geometry, str, float | None]


def features_file(path: Path, rows: list[Row]) -> FeaturesFile:
    names = sorted({name for _, name, _ in rows}) or ["tumour"]
    with FeaturesWriter(path, names, SIZE) as writer:
        if rows:
            writer.add(
                FeatureBatch(
                    np.array([geometry for geometry, _, _ in rows], object),
                    np.array([names.index(name) for _, name, _ in rows], np.uint16),
                    np.array([np.nan if score is None else score for _, _, score in rows], np.float32),
                )
            )
        writer.finish()
    return FeaturesFile(path)


class Sides:
    """Two layers in files and what is asked of them."""

    def __init__(self, folder: Path, truth: list[Row], prediction: list[Row], mode: str = "match"):
        files = [features_file(folder / f"{name}.features", rows) for name, rows in (("t", truth), ("p", prediction))]
        self.classes = tuple(sorted({*files[0].class_names, *files[1].class_names}))
        self.truth, self.prediction = (LayerOutlines(each, self.classes, mode) for each in files)
        self.compared: Comparison = measure(self.truth, self.prediction, mode, self.classes)

    def scores(self, **selection) -> dict:
        chosen = Selection(**selection)
        areas = box_areas(self.truth, self.prediction, self.compared, chosen.box) if chosen.box else None
        return self.compared.scores(chosen, areas)


def square(x: float, y: float, side: float) -> shapely.Geometry:
    return shapely.box(x, y, x + side, y + side)


def grid(count: int, side: float = 20, step: float = 50) -> list[shapely.Geometry]:
    columns = int(np.ceil(np.sqrt(count)))
    return [square(100 + step * (at % columns), 100 + step * (at // columns), side) for at in range(count)]


def test_the_identity_scores_one_everywhere(tmp_path):
    rows = [(each, "ab"[at % 2], None) for at, each in enumerate(grid(3000))]
    found = Sides(tmp_path, rows, [(geometry, name, 0.5) for geometry, name, _ in rows]).scores()
    for row in (*found["classes"].values(), found["overall"]):
        assert (row["fp"], row["fn"]) == (0, 0)
        assert [row[each] for each in ("precision", "recall", "f1", "sq", "pq", "dice", "iou")] == [1] * 7
    assert found["overall"]["aji"] == 1
    assert found["overall"]["tp"] == 3000


def test_threshold_drops_predictions_and_their_areas(tmp_path):
    truth = [(square(0, 0, 20), "n", None), (square(100, 0, 20), "n", None)]
    prediction = [(square(0, 0, 20), "n", 0.9), (square(100, 0, 20), "n", 0.3), (square(200, 0, 20), "n", 0.6)]
    sides = Sides(tmp_path, truth, prediction)
    low, high = sides.scores()["overall"], sides.scores(min_score=0.31)["overall"]
    assert (low["tp"], low["fp"], low["fn"], low["dice"]) == (2, 1, 0, pytest.approx(2 * 800 / (800 + 1200)))
    assert (high["tp"], high["fp"], high["fn"], high["dice"]) == (1, 1, 1, pytest.approx(2 * 400 / (800 + 800)))
    assert sides.scores(min_score=0.3)["overall"]["tp"] == 2


def test_class_must_match_unless_any_is_asked(tmp_path):
    truth, prediction = [(square(0, 0, 20), "tumour", None)], [(square(0, 0, 20), "stroma", 1.0)]
    within = Sides(tmp_path, truth, prediction).scores()
    assert (within["overall"]["tp"], within["overall"]["dice"]) == (0, 0)
    assert (within["classes"]["tumour"]["fn"], within["classes"]["stroma"]["fp"]) == (1, 1)
    assert within["overall"]["aji"] == 0
    across = Sides(tmp_path, truth, prediction, mode="any").scores()
    assert (across["overall"]["tp"], across["overall"]["dice"], across["overall"]["aji"]) == (1, 1, 1)
    assert [(row["dice"], row["iou"]) for row in across["classes"].values()] == [(None, None)] * 2


def test_overlapping_outlines_of_one_layer_are_counted_once(tmp_path):
    truth = [(square(0, 0, 100), "t", None), (square(50, 0, 100), "t", None)]
    prediction = [(square(0, 0, 100), "t", 0.9), (square(0, 0, 150), "t", 0.4)]
    sides = Sides(tmp_path, truth, prediction)
    both, sure = sides.scores()["overall"], sides.scores(min_score=0.5)["overall"]
    assert both["truth_area"] == 15_000
    assert both["prediction_area"] == 22_500
    assert both["iou"] == pytest.approx(15_000 / 22_500)
    assert sure["iou"] == pytest.approx(10_000 / 15_000)


def test_views_share_the_slide_out(tmp_path):
    truth = [(each, "n", None) for each in grid(400)]
    prediction = [(shapely.affinity.translate(each, 6, 3), "n", (at % 10) / 10) for at, each in enumerate(grid(380))]
    sides = Sides(tmp_path, truth, prediction)
    whole = sides.scores(min_score=0.2)
    edges = [0, 333.3, 618, 40_000]
    views = [BaseBox(a, c, b, d) for a, b in pairwise(edges) for c, d in pairwise(edges)]
    parts = [sides.scores(min_score=0.2, box=view)["overall"] for view in views]
    for name in ("tp", "fp", "fn", "truth", "prediction"):
        assert sum(part[name] for part in parts) == whole["overall"][name]
    for name in ("truth_area", "prediction_area"):
        assert sum(part[name] for part in parts) == pytest.approx(whole["overall"][name], rel=1e-12)


def test_curve_agrees_with_the_scores_at_each_threshold(tmp_path):
    truth = [(each, "n", None) for each in grid(100)]
    prediction = [(each, "n", at / 120) for at, each in enumerate(grid(121))]
    sides = Sides(tmp_path, truth, prediction)
    curve = sides.compared.curve()
    for step in (0, 13, 50, 77, 100):
        row = sides.scores(min_score=step / 100)["overall"]
        assert curve["overall"]["precision"][step] == row["precision"]
        assert curve["overall"]["recall"][step] == row["recall"]
    assert curve["classes"]["n"] == curve["overall"]


def test_errors_by_size_and_by_score(tmp_path):
    truth = [(square(0, 0, 20), "n", None), (square(100, 0, 40), "n", None)]
    prediction = [(square(0, 0, 20), "n", 0.9), (square(300, 0, 30), "n", 0.2), (square(400, 0, 10), "n", 0.8)]
    compared = Sides(tmp_path, truth, prediction).compared
    assert compared.errors(Selection()) == [("fn", 1), ("fp", 1), ("fp", 2)]
    assert compared.errors(Selection(), "score") == [("fp", 2), ("fp", 1), ("fn", 1)]
    assert compared.errors(Selection(min_score=0.85)) == [("fn", 1)]
    assert compared.errors(Selection(box=BaseBox(350, 0, 500, 50))) == [("fp", 2)]


def test_empty_layers_give_no_numbers(tmp_path):
    found = Sides(tmp_path, [], [(square(0, 0, 9), "tumour", 0.5)]).scores()["overall"]
    assert (found["recall"], found["precision"], found["pq"], found["aji"], found["dice"]) == (None, 0, 0, 0, 0)
    found = Sides(tmp_path, [], []).scores()["overall"]
    assert [found[each] for each in ("precision", "recall", "pq", "aji", "dice")] == [None] * 5


whole = st.integers(0, 40)
squares = st.lists(st.tuples(whole, whole, st.integers(1, 25), st.sampled_from("ab"), st.integers(0, 4)), max_size=9)


@settings(max_examples=60, deadline=None)
@given(squares, squares, st.sampled_from(["match", "any"]), st.integers(0, 4))
def test_areas_equal_those_of_unions_whatever_overlaps(tmp_path_factory, truth, prediction, mode, step):
    folder = tmp_path_factory.mktemp("sides")
    truth_rows = [(square(x, y, side), name, None) for x, y, side, name, _ in truth]
    rows = [(square(x, y, side), name, score / 4) for x, y, side, name, score in prediction]
    kept = [row for row in rows if row[2] >= step / 4]
    box = BaseBox(7, 5, 30, 33)
    for view, frame in ((None, square(-100, -100, 500)), (box, shapely.box(*box))):
        found = Sides(folder, truth_rows, rows, mode).scores(min_score=step / 4, box=view)["overall"]
        shared = truth_area = area = 0.0
        for name in ("a", "b") if mode == "match" else (("a", "b"),):
            t, p = (
                shapely.union_all([g for g, each, _ in layer if each in name]).intersection(frame)
                for layer in (truth_rows, kept)
            )
            shared, truth_area, area = (
                shared + (0.0 if t.is_empty or p.is_empty else t.intersection(p).area),
                truth_area + t.area,
                area + p.area,
            )
        assert found["truth_area"] == pytest.approx(truth_area)
        assert found["prediction_area"] == pytest.approx(area)
        union = truth_area + area - shared
        assert found["iou"] == (pytest.approx(shared / union) if union else None)
