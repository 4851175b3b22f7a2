"""Features as columns: rounding to sixteenths, exact areas, the way back to geometries."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.layers.shapes import batch_of, mixed_batch
from wsi_ml.layers.columns import (
    NO_SCORE,
    UNIT_AREA,
    area_units,
    columns_of,
    join,
    least_steps,
    score_steps,
    scores_of,
)


def same(a, b):
    for name in vars(a):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_geometries_on_the_grid_come_back_exactly():
    batch = mixed_batch()
    columns = columns_of(batch, 7)
    again = columns.geometries()
    assert [each.wkb for each in again] == [each.wkb for each in batch.geometries]
    assert columns.numbers.tolist() == list(range(7, 407))
    np.testing.assert_array_equal(columns.class_numbers, batch.class_numbers)
    assert columns.boxes.tolist() == (shapely.bounds(batch.geometries) * 16).astype(int).tolist()


def test_coordinates_are_rounded_to_the_nearest_sixteenth():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 90_000, (300, 2))
    shapes = [shapely.Polygon([(x, y), (x + 31.4159, y + 2.71828), (x + 5.1, y + 40.03)]) for x, y in corners]
    again = columns_of(batch_of(shapes), 0).geometries()
    off = np.abs(shapely.get_coordinates(again) - shapely.get_coordinates(shapes))
    assert 0.03 < off.max() <= 1 / 32


def test_areas_are_exact_whole_units():
    batch = mixed_batch(seed=2)
    columns = columns_of(batch, 0)
    exact = shapely.area(batch.geometries) / UNIT_AREA
    np.testing.assert_allclose(area_units(columns), exact, rtol=1e-12)
    np.testing.assert_allclose(columns.areas, shapely.area(batch.geometries), rtol=1e-6)
    triangle = columns_of(batch_of([shapely.Polygon([(0, 0), (0.0625, 0), (0, 0.0625)])]), 0)
    assert area_units(triangle).tolist() == [1]


def test_areas_do_not_depend_on_the_direction_of_rings():
    outer, hole = shapely.box(0, 0, 40, 40).exterior.coords[:], shapely.box(10, 10, 20, 20).exterior.coords[:]
    for a in (outer, outer[::-1]):
        for b in (hole, hole[::-1]):
            columns = columns_of(batch_of([shapely.Polygon(a, [b])]), 0)
            assert area_units(columns).tolist() == [1500 * 512]


def test_rows_can_be_taken_cut_and_joined():
    columns = columns_of(mixed_batch(seed=3), 0)
    order = np.random.default_rng(0).permutation(len(columns))
    mixed_up = columns.take(order)
    assert [each.wkb for each in mixed_up.geometries()] == [columns.geometries()[n].wkb for n in order]
    same(mixed_up.take(np.argsort(order)), columns)
    parts = [columns.span(0, 1), columns.span(1, 150), columns.span(150, 400)]
    same(join(parts), columns)
    same(columns.span(20, 60), columns.take(np.arange(20, 60)))
    assert len(columns.take(np.array([], int))) == 0
    assert columns.take(np.array([], int)).geometries().tolist() == []


def test_a_feature_of_several_parts_stays_one():
    two = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(3, 3, 4, 4)])
    one = shapely.MultiPolygon([shapely.box(7, 7, 8, 8)])
    again = columns_of(batch_of([two, shapely.box(5, 5, 6, 6), one]), 0).geometries()
    assert [each.geom_type for each in again] == ["MultiPolygon", "Polygon", "Polygon"]
    assert again[0].equals(two) and again[2].equals(one)


def test_scores_are_ten_thousandths():
    steps = score_steps(np.array([0, 0.00004, 0.00005, 0.29, 0.5, 0.7, 1, np.nan]))
    assert steps.tolist() == [0, 0, 1, 2900, 5000, 7000, 10_000, NO_SCORE]
    assert score_steps(np.array([0.29, 0.7], np.float32)).tolist() == [2900, 7000]
    np.testing.assert_array_equal(scores_of(steps)[:7], (steps[:7] / 10_000).astype(np.float32))
    assert np.isnan(scores_of(steps)[7])
    for percent in range(101):
        assert least_steps(percent / 100) == 100 * percent
    assert least_steps(0.50001) == 5001


@pytest.mark.parametrize(
    ("batch", "fault"),
    [
        (batch_of([shapely.Point(1, 1)]), "Polygons"),
        (batch_of([shapely.LineString([(0, 0), (1, 1)])]), "Polygons"),
        (batch_of([shapely.Polygon()]), "without points"),
        (batch_of([shapely.box(0, 0, 1, 1), shapely.MultiPolygon()]), "without points"),
        (batch_of([shapely.Polygon([(0, 0), (1, 0), (float("inf"), 1)])]), "not a number"),
        (batch_of([shapely.box(0, 0, 1e9, 1)]), "not a number"),
        (batch_of([shapely.box(0, 0, 1, 1)], scores=[1.01]), "0 to 1"),
        (batch_of([shapely.box(0, 0, 1, 1)], scores=[-0.01]), "0 to 1"),
        (batch_of([]), "no features"),
    ],
)
def test_what_cannot_be_stored_is_refused(batch, fault):
    with pytest.raises(ValueError, match=fault):
        columns_of(batch, 0)
