"""Drawn slides become patches whose labels are their truth's."""

from train import draw_slides
from wsi_ml.data.patch_grid import NORMAL, TUMOUR
from wsi_ml.data.patch_slides import Cutting, library_slides
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
