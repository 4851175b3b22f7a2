"""Drawn slides become patches whose labels are their truth's."""

import numpy as np
import pytest
import shapely

from train import draw_slides
from wsi_ml.data.lesion_slide import SQUARE, make_lesions, paint_lesions
from wsi_ml.data.patch_grid import NORMAL, TUMOUR
from wsi_ml.data.patch_slides import Cutting, library_slides
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Size
from wsi_ml.slides.library import Library


def test_a_drawn_library_gives_patches_of_both_classes_and_is_drawn_once(tmp_path, capsys):
    arguments = ["--library", str(tmp_path / "library"), "--slides", "1", "--width", "1024", "--height", "1024"]
    assert draw_slides.main(arguments) == 0
    before = Library(tmp_path / "library").slides()
    assert draw_slides.main(arguments) == 0
    assert Library(tmp_path / "library").slides() == before and [slide.name for slide in before] == ["drawn-100"]
    (slide,) = library_slides(tmp_path / "library", draw_slides.LAYER, ["Gland"], ["Stroma"], Cutting(40))
    assert {NORMAL, TUMOUR} <= set(slide.labels.tolist()) and len(slide.cells) > 40
    assert draw_slides.main([*arguments[:4], "--width", "100"]) == 2
    assert "512 px" in capsys.readouterr().err


def test_lesions_become_patches_and_a_share_of_them_deceives(tmp_path):
    arguments = ["--library", str(tmp_path / "library"), "--slides", "1", "--width", "2048", "--height", "2048"]
    assert draw_slides.main([*arguments, "--kind", "lesions", "--seed", "104"]) == 0
    (slide,) = library_slides(tmp_path / "library", draw_slides.LESION_LAYER, ["Lesion"], ["Normal"], Cutting(SQUARE))
    assert slide.name == "lesions-104" and {NORMAL, TUMOUR} <= set(slide.labels.tolist())
    scene = make_lesions(Size(1024, 1024), 104)
    # A patch is kept by its tissue and is tumour where more than a fifth of it is lesion: the outlines are the truth.
    for (row, column), label in zip(slide.cells.tolist(), slide.labels.tolist(), strict=True):
        cell = shapely.box(column * SQUARE, row * SQUARE, (column + 1) * SQUARE, (row + 1) * SQUARE)
        share = scene.lesions.intersection(cell).area / cell.area
        assert (label == TUMOUR) == (share > 0.2) or abs(share - 0.2) < 0.01


def test_a_lesions_squares_have_large_nuclei_but_for_those_that_deceive():
    scene = make_lesions(Size(1024, 1024), 104)
    plain, deceiving = (paint_lesions(scene, share).astype(int).sum(2) for share in (0.0, 0.5))
    assert np.array_equal(paint_lesions(scene, 0.0).astype(int).sum(2), plain)

    def edges(rgb, inside):
        """Mean step of light from pixel to pixel: many small nuclei have more rim than few large ones."""
        return [
            np.abs(np.diff(rgb[y : y + SQUARE, x : x + SQUARE], axis=0)).mean()
            for y in range(0, 1024, SQUARE) for x in range(0, 1024, SQUARE)
            if inside.covers(shapely.box(x, y, x + SQUARE, y + SQUARE))
        ]  # fmt: skip

    normal = scene.tissue.difference(scene.lesions)
    lesion_edges, normal_edges = edges(plain, scene.lesions), edges(plain, normal)
    assert len(lesion_edges) >= 4 and np.mean(lesion_edges) < 0.8 * np.mean(normal_edges)
    mixed = edges(deceiving, normal)
    assert np.std(mixed) > 1.5 * np.std(normal_edges)
    # Colours tell nothing: as much of either tissue is nucleus.
    light = [np.mean([plain[y, x] for y, x in _pixels(area)]) for area in (scene.lesions, normal)]
    assert abs(light[0] - light[1]) < 20
    with pytest.raises(BadRequestError, match="512 stored px"):
        make_lesions(Size(400, 2000), 1)


def _pixels(area):
    points = np.random.default_rng(3).uniform(0, 1024, (6000, 2))
    inside = shapely.contains_xy(area, points[:, 0], points[:, 1])
    return points[inside][:, ::-1].astype(int)
