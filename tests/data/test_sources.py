"""Every source by name: parts, splits, unlabelled slides, libraries; and the same batches in other processes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.data.drawn_folder import BOXES, outlines, write_folder, write_slide
from train.presets import PAPER
from wsi_ml.data.batch_dataset import batch_loader
from wsi_ml.data.entropy import passes_brightness_gate
from wsi_ml.data.labelled_patches import LabelledPatches
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.slide_patches import BLOCK_PATCHES, SlidePatches, TissuePlaces
from wsi_ml.data.sources import SOURCES, SourceOptions, open_source
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.slides import open_slide
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.psi_writer import write_psi


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("msu"))


@pytest.fixture(scope="module")
def library(tmp_path_factory, folder):
    root = tmp_path_factory.mktemp("library")
    for stem in "ab":
        slide = ingest(folder / "images" / "train" / f"{stem}.psi", root)
        path = root / f"{stem}.json"
        path.write_text(outlines(list(BOXES) if stem == "a" else ["AT", "LP"]))
        import_layer(root, slide.slide_id, path, name="drawn")
    return root


def options(folder, **changes) -> SourceOptions:
    return dataclasses.replace(SourceOptions(folder, 6, 40, seed=4), **changes)


# -- by name -------------------------------------------------------------------------------------------------------


def test_msu_by_parts(folder):
    training = open_source("msu", options(folder, validation=("b",)))
    assert isinstance(training, LabelledPatches) and [slide.pixels.name for slide in training.slides] == ["a"]
    watched = open_source("msu", options(folder, part="validation", validation=("b",), patches_per_slide=2))
    tested = open_source("msu", options(folder, part="test", patches_per_slide=0))
    assert watched.slides_of(0) == ("b",) * 6 and len(watched) == 1
    assert set(tested.slides_of(0)) == {"c"} and len(tested.patches) == 2 * 7 * 6 + 15 * 5
    assert training.classes == watched.classes == tested.classes == ("AT", "LP", "TUM")
    # of two labels in another order, the test part keeps the order too
    turned = open_source("msu", options(folder, part="test", classes=("TUM", "AT"), patches_per_slide=1))
    assert turned.classes == ("TUM", "AT") and turned.batch(0).labels.tolist() == [0, 1]


def test_unlabelled_slides(folder):
    source = open_source("msu-unlabelled", options(folder, batch=4))
    batch = source.batch(2)
    assert batch.has_base.all() and (batch.labels == -1).all() and source.classes == ()
    slides = {each.slide.name: each.slide for each in source.places}
    for (name, x, y), rgb in zip(source.places_of(2), batch.base, strict=True):
        assert np.array_equal(slides[name].read(x, y, 40).finished()[1], rgb)
    assert all(passes_brightness_gate(rgb) for rgb in batch.stored)
    assert np.abs(batch.stored.astype(int) - [halve_pixels(each) for each in batch.base]).mean() < 3
    assert len(source) == 2 * 800 * 600 // 40**2 // 4
    watched = open_source("slides", options(folder / "images" / "train", part="validation", validation=("a",)))
    assert len(watched) == 11 and set(watched.slides_of(10)) == {"a"}
    assert all(passes_brightness_gate(rgb) for rgb in watched.batch(0).stored)


def test_library_slides_with_a_layer(library):
    source = open_source("library", options(library, layer="drawn"))
    assert source.classes == ("AT", "LP", "TUM") and [slide.pixels.name for slide in source.slides] == ["a", "b"]
    batch = source.batch(1)
    assert not batch.has_base.any() and batch.stored.shape == (6, 40, 40, 3)
    (region,) = source.slides[0].regions["AT"]
    assert region.bounds == tuple(value / 2 for value in BOXES["AT"])
    # the labels of a part are those of the training slides, whatever this slide shows
    watched = open_source("library", options(library, part="validation", validation=("b",)))
    assert watched.classes == ("AT", "LP", "TUM") and set(watched.batch(0).labels) <= {0, 1}
    plain = open_source("library-unlabelled", options(library))
    assert not plain.batch(0).has_base.any() and plain.classes == ()
    with pytest.raises(BadRequestError, match="a layer named “other”; there are drawn"):
        open_source("library", options(library, layer="other"))


def test_joined_names(folder, library):
    source = open_source("msu-unlabelled+library", options(folder, batch=8, labelled_data=library, labelled_share=0.25))
    batch = source.batch(0)
    assert (
        batch.has_base.tolist() == [True] * 6 + [False] * 2 and (batch.labels >= 0).tolist() == [False] * 6 + [True] * 2
    )
    watched = open_source(
        "msu-unlabelled+library", options(folder, labelled_data=library, part="validation", validation=("b",))
    )
    assert watched.slides_of(0)[0] == "b" and watched.classes == source.classes


def test_augmentation_changes_pose_not_place(folder):
    plain = open_source("msu", options(folder))
    varied = open_source("msu", options(folder, augmentation=PAPER.stage_one.augmentation))
    assert np.array_equal(plain.batch(0).labels, varied.batch(0).labels)
    assert not np.array_equal(plain.batch(0).base, varied.batch(0).base)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("none", {}, "no source 'none'; there are atlas"),
        ("msu", {"part": "train"}, "no part 'train'; there are training"),
        ("msu", {"validation": ("z",)}, "slides that are not there: z; there are a, b"),
        ("msu", {"validation": ("a", "b")}, "No slide is left for training"),
        ("msu", {"validation": ("a",), "test": ("a",)}, "for validation and for the test: a"),
        ("slides", {"part": "test"}, "No slides are named for the part test|not there"),
        ("msu", {"side": 700}, "too small"),
        ("msu+msu-unlabelled", {}, "must have classes"),
    ],
)
def test_what_is_refused(folder, name, changes, words):
    with pytest.raises(BadRequestError, match=words):
        open_source(name, options(folder, **changes))


def test_data_that_is_not_there(tmp_path):
    for name in SOURCES:
        if not name.startswith("library"):
            with pytest.raises(FileNotFoundError):
                open_source(name, options(tmp_path / "none"))


def test_weak_tissue_and_atlas(shared_data):
    rows = options(shared_data, side=64)
    tissue = open_source("tissue-weak", dataclasses.replace(rows, part="test"))
    assert set(tissue.slides_of(0)) == {"duodenum-tubular-adenoma"} and not tissue.batch(0).has_base.any()
    watched = open_source(
        "atlas", dataclasses.replace(rows, part="validation", validation=("BS12",), patches_per_slide=1)
    )
    assert watched.slides_of(0) == ("BS12",) * 6 and watched.batch(0).has_base.all() and len(watched) == 3


# -- blocks --------------------------------------------------------------------------------------------------------


def test_blocks_and_slides(folder):
    readers = [PatchReader(open_slide(folder / "images" / "train" / f"{stem}.psi")) for stem in "ab"]
    source = SlidePatches(readers, 4, 16, seed=9)
    assert BLOCK_PATCHES == 67
    places = {}
    for slide, each in enumerate(source.places):

        def note(block, rng, slide=slide, draw=each.draw):
            drawn = draw(block, rng)
            places.setdefault((slide, block), []).append((drawn.x, drawn.y))
            return drawn

        each.draw = note
    for number in range(2 * BLOCK_PATCHES):
        source._draw(number)
    assert [len(found) for found in places.values()] == [67, 67]
    for (_, block), found in places.items():
        assert block.width == block.height == 240
        assert np.mean([block.x <= x <= block.x_end - 16 and block.y <= y <= block.y_end - 16 for x, y in found]) > 0.5
    assert {slide for slide, _ in places} in ({0}, {1})  # ten blocks stay on one slide


def test_glass_is_not_drawn_and_told(tmp_path):
    white = np.full((400, 400, 3), 245, np.uint8)
    path = write_psi(tmp_path / "w.psi", Size(400, 400), lambda r: white[: r.height, : r.width], magnification=40)
    source = SlidePatches([PatchReader(open_slide(path))], 2, 40, seed=0)
    with pytest.raises(BadRequestError, match="500 random places on “w” were all too bright or too dark"):
        source.batch(0)
    with pytest.raises(BadRequestError, match="smaller than a patch of 201 px"):
        TissuePlaces(PatchReader(open_slide(path)), 201)
    with pytest.raises(BadRequestError, match="no slide to take patches from"):
        SlidePatches([], 2, 40, 0)


def test_the_overview_never_rejects_what_the_gate_keeps(tmp_path):
    reader = PatchReader(open_slide(write_slide(tmp_path / "a.psi")))
    overview = reader.overview(40)
    assert overview is not None and overview.step == 2.0
    rng = np.random.default_rng(0)
    for _ in range(150):
        x, y = int(rng.integers(760)), int(rng.integers(560))
        if passes_brightness_gate(reader.read(x, y, 40).seen()):
            assert overview.at(x, y, 40) > 0.15


# -- the same whoever asks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["msu", "msu-unlabelled", "library"])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_agree(name, folder, library):
    chosen = options(library if name == "library" else folder, augmentation=PAPER.stage_two.augmentation)
    source = open_source(name, chosen)
    expected = [source.batch(index) for index in range(2, 6)]
    again = open_source(name, chosen)
    for workers in (0, 2):
        found = list(batch_loader(again, range(2, 6), workers))
        for one, other in zip(found, expected, strict=True):
            assert all(np.array_equal(one[key].numpy(), getattr(other, key)) for key in one)
    assert not np.array_equal(expected[0].stored, expected[1].stored)
