"""Training pairs come from the product's own kernel and JPEG, split by slide, and batch n is always batch n."""

import csv

import numpy as np
import pytest
from PIL import Image

from wsi_ml.data.augment import AugmentConfig
from wsi_ml.data.pairs import (
    UNCOMPRESSED,
    Compression,
    PairSampler,
    PatchConfig,
    load_slides,
    store_pixels,
    tile_files,
)
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg, encode_steps
from wsi_ml.slides.kernel import halve_pixels

STILL = AugmentConfig(stain_chance=0.0, colour_chance=0.0, sharpness_chance=0.0)


def smooth(side=128, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(90, 230, (side // 8, side // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def data_root(tmp_path):
    folder = tmp_path / "sr-x40-dev2"
    rows = []
    for number, slide in enumerate(["liver", "lung", "skin"]):
        (folder / slide).mkdir(parents=True)
        for tile in range(2):
            Image.fromarray(smooth(seed=10 * number + tile)).save(folder / slide / f"{tile:03d}.png")
            rows.append({"file": f"{slide}/{tile:03d}.png", "repo": f"atlas/{slide}"})
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "repo"])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_stored_pixels_are_kernel_then_store_jpeg():
    base = smooth()
    stored = store_pixels(base)
    assert stored.shape == (64, 64, 3)
    assert np.array_equal(stored, decode_jpeg(encode_steps(halve_pixels(base))))


def test_other_histories_of_the_stored_pixels():
    base = smooth()
    half = halve_pixels(base)
    assert np.array_equal(store_pixels(base, UNCOMPRESSED), half)
    by_quality = store_pixels(base, Compression(None, 90, "420"))
    assert np.array_equal(by_quality, decode_jpeg(encode_jpeg(half, 90, "420")))
    coarse = store_pixels(base, Compression((40, 60)))
    fine = store_pixels(base, Compression((2, 2)))
    assert np.abs(coarse.astype(int) - half).mean() > 3 * np.abs(fine.astype(int) - half).mean()
    texts = [each.text for each in (Compression(), Compression(None, 90, "420"), UNCOMPRESSED)]
    assert texts == ["steps 5/7 4:4:4", "q90 4:2:0", "not compressed"]


def test_histories_are_drawn_in_the_shares_asked_for():
    patches = PatchConfig(store_chance=0.5, raw_chance=0.1, steps_chance=0.2, steps_high=16, quality_low=85)
    sampler = PairSampler({"one": [smooth()]}, patches, STILL, seed=0)
    rng = np.random.default_rng(5)
    drawn = [sampler._compression(rng) for _ in range(4000)]
    steps = [each.steps for each in drawn if each.steps and each != Compression()]
    assert np.isclose(np.mean([each == Compression() for each in drawn]), 0.5, atol=0.04)
    assert np.isclose(np.mean([each == UNCOMPRESSED for each in drawn]), 0.1, atol=0.02)
    assert np.isclose(len(steps) / len(drawn), 0.2, atol=0.03)
    assert {luma for luma, _ in steps} == set(range(2, 17)) and all(luma <= chroma <= 28 for luma, chroma in steps)
    qualities = [each.quality for each in drawn if each.quality]
    assert (min(qualities), max(qualities)) == (85, 98)


def test_files_are_grouped_by_the_slide_they_were_cut_from(data_root):
    files = tile_files(data_root)
    assert {slide: [file.name for file in paths] for slide, paths in files.items()} == {
        slide: ["000.png", "001.png"] for slide in ("liver", "lung", "skin")
    }


def test_held_out_slides_are_not_read(data_root):
    (data_root / "sr-x40-dev2" / "lung" / "000.png").unlink()
    slides = load_slides(data_root, ["lung"], scan_tiles=0, seed=0)
    assert sorted(slides) == ["liver", "skin"]
    assert np.array_equal(slides["liver"][1], smooth(seed=1))


def test_a_split_that_names_an_unknown_slide_is_refused(data_root):
    with pytest.raises(ValueError, match="spleen"):
        load_slides(data_root, ["spleen"], scan_tiles=0, seed=0)


def test_missing_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="sr-x40-dev2"):
        load_slides(tmp_path, [], scan_tiles=0, seed=0)


def test_a_batch_depends_on_its_number_alone():
    slides = {"one": [smooth(seed=1)], "two": [smooth(seed=2), smooth(seed=3)]}
    sampler = PairSampler(slides, PatchConfig(batch=4, per_tile=2, side=16), AugmentConfig(), seed=7)
    stored, base = sampler.batch(5)
    sampler.batch(6)
    again = PairSampler(slides, PatchConfig(batch=4, per_tile=2, side=16), AugmentConfig(), seed=7).batch(5)
    assert stored.shape == (4, 16, 16, 3) and base.shape == (4, 32, 32, 3)
    assert np.array_equal(stored, again[0]) and np.array_equal(base, again[1])
    assert not np.array_equal(stored, sampler.batch(6)[0])


def test_both_halves_of_a_pair_show_the_same_place():
    sampler = PairSampler(
        {"one": [smooth(seed=4)]}, PatchConfig(batch=8, per_tile=4, side=16, store_chance=1.0), STILL, seed=1
    )
    for stored, base in zip(*sampler.batch(0), strict=True):
        right = np.abs(halve_pixels(base).astype(int) - stored).mean()
        wrong = np.abs(halve_pixels(np.roll(base, 2, axis=1)).astype(int) - stored).mean()
        assert right < 6 and right < wrong / 2


def test_patches_are_cut_from_the_jpeg_of_the_whole_tile():
    tile = smooth(seed=9)
    sampler = PairSampler({"one": [tile]}, PatchConfig(batch=1, per_tile=1, side=16, store_chance=1.0), STILL, seed=1)
    poses = [np.rot90(turned, k) for turned in (tile, tile[:, ::-1]) for k in range(4)]
    stored_tiles = [store_pixels(np.ascontiguousarray(pose)) for pose in poses]
    patch = sampler.batch(0)[0][0]
    places = [(p, y, x) for p in range(8) for y in range(49) for x in range(49)]
    assert any(np.array_equal(stored_tiles[p][y : y + 16, x : x + 16], patch) for p, y, x in places)
