"""Tissue is found where it is: not on blank or tinted glass, not under a pen, not in dust; all of a full slide."""

import cv2
import numpy as np
import pytest
import shapely

from tests.inference.fakes import GLASS, STAIN, add_picture
from wsi_ml.geometry import Size
from wsi_ml.inference.tissue import TissueRule, everything, find_tissue
from wsi_ml.slides.kernel import halve_pixels

SIZE = Size(2048, 1536)
FINE = TissueRule(mpp=2.0, margin_um=0.0)
"""Looks two halvings down from the pictures drawn here, so that small slides have pixels to look at."""


@pytest.fixture
def found(library):
    """The mask of a picture of 0.5 µm/px, which is stored at 1 µm/px."""

    def find(picture, rule=FINE):
        name = f"slide {len(library.slides())}"
        slide_id = add_picture(library, name, halve_pixels(picture), stored_mpp=1.0)
        return find_tissue(library.pyramid(slide_id), rule)

    return find


def glass(tint=GLASS, noise=2.0):
    grain = np.random.default_rng(7).normal(0, noise, (256, 256, 3)).astype(np.float32)
    grain = np.tile(grain, (SIZE.height // 256, SIZE.width // 256, 1))
    return (np.array(tint, np.float32) + grain).clip(0, 255).astype(np.uint8)


def disc(picture, centre, radius, colour):
    cv2.circle(picture, centre, radius, colour, -1)
    return picture


def true_disc(centre, radius, step):
    y, x = np.mgrid[step // 2 : SIZE.height : step, step // 2 : SIZE.width : step]
    return np.hypot(x - centre[0], y - centre[1]) < radius


def overlap(one, two):
    return (one & two).sum() / (one | two).sum()


def test_a_disc_is_found_to_a_pixel_or_two_of_the_level(found):
    mask = found(disc(glass(), (900, 700), 400, STAIN))
    assert mask.halvings == 1 and mask.mask.shape == (384, 512)
    assert overlap(mask.mask, true_disc((900, 700), 400, 4)) > 0.97


def test_a_margin_is_added_round_it(found):
    mask = found(disc(glass(), (900, 700), 400, STAIN), TissueRule(mpp=2.0, margin_um=20.0))
    assert overlap(mask.mask, true_disc((900, 700), 440, 4)) > 0.95
    assert mask.mask[true_disc((900, 700), 400, 4)].all()


@pytest.mark.parametrize("tint", [GLASS, (255, 255, 255), (236, 231, 220), (210, 214, 220), (248, 240, 246)])
def test_blank_glass_of_any_tint_has_no_tissue(found, tint):
    assert not found(glass(tint)).mask.any()


@pytest.mark.parametrize("ink", [(30, 140, 70), (25, 70, 170), (20, 20, 25), (0, 160, 170)])
def test_a_pen_is_no_tissue_and_hides_none(found, ink):
    picture = disc(glass(), (1400, 800), 350, STAIN)
    cv2.line(picture, (100, 100), (500, 1400), ink, 60)
    mask = found(picture).mask
    assert not mask[:, :180].any()
    assert overlap(mask, true_disc((1400, 800), 350, 4)) > 0.95


def test_dust_is_left_out_and_a_small_biopsy_is_kept(found):
    picture = disc(disc(glass(), (300, 300), 60, STAIN), (1400, 800), 200, STAIN)
    mask = found(picture).mask
    assert not mask[:150, :150].any()  # 60 px radius are 2,800 µm²
    assert overlap(mask, true_disc((1400, 800), 200, 4)) > 0.95


def test_white_holes_in_tissue_belong_to_it(found):
    picture = disc(disc(glass(), (1000, 760), 600, STAIN), (1000, 760), 200, GLASS)
    assert overlap(found(picture).mask, true_disc((1000, 760), 600, 4)) > 0.97
    strict = TissueRule(mpp=2.0, margin_um=0.0, max_hole_um2=1000.0)
    assert not found(picture, strict).mask[190, 250]


def test_a_slide_full_of_tissue_is_all_tissue(found):
    rng = np.random.default_rng(1)
    base = np.where(rng.random((12, 16, 1)) < 0.5, STAIN, (226, 178, 206)).astype(np.uint8)
    picture = cv2.resize(base, SIZE, interpolation=cv2.INTER_CUBIC)
    assert found(picture).mask.mean() > 0.98


def test_pale_tissue_beside_dark_tissue_is_found(found):
    picture = disc(disc(glass(), (500, 700), 300, (120, 60, 130)), (1500, 700), 300, (232, 205, 222))
    mask = found(picture).mask
    assert overlap(mask, true_disc((500, 700), 300, 4) | true_disc((1500, 700), 300, 4)) > 0.95


def test_grey_tissue_is_found_where_it_hangs_together_with_coloured_tissue_only(found):
    grey = (222, 221, 225)
    picture = disc(disc(glass(), (700, 700), 400, grey), (900, 700), 150, STAIN)
    picture = disc(picture, (1700, 700), 250, grey)
    mask = found(picture).mask
    assert overlap(mask, true_disc((700, 700), 400, 4)) > 0.97
    assert not mask[:, 350:].any()


def test_everything_is_everything(library, stained):
    mask = everything(library.pyramid(add_picture(library, "slide", stained)))
    assert mask.mask.all() and mask.halvings == 1


def test_a_slide_of_one_pixel_has_no_tissue_and_no_fault(found):
    assert not found(np.full((1, 1, 3), 240, np.uint8)).mask.any()


def test_the_tissue_of_a_drawn_slide_is_found(found, drawn, scene):
    mask = found(drawn).mask
    assert mask.shape == (250, 325)  # a mask pixel is 4 × 4 base pixels
    at_x, at_y = np.meshgrid(np.arange(325) * 4 + 2, np.arange(250) * 4 + 2)
    shapely.prepare(scene.tissue)
    truth = shapely.contains_xy(scene.tissue, at_x, at_y)
    assert 0.1 < truth.mean() < 0.95 and overlap(mask, truth) > 0.95
