"""Images to polygons: exact areas, holes, validity, shared borders, and how far smoothing moves a border."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_ml.inference.polygons import (
    LEAST_SMOOTHING,
    MOST_CORNERS,
    class_polygons,
    class_regions,
    label_polygons,
    simplify_coverage,
)
from wsi_ml.inference.rings import order_rings, trace, walk

IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))
steady = settings(deadline=None, max_examples=150, derandomize=True)


def square(x: float, y: float, side: float = 1) -> shapely.Polygon:
    return shapely.box(x, y, x + side, y + side)


def test_one_pixel_is_a_square_that_starts_at_its_upper_left_corner():
    image = np.zeros((3, 4), np.uint8)
    image[1, 2] = 7
    numbers, polygons = label_polygons(image)
    assert numbers.tolist() == [7]
    assert shapely.get_coordinates(polygons).tolist() == [[2, 1], [3, 1], [3, 2], [2, 2], [2, 1]]


def test_a_hole_is_a_ring_of_its_own_and_its_pixels_are_not_counted():
    image = np.ones((5, 5), np.uint8)
    image[1:3, 1:4] = 0
    (polygon,) = label_polygons(image)[1]
    assert polygon.area == 25 - 6
    assert [shapely.Polygon(ring).area for ring in polygon.interiors] == [6]
    assert shapely.is_ccw(polygon.exterior) and not shapely.is_ccw(polygon.interiors[0])


def test_a_region_that_touches_itself_by_a_corner_gets_a_hole_there_and_stays_valid():
    image = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]], np.uint8)
    (polygon,) = label_polygons(image)[1]
    assert polygon.is_valid and polygon.area == 13 and len(polygon.interiors) == 1
    assert shapely.Polygon(polygon.interiors[0]).equals(square(1, 1))


def test_pixels_that_touch_by_a_corner_only_are_two_parts():
    image = np.array([[5, 0], [0, 5]], np.uint8)
    numbers, polygons = label_polygons(image)
    assert numbers.tolist() == [5] and polygons[0].geom_type == "MultiPolygon"
    assert [part.equals(square(n, n)) for n, part in enumerate(polygons[0].geoms)] == [True, True]
    classes, parts = class_polygons(image)
    assert classes.tolist() == [5, 5] and all(part.geom_type == "Polygon" for part in parts)


def test_an_image_without_labels_has_no_polygons():
    numbers, polygons = label_polygons(np.zeros((3, 3), np.int32), 0.5)
    assert len(numbers) == len(polygons) == len(class_polygons(np.zeros((3, 3), np.uint8))[1]) == 0


def test_long_rings_are_ordered_as_short_ones():
    comb = np.zeros((3, 1200), np.uint8)
    comb[0] = 1
    comb[1:, ::2] = 1
    (polygon,) = label_polygons(comb)[1]
    assert polygon.is_valid and polygon.area == comb.sum()
    # Four corners a tooth, the two above, the end of the last gap, and the first point again.
    assert len(polygon.exterior.coords) == 4 * 600 + 3
    ring, rank, first = walk(np.roll(np.arange(1000), -1), np.array([0]))
    assert set(ring) == {0} and rank.tolist() == list(range(1000)) and first.tolist() == [0]


@steady
@given(IMAGES)
def test_class_polygons_cover_every_pixel_once_and_share_borders(image):
    classes, polygons = class_polygons(image)
    numbers, owners = class_regions(image)
    assert sorted(zip(classes.tolist(), shapely.area(polygons).tolist(), strict=True)) == sorted(
        (owner, pixels)
        for owner, pixels in zip(owners.tolist(), np.bincount(numbers.ravel())[1:].tolist(), strict=True)
        if owner
    )
    assert shapely.is_valid(polygons).all() and shapely.coverage_is_valid(polygons)
    for value in np.unique(classes):
        rows, columns = np.nonzero(image == value)
        inside = shapely.contains_xy(shapely.union_all(polygons[classes == value]), columns + 0.5, rows + 0.5)
        assert inside.all()


@steady
@given(IMAGES, st.sampled_from([0.5, 1.0, 1.5, 3.0]))
def test_a_simplified_coverage_has_no_gaps_and_no_overlaps(image, tolerance):
    numbers, _ = class_regions(image)
    exact = class_polygons(numbers.astype(np.uint8))[1]
    simpler = simplify_coverage(exact, tolerance)
    assert shapely.is_valid(simpler).all() and shapely.coverage_is_valid(simpler)
    assert shapely.area(simpler).sum() == pytest.approx(image.size)
    assert shapely.union_all(simpler).equals(shapely.box(0, 0, image.shape[1], image.shape[0]))
    assert set(map(tuple, shapely.get_coordinates(simpler))) <= set(map(tuple, shapely.get_coordinates(exact)))


def test_simplifying_a_coverage_straightens_a_stair_for_both_neighbours():
    image = np.where(np.add.outer(np.arange(40), np.arange(40)) < 40, 1, 2).astype(np.uint8)
    one, other = simplify_coverage(class_polygons(image)[1], 1.0)
    assert len(one.exterior.coords) + len(other.exterior.coords) < 20
    assert one.intersection(other).area == 0 and one.area + other.area == 1600


def test_a_coverage_of_noise_is_left_exact():
    image = np.random.default_rng(0).integers(1, 6, (260, 260)).astype(np.uint8)
    exact = class_polygons(image)[1]
    assert shapely.get_num_coordinates(exact).sum() > MOST_CORNERS
    assert simplify_coverage(exact, 1.0) is exact


@steady
@given(IMAGES.map(lambda image: image.astype(np.int32)))
def test_label_polygons_are_valid_and_exact(image):
    numbers, polygons = label_polygons(image)
    assert numbers.tolist() == np.unique(image[image > 0]).tolist()
    assert shapely.area(polygons).tolist() == np.bincount(image.ravel())[numbers].tolist()
    assert shapely.is_valid(polygons).all()


@steady
@given(IMAGES, st.sampled_from([0.36, 0.5, 1.0, 2.0]))
def test_smoothing_keeps_within_its_tolerance_and_stays_valid(image, tolerance):
    exact, smooth = label_polygons(image)[1], label_polygons(image, tolerance)[1]
    assert shapely.is_valid(smooth).all() and not shapely.is_empty(smooth).any()
    distance = [a.boundary.hausdorff_distance(b.boundary) for a, b in zip(exact, smooth, strict=True)]
    dense = shapely.hausdorff_distance(shapely.boundary(exact), shapely.boundary(smooth), densify=0.1)
    assert max([*distance, *dense], default=0) <= tolerance + 1e-9


@steady
@given(IMAGES)
def test_smooth_objects_do_not_overlap(image):
    smooth = label_polygons(image, 0.5)[1]
    assert shapely.area(shapely.union_all(smooth)) == pytest.approx(shapely.area(smooth).sum())


def test_a_smooth_disc_has_half_a_pixel_less_area_and_fewer_points_than_the_exact_one():
    y, x = np.mgrid[:20, :20]
    disc = (np.hypot(x - 9.5, y - 9.5) < 7.3).astype(np.int32)
    (exact,), (smooth,) = label_polygons(disc)[1], label_polygons(disc, 0.5)[1]
    assert smooth.area == exact.area - 0.5
    assert len(smooth.exterior.coords) < len(exact.exterior.coords)
    assert exact.boundary.hausdorff_distance(smooth.boundary) == pytest.approx(LEAST_SMOOTHING)


def test_rings_start_at_their_first_point_by_rows_and_the_outline_comes_first():
    image = np.pad(np.ones((4, 6), np.int32), 1)
    image[2, 2] = image[3, 5] = 0
    rings = order_rings(trace(image))
    assert rings.points[rings.starts].tolist() == [[1, 1], [2, 2], [5, 3]]
    assert (rings.areas() / 2).tolist() == [24, -1, -1] and rings.regions.tolist() == [1, 1, 1]
