"""Small pictures of slides: every patch's pixels lie where the map has its label, also turned and cut off."""

import numpy as np
import pytest

from tests.data.drawn_slides import DrawnPixels, drawn_slide
from tests.versions import stage_version
from wsi_ml.data.patch_grid import NOLABEL, NORMAL, TUMOUR
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.patch_slides import PatchSlide
from wsi_ml.data.slide_pictures import GLASS, PictureRows, cell_pixels, slide_pictures
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Size
from wsi_ml.slides.library import STAGING_FOLDER, Library
from wsi_ml.slides.reading import LibrarySlide, open_slide

SIDE, SHRINK = 40, 8


def numbered_slide(cells, labels=None):
    """A slide whose cell (row, column) has the colour (10·row, 10·column, 7)."""
    pixels = DrawnPixels("a")
    for row in range(pixels.size.height // SIDE):
        for column in range(pixels.size.width // SIDE):
            pixels.rgb[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = (10 * row, 10 * column, 7)
    cells = np.array(cells)
    labels = np.full(len(cells), NORMAL) if labels is None else np.array(labels)
    return PatchSlide("a", pixels, SIDE, cells, labels.astype(np.int64))


def cell_of(picture, row, column, pixels=SIDE // SHRINK):
    return picture[row * pixels : (row + 1) * pixels, column * pixels : (column + 1) * pixels].reshape(-1, 3)


def test_the_pixels_of_a_patch_lie_where_its_label_lies():
    slide = numbered_slide([[4, 3], [4, 9], [7, 5]], [TUMOUR, NORMAL, NOLABEL])
    (picture,) = slide_pictures(slide, 16, "slide", SHRINK)
    assert picture.rgb.shape == (80, 80, 3) and picture.labels.shape == (16, 16)
    place = picture.placement
    for number, row, column in zip(place.kept, place.rows, place.columns, strict=True):
        seen = slide.cells[number]
        assert (cell_of(picture.rgb, row, column) == (10 * seen[0], 10 * seen[1], 7)).all()
        assert picture.labels[row, column] == slide.labels[number]
    # What lies between the patches is shown too; the labels know nothing of it.
    row, column = place.rows[0], place.columns[0] + 1
    assert (cell_of(picture.rgb, row, column) == (40, 40, 7)).all() and picture.labels[row, column] == NOLABEL


def test_what_the_slide_does_not_reach_is_glass_and_what_sticks_out_is_cut_off():
    slide = numbered_slide([[0, 0], [1, 1]])
    (picture,) = slide_pictures(slide, 16, "slide", SHRINK)
    assert (cell_of(picture.rgb, 6, 7) == GLASS).all() and (cell_of(picture.rgb, 7, 7) == (0, 0, 7)).all()
    wide = numbered_slide([[3, column] for column in range(20)])
    (picture,) = slide_pictures(wide, 16, "slide", SHRINK)
    assert len(picture.placement.kept) == 16 and (cell_of(picture.rgb, 7, 0) == (30, 20, 7)).all()


def test_lumps_have_a_picture_each():
    slide = numbered_slide([[2, 2], [2, 3], [10, 15]])
    first, second = slide_pictures(slide, 16, "lump", SHRINK)
    assert first.numbers.tolist() == [0, 1] and second.numbers.tolist() == [2]
    assert (cell_of(second.rgb, 7, 7) == (100, 150, 7)).all()


def test_batches_turn_labels_with_the_picture():
    slide = drawn_slide("a", SIDE)
    rows = PictureRows(slide_pictures(slide, 32, "slide", SHRINK), 2, seed=3)
    seen = set()
    for index in range(4):
        batch, again = rows.batch(index), rows.batch(index)
        assert batch.pictures.shape == (2, 160, 160, 3) and batch.labels.shape == (2, 32, 32)
        assert np.array_equal(batch.pictures, again.pictures) and np.array_equal(batch.labels, again.labels)
        for rgb, labels in zip(batch.pictures, batch.labels, strict=True):
            # The tumour is violet in every light, normal tissue pink: red less blue tells them apart.
            told = rgb.reshape(32, 5, 32, 5, 3).mean((1, 3)).astype(int)
            tint = told[..., 0] - told[..., 2]
            assert tint[labels == TUMOUR].max() < tint[labels == NORMAL].min()
            seen.add(labels.tobytes())
    assert len(seen) > 3 and len(rows) == 1


def test_without_labels_or_with_broken_patches_nothing_is_learnt():
    slide = numbered_slide([[2, 2]], [NOLABEL])
    with pytest.raises(BadRequestError, match="No patch on the pictures"):
        PictureRows(slide_pictures(slide, 16, "slide", SHRINK), 1, 3)
    with pytest.raises(BadRequestError, match="cannot be shown at 1/7"):
        cell_pixels(SIDE, 7)


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_reader_gives_the_whole_plane_small(tmp_path, step):
    library = Library.create(tmp_path / "library")
    rng = np.random.default_rng(5)
    blocks = rng.integers(60, 200, (13, 17, 3)).astype(np.uint8).repeat(48, 0).repeat(48, 1)
    folder = library.root / STAGING_FOLDER / "blocks"
    slide = library.add(folder, stage_version(folder, blocks, Size(2 * 816, 2 * 624)), "blocks")
    pixels = PatchReader(open_slide(LibrarySlide(library.root, slide)))
    small = pixels.reduced(step)
    assert small.shape == (624 // step, 816 // step, 3)
    # The middle of each block keeps its colour, whatever level it was read from.
    side = 48 // step
    middles = small[side // 2 :: side, side // 2 :: side][:13, :17].astype(int)
    assert np.abs(middles - blocks[24::48, 24::48]).max() <= 6
