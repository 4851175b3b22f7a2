"""Drawn patients: the table tells the classes and stages of what was drawn, and lesions are as long as their class."""

from __future__ import annotations

import csv

import pytest

from train import draw_patients
from train.draw_patients import CLASSES_OF, KINDS, STORED_PER_MM, Kind
from train.draw_slides import LESION_LAYER
from train.pn_stage import read_stages
from wsi_ml.data.lesion_slide import SQUARE, make_node
from wsi_ml.data.patch_slides import Cutting, library_slides
from wsi_ml.geometry import Size
from wsi_ml.metrics.staging import NODES, STAGES, node_of, stage_of
from wsi_ml.slides.library import Library


def test_a_patients_slides_and_table_are_drawn_once(tmp_path, monkeypatch):
    small = {name: Kind(Size(512, 512), (0.1, 0.2) if name == "micro" else (0, 0), 0.1) for name in NODES}
    monkeypatch.setattr(draw_patients, "KINDS", small)
    monkeypatch.setattr(draw_patients, "CLASSES_OF", (("micro", "micro", "negative", "negative", "negative"),))
    arguments = ["--library", str(tmp_path / "library"), "--stages", str(tmp_path / "stages.csv"), "--patients", "1"]
    assert draw_patients.main(arguments) == 0
    slides, patients = read_stages(tmp_path / "stages.csv")
    assert patients == {"patient_000.zip": "pN1mi"} and sorted(slides.values()) == ["micro"] * 2 + ["negative"] * 3
    drawn = Library(tmp_path / "library").slides()
    assert {slide.name for slide in drawn} == slides.keys()
    found = library_slides(tmp_path / "library", LESION_LAYER, ["Lesion"], ["Normal"], Cutting(SQUARE))
    assert {slide.name: bool((slide.labels == 1).any()) for slide in found} == {
        name: told == "micro" for name, told in slides.items()
    }
    assert draw_patients.main(arguments) == 0 and Library(tmp_path / "library").slides() == drawn
    with (tmp_path / "stages.csv").open() as lines:
        assert next(csv.reader(lines)) == ["patient", "stage"]
    assert draw_patients.main([*arguments[:4], "--patients", "0"]) == 2


@pytest.mark.parametrize("told", NODES)
def test_lesions_are_as_long_as_their_class(told):
    kind = KINDS[told]
    for extent in kind.extents:
        scene = make_node(kind.size, 7, extent * STORED_PER_MM, min(extent, kind.breadth) * STORED_PER_MM)
        if told == "negative":
            assert scene.lesions.is_empty
            continue
        left, top, right, bottom = scene.lesions.bounds
        assert node_of(max(right - left, bottom - top) / STORED_PER_MM) == told
        assert scene.lesions.within(scene.tissue)


def test_the_five_patients_have_the_five_stages():
    assert [stage_of(classes) for classes in CLASSES_OF] == list(STAGES)
