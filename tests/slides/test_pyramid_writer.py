"""The written pyramid: exact levels, any size, the same bytes every time, readable by the others."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
import pyvips
import tifffile

from tests.slides.make_slides import picture
from wsi_ml.geometry import TILE_SIDE, Region, Size, pyramid_sizes
from wsi_ml.slides.codec import decode_jpeg, encode_steps
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.pyramid import INDEX_MAGIC, RECORD, read_index
from wsi_ml.slides.pyramid_writer import PyramidWriter, pad_tile, z_order
from wsi_ml.slides.tiff_tags import nominal_power

SIZES = [(1, 1), (1, 700), (700, 1), (512, 512), (513, 511), (1025, 1023), (2048, 2048), (2049, 5), (4099, 2053)]


def write(folder, rgb, mpp=0.5, threads=2):
    folder.mkdir(exist_ok=True)

    def read(region: Region) -> np.ndarray:
        return rgb[region.y : region.y_end, region.x : region.x_end]

    steps: list[tuple[int, int]] = []
    writer = PyramidWriter(folder, Size(rgb.shape[1], rgb.shape[0]), mpp, read)
    writer.write(lambda done, total: steps.append((done, total)), threads)
    assert steps[-1] == (rgb.shape[0] * rgb.shape[1],) * 2
    assert steps == sorted(steps)
    return writer


@pytest.mark.parametrize("size", SIZES)
def test_every_tile_is_the_encoded_part_of_the_halved_plane(tmp_path, size):
    rgb = picture(*size)
    writer = write(tmp_path, rgb)
    count = sum(-(-w // TILE_SIDE) * -(-h // TILE_SIDE) for w, h in pyramid_sizes(Size(*size)))
    records = read_index(tmp_path / "tiles.idx", count)
    data = (tmp_path / "pyramid.tif").read_bytes()
    plane, number = rgb, 0
    for level, size_ in enumerate(writer.sizes):
        assert plane.shape[1::-1] == size_
        for y in range(0, plane.shape[0], TILE_SIDE):
            for x in range(0, plane.shape[1], TILE_SIDE):
                offset, length, _ = RECORD.unpack_from(records, number * RECORD.size)
                expected = encode_steps(pad_tile(plane[y : y + TILE_SIDE, x : x + TILE_SIDE]))
                assert data[offset : offset + length] == expected, (level, x, y)
                number += 1
        if max(plane.shape) <= 2048 and writer.overview.shape == plane.shape:
            assert np.array_equal(writer.overview, plane)
        plane = halve_pixels(plane)
    assert max(writer.overview.shape) <= 2048


def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path):
    rgb = picture(5000, 3000)
    write(tmp_path / "one", rgb, threads=1)
    write(tmp_path / "four", rgb, threads=4)
    for name in ("pyramid.tif", "tiles.idx"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "four" / name).read_bytes()


def test_openslide_tifffile_and_libvips_read_colours_sizes_and_microns(tmp_path):
    rgb = np.full((700, 1100, 3), (200, 60, 90), np.uint8)
    write(tmp_path, rgb, mpp=0.505)
    path = tmp_path / "pyramid.tif"
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.505)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.505)
        assert slide.properties["openslide.objective-power"] == "20"
        assert slide.level_dimensions == ((1100, 700), (550, 350), (275, 175))
        assert dict(slide.associated_images) == {}
        seen = np.asarray(slide.read_region((0, 0), 0, (1100, 700)).convert("RGB")).astype(int)
    assert np.abs(seen - rgb).max() <= 2
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        page = file.pages.first
        assert page.tile == (512, 512)
        assert page.tags["YCbCrSubSampling"].value == page.subsampling == (1, 1)
        assert "JPEG steps 5/7 4:4:4|AppMag = 20|MPP = 0.505" in page.description
        numerator, denominator = page.tags["XResolution"].value
        assert 1e4 * denominator / numerator == pytest.approx(0.505)
        assert np.abs(page.asarray().astype(int) - rgb).max() <= 2
    image = pyvips.Image.new_from_file(str(path), page=1)
    assert (image.width, image.height) == (550, 350)
    assert 1e3 / pyvips.Image.new_from_file(str(path)).xres == pytest.approx(0.505)
    assert np.abs(image.numpy().astype(int) - rgb[:350, :550]).max() <= 2


def test_edge_tiles_repeat_the_last_pixels(tmp_path):
    rgb = np.full((600, 520, 3), 255, np.uint8)
    rgb[:, 512:] = (40, 80, 120)
    write(tmp_path, rgb)
    data = (tmp_path / "pyramid.tif").read_bytes()
    index = (tmp_path / "tiles.idx").read_bytes()
    offset, length, _ = RECORD.unpack_from(index, len(INDEX_MAGIC) + RECORD.size)
    tile = decode_jpeg(data[offset : offset + length])
    assert tile.shape == (512, 512, 3)
    assert np.abs(tile.astype(int) - (40, 80, 120)).max() <= 2


def test_an_error_while_reading_comes_out_and_ends_the_threads(tmp_path):
    def read(region: Region) -> np.ndarray:
        if region.x:
            raise ValueError("damaged")
        return np.zeros((region.height, region.width, 3), np.uint8)

    with pytest.raises(ValueError, match="damaged"):
        PyramidWriter(tmp_path, Size(9000, 2000), 0.5, read).write()


def test_z_order_visits_every_block_once_and_neighbours_together():
    order = z_order(Size(5, 3))
    assert sorted(order) == [(col, row) for col in range(5) for row in range(3)]
    assert order[:4] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_the_power_goes_with_the_microns():
    assert [nominal_power(mpp) for mpp in (0.25, 0.46, 0.5, 0.53, 0.69, 1.0, 2.02)] == [40, 20, 20, 20, 20, 10, 5]
