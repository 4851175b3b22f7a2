"""Windows cover the tissue of a region, each place once, in an order that never changes."""

import numpy as np
import pytest

from tests.inference.fakes import dense_card
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size
from wsi_ml.inference.card import PredictorClass
from wsi_ml.inference.grid import STRIP, batch_size, make_grid
from wsi_ml.inference.tissue import TissueMask

SIZE = Size(1010, 770)
WHOLE = Region(0, 0, *SIZE)


def mask_of(pixels, halvings=3):
    return TissueMask(pixels, halvings, 0, (255, 255, 255))


def full(size=SIZE, halvings=3):
    step = 1 << halvings
    return mask_of(np.ones((-(-size.height // step), -(-size.width // step)), bool), halvings)


def painted(grid):
    """How often the windows' cores tell each stored pixel."""
    count = np.zeros((grid.stored_size.height, grid.stored_size.width), int)
    for number in range(len(grid)):
        window = grid.stored_window(number)
        x, y = window.x + grid.halo, window.y + grid.halo
        count[y : y + grid.core, x : x + grid.core] += 1
    return count


def test_windows_tell_every_pixel_of_a_full_slide_exactly_once():
    grid = make_grid(dense_card(), SIZE, WHOLE, full())
    assert (painted(grid) == 1).all()
    assert len(grid) == 8 * 7 and grid.counts == (8, 7) and grid.map_size == (505, 385)


@pytest.mark.parametrize("seed", range(5))
def test_windows_cover_all_tissue_once_and_only_windows_with_tissue_are_there(seed):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((97, 127), bool)
    for _ in range(4):
        y, x = rng.integers(0, 90), rng.integers(0, 120)
        pixels[y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = True
    grid = make_grid(dense_card(), SIZE, WHOLE, mask_of(pixels))
    tissue = pixels.repeat(8, 0).repeat(8, 1)[: SIZE.height, : SIZE.width]
    count = painted(grid)
    assert (count[tissue] == 1).all() and count.max() == 1
    for number in range(len(grid)):
        window = grid.stored_window(number)
        x, y = window.x + grid.halo, window.y + grid.halo
        assert tissue[y : y + grid.core, x : x + grid.core].any()


def test_a_region_takes_only_the_windows_that_meet_it():
    region = Region(130, 130, 126, 127)
    grid = make_grid(dense_card(), SIZE, region, full())
    assert grid.windows.tolist() == [[1, 1], [1, 2]]
    assert grid.map_region == (65, 65, 63, 64)
    assert len(make_grid(dense_card(), SIZE, Region(128, 128, 128, 128), full())) == 1


def test_tissue_outside_the_region_does_not_count():
    pixels = np.zeros((97, 127), bool)
    pixels[0, 0] = True
    assert len(make_grid(dense_card(), SIZE, Region(8, 0, 100, 100), mask_of(pixels))) == 0
    assert len(make_grid(dense_card(), SIZE, Region(7, 0, 100, 100), mask_of(pixels))) == 1


def test_the_order_walks_strips_column_by_column():
    size = Size(2000, STRIP + 3000)
    grid = make_grid(dense_card(side=1056), size, Region(0, 0, *size), full(size))
    assert grid.windows.tolist() == [[x, y] for rows in (range(4), range(4, 7)) for x in range(2) for y in rows]
    again = make_grid(dense_card(side=1056), size, Region(0, 0, *size), full(size))
    assert grid.windows.tobytes() == again.windows.tobytes()


def test_the_numbers_of_windows_are_found_by_their_place():
    grid = make_grid(dense_card(), SIZE, Region(130, 130, 126, 127), full())
    assert grid.numbers.shape == (7, 8) and (grid.numbers >= 0).sum() == 2
    assert [grid.numbers[row, column] for column, row in grid.windows] == [0, 1]


def test_overlapping_windows_stand_closer():
    grid = make_grid(dense_card(), SIZE, WHOLE, full(), overlap=0.5)
    assert (grid.step, grid.stride) == (64, 2)
    count = painted(grid)
    assert count.min() == 1 and (count[64:, 64:] == 4).all()


def test_overlapping_patches_make_a_finer_map():
    card = dense_card(side=160, stride=128, kind="patch", classes=(PredictorClass("Pale"), PredictorClass("Dark")))
    grid = make_grid(card, SIZE, WHOLE, full(), overlap=0.75)
    assert (grid.step, grid.stride, grid.map_size) == (32, 32, (32, 25))


def test_an_overlap_that_breaks_a_map_pixel_or_the_models_grid_is_refused():
    with pytest.raises(
        BadRequestError, match=r"blur cannot overlap by 0\.3: 128 × \(1 − overlap\) must be a multiple of 4"
    ):
        make_grid(dense_card(stride=4), SIZE, WHOLE, full(), overlap=0.3)
    with pytest.raises(BadRequestError, match="a multiple of 48"):
        make_grid(dense_card(stride=16, about={"multiple": 48}), SIZE, WHOLE, full(), overlap=0.5)


def test_batches_are_small_on_a_processor_and_large_on_a_gpu():
    assert batch_size(dense_card(side=640), "cpu bfloat16") == 1
    assert batch_size(dense_card(side=256), "cpu bfloat16") == 8
    assert batch_size(dense_card(side=640), "cuda bfloat16") == 20
