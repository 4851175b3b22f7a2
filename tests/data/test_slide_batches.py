"""Batches of patches and of maps of paper D: by number alone, balanced, varied within bounds, placed, on disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.data.drawn_slides import drawn_slide
from wsi_ml.data.patch_grid import NOLABEL, NORMAL, TUMOUR
from wsi_ml.data.patch_slide_batches import MiddleRows, PatchRows, SlideTurns, middle, read_chunk, varied
from wsi_ml.data.slide_maps import MapRows, SlideFeatures, features_bytes, lumps, read_features, slide_maps
from wsi_ml.errors import BadRequestError, ModelUnavailableError

CROP = 32


@pytest.fixture(scope="module")
def slides():
    return [drawn_slide("a", 80), drawn_slide("b", 80)]


# -- patches -------------------------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_number_alone(slides):
    one, again = PatchRows(slides, 4, CROP, 7), PatchRows(slides, 4, CROP, 7)
    again.batch(30)
    first = one.batch(2)
    assert first.stored.shape == (4, CROP, CROP, 3) and first.stored.dtype == np.uint8
    assert np.array_equal(first.stored, again.batch(2).stored) and np.array_equal(first.labels, again.batch(2).labels)
    assert not np.array_equal(first.stored, PatchRows(slides, 4, CROP, 8).batch(2).stored)


def test_an_epoch_shows_every_labelled_patch_once(slides):
    rows = PatchRows(slides, 4, CROP, 7)
    assert rows.epoch_patches == 160 and len(rows) == 40
    seen = {tuple(rows._place(number).tolist()) for number in range(160)}
    assert len(seen) == 160
    assert [rows._place(number)[1] for number in range(160)] != [rows._place(160 + number)[1] for number in range(160)]


def test_balance_draws_as_many_normal_as_tumour_patches_anew_each_epoch(slides):
    tumour = sum(int((slide.labels == TUMOUR).sum()) for slide in slides)
    rows = PatchRows(slides, 4, CROP, 7, balance=True)
    assert tumour == 16 + 25 and rows.epoch_patches == 2 * tumour
    epochs = [np.array([rows._place(82 * epoch + number) for number in range(82)]) for epoch in range(2)]
    for epoch in epochs:
        assert (epoch[:, 2] == TUMOUR).sum() == (epoch[:, 2] == NORMAL).sum() == tumour
        assert len({tuple(place) for place in epoch.tolist()}) == 82
    normal = [{tuple(place[:2]) for place in epoch.tolist() if place[2] == NORMAL} for epoch in epochs]
    assert normal[0] != normal[1]


def test_slides_without_a_class_or_with_patches_too_small_are_refused(slides):
    normal = dataclasses.replace(slides[0], labels=np.zeros(len(slides[0].labels), np.int64))
    with pytest.raises(BadRequestError, match="labelled tumour"):
        PatchRows([normal], 4, CROP, 7)
    unknown = dataclasses.replace(normal, labels=normal.labels - 1)
    with pytest.raises(BadRequestError, match="slides a has a label"):
        MiddleRows([unknown], 4, CROP)
    with pytest.raises(BadRequestError, match="96 px cannot be cut from patches of 80"):
        PatchRows(slides, 4, 96, 7)


def test_variation_is_a_pose_where_light_is_left_alone(slides, monkeypatch):
    monkeypatch.setattr("wsi_ml.data.patch_slide_batches.FACTORS", (1.0, 1.0))
    rgb = np.random.default_rng(0).integers(0, 256, (CROP, CROP, 3), dtype=np.uint8)
    poses = {
        np.rot90(side, turn).tobytes() for side in (rgb, rgb[:, ::-1]) for turn in range(4)
    }  # fmt: skip
    found = {varied(rgb, CROP, np.random.default_rng(seed)).tobytes() for seed in range(60)}
    assert found == poses


def test_light_changes_by_a_quarter_at_most():
    grey = np.full((40, 40, 3), 160, np.uint8)
    means = [varied(grey, CROP, np.random.default_rng(seed)).mean() for seed in range(80)]
    assert 119 <= min(means) < 130 and 190 < max(means) <= 200


def test_middle_rows_are_finite_in_order_and_spread(slides):
    rows = MiddleRows(slides, 60, CROP)
    assert len(rows) == 3 and [len(rows.batch(number).labels) for number in range(3)] == [60, 60, 40]
    assert np.array_equal(rows.batch(0).stored[5], middle(slides[0].read(5), CROP))
    with pytest.raises(IndexError):
        rows.batch(3)
    assert MiddleRows(slides, 60, CROP, 3).places[:, :2].tolist() == [[0, 0], [1, 0], [1, 79]]


def test_a_chunk_is_the_same_when_read_again_in_its_turn(slides):
    once, again = (read_chunk(slides[0], range(3, 6), CROP, (7, 1)) for _ in range(2))
    other = read_chunk(slides[0], range(3, 6), CROP, (7, 2))
    assert np.array_equal(once, again) and not np.array_equal(once, other)
    # A patch's variation does not depend on the chunk it is in.
    assert np.array_equal(once[2], read_chunk(slides[0], [5], CROP, (7, 1))[0])
    assert np.array_equal(read_chunk(slides[0], [4], CROP)[0], middle(slides[0].read(4), CROP))


def test_every_slide_has_its_turn_once_an_epoch():
    turns = SlideTurns(5, 3)
    order = [int(turns.batch(number).slide[0]) for number in range(10)]
    assert sorted(order[:5]) == sorted(order[5:]) == list(range(5)) and order[:5] != order[5:] and len(turns) == 5


# -- maps ----------------------------------------------------------------------------------------------------------


def features_of(cells, labels=None):
    cells = np.asarray(cells)
    features = np.arange(2 * len(cells), dtype=np.float32).reshape(-1, 2) + 1
    return SlideFeatures("s", features, cells, np.asarray(labels if labels else [TUMOUR] * len(cells)), "sum")


def test_features_lie_at_their_cells_in_the_middle_of_the_map():
    (found,) = slide_maps(features_of([[5, 5], [5, 6], [7, 5]], [TUMOUR, NOLABEL, NORMAL]), 16)
    assert found.features.shape == (2, 16, 16) and (found.features != 0).sum() == 6
    assert found.features[:, 6, 7].tolist() == [1, 2] and found.features[:, 8, 7].tolist() == [5, 6]
    assert found.labels[6, 7] == TUMOUR and found.labels[8, 7] == NORMAL and (found.labels != NOLABEL).sum() == 2


def test_a_map_for_each_lump_largest_first():
    cells = np.array([[0, 0], [9, 9], [10, 10], [11, 9], [0, 1]])
    assert [lump.tolist() for lump in lumps(cells)] == [[1, 2, 3], [0, 4]]
    first, second = slide_maps(features_of(cells), 16, "lump")
    assert first.numbers.tolist() == [1, 2, 3] and (second.labels == TUMOUR).sum() == 2
    assert second.features[:, 7, 7].tolist() == [1, 2] and second.features[:, 7, 8].tolist() == [9, 10]
    with pytest.raises(BadRequestError, match="not of a 'patient'"):
        slide_maps(features_of(cells), 16, "patient")


def test_maps_without_a_label_are_not_trained_on():
    known = slide_maps(features_of([[0, 0]]), 16)
    unknown = slide_maps(features_of([[0, 0]], [NOLABEL]), 16)
    rows = MapRows(known * 3 + unknown, 2, 5)
    assert len(rows.maps) == 3 and len(rows) == 1
    batch = rows.batch(4)
    assert batch.maps.shape == (2, 2, 16, 16) and batch.labels.shape == (2, 16, 16)
    with pytest.raises(BadRequestError, match="No patch on the maps"):
        MapRows(unknown, 2, 5)


def test_features_survive_the_disk_and_damage_is_told(tmp_path):
    path = tmp_path / "s.features.safetensors"
    found = features_of([[0, 3], [2, 1]], [NORMAL, TUMOUR])
    path.write_bytes(features_bytes(found))
    read = read_features(path)
    assert (read.name, read.made_by) == ("s", "sum")
    for name in ("features", "cells", "labels"):
        assert np.array_equal(getattr(read, name), getattr(found, name))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelUnavailableError, match="stage=features"):
        read_features(path)
