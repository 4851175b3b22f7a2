"""Tissue patches: reading, the split by slide and place, batches."""

import csv

import numpy as np
import pytest
from PIL import Image

from wsi_ml.data import tissue


def patch(code, slide, x, y=0, grey=150):
    return tissue.TissuePatch(np.full((224, 224, 3), grey, np.uint8), tissue.CODES.index(code), slide, x, y)


def test_reading_gives_label_slide_and_place(tmp_path):
    folder = tmp_path / tissue.TISSUE_SET / "GLA"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((224, 224, 3), 90, np.uint8)).save(folder / "a.png")
    with (folder.parent / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "repo", "slide", "x", "y", "side_px_level0"])
        writer.writerow(["GLA/a.png", "GLA", "atlas/colon", "HE", 40, 70, 448])
    (only,) = tissue.read_tissue_set(tmp_path)
    assert (only.slide, only.l0_x, only.l0_y, only.rgb.mean()) == ("colon", 40, 70, 90.0)
    assert list(tissue.CLASSES.values())[only.label] == "Glandular mucosa"
    with pytest.raises(FileNotFoundError, match=tissue.TISSUE_SET):
        tissue.read_tissue_set(tmp_path / "nowhere")


def test_glands_of_the_muscle_s_slide_are_read_where_they_are_there(tmp_path):
    weak, tiles = tmp_path / tissue.TISSUE_SET, tmp_path / tissue.GLAND_SET
    weak.mkdir()
    tiles.mkdir()
    (weak / "index.csv").write_text("file,label,repo,slide,x,y,side_px_level0\n")
    assert tissue.read_tissue_set(tmp_path) == []
    base = np.zeros((512, 512, 3), np.uint8)
    base[64:-64, 64:-64] = 100
    Image.fromarray(base).save(tiles / "a.png")
    rows = [f"a.png,other/{slide},HE,{place}" for slide, place in
            (("metaplasia", "5,6"), ("metaplasia", "4096,6144"), ("duodenum", "7,8"))]  # fmt: skip
    (tiles / "index.csv").write_text("\n".join(["file,repo,slide,x,y", *rows]) + "\n")
    (only,) = tissue.read_tissue_set(tmp_path)
    assert (only.slide, only.l0_x, only.l0_y, tissue.CODES[only.label]) == ("metaplasia", 5, 6, "GLA")
    # The middle 224 of 256 stored pixels; the bright part begins 16 px into it.
    assert only.rgb.shape == (224, 224, 3) and only.rgb[16, 16, 0] == 100 and only.rgb[15, 15, 0] == 0


def test_held_out_slides_are_nowhere_else_and_places_are_the_far_end():
    patches = [patch("GLA", "one", x) for x in range(8)] + [patch("GLA", "two", 0), patch("BG", "two", 1)]
    patches += [patch("MUS", "three", 5, y) for y in (30, 10, 20, 0)]
    split = tissue.split_patches(patches, ["two"])
    assert {each.slide for each in split.by_slide} == {"two"} and len(split.by_slide) == 2
    assert [each.l0_x for each in split.by_place if each.slide == "one"] == [6, 7]
    assert [each.l0_y for each in split.by_place if each.slide == "three"] == [30]
    assert len(split.training) == 6 + 3


def test_a_batch_is_a_function_of_seed_and_number_and_its_shares_sum_to_one():
    patches = [patch("GLA", "one", 0), patch("BG", "one", 1, grey=240), patch("STR", "two", 2)]
    sampler = tissue.TissueSampler(patches, batch=6, mix_chance=0.5, seed=3)
    rgb, shares = sampler.batch(2)
    again, same = tissue.TissueSampler(patches, 6, 0.5, 3).batch(2)
    assert (rgb == again).all() and (shares == same).all()
    assert rgb.shape == (6, 224, 224, 3) and rgb.dtype == np.uint8 and shares.shape == (6, 6)
    assert shares.sum(axis=1) == pytest.approx(1.0) and shares.min() >= 0
    assert not shares[:, [tissue.CODES.index(code) for code in ("ADI", "LYM", "MUS")]].any()


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4])
def test_resized_patches_keep_their_side(factor):
    rgb = np.zeros((224, 224, 3), np.uint8)
    assert tissue.resized(rgb, factor, np.random.default_rng(1)).shape == (224, 224, 3)
