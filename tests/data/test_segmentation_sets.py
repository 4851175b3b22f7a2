"""Layouts of pictures with masks and of CAMELYON, cutting to a side, splits by slide, endless batches, bad input."""

import dataclasses

import numpy as np
import pytest
import shapely
from PIL import Image

from tests.data.pixel_folder import write_folder
from tests.slides.make_slides import write_generic
from wsi_ml.data import camelyon, segmentation_folders, segmentation_sets
from wsi_ml.data.batch_dataset import batch_loader
from wsi_ml.data.pixel_batches import (
    LabelledPicture,
    PictureBatches,
    batch_of,
    check_picture,
    class_of_mask,
    cut_to_side,
    halved,
)
from wsi_ml.data.segmentation_sets import PictureOptions, open_pictures
from wsi_ml.data.synthetic import make_scene
from wsi_ml.errors import AnnotationFileError, BadRequestError
from wsi_ml.geometry import Size

LESION = (300, 200, 900, 700)
"""x0, y0, x1, y1 at ×40 of the drawn metastasis; a square within it is excluded."""
EXCLUDED = (400, 300, 500, 400)
SLIDE = Size(1280, 1024)


def options(folder, **changes):
    return dataclasses.replace(PictureOptions(folder, 16), **changes)


def xml(*annotations):
    """An ASAP file of (group, box)."""
    parts = []
    for number, (group, (x0, y0, x1, y1)) in enumerate(annotations):
        corners = enumerate(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
        points = "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in corners)
        parts.append(
            f'<Annotation Name="_{number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{points}</Coordinates></Annotation>"
        )
    return f"<ASAP_Annotations><Annotations>{''.join(parts)}</Annotations><AnnotationGroups /></ASAP_Annotations>"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """CAMELYON16's layout: one tumour slide, one normal, and one of the test whose table calls it normal."""
    folder = tmp_path_factory.mktemp("camelyon")
    rng = np.random.default_rng(8)
    for name in ("training/tumor/tumor_001", "training/normal/normal_001", "testing/images/test_001"):
        rgb = np.full((SLIDE.height, SLIDE.width, 3), (170, 120, 170), np.uint8)
        if "tumor" in name:
            x0, y0, x1, y1 = LESION
            rgb[y0:y1, x0:x1] = (90, 50, 130)
        rgb += rng.integers(0, 20, rgb.shape).astype(np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_generic(folder / f"{name}.tif", rgb, mpp=0.25)
    (folder / "lesion_annotations").mkdir()
    (folder / "lesion_annotations" / "tumor_001.xml").write_text(xml(("metastases", LESION), ("normal", EXCLUDED)))
    (folder / "testing" / "reference.csv").write_text("test_001,Normal,None,None\n")
    return folder


# -- a picture -----------------------------------------------------------------------------------------------------


def test_the_class_of_a_mask_is_its_most_frequent_one_above_a_share():
    mask = np.zeros((4, 4), np.int8)
    mask[0, :3], mask[1, 0] = 1, 2
    assert class_of_mask(mask, 0.0) == 1 and class_of_mask(mask, 3 / 16) == 0
    mask[2:] = -1  # shares are of the labelled pixels: 3 of 8
    assert class_of_mask(mask, 0.3) == 1 and class_of_mask(np.full((2, 2), -1, np.int8), 0.0) == -1


def test_a_picture_is_cut_on_a_grid_and_each_square_has_the_class_of_its_own_pixels():
    rgb = np.arange(16 * 24 * 3, dtype=np.uint16).reshape(16, 24, 3).astype(np.uint8)
    mask = np.zeros((16, 24), np.int8)
    mask[:8, 16:] = 1
    mask[8:, :8] = -1
    pieces = list(cut_to_side(LabelledPicture("a", "s", rgb, mask, 0), 8, 0.5))
    assert [piece.name for piece in pieces] == ["a-0-0", "a-8-0", "a-16-0", "a-0-8", "a-8-8", "a-16-8"]
    assert [piece.label for piece in pieces] == [0, 0, 1, -1, 0, 0]
    assert pieces[3].mask is None and np.array_equal(pieces[2].rgb, rgb[:8, 16:])
    weak = list(cut_to_side(LabelledPicture("a", "s", rgb, None, 1), 8, 0.0))
    assert [piece.label for piece in weak] == [1] * 6
    (whole,) = cut_to_side(LabelledPicture("a", "s", rgb[:8, :8], mask[:8, :8], 1), 8, 0.0)
    assert (whole.name, whole.label) == ("a", 1)
    (grown,) = cut_to_side(LabelledPicture("a", "s", rgb[:6, :8], mask[:6, 16:24], -1), 8, 0.5)
    assert grown.label == 1 and np.array_equal(grown.rgb[6:], rgb[5:3:-1, :8]) and grown.mask.min() == 1


@pytest.mark.parametrize(
    ("mask", "label", "words"),
    [(np.zeros((4, 5), np.int8), 0, "4 × 4 px but its mask 5 × 4"), (np.full((4, 4), 2, np.int8), 0, "from 2 to 2"),
     (np.full((4, 4), -1, np.int8), 0, "labels no pixel"), (None, 2, "class 2; there are 2")],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(mask, label, words):
    with pytest.raises(BadRequestError, match=words):
        check_picture(LabelledPicture("a", "s", np.zeros((4, 4, 3), np.uint8), mask, label), 2)


def test_batches_are_endless_pure_and_take_every_picture_once_an_epoch():
    rng = np.random.default_rng(0)
    pictures = [
        LabelledPicture(
            str(n), "s", np.full((8, 8, 3), 10 * n, np.uint8), rng.integers(0, 2, (8, 8)).astype(np.int8), n
        )
        for n in range(6)
    ]
    source = PictureBatches(pictures, 3, seed=5)
    seen = [source.batch(index) for index in range(6)]
    assert len(source) == 2
    orders = [seen[2 * epoch].labels.tolist() + seen[2 * epoch + 1].labels.tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(6)) for order in orders) and orders[0] != orders[1]
    for index, batch in enumerate(batch_loader(source, range(6))):
        for name, values in seen[index]._asdict().items():
            assert np.array_equal(batch[name].numpy(), values), name
    # picture and mask are turned alike: the mask painted into the picture stays in place
    painted = [each._replace(rgb=np.repeat(each.mask[..., None].astype(np.uint8), 3, 2)) for each in pictures]
    turned = PictureBatches(painted, 6, seed=5).batch(0)
    assert np.array_equal(turned.stored[..., 0], turned.masks)
    assert any(not np.array_equal(turned.masks[row], pictures[turned.labels[row]].mask) for row in range(6))
    without = batch_of([pictures[0]._replace(mask=None)])
    assert without.masks.dtype == np.int64 and (without.masks == -1).all()
    with pytest.raises(BadRequestError, match="no picture"):
        PictureBatches([], 2, 0)


# -- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_with_masks_table_and_parts(tmp_path):
    found = open_pictures("folder", options(write_folder(tmp_path / "set", masked=6)))
    assert found.classes == ("Other", "Target")
    assert [len(part) for part in (found.training, found.validation, found.test)] == [8, 2, 2]
    assert [each.name for each in found.validation] == ["03", "08"]
    assert [each.mask is not None for each in found.training] == [True] * 4 + [False] * 4
    assert [each.label for each in found.training] == [0, 1, 1, 1, 0, 1, 1, 1]
    first = found.training[1]
    assert first.mask.sum() == np.asarray(Image.open(tmp_path / "set" / "masks" / "01.png")).sum() > 0


def test_without_a_table_slides_are_split_by_a_fixed_shuffle(tmp_path):
    folder = write_folder(tmp_path / "set", count=10)
    (folder / "pictures.csv").unlink()
    found = open_pictures("folder", options(folder))
    parts = [{each.slide for each in part} for part in (found.training, found.validation, found.test)]
    assert [len(part) for part in parts] == [6, 2, 2] and not parts[0] & parts[1] and not parts[0] & parts[2]
    named = open_pictures("folder", options(folder, validation=("00",), test=("01", "02")))
    assert [each.name for each in named.validation] == ["00"] and len(named.training) == 7
    assert segmentation_sets.split_names(["a", "b", "a"], (), ()) == {"a": "training", "b": "training"}


MASKS = {
    "size": np.zeros((9, 16), np.uint8),
    "value": np.full((16, 16), 3, np.uint8),
    "binary": np.diag([255] * 16).astype(np.uint8),
    "colour": np.zeros((16, 16, 3), np.uint8),
    "empty": np.full((16, 16), 255, np.uint8),
}


def break_it(folder, fault):
    """Spoil picture 01, its mask or its line of the table."""
    mask, table = folder / "masks" / "01.png", folder / "pictures.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    if fault in MASKS:
        # Of masks of 0 and 255 a folder may hold some, but not only such.
        for each in (folder / "masks").iterdir() if fault == "binary" else [mask]:
            Image.fromarray(MASKS[fault]).save(each)
    elif fault == "damaged":
        mask.write_bytes(b"no picture")
    elif fault == "alone":
        (folder / "images" / "01.png").unlink()
    elif fault == "nothing":
        mask.unlink()
        rows[2][1] = ""
    elif fault == "label":
        rows[2][1] = "what"
    elif fault == "part":
        rows[2][3] = "what"
    elif fault == "slide":
        rows[4][2] = rows[2][2]
    elif fault == "column":
        rows[0][1] = "class"
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")


@pytest.mark.parametrize(
    ("fault", "words"),
    [("size", "16 × 16 px but its mask 16 × 9"), ("value", "value 3; classes are 0 to 1"), ("binary", "only 0 and 255"),
     ("colour", "one channel"), ("empty", "labels no pixel"), ("damaged", "cannot be read as a picture"),
     ("alone", "has no picture"), ("nothing", "neither a mask nor a class"), ("label", "class 'what'"),
     ("part", "part 'what'"), ("slide", "two parts"), ("column", "columns file and label")],
)  # fmt: skip
def test_a_faulty_folder_ends_with_one_sentence(tmp_path, fault, words):
    folder = write_folder(tmp_path / "set", count=5)
    break_it(folder, fault)
    with pytest.raises(BadRequestError, match=words):
        open_pictures("folder", options(folder))


def test_slides_and_split_that_are_named_go_before_the_table(tmp_path):
    folder = write_folder(tmp_path / "set", count=10)
    some = tuple(f"slide-{number}" for number in (0, 1, 3, 9))
    by_table = open_pictures("folder", options(folder, slides=some))
    assert [len(part) for part in (by_table.training, by_table.validation, by_table.test)] == [2, 1, 1]
    named = open_pictures("folder", options(folder, slides=some, validation=("slide-0",), test=("slide-1",)))
    assert {each.slide for each in named.training} == {"slide-3", "slide-9"} and named.test[0].slide == "slide-1"
    with pytest.raises(BadRequestError, match="The key slides names “slide-70”"):
        open_pictures("folder", options(folder, slides=("slide-70",)))


def test_a_mask_of_ground_and_unlabelled_pixels_is_read(tmp_path):
    folder = write_folder(tmp_path / "set", count=5)
    Image.fromarray(MASKS["binary"]).save(folder / "masks" / "01.png")
    found = open_pictures("folder", options(folder))
    assert np.array_equal(found.training[1].mask, -np.eye(16))


def test_names_of_sources_and_joins(tmp_path):
    with pytest.raises(BadRequestError, match="no source 'moon'"):
        open_pictures("drawn+moon", options(tmp_path))
    folder = write_folder(tmp_path / "set", count=5)
    twice = open_pictures("folder+folder", options(folder))
    assert len(twice.training) == 6
    with pytest.raises(FileNotFoundError, match="no folder images"):
        open_pictures("folder", options(tmp_path))


@pytest.mark.parametrize(("source", "key"), [("drawn", "validation"), ("drawn", "test"), ("tissue-weak", "validation")])
def test_a_split_is_not_named_for_sets_that_have_their_own(tmp_path, source, key):
    with pytest.raises(BadRequestError, match=f"{source} holds out its own pictures; leave the key {key}"):
        open_pictures(source, options(tmp_path, **{key: ("some",)}))


def test_sets_of_unlike_classes_are_not_joined(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "set", count=5)
    other = segmentation_sets.PictureSet(("Other", "Moss"))
    monkeypatch.setitem(segmentation_sets.READERS, "drawn", lambda _: other)
    with pytest.raises(BadRequestError, match="folder tells Other, Target and drawn tells Other, Moss"):
        open_pictures("folder+drawn", options(folder))


def test_drawn_glands_are_marked_to_the_pixel(monkeypatch):
    monkeypatch.setattr(segmentation_sets, "SCENE_SIDE", 1024)
    monkeypatch.setattr(segmentation_sets, "PART_SIDE", 512)
    drawn = list(segmentation_sets._scene_pictures(40))
    assert [each.name for each in drawn] == ["scene-40-0-0", "scene-40-512-0", "scene-40-0-512", "scene-40-512-512"]
    assert all(each.rgb.shape == (256, 256, 3) and each.mask.shape == (256, 256) for each in drawn)
    scene = make_scene(Size(1024, 1024), 40)
    wanted = shapely.union_all([*scene.glands, *scene.lumina]).intersection(shapely.box(0, 0, 1024, 1024)).area / 4
    assert sum(int(each.mask.sum()) for each in drawn) == pytest.approx(wanted, rel=0.02) and wanted > 5000

    seeds = []
    monkeypatch.setattr(segmentation_sets, "_scene_pictures", lambda seed: seeds.append(seed) or drawn)
    found = open_pictures("drawn", PictureOptions(None, 128, seed=40, scenes=2))
    assert found.classes == ("Other", "Gland") and (len(found.training), len(found.test)) == (32, 16)
    assert seeds == [40, 41, 100_040, 200_040]
    only = open_pictures("drawn", PictureOptions(None, 128, seed=40, scenes=2, parts=("test",)))
    assert (len(only.training), len(only.validation), len(only.test)) == (0, 0, 16)
    assert all(each.label == int(each.mask.any()) for each in found.training)


# -- CAMELYON ------------------------------------------------------------------------------------------------------


def test_camelyon_slides_are_found_with_their_truth(nodes, tmp_path):
    slides = {each.slide.stem: each for each in camelyon.find_camelyon(nodes)}
    assert {name: each.is_tumour for name, each in slides.items()} == {
        "normal_001": False, "test_001": False, "tumor_001": True,
    }  # fmt: skip
    assert slides["tumor_001"].annotation.name == "tumor_001.xml" and slides["normal_001"].annotation is None
    for name in (
        "patient_000_node_0.tif",
        "patient_000_node_1.tif",
        "patient_001_node_0.tif",
        "patient_000_node_0_mask.tif",
    ):
        (tmp_path / name).touch()
    table = "patient,stage\npatient_000.zip,pN0\npatient_000_node_0.tif,micro\npatient_000_node_1.tif,negative\n"
    (tmp_path / "stages.csv").write_text(table)
    found = {each.slide.stem: each for each in camelyon.find_camelyon(tmp_path)}
    assert [each.is_tumour for each in found.values()] == [True, False, None]
    assert found["patient_000_node_0"].mask.name == "patient_000_node_0_mask.tif"
    with pytest.raises(BadRequestError, match="no slides"):
        camelyon.find_camelyon(nodes / "lesion_annotations")
    with pytest.raises(FileNotFoundError):
        camelyon.find_camelyon(nodes / "nowhere")


def test_what_is_excluded_is_taken_out_of_the_tumour(nodes, tmp_path):
    tumour, other = camelyon.camelyon_regions(nodes / "lesion_annotations" / "tumor_001.xml", SLIDE, 2.0)
    assert sum(each.area for each in tumour) == (600 * 500 - 100 * 100) / 4 and other[0].area == 50 * 50
    assert tumour[0].bounds == (150, 100, 450, 350)
    both = tmp_path / "b.xml"
    both.write_text(xml(("_0", (0, 0, 100, 100)), ("Tumor", (50, 0, 150, 100)), ("Exclusion", (0, 0, 40, 100))))
    tumour, _ = camelyon.camelyon_regions(both, SLIDE, 1.0)
    assert sum(each.area for each in tumour) == 110 * 100
    both.write_text(xml(("fat", (0, 0, 100, 100))))
    with pytest.raises(AnnotationFileError, match="only the groups fat"):
        camelyon.camelyon_regions(both, SLIDE, 1.0)
    both.write_text(xml(("_0", (0, 0, 5000, 100))))
    with pytest.raises(AnnotationFileError, match="outside the slide"):
        camelyon.camelyon_regions(both, SLIDE, 1.0)


def test_a_mask_holds_the_pixels_whose_centre_is_inside():
    mask = segmentation_folders.mask_at([shapely.box(12.4, 20, 14.6, 22)], 10, 20, 8)
    assert mask[:2].tolist() == [[0, 0, 1, 1, 1, 0, 0, 0]] * 2 and mask[2:].sum() == 0


def test_pictures_of_slides_carry_the_lesions_in_place(nodes):
    found = open_pictures("camelyon", options(nodes, side=64, slide_pictures=6, validation=("normal_001",)))
    assert found.classes == ("Normal", "Tumour")
    assert {each.slide for each in found.training} == {"tumor_001"} and len(found.training) == 6
    assert {each.slide for each in found.test} == {"test_001"}
    for part in (found.validation, found.test):
        assert all(each.label == 0 and not each.mask.any() for each in part)
    tumour, _ = camelyon.camelyon_regions(nodes / "lesion_annotations" / "tumor_001.xml", SLIDE, 2.0)
    whole = shapely.union_all(tumour)
    for each in found.training:
        x, y = (int(text) for text in each.name.split("-")[1:])
        assert each.mask.sum() == pytest.approx(whole.intersection(shapely.box(x, y, x + 64, y + 64)).area, abs=1)
        if (
            each.mask.any()
            and not each.mask.all()
            and not shapely.box(200, 150, 250, 200).intersects(shapely.box(x, y, x + 64, y + 64))
        ):
            # the drawn metastasis is darker: the mask lies where the pixels are
            assert each.rgb[each.mask == 1].mean() + 40 < each.rgb[each.mask == 0].mean()
    assert sum(each.label for each in found.training) >= 3
    again = open_pictures("camelyon", options(nodes, side=64, slide_pictures=6, validation=("normal_001",)))
    assert [each.name for each in again.training] == [each.name for each in found.training]


def test_slides_without_any_truth_are_refused(tmp_path):
    write_generic(tmp_path / "patient_000_node_0.tif", np.zeros((64, 64, 3), np.uint8), mpp=0.25)
    with pytest.raises(BadRequestError, match="No slide of"):
        open_pictures("camelyon", options(tmp_path))


def test_a_halved_mask_has_the_class_of_most_labelled_pixels():
    mask = np.array([[0, 0, 1, 0, 2], [0, 1, 1, 0, -1], [-1, -1, -1, -1, 0], [-1, -1, 1, -1, 0]], np.int8)
    rgb = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    small = halved(LabelledPicture("a", "s", rgb, mask, 1))
    # The last column is repeated; of two and two the higher class counts.
    assert small.mask.tolist() == [[0, 1, 2], [-1, 1, 0]] and small.mask.dtype == np.int8
    assert small.rgb.shape == (2, 3, 3) and small.rgb[0, 0].tolist() == [9, 10, 11]
    assert halved(LabelledPicture("b", "s", rgb, None, 1)).mask is None


def test_pictures_are_halved_before_they_are_cut(tmp_path):
    folder = write_folder(tmp_path / "data", side=32)
    found = open_pictures("folder", options(folder, halvings=1))
    whole = open_pictures("folder", options(folder))
    assert found.training[0].rgb.shape == (16, 16, 3) == whole.training[0].rgb.shape
    assert 4 * len(found.training) == len(whole.training)


def test_slides_that_are_held_out_are_known_whichever_parts_are_read(tmp_path, nodes):
    folder = write_folder(tmp_path / "data")
    table = open_pictures("folder", options(folder, parts=("training",)))
    assert table.held_out == {f"slide-{number}" for number in (3, 4, 8, 9)} and not table.test
    (folder / "pictures.csv").unlink()
    named = open_pictures("folder", options(folder, validation=("02",), test=("00", "07"), parts=("training",)))
    assert named.held_out == {"00", "02", "07"}
    assert open_pictures("camelyon", options(nodes, slide_pictures=1, parts=("training",))).held_out >= {"test_001"}


def test_stains_vary_between_their_bounds_and_labels_do_not():
    grey = np.full((4, 4, 3), 127, np.uint8)
    mask = np.zeros((4, 4), np.int8)
    pictures = [LabelledPicture("a", "s", grey, mask, 0)]
    varied = PictureBatches(pictures, 8, seed=5, stain=0.6)
    seen = varied.batch(0).stored[:, 0, 0].astype(float)
    assert np.array_equal(varied.batch(0).stored, varied.batch(0).stored) and len(np.unique(seen[:, 0])) > 4
    density = -np.log((seen + 1) / 256)
    # Of a grey picture no colour's density changes further than its stains do.
    assert density.min() > np.log(2) * np.exp(-0.6) - 0.3 and density.max() < np.log(2) * np.exp(0.6) + 0.3
    assert not varied.batch(0).masks.any()
    assert np.array_equal(PictureBatches(pictures, 8, seed=5).batch(0).stored, np.stack([grey] * 8))
