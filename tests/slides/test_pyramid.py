"""Reading a stored pyramid: bytes as they lie, every flipped bit found, regions exact."""

import numpy as np
import pytest

from tests.versions import add_slide
from wsi_ml.errors import DamagedError, LibraryError, OutsideError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.codec import decode_jpeg
from wsi_ml.slides.library import Library
from wsi_ml.slides.pyramid import Pyramid


@pytest.fixture
def version(tmp_path):
    library = Library.create(tmp_path / "library")
    slide_id, _, stored = add_slide(library, "liver", Size(2300, 1500))
    return library.pyramid(slide_id), stored


def test_tiles_are_the_bytes_on_disk(version):
    pyramid, _ = version
    offset, length, _ = pyramid.tile_record(0, 1, 1)
    assert pyramid.tile_bytes(0, 1, 1) == (pyramid.folder / "pyramid.tif").read_bytes()[offset : offset + length]
    assert decode_jpeg(pyramid.tile_bytes(0, 2, 1)).shape == (512, 512, 3)
    assert pyramid.tile_pixels(0, 2, 1).shape == (750 - 512, 1150 - 1024, 3)


@pytest.mark.parametrize(("level", "t_col", "t_row"), [(0, 3, 0), (0, 0, 2), (9, 0, 0), (-1, 0, 0), (0, -1, 0)])
def test_addresses_outside_are_refused(version, level, t_col, t_row):
    with pytest.raises(OutsideError):
        version[0].tile_bytes(level, t_col, t_row)


@pytest.mark.parametrize(
    "region", [Region(0, 0, 1150, 750), Region(500, 490, 40, 50), Region(1149, 749, 1, 1), Region(3, 5, 700, 9)]
)
def test_a_region_is_the_picture_that_was_stored(version, region):
    pyramid, stored = version
    read = pyramid.region(region)
    wanted = stored[region.y : region.y_end, region.x : region.x_end]
    assert read.shape == wanted.shape
    assert np.abs(read.astype(int) - wanted).mean() < 2


def test_a_region_outside_is_refused(version):
    with pytest.raises(OutsideError):
        version[0].region(Region(1100, 0, 51, 10))


def test_a_flipped_bit_in_a_tile_withholds_that_tile_and_no_other(version):
    pyramid, _ = version
    offset, length, _ = pyramid.tile_record(0, 1, 0)
    path = pyramid.folder / "pyramid.tif"
    data = bytearray(path.read_bytes())
    data[offset + length // 2] ^= 4
    path.write_bytes(data)
    damaged = Pyramid(pyramid.folder)
    with pytest.raises(DamagedError):
        damaged.tile_bytes(0, 1, 0)
    good = [(0, 0, 0), (0, 2, 0), (0, 0, 1), (0, 1, 1), (0, 2, 1), (1, 0, 0), (1, 1, 0), (2, 0, 0)]
    assert all(damaged.tile_bytes(*address) == pyramid.tile_bytes(*address) for address in good)


@pytest.mark.parametrize("place", [0, 8, 30, -1])
def test_a_flipped_bit_in_the_index_is_found_when_it_is_opened(version, place):
    path = version[0].folder / "tiles.idx"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(LibraryError, match="damaged"):
        Pyramid(version[0].folder)
