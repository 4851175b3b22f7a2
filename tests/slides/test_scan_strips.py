"""Strips of ×40 pixels: joined they are the scan; the vendor file is read in the child."""

from __future__ import annotations

import numpy as np
import pytest

from tests.slides.make_slides import picture, swapped_profile, write_generic, write_svs
from wsi_ml.errors import IngestError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides import scan_strips as module
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.sandbox import Limits
from wsi_ml.slides.scan_strips import ScanOrder, scan_strips, strips_of

SIDE = 256


def joined(order: ScanOrder, folder) -> tuple[np.ndarray, int]:
    """(all strips in their places, how many there were)."""
    result = np.zeros((order.base_size.height, order.base_size.width, 3), np.uint8)
    seen = []
    folder.mkdir()

    def use(strip, rgb):
        region = strip.base_region
        result[region.y : region.y_end, region.x : region.x_end] = rgb
        seen.append(strip)

    scan_strips(order, folder, use, Limits(), 60)
    assert sorted(path.name for path in folder.iterdir()) == [f"{slot}.rgb" for slot in range(min(2, len(seen)))]
    return result, len(seen)


def test_strips_cover_the_plane_once_in_row_order(monkeypatch):
    monkeypatch.setattr(module, "STRIP_TILES", 3)
    strips = list(strips_of(Size(2049, 300), SIDE))
    assert [(each.t_col, each.t_row, each.tiles) for each in strips] == [
        (0, 0, 3), (3, 0, 3), (6, 0, 3), (0, 1, 3), (3, 1, 3), (6, 1, 3),
    ]  # fmt: skip
    assert strips[2].base_region == Region(1536, 0, 513, 256)
    assert strips[5].base_region == Region(1536, 256, 513, 44)
    assert list(strips_of(Size(2049, 300), SIDE, first_tile=12)) == strips[4:]
    assert list(strips_of(Size(2049, 300), SIDE, first_tile=18)) == []


def test_strips_of_a_x40_scan_are_its_pixels(tmp_path):
    rgb = picture(1301, 903)
    path = write_generic(tmp_path / "a.tif", rgb, mpp=0.25)
    order = ScanOrder(path, None, Size(1301, 903), SIDE, 0)
    pixels, count = joined(order, tmp_path / "scratch")
    assert count == 4
    assert np.array_equal(pixels, rgb)


def test_only_what_is_left_is_read(tmp_path):
    rgb = picture(1301, 903)
    path = write_generic(tmp_path / "a.tif", rgb, mpp=0.25)
    pixels, count = joined(ScanOrder(path, None, Size(1301, 903), SIDE, 12), tmp_path / "scratch")
    assert count == 2
    assert not pixels[:512].any() and np.array_equal(pixels[512:], rgb[512:])


def test_a_finer_scan_is_halved_by_the_kernel_and_given_mpp_counts(tmp_path):
    rgb = picture(1024, 640)
    path = write_generic(tmp_path / "a.tif", rgb)
    pixels, _ = joined(ScanOrder(path, 0.125, Size(512, 320), SIDE, 0), tmp_path / "scratch")
    assert np.array_equal(pixels, halve_pixels(rgb))


def test_a_profile_is_applied_as_it_is_to_stored_pixels(tmp_path):
    rgb = np.full((300, 300, 3), (200, 60, 90), np.uint8)
    path = write_svs(tmp_path / "a.svs", rgb, profile=swapped_profile())
    pixels, _ = joined(ScanOrder(path, None, Size(300, 300), SIDE, 0), tmp_path / "scratch")
    assert np.abs(pixels[:240, :240].astype(int) - (90, 60, 200)).max() <= 5


@pytest.mark.parametrize(
    ("mpp", "size", "sentence"),
    [(0.5, Size(600, 400), "no ×40 tiles"), (0.25, Size(700, 400), "not the one this slide was made from")],
)
def test_another_scan_is_refused(tmp_path, mpp, size, sentence):
    path = write_generic(tmp_path / "a.tif", picture(600, 400), mpp=mpp)
    with pytest.raises(IngestError, match=sentence):
        joined(ScanOrder(path, None, size, SIDE, 0), tmp_path / "scratch")


def test_what_the_caller_raises_ends_the_child_and_comes_through(tmp_path):
    path = write_generic(tmp_path / "a.tif", picture(1301, 903), mpp=0.25)

    def use(strip, rgb):
        raise KeyError("full")

    with pytest.raises(KeyError):
        scan_strips(ScanOrder(path, None, Size(1301, 903), SIDE, 0), tmp_path, use, Limits(), 60)
