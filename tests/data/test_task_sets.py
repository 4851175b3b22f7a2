"""Sets by name: what is held out of each, points and types of instances, what a name may be."""

import dataclasses

import numpy as np
import pytest

from tests.data.instance_sets import write_conic, write_glas, write_own
from tests.data.task_circles import circles_picture
from wsi_ml.data import task_sets
from wsi_ml.data.instance_targets import point_target
from wsi_ml.data.task_batches import POINT_WEIGHT, TaskBatchSettings, dense_row
from wsi_ml.data.task_pictures import (
    RESEARCH_TEST,
    RESEARCH_VALIDATION,
    TaskPicture,
    base_task,
    instance_task,
    of_types,
)
from wsi_ml.data.task_sets import SetOptions, knows, open_task_set, types_of
from wsi_ml.errors import BadRequestError


def names(pictures):
    return [picture.name for picture in pictures]


def test_names_of_tasks():
    assert [instance_task(task) for task in ("nuclei", "nuclei_type", "nuclei_points")] == [
        "nuclei", "nuclei", "nuclei_points",
    ]  # fmt: skip
    assert {base_task(task) for task in ("nuclei", "nuclei_type", "nuclei_points")} == {"nuclei"}


def test_a_disc_lies_around_each_centre():
    labels = np.zeros((12, 14), np.int32)
    labels[2:5, 2:5] = 7  # its centre is a pixel
    labels[8:10, 9:11] = 3  # its centre lies between four
    target = point_target(labels, 1.0)
    assert set(zip(*(axis.tolist() for axis in np.nonzero(target[:7])), strict=True)) == {
        (2, 3), (3, 2), (3, 3), (3, 4), (4, 3),
    }  # fmt: skip
    assert target[8:10, 9:11].all() and target.sum() == 9 and target.dtype == np.uint8
    edge = np.zeros((6, 6), np.int32)
    edge[0, 0] = 1
    assert point_target(edge, 2.0).sum() == 6  # a quarter of a disc of 13 pixels, axes whole
    assert not point_target(edge * 0, 3.0).any()


def test_rows_of_points_have_discs_and_heavy_ones():
    picture = circles_picture("nuclei", side=64)
    settings = TaskBatchSettings(side=64, point_radius=2.0)
    _, target, weights, _, _ = dense_row(picture, "nuclei_points", settings, np.random.default_rng(0), vary=False)
    assert np.array_equal(target, point_target(picture.labels, 2.0))
    assert set(np.unique(weights)) == {1.0, POINT_WEIGHT} and (weights[target > 0] == POINT_WEIGHT).all()
    with pytest.raises(BadRequestError, match=r"point_radius 0.5"):
        TaskBatchSettings(point_radius=0.5)


def test_instances_of_some_types_alone():
    picture = circles_picture("nuclei", 0, typed=True)
    kept = of_types(picture, [2])
    assert (
        np.array_equal(kept.labels > 0, picture.types == 2) and 0 < (kept.labels > 0).sum() < (picture.labels > 0).sum()
    )
    with pytest.raises(BadRequestError, match="tells no types"):
        of_types(circles_picture("nuclei", 1), [1])


@pytest.fixture
def research(monkeypatch):
    """MoNuSeg's names with drawn pictures."""
    every = [*RESEARCH_VALIDATION, *RESEARCH_TEST, "TCGA-1", "TCGA-2", "TCGA-3"]
    pictures = [dataclasses.replace(circles_picture("nuclei", n), name=name) for n, name in enumerate(every)]
    monkeypatch.setattr(task_sets, "research_pictures", lambda root: pictures)


def test_the_research_set_is_split_by_picture(research, tmp_path):
    found = open_task_set("monuseg", ["nuclei"], SetOptions(tmp_path))
    assert names(found.training["nuclei"]) == ["TCGA-1", "TCGA-2", "TCGA-3"]
    assert names(found.test["nuclei"]) == list(RESEARCH_TEST) == list(found.test_names)
    assert found.validation_names == RESEARCH_VALIDATION and found.kind == "hand"
    told = open_task_set("monuseg", ["nuclei"], SetOptions(tmp_path, test=("TCGA-1", "of another set")))
    assert told.test_names == ("TCGA-1",) and len(told.training["nuclei"]) == 6


def test_folders_are_split_and_name_what_they_hold_out(tmp_path):
    word = f"folder:{write_own(tmp_path / 'own')}"
    found = open_task_set(word, ["gland", "nuclei"], SetOptions(tmp_path))
    assert names(found.training["nuclei"]) == ["0", "1"] and names(found.training["gland"]) == ["0"]
    assert (found.kind, found.validation_names, found.test_names) == ("teacher", ("2",), ("3",))
    conic = open_task_set(f"conic:{write_conic(tmp_path / 'conic')}", ["nuclei"], SetOptions(tmp_path))
    assert conic.test_names == ("consep_1",) or conic.test_names[0].startswith("consep_")
    assert {"consep_0", "consep_0-0001"} <= conic.known_names
    with pytest.raises(BadRequestError, match="knows no lumen"):
        open_task_set(f"glas:{write_glas(tmp_path / 'glas')}", ["lumen"], SetOptions(tmp_path))


def test_drawn_scenes_that_are_watched_have_other_seeds(tmp_path, monkeypatch):
    drawn = []

    def draw(seed, parts, tasks):
        drawn.append((seed, parts))
        return {
            task: [TaskPicture(f"{seed}", np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.int32))] for task in tasks
        }

    monkeypatch.setattr(task_sets, "drawn_pictures", draw)
    found = open_task_set(
        "drawn", ["lumen"], SetOptions(tmp_path, seed=5, scenes=2, scene_parts=3, validation_parts=40)
    )
    assert drawn == [(5, 3), (6, 3), (5 + task_sets.DRAWN_VALIDATION, 9)]
    assert names(found.training["lumen"]) == ["5", "6"] and found.kind == "exact" and not found.test


def test_what_sets_know():
    assert knows("dsb2018", "nuclei") and not knows("dsb2018", "gland") and knows("folder:x", "lumen")
    assert len(types_of("conic:x", "nuclei")) == 6 and types_of("glas:x", "gland")[1] == "Malignant gland"
    assert (
        types_of("drawn", "nuclei")[2] == "Lymphocyte"
        and types_of("drawn", "gland") == types_of("crag:x", "gland") == ()
    )
    with pytest.raises(BadRequestError, match="'lizards' is no set"):
        knows("lizards", "nuclei")
