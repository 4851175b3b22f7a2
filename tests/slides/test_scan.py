"""The vendor file: facts, edges, transparency, colours, both ways of reading."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
from PIL import Image

from tests.slides.make_slides import picture, swapped_profile, write_generic, write_svs
from wsi_ml.errors import IngestError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.colour import ToSrgb
from wsi_ml.slides.jpeg_scan import JpegFile, JpegPixels
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.plan import make_plan
from wsi_ml.slides.scan import Scan, ScanPixels, background_of, bounds_of, flatten
from wsi_ml.slides.tiff_header import TiffHeader


def whole(pixels) -> np.ndarray:
    return pixels(Region(0, 0, *pixels.plan.stored_size))


def slow(path, mpp=None) -> np.ndarray:
    with Scan(path) as scan:
        return whole(ScanPixels(scan, make_plan(scan.facts(), mpp), scan.colour()))


def fast(path, mpp=None, dct=True) -> np.ndarray | None:
    with Scan(path) as scan, JpegFile(path) as file:
        facts = scan.facts()
        pixels = file.pixels(scan, facts, make_plan(facts, mpp), scan.colour(), dct)
        return whole(pixels) if pixels else None


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, ((a.astype(float) - b) ** 2).mean())))


# -- facts ---------------------------------------------------------------------------------------------------------


def test_facts_of_an_aperio_slide(tmp_path):
    path = write_svs(tmp_path / "a.svs", picture(1001, 777), levels=2, label=picture(80, 60))
    with Scan(path) as scan:
        facts = scan.facts()
        assert (facts.vendor, facts.l0_size, facts.mpp, facts.objective_power) == ("aperio", (1001, 777), 0.25, 40)
        assert facts.level_sizes == [(1001, 777), (500, 388)]
        assert facts.l0_bounds == (0, 0, 1001, 777)
        assert scan.save_associated(tmp_path / "private") == ["label", "thumbnail"]
    label = tmp_path / "private" / "label.png"
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    assert label.stat().st_mode & 0o777 == 0o600
    assert np.array_equal(np.asarray(Image.open(label)), picture(80, 60))


def test_microns_of_a_plain_tiff(tmp_path):
    with Scan(write_generic(tmp_path / "a.tif", picture(300, 200), mpp=0.5)) as scan:
        assert scan.facts().mpp == pytest.approx(0.5)
    with Scan(write_generic(tmp_path / "b.tif", picture(300, 200), mpp=352.8)) as scan:
        assert scan.facts().mpp is None


def test_what_openslide_cannot_open_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(picture(64, 64)).save(path)
    with pytest.raises(IngestError, match="knows no such format"):
        Scan(path)


def test_bounds_are_clipped_and_nonsense_is_ignored():
    names = ("x", "y", "width", "height")

    def bounds(*values):
        return bounds_of({f"openslide.bounds-{n}": v for n, v in zip(names, values, strict=False)}, Size(1000, 800))

    assert bounds("100", "50", "300", "200") == (100, 50, 300, 200)
    assert bounds("900", "50", "300", "2000") == (900, 50, 100, 750)
    for nonsense in (
        ("x", "1", "1", "1"),
        ("1", "2", "3"),
        ("2000", "0", "10", "10"),
        ("0", "0", "0", "0"),
        ("nan",) * 4,
    ):
        assert bounds(*nonsense) == (0, 0, 1000, 800)


def test_transparent_pixels_lie_on_the_background():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (100, 150, 200, 255)
    rgba[0, 1] = (100, 150, 200, 51)
    result = flatten(Image.fromarray(rgba), (255, 255, 255))
    assert result.tolist() == [[[100, 150, 200], [224, 234, 244]], [[255, 255, 255]] * 2]
    assert background_of({"openslide.background-color": "FF8000"}) == (255, 128, 0)
    assert background_of({}) == background_of({"openslide.background-color": "red"}) == (255, 255, 255)


# -- pixels --------------------------------------------------------------------------------------------------------


def test_stored_pixels_are_the_scan_halved(tmp_path):
    rgb = picture(1001, 777)
    path = write_generic(tmp_path / "a.tif", rgb, mpp=0.25)
    assert np.array_equal(slow(path), halve_pixels(rgb))
    assert np.array_equal(slow(path, 0.5), rgb)
    assert np.array_equal(slow(path, 0.125), halve_pixels(halve_pixels(rgb)))
    assert np.array_equal(slow(path, 0.0625), halve_pixels(halve_pixels(halve_pixels(rgb))))


def test_reading_part_of_the_plane_equals_the_part_of_the_whole(tmp_path):
    path = write_generic(tmp_path / "a.tif", picture(5003, 700), mpp=0.25)
    with Scan(path) as scan:
        pixels = ScanPixels(scan, make_plan(scan.facts()), scan.colour())
        part = pixels(Region(900, 100, 1602, 250))
        assert np.array_equal(part, whole(pixels)[100:350, 900:2502])


def test_a_vendor_level_cut_short_by_rounding_repeats_its_edge(tmp_path):
    rgb = np.full((801, 1001, 3), (120, 60, 90), np.uint8)
    stored = slow(write_svs(tmp_path / "a.svs", rgb, mpp=0.125, levels=2, compression="deflate"))
    assert stored.shape == (201, 251, 3)
    assert (stored == (120, 60, 90)).all()


def test_bounds_are_trimmed(tmp_path):
    rgb = picture(900, 700)
    with Scan(write_generic(tmp_path / "a.tif", rgb, mpp=0.25)) as scan:
        facts = scan.facts()
        plan = make_plan(type(facts)(**{**vars(facts), "l0_bounds": Region(101, 53, 301, 203)}))
        assert np.array_equal(whole(ScanPixels(scan, plan, scan.colour())), halve_pixels(rgb[53:256, 101:402]))


# -- colours -------------------------------------------------------------------------------------------------------


def test_a_profile_is_applied_and_its_intent_recorded(tmp_path):
    rgb = np.full((300, 300, 3), (200, 60, 90), np.uint8)
    path = write_svs(tmp_path / "a.svs", rgb, profile=swapped_profile())
    with Scan(path) as scan:
        assert scan.colour().word == "applied: perceptual"
    for stored in (slow(path), fast(path)):
        inside = stored[:120, :120]  # nearer the edge the black padding of the last tiles rings
        assert np.abs(inside.astype(int) - (90, 60, 200)).max() <= 4


def test_a_profile_that_changes_nothing_is_srgb(shared_data):
    with Scan(shared_data / "wsi-small" / "TCGA-CR-7395-01A-01-TS1.svs") as scan:
        assert scan.colour().word == "srgb"
        assert scan.facts().mpp is None


def test_other_profiles():
    plain = np.full((2, 2, 3), (200, 60, 90), np.uint8)
    for profile, word in ((None, "none"), (b"no profile", "unreadable: not applied")):
        colour = ToSrgb(profile)
        assert colour.word == word
        assert colour.apply(plain) is plain


# -- fast path -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "tile", "ycbcr"),
    [
        ((1024, 768), 256, True),
        ((1001, 777), 256, True),
        ((999, 501), 240, True),
        ((777, 600), 256, False),
        ((5, 3), 16, True),
    ],
)
def test_half_size_decoding_is_close_to_the_kernel(tmp_path, size, tile, ycbcr):
    path = write_svs(tmp_path / "a.svs", picture(*size), tile=tile, ycbcr=ycbcr)
    quick, exact = fast(path), slow(path)
    assert quick.shape == exact.shape
    assert psnr(quick, exact) > 42
    assert abs(float(quick.mean()) - float(exact.mean())) < 0.5
    edge = tile * (size[0] // tile) // 2
    assert np.abs(quick[:, edge:].astype(int) - exact[:, edge:]).max(initial=0) <= 1, "edge tiles go through the kernel"


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.125])
@pytest.mark.parametrize("tile", [256, 240])
def test_without_half_size_decoding_the_pixels_are_openslides(tmp_path, mpp, tile):
    path = write_svs(tmp_path / "a.svs", picture(1001, 777), mpp=mpp, tile=tile)
    assert np.array_equal(fast(path, dct=False), slow(path))


def test_a_scan_that_is_not_halved_is_decoded_whole(tmp_path):
    path = write_svs(tmp_path / "a.svs", picture(600, 500), mpp=0.5)
    assert np.array_equal(fast(path), slow(path))


def test_four_times_finer_scans_are_halved_once_more_by_the_kernel(tmp_path):
    path = write_svs(tmp_path / "a.svs", picture(1030, 790), mpp=0.125)
    assert fast(path).shape == slow(path).shape == (198, 258, 3)
    assert psnr(fast(path), slow(path)) > 42


def test_any_part_read_fast_equals_the_part_of_the_whole(tmp_path):
    path = write_svs(tmp_path / "a.svs", picture(1700, 900), tile=240)
    with Scan(path) as scan, JpegFile(path) as file:
        facts = scan.facts()
        pixels = file.pixels(scan, facts, make_plan(facts), scan.colour(), dct=True)
        everything = whole(pixels)
        for region in (Region(0, 0, 5, 5), Region(119, 119, 2, 3), Region(700, 300, 150, 150), Region(849, 449, 1, 1)):
            assert np.array_equal(pixels(region), everything[region.y : region.y_end, region.x : region.x_end])


def test_the_unusual_goes_the_ordinary_way(tmp_path):
    rgb = picture(600, 500)
    assert fast(write_svs(tmp_path / "deflate.svs", rgb, compression="deflate")) is None
    assert fast(write_svs(tmp_path / "level.svs", rgb, mpp=0.125, levels=2)) is None


def test_colours_openslide_sees_otherwise_go_the_ordinary_way(tmp_path, monkeypatch):
    path = write_svs(tmp_path / "a.svs", picture(600, 500))
    assert fast(path) is not None
    monkeypatch.setattr(Scan, "read", lambda self, level, region: np.zeros((region.height, region.width, 3), np.uint8))
    assert fast(path) is None


def test_a_damaged_tile_is_named(tmp_path):
    path = write_svs(tmp_path / "a.svs", picture(1500, 1500))
    with Scan(path) as scan, JpegFile(path) as file:
        facts = scan.facts()
        pixels = file.pixels(scan, facts, make_plan(facts), scan.colour(), dct=True)
        assert isinstance(pixels, JpegPixels)
        number = 2 * pixels.tiles.across + 3
        with path.open("r+b") as raw:
            raw.seek(pixels.tiles.offsets[number] + pixels.tiles.lengths[number] // 2)
            raw.write(bytes(200))
        with pytest.raises(IngestError, match="tile column 3, row 2 of level 0 cannot be decoded"):
            whole(pixels)


def test_damage_on_the_ordinary_way_is_named(tmp_path, monkeypatch):
    path = write_generic(tmp_path / "a.tif", picture(600, 500), mpp=0.5)
    with Scan(path) as scan:

        def fail(*arguments):
            raise openslide.OpenSlideError("secret path")

        monkeypatch.setattr(scan.slide, "read_region", fail)
        with pytest.raises(IngestError, match="pixels of level 0 near x 7, y 9 cannot be decoded"):
            scan.read(0, Region(7, 9, 20, 20))


def test_missing_tiles_are_left_to_openslide(tmp_path):
    path = write_svs(tmp_path / "a.svs", picture(600, 500))
    with path.open("r+b") as raw:
        with TiffHeader(path) as tiff:
            _, _, lengths_at = next(tiff.directories()).fields[325]
        raw.seek(lengths_at)
        raw.write(bytes(2))
    assert fast(path) is None
