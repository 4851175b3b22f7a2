"""The summary is conserved: at every level its sums are those of the features, by class, score bin and cell."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.layers.shapes import batch_of, mixed, mixed_batch, star
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Size
from wsi_ml.layers.columns import NO_SCORE, UNIT_AREA, area_units, columns_of
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import BaseBox
from wsi_ml.layers.summary import NO_BIN, entries_of, level_cells, level_count, reduced, score_bins

SIZE = Size(5000, 3000)


def write(path, batch, size=SIZE, classes=("a", "b", "c")):
    with FeaturesWriter(path, classes, size) as writer:
        writer.add(batch)
        writer.finish()
    return FeaturesFile(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    batch = mixed_batch()
    return write(tmp_path_factory.mktemp("summary") / "a.features", batch), columns_of(batch, 0)


def sums(class_numbers, bins, areas, counts):
    """(area, count) by (class, bin)."""
    found: dict = {}
    for key, area, count in zip(
        zip(class_numbers.tolist(), bins.tolist(), strict=True), areas.tolist(), counts.tolist(), strict=True
    ):
        before = found.get(key, (0, 0))
        found[key] = (before[0] + area, before[1] + count)
    return found


def test_every_level_sums_to_the_features_by_class_and_bin(written):
    file, columns = written
    ones = np.ones(len(columns), int)
    exact = sums(columns.class_numbers, score_bins(columns.scores), area_units(columns), ones)
    assert len(file.summary_levels) == 7 and len(exact) > 150
    for level in file.summary_levels:
        entries = file.summary(level.level)
        assert sums(entries.class_numbers, entries.bins, entries.areas, entries.counts) == exact
        assert len(entries) == level.entries == len(np.unique(entries.keys))
        assert (np.diff(entries.keys.astype(np.int64)) > 0).all()
        assert entries.columns.max() < level.columns and entries.rows.max() < level.rows
    assert (level.columns, level.rows, level.side) == (1, 1, 128 << 6)


def test_each_level_is_the_one_below_in_cells_of_twice_the_side(written):
    file, _ = written
    for level in range(1, 7):
        fine, coarse = file.summary(level - 1).coarser(), file.summary(level)
        for name in vars(coarse):
            np.testing.assert_array_equal(getattr(fine, name), getattr(coarse, name))


@pytest.mark.parametrize("seed", range(4))
def test_the_area_in_every_cell_is_that_of_the_clipped_feature(seed):
    rng = np.random.default_rng(seed)
    shapes = mixed(rng, SIZE, 40)
    cells = level_cells(SIZE, 0)
    for shape in shapes:
        columns = columns_of(batch_of([shape]), 0)
        entries = reduced(list(entries_of(columns, SIZE)))
        assert entries.areas.sum() == area_units(columns)[0] and entries.counts.sum() == 1
        found = np.zeros((cells.height, cells.width))
        found[entries.rows, entries.columns] = entries.areas
        x, y = np.meshgrid(np.arange(cells.width) * 128, np.arange(cells.height) * 128)
        exact = shapely.area(shapely.intersection(shape, shapely.box(x, y, x + 128, y + 128))) / UNIT_AREA
        off = np.abs(found - exact)
        # One of the largest cells takes what the rounding of the others leaves.
        assert off.max() <= 1 + len(entries) / 2 and (off > 0.51).sum() <= 1
        assert (exact[off > 0.51] >= exact.max() - 1).all()


def test_rectangles_on_cells_are_split_to_the_last_unit():
    shape = shapely.Polygon(
        [(0, 0), (512, 0), (512, 384), (0, 384)], [[(128, 128), (256, 128), (256, 256), (128, 256)]]
    )
    entries = reduced(list(entries_of(columns_of(batch_of([shape]), 0), Size(640, 640))))
    cells = {
        (c, r): a
        for c, r, a in zip(entries.columns.tolist(), entries.rows.tolist(), entries.areas.tolist(), strict=True)
    }
    full = 128 * 128 * 512
    assert cells == {(c, r): full for c in range(4) for r in range(3) if (c, r) != (1, 1)} | {(2, 1): full}
    assert entries.counts[(entries.columns == 2) & (entries.rows == 1)].tolist() == [1]


def test_a_feature_is_counted_where_the_centre_of_its_box_is():
    around = shapely.Polygon([(10, 10), (500, 10), (500, 400), (480, 400), (480, 30), (10, 30)])  # centre outside it
    entries = reduced(list(entries_of(columns_of(batch_of([around]), 0), Size(640, 640))))
    counted = entries.counts == 1
    assert (entries.columns[counted].tolist(), entries.rows[counted].tolist()) == ([1], [1])
    assert entries.areas[counted].tolist() == [0] and entries.counts.sum() == 1


def test_what_reaches_beyond_the_plane_is_kept_at_its_edge():
    shapes = [shapely.box(-2, -2, 300, 10), shapely.box(630, 100, 642, 300), shapely.box(639, 639, 642, 642)]
    columns = columns_of(batch_of(shapes), 0)
    entries = reduced(list(entries_of(columns, Size(640, 640))))
    assert entries.areas.sum() == area_units(columns).sum() and entries.counts.sum() == 3
    assert entries.columns.max() == 4 and entries.rows.max() == 4


def test_rings_that_cross_themselves_keep_the_sums():
    bow = shapely.Polygon([(0, 0), (400, 400), (400, 0), (0, 300)])
    columns = columns_of(batch_of([bow]), 0)
    entries = reduced(list(entries_of(columns, Size(640, 640))))
    assert entries.areas.sum() == area_units(columns)[0] and entries.areas.min() >= 0


def test_a_threshold_at_a_bin_keeps_what_the_vectors_keep(written):
    file, columns = written
    areas = area_units(columns)
    for percent in (0, 1, 29, 50, 57, 58, 99, 100):
        kept = file.query(min_score=percent / 100)
        exact = (columns.scores == NO_SCORE) | (columns.scores >= 100 * percent)
        assert kept.total == exact.sum()
        for level in range(7):
            entries = file.summary(level)
            passed = (entries.bins == NO_BIN) | (entries.bins >= percent)
            assert entries.counts[passed].sum() == exact.sum()
            assert entries.areas[passed].sum() == areas[exact].sum()


def test_a_box_selects_the_cells_that_share_ground_with_it(tmp_path):
    rng = np.random.default_rng(5)
    size = Size(40_000, 30_000)  # several chunks
    centres = rng.uniform(200, 29_000, (3000, 2))
    file = write(tmp_path / "a.features", batch_of([star(rng, x, y, 80) for x, y in centres]), size, ("a",))
    assert len(file.summary_levels) == level_count(size) == 10
    for level in range(10):
        side = 128 << level
        whole = file.summary(level)
        for box in (BaseBox(0, 0, side, side), BaseBox(9000, 8191, 17_000.5, 8193), BaseBox(128, 128, 128, 128)):
            found = file.summary(level, box)
            x, y = whole.columns.astype(int) * side, whole.rows.astype(int) * side
            meets = (x < max(box.x1, box.x0 + 1e-9)) & (x + side > box.x0)
            meets &= (y < max(box.y1, box.y0 + 1e-9)) & (y + side > box.y0)
            np.testing.assert_array_equal(found.keys, whole.keys[meets])
            np.testing.assert_array_equal(found.areas, whole.areas[meets])
    assert len(file.summary(0, BaseBox(39_990, 29_990, 50_000, 50_000))) == 0
    with pytest.raises(BadRequestError, match="levels are 0 to 9"):
        file.summary(10)
    with pytest.raises(BadRequestError, match="over 100 entries"):
        file.summary(0, limit=100)


def test_small_and_empty_layers_have_a_summary(tmp_path):
    one = write(tmp_path / "one.features", batch_of([shapely.box(1, 1, 3, 3)]), Size(100, 90), ("a",))
    assert [(each.columns, each.rows, each.entries) for each in one.summary_levels] == [(1, 1, 1)]
    assert one.summary(0).areas.tolist() == [4 * 512]
    with FeaturesWriter(tmp_path / "none.features", ["a"], Size(1000, 500)) as writer:
        facts = writer.finish()
    none = FeaturesFile(tmp_path / "none.features")
    assert (facts.count, none.count, none.blocks, none.check()) == (0, 0, [], [])
    assert [each.entries for each in none.summary_levels] == [0, 0, 0, 0]
    assert len(none.summary(3)) == 0 and none.query().total == 0 and list(none.batches()) == []
