"""Slides as labelled patches: shares from outlines and masks, tissue, library, CAMELYON's folder, the split."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.data.drawn_slides import SIDE, SIZE, TISSUE, TUMOURS, draw, write_camelyon, write_library, write_mask
from wsi_ml.data.patch_grid import NOLABEL, NORMAL, TUMOUR, ShareRules
from wsi_ml.data.patch_slides import Cutting, camelyon_slides, cut_slide, library_slides, split_names
from wsi_ml.data.patch_truth import (
    CellGrid,
    MaskTruth,
    OutlineTruth,
    grid_of,
    mask_shares,
    outline_shares,
    read_mask,
)
from wsi_ml.errors import BadRequestError

GRID = CellGrid(2, 3, 10)
CUTTING = Cutting(SIDE)


def boxes_of(box):
    """Rows and columns of the cells in a box whose corners lie on the grid."""
    x0, y0, x1, y1 = (value // SIDE for value in box)
    return {(row, column) for row in range(y0, y1) for column in range(x0, x1)}


def cells_with(slide, label):
    return {tuple(cell) for cell in slide.cells[slide.labels == label].tolist()}


# -- shares --------------------------------------------------------------------------------------------------------


def test_shares_of_outlines_are_exact_and_overlaps_count_once():
    shapes = [shapely.box(5, 0, 20, 10), shapely.box(10, 0, 20, 4), shapely.box(25, 15, 99, 99)]
    assert outline_shares(shapes, GRID).tolist() == [[0.5, 1, 0], [0, 0, 0.25]]
    assert outline_shares([], GRID).sum() == 0
    triangle = shapely.Polygon([(0, 0), (10, 0), (0, 10)])
    assert outline_shares([triangle], GRID)[0, 0] == pytest.approx(0.5)


def test_a_hole_is_not_tumour():
    ring = shapely.Polygon(shapely.box(0, 0, 20, 20).exterior, [shapely.box(2, 2, 8, 7).exterior])
    assert outline_shares([ring], GRID).tolist() == [[0.7, 1, 0], [1, 1, 0]]


def test_without_normal_outlines_the_rest_is_normal():
    tumour, normal = OutlineTruth([shapely.box(0, 0, 5, 10)]).shares(GRID)
    assert tumour[0].tolist() == [0.5, 0, 0] and normal[0].tolist() == [0.5, 1, 1]
    _, nowhere = OutlineTruth([], []).shares(GRID)
    assert nowhere.sum() == 0


def test_shares_of_a_mask_at_another_resolution():
    mask = np.zeros((5, 8), bool)
    mask[:2, 2:5] = True
    assert mask_shares(mask, 4.0, GRID).tolist() == [[0, 1, 0.0], [0, 0, 0]]  # cells of 2 or 3 px
    assert mask_shares(mask, 5.0, CellGrid(2, 4, 10)).tolist() == [[0, 1, 0.5, 0], [0, 0, 0, 0]]


def test_a_mask_of_another_slide_or_with_another_class_is_refused(tmp_path):
    path = tmp_path / "m_mask.tif"
    write_mask(path, TUMOURS["a"])
    tumour, normal = MaskTruth(path, SIZE).shares(grid_of(SIZE, SIDE))
    assert tumour.sum() == 64 and normal.sum() == 320 - 64
    assert set(np.unique(read_mask(path, 24))) == {0, 1, 2}
    write_mask(path, TUMOURS["a"], tumour=7)
    with pytest.raises(BadRequestError, match="class 7"):
        MaskTruth(path, SIZE).shares(grid_of(SIZE, SIDE))
    write_mask(path, TUMOURS["a"], size=SIZE._replace(width=SIZE.width // 2))
    with pytest.raises(BadRequestError, match="outline"):
        MaskTruth(path, SIZE).shares(grid_of(SIZE, SIDE))
    path.write_bytes(b"II*\0")
    with pytest.raises(BadRequestError, match="cannot be read"):
        read_mask(path, 24)


def test_a_slide_smaller_than_a_patch_is_refused():
    with pytest.raises(BadRequestError, match="no patch of 801 px"):
        grid_of(SIZE, 801)


# -- slides --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("drawn") / "library", "a")


@pytest.fixture(scope="module")
def camelyon(tmp_path_factory):
    return write_camelyon(tmp_path_factory.mktemp("camelyon"))


def test_a_library_slide_is_cut_where_there_is_tissue_and_labelled_by_its_polygons(library):
    (slide,) = library_slides(library, "truth", ["Tumour"], ["Normal"], CUTTING)
    assert {tuple(cell) for cell in slide.cells.tolist()} == boxes_of(TISSUE)
    assert cells_with(slide, TUMOUR) == boxes_of(TUMOURS["a"])
    assert cells_with(slide, NORMAL) == boxes_of(TISSUE) - boxes_of(TUMOURS["a"])
    number = slide.cells.tolist().index([10, 14])
    error = np.abs(slide.read(number).astype(int) - draw("a")[400:440, 560:600]).mean()
    assert slide.read(number).shape == (SIDE, SIDE, 3) and error < 6


def test_classes_that_are_not_named_are_without_label(library):
    (slide,) = library_slides(library, "", ["Tumour"], ["Tumour"], CUTTING)
    assert cells_with(slide, TUMOUR) == boxes_of(TUMOURS["a"]) and (slide.labels == NOLABEL).sum() == 256
    with pytest.raises(BadRequestError, match=r"Cancer.*there are Normal, Tumour"):
        library_slides(library, "", ["Cancer"], [], CUTTING)


def test_rules_and_tissue_are_settings(library):
    (slide,) = library_slides(library, "", ["Tumour"], [], Cutting(SIDE, ShareRules(), "all"))
    assert len(slide.cells) == 480
    (coarse,) = library_slides(library, "", ["Tumour"], [], Cutting(160))
    assert coarse.cells.tolist() == [[row, column] for row in (1, 2, 3) for column in (1, 2, 3, 4)]
    # Half of the patch at (1, 1) … is tumour: more than a fifth.
    assert cells_with(coarse, TUMOUR) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    with pytest.raises(BadRequestError, match="“a”: No patch has more than 80% tissue"):
        library_slides(library, "", ["Tumour"], [], Cutting(700))
    with pytest.raises(BadRequestError, match="not by 'otsu'"):
        cut_slide(slide.pixels, None, Cutting(SIDE, ShareRules(), "otsu"))


def test_camelyon_by_outlines_mask_table_and_without_truth(camelyon):
    slides = {slide.name: slide for slide in camelyon_slides(camelyon, CUTTING)}
    assert list(slides) == [f"patient_00{node // 2}_node_{node}" for node in range(4)]
    outlined, masked, negative, unknown = slides.values()
    assert cells_with(outlined, TUMOUR) == boxes_of(TUMOURS["a"]) - boxes_of((80, 80, 160, 160))
    assert cells_with(masked, TUMOUR) == boxes_of(TUMOURS["b"])
    for slide in (outlined, masked):
        assert (slide.labels != NOLABEL).all() and len(slide.cells) == 320
    assert (negative.labels == NORMAL).all() and (unknown.labels == NOLABEL).all()


# -- split ---------------------------------------------------------------------------------------------------------


def test_the_split_keeps_patients_together():
    names = [f"patient_{patient:03d}_node_{node}" for patient in range(10) for node in range(5)]
    split = split_names(names, (), (), seed=4)
    assert [len(part) for part in split] == [30, 10, 10] and sorted(name for part in split for name in part) == names
    patients = [{name[:11] for name in part} for part in split]
    assert not patients[0] & patients[1] and not patients[0] & patients[2] and not patients[1] & patients[2]
    assert split == split_names(names, (), (), seed=4) != split_names(names, (), (), seed=5)
    with pytest.raises(BadRequestError, match="patient_003 is in two parts"):
        split_names(names, names[15:16], (), 0)


def test_named_slides_and_what_is_refused():
    assert split_names(["a", "b", "c"], ["b"], ["c"], 0) == (("a",), ("b",), ("c",))
    assert split_names(["a", "b"], (), (), 0) == (("a", "b"), (), ())
    with pytest.raises(BadRequestError, match="not there: z; there are a"):
        split_names(["a"], ["z"], (), 0)
    with pytest.raises(BadRequestError, match="No slide is left"):
        split_names(["a"], ["a"], (), 0)
