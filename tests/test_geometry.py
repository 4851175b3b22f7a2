"""Deep Zoom arithmetic: exact numbers, and round trips over any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ml.errors import OutsideError
from wsi_ml.geometry import (
    DeepZoom,
    Region,
    Size,
    clip,
    grow,
    halve,
    is_close_level,
    power_of_two_steps,
    pyramid_sizes,
)

SIDES = st.one_of(st.integers(1, 70000), st.sampled_from([1, 2, 3, 255, 257, 511, 512, 513, 1023, 1025, 65537, 99991]))
SIZES = st.builds(Size, SIDES, SIDES)


@pytest.mark.parametrize(
    ("size", "top", "below_top", "counts"),
    [
        (Size(13199, 11685), 14, Size(6600, 5843), Size(26, 23)),
        (Size(1, 1), 0, None, Size(1, 1)),
        (Size(2, 1), 1, Size(1, 1), Size(1, 1)),
        (Size(513, 511), 10, Size(257, 256), Size(2, 1)),
        (Size(512, 512), 9, Size(256, 256), Size(1, 1)),
        (Size(1, 4000), 12, Size(1, 2000), Size(1, 8)),
    ],
)
def test_levels_of_known_sizes(size, top, below_top, counts):
    deep_zoom = DeepZoom(size)
    assert deep_zoom.top == top
    assert deep_zoom.level_size(top) == size
    assert deep_zoom.level_size(0) == Size(1, 1)
    assert deep_zoom.tile_counts(top) == counts
    if below_top:
        assert deep_zoom.level_size(top - 1) == below_top


@given(SIZES)
def test_each_level_halves_the_one_above_and_tiles_cover_it_exactly(size):
    deep_zoom = DeepZoom(size)
    for z_level in range(deep_zoom.top):
        assert deep_zoom.level_size(z_level) == halve(deep_zoom.level_size(z_level + 1))
    for z_level in (deep_zoom.top, max(deep_zoom.top - 1, 0)):
        counts, z_size = deep_zoom.tile_counts(z_level), deep_zoom.level_size(z_level)
        last = deep_zoom.tile_region(z_level, counts.width - 1, counts.height - 1)
        assert (last.x_end, last.y_end) == z_size
        for outside in ((counts.width, 0), (0, counts.height), (-1, 0)):
            with pytest.raises(OutsideError):
                deep_zoom.tile_region(z_level, *outside)


@given(SIZES)
def test_stored_plane_shares_the_level_numbers_of_the_base_plane(base_size):
    if max(base_size) == 1:
        return
    base, stored = DeepZoom(base_size), DeepZoom(halve(base_size))
    assert stored.top == base.top - 1
    assert [stored.level_size(z) for z in range(base.top)] == [base.level_size(z) for z in range(base.top)]


@given(SIZES)
def test_pyramid_ends_with_the_first_level_that_fits_one_tile(size):
    sizes = pyramid_sizes(size)
    assert sizes[0] == size
    assert max(sizes[-1]) <= 512
    assert all(max(each) > 512 for each in sizes[:-1])


@pytest.mark.parametrize(
    ("ratio", "steps"), [(2.0001, 1), (1.9999, 1), (3.9, 2), (1.0, 0), (0.98, 0), (0.1, 0), (1.3, 0), (1.5, 1)]
)
def test_halvings_nearest_to_a_downsample(ratio, steps):
    assert power_of_two_steps(ratio) == steps


@pytest.mark.parametrize(
    ("ratio", "same"), [(2.0001, True), (2.000146, True), (1.99, True), (2.05, False), (4.0, False)]
)
def test_a_level_of_downsample_2_is_told_with_tolerance(ratio, same):
    assert is_close_level(ratio, 2.0) is same


def test_regions_are_cut_at_the_plane():
    size = Size(100, 50)
    assert clip(Region(-5, -5, 20, 20), size) == Region(0, 0, 15, 15)
    assert clip(Region(90, 40, 20, 20), size) == Region(90, 40, 10, 10)
    assert grow(Region(10, 10, 20, 20), 8, size) == Region(2, 2, 36, 36)
    assert grow(Region(0, 40, 10, 10), 8, size) == Region(0, 32, 18, 18)
    with pytest.raises(OutsideError):
        clip(Region(100, 0, 5, 5), size)


@pytest.mark.parametrize("z_level", [-1, 15, 99])
def test_levels_that_do_not_exist_are_refused(z_level):
    with pytest.raises(OutsideError):
        DeepZoom(Size(13199, 11685)).level_size(z_level)
