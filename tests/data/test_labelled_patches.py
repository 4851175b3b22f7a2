"""Patches of annotated slides: the folder's layout, drawing, the dense test grid, and what can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from tests.data.drawn_folder import BOXES, COLOURS, SIZE, write_folder, write_slide
from wsi_ml.data.dense_patches import dense_patches
from wsi_ml.data.labelled_patches import RUN, LabelledPatches, checked_chances
from wsi_ml.data.msu import annotated_slides, find_slides, read_regions
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.errors import AnnotationFileError, BadRequestError, RegionTooSmallError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides import LibrarySlide, open_slide
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.kernel import halve_pixels

SIDE = 48
CLASSES = ("AT", "LP", "TUM")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("msu"))


@pytest.fixture(scope="module")
def slides(folder):
    return annotated_slides(find_slides(folder, "train"))


def shows(rgb: np.ndarray, name: str) -> bool:
    """True where the patch has the colour of the class in most of its area."""
    near = np.abs(rgb.astype(int) - COLOURS[name]).max(2) < 45
    return bool(near.mean() > 0.6)


# -- layout --------------------------------------------------------------------------------------------------------


def test_layouts(folder, tmp_path):
    assert [(pair.slide.name, pair.annotation.name) for pair in find_slides(folder, "train")] == [
        ("a.psi", "a.json"),
        ("b.psi", "b_anno.json"),
    ]
    assert [pair.annotation.name for pair in find_slides(folder, "test")] == ["c_v2.5.json"]
    for name in ("x.svs", "x.json", "x_v2.5.json", "y.psi", "notes.txt"):
        (tmp_path / name).touch()
    pairs = find_slides(tmp_path, "train")  # side by side; the newest annotation counts, and one is missing
    assert [(pair.slide.name, pair.annotation and pair.annotation.name) for pair in pairs] == [
        ("x.svs", "x_v2.5.json"),
        ("y.psi", None),
    ]
    with pytest.raises(BadRequestError, match="no slides of the part test"):
        find_slides(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match="no folder “none”"):
        find_slides(tmp_path / "none", "train")


def test_regions_are_in_stored_pixels(slides):
    assert slides[0].pixels.size == (SIZE.width // 2, SIZE.height // 2)
    (region,) = slides[0].regions["AT"]
    assert region.bounds == tuple(value / 2 for value in BOXES["AT"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([{"class": "AT", "vertices": [[0, 0], [1700, 0], [1700, 9], [0, 0]]}], "outside the slide of 1600 × 1200 px"),
        ([{"class": "AT", "vertices": "none"}], "no list of points"),
        ({"objects": [{"id": 1, "points": [[0, 0], [50, 0], [50, 50]]}]}, "names no class of any region"),
        ([], "names no class|no known annotation format"),
        ({"other": 1}, "no known annotation format"),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path, values, words):
    path = tmp_path / "a_anno.json"
    path.write_text(json.dumps(values))
    with pytest.raises(AnnotationFileError, match=words) as caught:
        read_regions(path, SIZE)
    assert "“a_anno.json”" in str(caught.value)


def test_outlines_that_cross_themselves_are_mended(tmp_path):
    path = tmp_path / "a.json"
    bow = [[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]
    path.write_text(json.dumps([{"class": "AT", "vertices": bow}]))
    parts = read_regions(path, SIZE, 2.0)["AT"]
    assert sum(part.area for part in parts) == pytest.approx(100 * 100 / 2 / 4) and len(parts) == 2
    assert all(shapely.is_valid(part) for part in parts)


def test_a_slide_without_annotations(folder, tmp_path):
    write_slide(tmp_path / "z.psi")
    with pytest.raises(BadRequestError, match=r"“z.psi” has no annotations: none of z_v2.5.json, z_anno.json, z.json"):
        annotated_slides(find_slides(tmp_path, "train"))


# -- training ------------------------------------------------------------------------------------------------------


def test_patches_show_their_class(slides):
    source = LabelledPatches(slides, 16, SIDE, seed=1)
    assert source.classes == CLASSES
    for index in (0, 3):
        batch = source.batch(index)
        assert batch.has_base.all() and batch.base.shape == (16, 96, 96, 3)
        assert all(shows(rgb, CLASSES[label]) for rgb, label in zip(batch.stored, batch.labels, strict=True))
        assert np.abs(batch.stored.astype(int) - [halve_pixels(each) for each in batch.base]).mean() < 3


def test_ten_in_a_row_and_class_balance(slides):
    source = LabelledPatches(slides, 7, SIDE, seed=2, class_chances=(0.5, 0.0, 0.5))
    labels = np.concatenate([source.batch(index).labels for index in range(20)])
    runs = labels[: len(labels) // RUN * RUN].reshape(-1, RUN)
    assert (runs == runs[:, :1]).all() and set(labels) == {0, 2}
    drawn = [LabelledPatches(slides, 1, SIDE, seed=3, class_chances=(2, 1, 1))._run(run)[0] for run in range(400)]
    assert 0.43 < np.mean(np.array(drawn) == 0) < 0.57


def test_regions_by_weight(slides):
    one = slides[0]._replace(regions={"AT": [shapely.box(50, 50, 100, 100), shapely.box(150, 50, 350, 250)]})

    def share(coefficient):
        source = LabelledPatches([one], 1, 40, seed=0, coefficient=coefficient, intersection=0.9)
        return np.mean([source._run(run)[2][0][0] < 120 for run in range(300)])

    # areas 2500 and 40000
    assert share(0.0) == pytest.approx(0.5, abs=0.09)
    assert share(1.0) == pytest.approx(2500 / 42500, abs=0.05)
    assert share(-1.0) == pytest.approx(40000 / 42500, abs=0.05)


def test_epoch_is_the_area_in_patches(slides):
    area = sum(region.area for slide in slides for regions in slide.regions.values() for region in regions)
    assert len(LabelledPatches(slides, 4, SIDE, seed=0)) == int(area / SIDE**2) // 4
    assert len(LabelledPatches(slides, 4, SIDE, seed=0, length=3)) == 3


def test_classes_and_chances_that_cannot_be(slides):
    with pytest.raises(BadRequestError, match="no region of the class MM on these slides; there are AT, LP, TUM"):
        LabelledPatches(slides, 4, SIDE, 0, classes=("AT", "MM"))
    with pytest.raises(BadRequestError, match="named twice"):
        LabelledPatches(slides, 4, SIDE, 0, classes=("AT", "AT"))
    for chances in ((1.0,), (1.0, -1.0, 1.0), (0.0, 0.0, 0.0)):
        with pytest.raises(BadRequestError, match="class_chances gives"):
            checked_chances(CLASSES, chances)
    with pytest.raises(BadRequestError, match="no region of any class"):
        LabelledPatches([slides[0]._replace(regions={})], 4, SIDE, 0)


def test_small_regions_are_left_out_and_named(slides):
    small, large = shapely.box(60, 60, 70, 70), shapely.box(100, 100, 300, 300)
    source = LabelledPatches([slides[0]._replace(regions={"AT": [small, large]})], 4, SIDE, 0)
    assert len(source.regions[0]) == 1
    assert source.left_out[0].startswith("The region of AT on “a” is too small: it covers 100 px²")
    with pytest.raises(RegionTooSmallError, match="region of AT on “a”"):
        LabelledPatches([slides[0]._replace(regions={"AT": [small]})], 4, SIDE, 0)


# -- test ----------------------------------------------------------------------------------------------------------


def test_dense_grid_of_the_test_part(folder):
    (slide,) = annotated_slides(find_slides(folder, "test"))
    source = dense_patches([slide], 5, SIDE, classes=("LP", "AT"))
    count = 2 * 6 * 5  # 300 × 240 and 300 × 250 stored px, in steps of 48
    assert len(source.patches) == count and len(source) == 12 and source.classes == ("LP", "AT")
    first = source.batch(0)
    assert first.labels.tolist() == [0] * 5 and source.slides_of(0) == ("c",) * 5
    assert [(patch.x, patch.y) for patch in source.patches[:2]] == [(450, 40), (498, 40)]
    assert all(shows(rgb, "LP") for rgb in first.stored)
    assert source.batch(11).labels.tolist() == [1] * 5
    with pytest.raises(IndexError):
        source.batch(12)
    few = dense_patches([slide], 5, SIDE, classes=("LP", "AT"), most=3)
    assert [patch.label for patch in few.patches] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(BadRequestError, match=r"No region of AT holds a patch of 290 px with 0\.95"):
        dense_patches([slide], 5, 290, classes=("AT",))


# -- one slide -----------------------------------------------------------------------------------------------------


def test_pairs_by_store_and_by_levels(folder):
    path = folder / "images" / "train" / "a.psi"
    store, levels = (PatchReader(open_slide(path), pairs) for pairs in ("store", "levels"))
    assert store.size == levels.size == (800, 600) and store.region_scale == 2.0
    one, base = store.read(60, 70, SIDE).finished()
    other, same = levels.read(60, 70, SIDE).finished()
    assert np.array_equal(base, same)
    assert np.array_equal(other, open_slide(path).region(1, Region(60, 70, SIDE, SIDE)))
    assert 0 < np.abs(one.astype(int) - other).mean() < 4


def test_unvaried_pairs_have_the_very_pixels_that_the_store_keeps(folder, tmp_path):
    path = folder / "images" / "train" / "a.psi"
    reader = PatchReader(open_slide(path))
    made = ingest(path, tmp_path / "library")
    stored = open_slide(LibrarySlide(tmp_path / "library", made.slide_id))
    for x, y in ((0, 0), (61, 70), (500, 490), (800 - SIDE, 600 - SIDE), (3, 551)):  # at edges and over tiles too
        small, large = reader.read(x, y, SIDE).finished()
        assert np.array_equal(small, stored.region(0, Region(x, y, SIDE, SIDE)))
        assert np.array_equal(large, open_slide(path).region(0, Region(2 * x, 2 * y, 2 * SIDE, 2 * SIDE)))


def test_slides_without_a_times_20_plane(tmp_path):
    path = write_slide(tmp_path / "a.psi", magnification=0)
    with pytest.raises(BadRequestError, match=r"“a” states no µm/px; give it with the key mpp"):
        PatchReader(open_slide(path))
    assert PatchReader(open_slide(path), mpp=0.5).has_base is False
    assert PatchReader(open_slide(path), mpp=0.125).size == Size(400, 300)
    with pytest.raises(BadRequestError, match="no ×20 plane: the nearest is 1 µm/px"):
        PatchReader(open_slide(path), mpp=1.0)
    with pytest.raises(BadRequestError, match="store or levels, not by 'x'"):
        PatchReader(open_slide(path), "x", 0.25)
    with pytest.raises(BadRequestError, match=r"has no level at ×20 .* only downsamples 1, 2, 4; set pairs=store"):
        PatchReader(open_slide(path), "levels", 0.5 / 8)
