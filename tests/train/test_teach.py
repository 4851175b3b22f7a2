"""Sets and layers of a teacher that tells classes by colour: what is written is read back, and says what it is."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.inference.fake_teacher import ColourSession, HalfSession, stained
from train import draw_slides, teach, teach_layer, teach_pictures
from train.teach_pictures import FolderWriter, atlas_pictures, part_of, scan_pictures, tell_slide
from wsi_ml.data.instance_folders import read_own
from wsi_ml.data.patch_grid import NORMAL, TUMOUR
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.patch_slides import Cutting, library_slides
from wsi_ml.data.segmentation_folders import read_folder
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.teacher import Staining, Teacher
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library
from wsi_ml.slides.reading import LibrarySlide, open_slide


def _tile(dark: slice) -> np.ndarray:
    """A ×40 tile 512 × 512: pale eosin, dark hematoxylin in the columns `dark`, a strip of glass."""
    hematoxylin, eosin = np.full((512, 512), 0.1), np.full((512, 512), 0.3)
    hematoxylin[:, dark] = 0.8
    rgb = stained(hematoxylin, eosin)
    rgb[:64] = 240
    return rgb


@pytest.fixture
def data(tmp_path):
    """Tiles of three slides of the atlas: two of training, one of the test."""
    root = tmp_path / "data"
    rows = ["file,repo,x,y,mpp"]
    for slide, dark in (("morphea", slice(0, 256)), ("BS13", slice(0, 24)), ("BS12", slice(0, 256))):
        (root / "sr-x40-dev2" / slide).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(_tile(dark)).save(root / "sr-x40-dev2" / slide / f"{number:03}.png")
            rows.append(f"{slide}/{number:03}.png,pathologyatlas/{slide},0,0,0.25")
    (root / "sr-x40-dev2" / "index.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    """The command opens the teacher that tells by colour."""
    monkeypatch.setattr(teach, "open_teacher", lambda path, threads: Teacher(ColourSession()))


def test_the_folder_is_read_by_both_layouts_and_says_that_a_model_made_it(data, tmp_path):
    out = tmp_path / "taught"
    assert teach.main(["--output", str(out), "--data", str(data), "--without", "BS13"]) == 0
    rows = read_folder(out, ("Other", "Epithelium"))
    assert [(each.slide, part, each.label) for each, part in rows] == [
        ("BS12", "test", 1), ("BS12", "test", 1), ("morphea", "training", 1), ("morphea", "training", 1),
    ]  # fmt: skip
    picture = rows[0][0]
    assert picture.rgb.shape == (256, 256, 3) and picture.mask.shape == (256, 256)
    assert (
        (picture.mask[40:, :120] == 1).all() and (picture.mask[:, 136:] == 0).all() and (picture.mask[:24] == 0).all()
    )
    instances = read_own(out)
    assert {each.kind for each in instances} == {"teacher"}
    assert instances[0].labels["gland"][100, 50] == 1 and not instances[0].labels["gland"][100, 200]
    assert not instances[0].labels["lumen"].any()
    facts = json.loads((out / "teacher.json").read_text())
    assert "agreement with a model, never accuracy" in facts["labels"]
    assert facts["licence"] == "MIT" and "lavlab-shell 0.9.1" in facts["teacher"]
    assert facts["pictures"] == {"test": 2, "training": 2} and facts["slides"]["BS12"]["with_epithelium"] == 2
    assert facts["slides"]["morphea"]["staining"]["glass"] == pytest.approx(240, abs=1)


def test_the_class_is_by_the_share_of_epithelium(data, tmp_path):
    out = tmp_path / "taught"
    assert teach.main(["--output", str(out), "--data", str(data), "--present", "0.6"]) == 0
    assert {picture.label for picture, _ in read_folder(out, ("Other", "Epithelium"))} == {0}


def test_nothing_is_overwritten_or_left_half_written(data, tmp_path, capsys):
    out = tmp_path / "taught"
    arguments = ["--output", str(out), "--data", str(data)]
    assert teach.main([*arguments, "--without", "nowhere"]) == 2
    assert "“nowhere” cannot be left out: slides are BS12, BS13, morphea." in capsys.readouterr().err
    assert not list(tmp_path.glob("*taught*")) and not list(tmp_path.glob(".taught*"))
    out.mkdir()
    assert teach.main(arguments) == 2
    assert "“taught” exists" in capsys.readouterr().err and not list(out.iterdir())


def test_missing_words_and_data_are_named(tmp_path, capsys):
    assert teach.main(["--output", str(tmp_path / "out"), "--data", str(tmp_path)]) == 2
    assert "none of the tile sets" in capsys.readouterr().err
    assert teach.main([]) == 2 and "either --output FOLDER" in capsys.readouterr().err
    assert teach.main(["--library", str(tmp_path)]) == 2 and "--slide ID" in capsys.readouterr().err


def test_slides_keep_the_part_they_have_in_every_training():
    assert [part_of(each) for each in ("BS12", "EAS22", "metaplasia")] == ["test", "validation", "training"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library with one drawn slide."""
    root = tmp_path_factory.mktemp("taught") / "library"
    assert draw_slides.main(["--library", str(root), "--slides", "1", "--width", "1024", "--height", "1024"]) == 0
    return root


def test_a_layer_of_a_slide_is_written_once_and_trains_paper_d(library, monkeypatch, capsys):
    monkeypatch.setattr(teach, "open_teacher", lambda path, threads: Teacher(HalfSession()))
    (slide,) = Library(library).slides()
    for _ in range(2):
        assert teach.main(["--library", str(library), "--slide", slide.id]) == 0
    store = LayerStore(library)
    (layer,) = [each for each in store.layers(slide.id) if each.name == teach_layer.LAYER]
    assert layer.name == "Teacher: epithelium and stroma (model_v1)" and layer.kind == "prediction"
    assert [each.name for each in layer.classes] == ["Epithelium", "Stroma"]
    assert "agreement with a model" in layer.provenance["labels"] and layer.provenance["kind"] == "teacher"
    told = _told(library, HalfSession)
    classes = teach_layer.slide_classes(told)
    areas = {each.name: each.base_area for each in layer.classes}
    scale = (told.step * 2) ** 2
    for number, name in enumerate(teach_layer.CLASSES, 1):
        assert areas[name] == pytest.approx((classes == number).sum() * scale, rel=0.1)
    (cut,) = library_slides(library, layer.name, ["Epithelium"], ["Stroma"], Cutting(40))
    assert {NORMAL, TUMOUR} <= set(cut.labels.tolist())
    assert "warning" not in capsys.readouterr().err


def _told(library, session=ColourSession):
    (slide,) = Library(library).slides()
    return tell_slide(PatchReader(open_slide(LibrarySlide(library, slide.id))), Teacher(session()))


def test_squares_of_a_slide_are_the_stored_pixels_and_chosen_by_seed(library):
    told = _told(library)
    assert told.step == 4 and told.probabilities.shape == (3, 128, 128)
    pictures = scan_pictures(told, "drawn", 64, 5, seed=3)
    again = scan_pictures(told, "drawn", 64, 5, seed=3)
    assert [each.name for each in pictures] == [each.name for each in again] and len(pictures) == 5
    x, y = map(int, pictures[0].name.split("-")[1:])
    assert np.array_equal(pictures[0].rgb, told.pixels.read(x, y, 64).finished()[0])
    assert pictures[0].classes.shape == (64, 64) and x % 64 == y % 64 == 0
    with pytest.raises(BadRequestError, match="no multiple of 4"):
        scan_pictures(told, "drawn", 62, 5, seed=3)


def test_an_immunostain_is_warned_about(library, monkeypatch):
    (slide,) = Library(library).slides()
    told = _told(library)
    brown = Staining(told.staining.glass, told.staining.tops, 0.3)
    monkeypatch.setattr(teach_layer, "LAYER", "Teacher, of brown")
    monkeypatch.setattr(
        teach_layer, "tell_slide",
        lambda pixels, _: teach_pictures.Told(pixels, told.step, told.small, told.probabilities, brown),
    )  # fmt: skip
    said = []
    layer = teach_layer.teach_slide(library, slide.id, Teacher(ColourSession()), said.append)
    assert said == [
        f"“{slide.name}” looks like an immunostain; the teacher knows H&E only, so its regions mean little."
    ]
    assert layer.provenance["slide_is_he"] is False


def test_a_writer_that_fails_leaves_nothing(tmp_path, data):
    with pytest.raises(RuntimeError, match="stop"), FolderWriter(tmp_path / "out", 0.1) as writer:
        for pictures, staining in atlas_pictures(data, Teacher(ColourSession()), 256, 4, 80):
            writer.add(pictures, staining)
            raise RuntimeError("stop")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".out*"))
