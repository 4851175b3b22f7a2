"""Objects from interior and boundary: flooded as a priority flood does it, and the same whatever the blocks."""

from __future__ import annotations

import heapq

import cv2
import numpy as np
import pytest
import shapely

from wsi_ml.data.nuclei import label_outlines, targets
from wsi_ml.data.synthetic import make_scene
from wsi_ml.geometry import Region, Size
from wsi_ml.inference.instances import Instances, block_boxes, block_instances
from wsi_ml.inference.watershed import InstanceSettings, find_objects, least_byte

SETTINGS = InstanceSettings()


def maps_of(labels: np.ndarray, blur: float = 0.0) -> np.ndarray:
    told = targets(labels)[0].astype(np.float32)
    if blur:
        told = np.stack([cv2.GaussianBlur(each, (0, 0), blur) for each in told])
    return (told * 255).round().astype(np.uint8)


def noisy_maps(height: int, width: int, seed: int, bias: float) -> np.ndarray:
    """Interior, boundary and two types with no order to them: touching clusters of every size."""
    noise = np.random.default_rng(seed).standard_normal((2, height, width)).astype(np.float32)
    field, types = (cv2.GaussianBlur(each, (0, 0), 2.0) for each in noise)
    field = field / field.std()
    interior, boundary = 1 / (1 + np.exp(-3 * (field + bias))), 0.8 * np.exp(-((field / 0.4) ** 2))
    kind = (types - types.min()) / np.ptp(types)
    return (np.stack([interior, boundary, kind, 1 - kind]) * 255).round().astype(np.uint8)


def find_all(told: np.ndarray, side: int, settings: InstanceSettings, **how: float) -> list[Instances]:
    size = Size(told.shape[2], told.shape[1])

    def read(box: Region) -> np.ndarray:
        return told[:, box.y : box.y_end, box.x : box.x_end]

    return [block_instances(read, size, block, settings, **how) for block in block_boxes(size, side)]


def as_set(parts: list[Instances]) -> list[tuple[bytes, int, int, float]]:
    """Every object with all that is told of it, in an order that does not hang on the blocks."""
    rows = (
        zip(shapely.to_wkb(p.polygons).tolist(), p.types.tolist(), p.pixels.tolist(), p.means.tolist(), strict=True)
        for p in parts
    )
    return sorted(row for part in rows for row in part)


def priority_flood(seeds: np.ndarray, mask: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """A plain marker-controlled watershed with a queue, the peer."""
    labels = seeds.copy()
    queue = [(-int(heights[y, x]), n, y, x) for n, (y, x) in enumerate(np.argwhere(labels))]
    heapq.heapify(queue)
    count = len(queue)
    while queue:
        _, _, y, x = heapq.heappop(queue)
        for row, column in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            inside = 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]
            if inside and mask[row, column] and not labels[row, column]:
                labels[row, column] = labels[y, x]
                count += 1
                heapq.heappush(queue, (-int(heights[row, column]), count, row, column))
    return labels


@pytest.fixture(scope="module")
def scene_labels() -> np.ndarray:
    scene = make_scene(Size(1280, 1024), seed=11)
    outlines = shapely.transform(scene.nuclei.outlines(), lambda base: base / 2)
    return label_outlines(outlines, Size(640, 512))


def test_perfect_maps_of_a_drawn_scene_give_its_nuclei_back_pixel_for_pixel(scene_labels):
    told = maps_of(scene_labels)
    found = find_objects(told[0], told[1], SETTINGS, (0, 0)).labels
    pairs = np.unique(np.stack([scene_labels.ravel(), found.ravel()], -1), axis=0)
    nuclei = np.unique(scene_labels)
    # A nucleus too thin for an interior pixel is no seed; every other one is found exactly.
    seeded = np.unique(scene_labels[(told[0] > 0) & (scene_labels > 0)])
    assert len(seeded) > 0.97 * (len(nuclei) - 1) > 50
    assert found.max() == len(np.unique(found)) - 1
    exact = [
        number
        for number in seeded
        if ((found == found[scene_labels == number].max()) == (scene_labels == number)).all()
    ]
    assert len(exact) >= 0.99 * len(seeded) and len(pairs) <= len(nuclei) + len(seeded) * 0.02


def test_flooding_in_rounds_is_as_good_as_a_priority_queue(scene_labels):
    interior, boundary = maps_of(scene_labels, blur=1.0)
    found = find_objects(interior, boundary, InstanceSettings(fill_holes=False), (0, 0)).labels
    mask = interior.astype(int) + boundary >= 128
    seeds = np.where((interior >= 128) & (interior > boundary), found, 0)
    assert (priority_flood(seeds, mask, interior) != found).mean() < 1e-4


def test_equal_probabilities_are_shared_by_distance_and_a_tie_goes_to_the_earlier_seed():
    interior = np.full((3, 9), 100, np.uint8)
    interior[1, [0, 8]] = 255
    found = find_objects(interior, np.full((3, 9), 60, np.uint8), InstanceSettings(min_seed_px=1), (0, 0)).labels
    assert found[1].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2]


def test_holes_of_one_object_are_filled_and_gaps_between_objects_are_not():
    interior = np.zeros((9, 12), np.uint8)
    interior[1:8, 1:8] = 255
    interior[3:5, 3:5] = 0
    found = find_objects(interior, np.zeros_like(interior), SETTINGS, (0, 0)).labels
    assert found[1:8, 1:8].all() and found.sum() == 49
    kept = find_objects(interior, np.zeros_like(interior), InstanceSettings(fill_holes=False), (0, 0)).labels
    assert kept.sum() == 45


def test_small_seeds_are_dropped():
    interior = np.zeros((6, 6), np.uint8)
    interior[1, 1:4] = interior[3:5, 3:5] = 255
    found = find_objects(interior, np.zeros_like(interior), SETTINGS, (0, 0)).labels
    assert np.argwhere(found).tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.5])
@pytest.mark.parametrize("side", [37, 90])
def test_blocks_leave_no_trace_even_in_clusters_larger_than_the_margin(bias, side):
    told = noisy_maps(150, 210, seed=5, bias=bias)
    once = as_set(find_all(told, 1000, SETTINGS, tolerance=0.5))
    assert as_set(find_all(told, side, SETTINGS, tolerance=0.5, margin=4)) == once
    assert len(once) > 0


def test_an_object_larger_than_allowed_is_cut_at_lines_of_the_map_and_nothing_is_lost_or_doubled():
    told = np.zeros((2, 100, 120), np.uint8)
    told[0, 5:95, 7:113] = 255
    settings = InstanceSettings(max_object_px=30)
    once = find_all(told, 1000, settings)
    assert as_set(find_all(told, 45, settings, margin=3)) == as_set(once)
    assert sum(part.pixels.sum() for part in once) == 90 * 106
    assert shapely.union_all(once[0].polygons).equals(shapely.box(7, 5, 113, 95)) and len(once[0].polygons) == 16


def test_a_chain_of_touching_nuclei_across_many_blocks_is_found_once_each():
    labels = np.zeros((14, 400), np.int32)
    for number in range(40):
        labels[2:12, number * 10 : number * 10 + 10] = number + 1
    told = maps_of(labels)
    parts = find_all(told, 32, SETTINGS, margin=2)
    assert [len(part.polygons) for part in parts] == [
        len(range(-left % 10, min(32, 400 - left), 10)) for left in range(0, 400, 32)
    ]
    assert sum(part.pixels.sum() for part in parts) == 4000


def test_the_type_is_that_of_most_pixels_and_the_score_the_mean_interior():
    told = np.zeros((4, 6, 8), np.uint8)
    told[0, 1:5, 1:5] = 200
    told[0, 1, 1] = 255
    told[2, 1:5, 1:3], told[3, 1:5, 3:5] = 255, 200
    told[2, 1, 3] = 255
    (found,) = find_all(told, 100, SETTINGS)
    assert found.types.tolist() == [0] and found.pixels.tolist() == [16]
    assert found.means.tolist() == [(15 * 200 + 255) / 16]


def test_objects_come_by_first_pixel_and_small_ones_are_left_out():
    interior = np.zeros((12, 12), np.uint8)
    interior[6:9, 0:3] = interior[2:6, 6:10] = 255
    interior[0:2, 0:2] = 255
    (found,) = find_all(np.stack([interior, interior * 0]), 100, SETTINGS, least=5)
    assert found.pixels.tolist() == [16, 9]
    (all_,) = find_all(np.stack([interior, interior * 0]), 100, SETTINGS)
    assert all_.pixels.tolist() == [4, 16, 9]


def test_thresholds_are_met_by_the_byte_that_reaches_them():
    assert [least_byte(share) for share in (0, 0.1, 0.2, 0.5, 1.0)] == [0, 26, 51, 128, 255]
    assert InstanceSettings.read({"mask_threshold": 0.3, "other": 1}, None) == InstanceSettings(mask_threshold=0.3)
    assert InstanceSettings.read({"mask_threshold": 0.3}, 0.8).mask_threshold == 0.8
