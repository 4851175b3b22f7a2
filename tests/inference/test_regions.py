"""Regions of a map read in cells: equal to those of the map read at once, whatever the cells."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_ml.geometry import Region, Size
from wsi_ml.inference.polygons import class_polygons
from wsi_ml.inference.regions import RegionReader, Regions

IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 2))
steady = settings(deadline=None, max_examples=80, derandomize=True)


def read_all(image: np.ndarray, side: int, **how: float) -> Regions:
    """All regions of an image, sorted by first pixel; a pixel's weight counts along rows."""
    weights = (np.arange(image.size) % 251).astype(np.uint8).reshape(image.shape)
    boxes: list[Region] = []

    def read(box: Region) -> tuple[np.ndarray, np.ndarray]:
        boxes.append(box)
        part = np.s_[box.y : box.y_end, box.x : box.x_end]
        return image[part], weights[part]

    reader = RegionReader(read, Size(image.shape[1], image.shape[0]), side=side, **how)
    rows = [reader.row(row) for row in range(reader.rows)]
    assert max(max(box.width, box.height) for box in boxes) <= side + 2
    found = Regions(*(np.concatenate([getattr(each, name) for each in rows]) for name in Regions.__dataclass_fields__))
    return found.take(np.lexsort([found.anchors[:, 1], found.anchors[:, 0]]))


def blobs(side: int = 96, classes: int = 4, seed: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((classes, side, side)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(each, (0, 0), 3) for each in noise]).argmax(axis=0).astype(np.uint8)


@steady
@given(IMAGES, st.integers(2, 13))
def test_cells_leave_no_trace(image, side):
    once, cells = read_all(image, 1000), read_all(image, side)
    for name in ("values", "pixels", "totals", "anchors"):
        assert np.array_equal(getattr(once, name), getattr(cells, name)), name
    assert shapely.to_wkb(once.polygons).tolist() == shapely.to_wkb(cells.polygons).tolist()
    assert sorted(shapely.to_wkb(class_polygons(image)[1])) == sorted(shapely.to_wkb(cells.polygons))
    assert shapely.area(cells.polygons).tolist() == cells.pixels.tolist()


@steady
@given(IMAGES, st.integers(3, 13), st.sampled_from([1.0, 2.0]))
def test_simplified_cells_fit_together(image, side, tolerance):
    found = read_all(image + 1, side, tolerance=tolerance)
    assert shapely.is_valid(found.polygons).all() and shapely.coverage_is_valid(found.polygons)
    assert shapely.area(found.polygons).sum() == pytest.approx(image.size)
    assert found.pixels.sum() == image.size


def test_simplified_regions_of_a_larger_map_are_a_valid_coverage_with_holes_where_nothing_is_drawn():
    image = blobs()
    exact, simple = read_all(image, 32), read_all(image, 32, tolerance=1.0)
    assert np.array_equal(exact.anchors, simple.anchors) and np.array_equal(exact.totals, simple.totals)
    assert shapely.coverage_is_valid(simple.polygons) and shapely.is_valid(simple.polygons).all()
    assert shapely.get_num_coordinates(simple.polygons).sum() < 0.6 * shapely.get_num_coordinates(exact.polygons).sum()
    overlap = shapely.area(shapely.intersection(exact.polygons, simple.polygons)).sum()
    assert overlap > 0.96 * exact.pixels.sum()


def test_simplification_depends_on_nothing_outside_the_cell_and_its_frame():
    image = blobs(96)
    changed = image.copy()
    changed[:, 66:] = blobs(96, seed=4)[:, 66:]
    reach = shapely.box(0, 0, 64, 96)
    one, other = (
        {polygon.wkb for polygon in read_all(each, 32, tolerance=1.0).polygons if reach.contains(polygon)}
        for each in (image, changed)
    )
    assert one == other and len(one) > 20


def test_a_ring_over_many_cells_keeps_its_hole_and_the_island_in_it():
    image = np.zeros((40, 40), np.uint8)
    image[3:37, 3:37] = 1
    image[8:32, 8:32] = 0
    image[15:25, 15:25] = 1
    found = read_all(image, 7)
    assert found.anchors.tolist() == [[3, 3], [15, 15]]
    assert found.polygons[0].equals(shapely.box(3, 3, 37, 37) - shapely.box(8, 8, 32, 32))
    assert shapely.get_num_coordinates(found.polygons).tolist() == [10, 5]


def test_small_regions_are_left_out_by_their_whole_size_not_by_that_of_their_pieces():
    image = np.zeros((8, 20), np.uint8)
    image[3, 2:18] = 1
    image[6, 4:6] = 1
    assert read_all(image, 4, least=10).pixels.tolist() == [16]


def test_closed_pieces_are_forgotten():
    image = np.ones((30, 10), np.uint8)
    image[14] = 0

    def read(box: Region) -> tuple[np.ndarray, np.ndarray]:
        part = image[box.y : box.y_end, box.x : box.x_end]
        return part, part

    reader = RegionReader(read, Size(10, 30), side=5)
    assert [len(reader.row(row)) for row in range(reader.rows)] == [0, 0, 1, 0, 0, 1]
    assert not reader._open._pieces and not reader._open._parents
