"""Paper C's objects on whole slides: the same for blocks of any size, right at any µm/px, lumina within glands."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely

from tests.inference.array_maps import ArrayMaps
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size
from wsi_ml.inference.card import AROUND, PredictorCard, PredictorClass, card_from_json
from wsi_ml.inference.cerberus_finder import CerberusFinder, finder_of
from wsi_ml.inference.cerberus_objects import find_objects_of, lumina_within
from wsi_ml.inference.instances import block_boxes, block_instances
from wsi_ml.inference.vectorise import vectorise
from wsi_ml.inference.watershed import InstanceSettings
from wsi_ml.metrics.label_maps import detection


def noisy(height, width, seed, cell, channels=2):
    """Interior and boundary in pairs with no order to them: touching clusters of every size."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(channels // 2):
        field = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), cell)
        field = field / field.std()
        found += [1 / (1 + np.exp(-4 * (field - 0.4))), 0.9 * np.exp(-(((field - 0.1) / 0.25) ** 2))]
    return (np.stack(found) * 255).round().astype(np.uint8)


def objects_by_blocks(told, finder, side, margin=8):
    """Every object with its pixels and score, in an order that does not hang on the blocks."""
    size = Size(told.shape[2], told.shape[1])

    def read(box: Region) -> np.ndarray:
        return told[:, box.y : box.y_end, box.x : box.x_end]

    rows = []
    for block in block_boxes(size, side):
        found = block_instances(read, size, block, finder, margin=margin)
        rows += zip(shapely.to_wkb(found.polygons).tolist(), found.pixels.tolist(), found.means.tolist(), strict=True)
    return sorted(rows)


def disc(labels, row, column, radius, number):
    rows, columns = np.indices(labels.shape)
    labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number


@pytest.mark.parametrize(
    ("finder", "cell", "channels"),
    [
        (CerberusFinder("nuclei", 0.5), 2.0, 2),
        (CerberusFinder("nuclei", 0.5, threshold=0.7), 2.0, 2),
        (CerberusFinder("nuclei", 0.5, max_object_px=40), 2.5, 2),
        (CerberusFinder("nuclei", 0.5, target="base"), 2.5, 2),
        (CerberusFinder("gland", 1.0, max_object_px=90), 9.0, 2),
        (CerberusFinder("lumen", 1.0, within="gland", max_object_px=90), 8.0, 4),
    ],
    ids=["nuclei", "another threshold", "cut", "interiors only", "gland", "lumen within glands"],
)
def test_blocks_leave_no_trace(finder, cell, channels):
    told = noisy(150, 180, 5, cell, channels)
    whole = objects_by_blocks(told, finder, 512)
    assert len(whole) > (30 if finder.task == "nuclei" else 2)
    for side in (48, 80):
        assert objects_by_blocks(told, finder, side) == whole


def test_one_block_holds_what_the_rules_say():
    told = noisy(160, 200, 9, 2.0)
    found = CerberusFinder("nuclei", 0.5).find(told, (0, 0)).labels
    rules = find_objects_of("nuclei", told.astype(np.float32) / 255)
    assert found.max() > 20 and detection(rules, found).pq == 1.0
    both = noisy(200, 240, 4, 8.0, 4)
    finder = CerberusFinder("lumen", 0.5, within="gland")
    kept = lumina_within(
        *(
            find_objects_of(task, pair.astype(np.float32) / 255)
            for task, pair in (("lumen", both[:2]), ("gland", both[2:]))
        )
    )
    labels = finder.find(both, (0, 0)).labels
    assert kept.any() and np.array_equal(labels > 0, kept > 0)
    lumina = find_objects_of("lumen", both[:2].astype(np.float32) / 255)
    assert ((lumina > 0) & (labels == 0)).any()  # something lay outside every gland


def test_sizes_are_of_tissue_not_of_pixels():
    """A gland of 22 px radius at 1 µm is kept, one of 14 px not; at 0.5 µm both are too small for one of 250 µm²."""
    labels = np.zeros((120, 200), int)
    disc(labels, 60, 60, 9, 1)
    disc(labels, 60, 140, 7, 2)
    told = np.stack([labels > 0, labels < 0]).astype(np.uint8) * 255
    areas = [int((labels == number).sum()) for number in (1, 2)]
    assert areas == [253, 149]

    def count(mpp):
        return int(CerberusFinder("gland", mpp).find(told, (0, 0)).labels.max())

    assert (count(1.0), count(0.5), count(1.4)) == (1, 0, 2)  # least 250, 1000 and 127 px
    grown = CerberusFinder("gland", 1.0).find(told, (0, 0)).labels
    across = np.flatnonzero((grown == 1).any(0))
    assert len(across) == 19 + 4  # a disc of 10 px at 0.5 µm is one of 5 at 1 µm
    slightly = CerberusFinder("gland", 1.004).find(told, (0, 0)).labels
    assert np.array_equal(slightly, grown)


def test_a_card_chooses_the_rules():
    assert finder_of({"mask_threshold": 0.4}, None, 0.5) == InstanceSettings(mask_threshold=0.4)
    assert finder_of({"objects": "gland", "max_object_px": 99}, 0.6, 1.0) == CerberusFinder(
        "gland", 1.0, 0.6, max_object_px=99
    )
    with pytest.raises(BadRequestError, match="no rules for objects of 'cells'"):
        finder_of({"objects": "cells"}, None, 0.5)
    with pytest.raises(BadRequestError, match="target 'both'"):
        finder_of({"objects": "nuclei", "target": "both"}, None, 0.5)


def test_lumina_of_a_slide_lie_within_its_glands():
    glands, lumina = np.zeros((2, 200, 300), int)
    disc(glands, 100, 100, 50, 1)
    disc(lumina, 100, 100, 20, 1)
    disc(lumina, 100, 230, 20, 2)
    told = np.stack([lumina > 0, lumina < 0, glands > 0, glands < 0]).astype(np.uint8) * 255
    card = PredictorCard(
        "test-lumen", "instance", (PredictorClass("Lumen"),), ("interior", "boundary", *AROUND), 0.5, (0.4, 0.6), 64, 0,
        2, "0" * 64, postprocess={"objects": "lumen", "within": "gland"},
        about={"weights": "w.safetensors", "activation": "sigmoid"},
    )  # fmt: skip
    assert card_from_json(card.to_json()).channels == card.channels
    batches = list(vectorise(ArrayMaps(told, stride=2), card, {"simplify_px": 0.0}, Size(1200, 800)))
    polygons = [polygon for batch in batches for polygon in batch.geometries]
    assert len(polygons) == 1
    x0, y0, x1, y1 = polygons[0].bounds
    assert (x0, y0, x1, y1) == (320, 320, 484, 484)  # 41 map pixels of 4 base pixels, the disc of 1 px adds none
