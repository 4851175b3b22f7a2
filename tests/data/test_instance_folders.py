"""Layouts of sets with instances: what is read of drawn copies of each, how they are split, what is refused."""

import pickle

import numpy as np
import pytest

from tests.data.instance_sets import (
    drawn,
    lizard_values,
    save,
    write_conic,
    write_crag,
    write_glas,
    write_own,
    write_table,
)
from wsi_ml.data import nuclei_folders
from wsi_ml.data.instance_files import GLAND_TYPES, NUCLEI_TYPES
from wsi_ml.data.instance_folders import LAYOUTS, layout_of, read_set, split_set
from wsi_ml.errors import BadRequestError


def by_name(pictures):
    return {picture.name: picture for picture in pictures}


def names_of(parts):
    return {part: [picture.name for picture in own] for part, own in parts.items()}


def test_types_are_those_of_the_paper():
    assert (NUCLEI_TYPES[0], NUCLEI_TYPES[2], NUCLEI_TYPES[5]) == ("Neutrophil", "Lymphocyte", "Connective nucleus")
    assert len(NUCLEI_TYPES) == 6 and GLAND_TYPES == ("Gland", "Surface epithelium")
    assert LAYOUTS["conic"].types["nuclei"] == LAYOUTS["lizard"].types["nuclei"] == NUCLEI_TYPES
    assert layout_of("drawn") is None and layout_of("crag:") is None and layout_of("glas:a/b")[1].name == "b"


def test_glas_has_grades_as_types_and_its_own_test(tmp_path):
    found = by_name(read_set(f"glas:{write_glas(tmp_path / 'GlaS')}", ["gland"]))
    rgb, labels, _ = drawn(1, "gland")
    picture = found["train_2"].of("gland")
    assert np.array_equal(picture.rgb, rgb) and np.array_equal(picture.labels, labels)
    assert picture.labels.dtype == np.int32 and set(np.unique(picture.types)) == {0, 2}  # malignant
    assert set(np.unique(found["train_1"].types["gland"])) == {0, 1}
    parts = split_set(list(found.values()))
    assert sorted(names_of(parts)["test"]) == ["testA_1", "testB_1"]
    assert len({picture.slide for picture in parts["training"]} & {p.slide for p in parts["validation"]}) == 0
    # Fewer than three patients are left for training, so none is taken from it.
    assert len(parts["training"]) == 4 and parts["validation"] == []
    named = split_set(list(found.values()), validation=["patient 2"])
    assert names_of(named)["validation"] == ["train_3", "train_4"]
    bare = read_set(f"glas:{write_glas(tmp_path / 'bare', grades=False)}", ["gland"])
    assert all(not picture.types for picture in bare) and bare[0].slide == bare[0].name


def test_crag_keeps_its_valid_part_for_the_test(tmp_path):
    parts = names_of(split_set(read_set(f"crag:{write_crag(tmp_path / 'CRAG')}", ["gland"])))
    assert parts["test"] == ["test_0", "test_1"] and len(parts["validation"]) == 1 and len(parts["training"]) == 4


def test_lizard_has_numbers_with_gaps_and_its_own_thirds(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / "Lizard"
    (folder / "Labels").mkdir(parents=True)
    for number in range(3):
        save(folder / "Lizard_Images1" / f"crag_{number}.png", drawn(number)[0])
        save(folder / "Overlay" / f"crag_{number}.png", drawn(number)[0] * 0)
        savemat(folder / "Labels" / f"crag_{number}.mat", lizard_values(number))
    rows = [[f"crag_{number}", "crag", number + 1] for number in range(3)]
    write_table(folder / "info.csv", ["Filename", "Source", "Split"], rows)
    pictures = read_set(f"lizard:{folder}", ["nuclei"])
    rgb, labels, kinds = drawn(2)
    last = by_name(pictures)["crag_2"].of("nuclei")
    assert np.array_equal(last.rgb, rgb) and np.array_equal(last.labels, labels * 3)
    assert np.array_equal(last.types, kinds[labels])
    expected = {"training": ["crag_0"], "validation": ["crag_1"], "test": ["crag_2"]}
    assert names_of(split_set(pictures)) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": np.full((4, 1), 7)}, "object of class 7; classes are 1 to 6"),
        ({"class": np.zeros((4, 1))}, "object of class 0"),
        ({"id": np.arange(1, 4)[:, None]}, "3 objects and 4 classes"),
        ({"id": np.arange(1, 5)[:, None]}, "has no class"),
        ({"inst_map": np.full((48, 48), 0.5)}, "not whole numbers"),
        ({"inst_map": np.full((48, 48), -1)}, "instances are from 1 up"),
        ({"inst_map": np.array([[3, 6], [9, 12]])}, "48 × 48 px and its label map 2 × 2"),
        ({"inst_map": None}, "lacks 'inst_map'"),
    ],
)
def test_lizard_labels_that_are_wrong(tmp_path, change, words):
    savemat = pytest.importorskip("scipy.io").savemat
    save(tmp_path / "images" / "a.png", drawn(0)[0])
    (tmp_path / "Labels").mkdir()
    values = {name: each for name, each in (lizard_values(0) | change).items() if each is not None}
    savemat(tmp_path / "Labels" / "a.mat", values)
    with pytest.raises(BadRequestError, match=words):
        read_set(f"lizard:{tmp_path}", ["nuclei"])


def test_lizard_files_that_are_missing_or_no_matlab(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no Lizard labels"):
        read_set(f"lizard:{tmp_path}", ["nuclei"])
    (tmp_path / "a.mat").write_bytes(b"nothing")
    with monkeypatch.context() as patched, pytest.raises(BadRequestError, match=r"ocular-wsi\[lizard\]"):
        patched.setattr(nuclei_folders, "loadmat", None)
        read_set(f"lizard:{tmp_path}", ["nuclei"])
    pytest.importorskip("scipy.io")
    with pytest.raises(FileNotFoundError, match=r"lacks the file “a.png”"):
        read_set(f"lizard:{tmp_path}", ["nuclei"])
    save(tmp_path / "a.png", drawn(0)[0])
    with pytest.raises(BadRequestError, match="cannot be read as a MATLAB file"):
        read_set(f"lizard:{tmp_path}", ["nuclei"])


def test_conic_is_split_by_picture(tmp_path):
    pictures = read_set(f"conic:{write_conic(tmp_path / 'CoNIC')}", ["nuclei"])
    rgb, labels, kinds = drawn(3)
    patch = by_name(pictures)["consep_1-0001"].of("nuclei")
    assert np.array_equal(patch.rgb, rgb) and np.array_equal(patch.labels, labels)
    assert np.array_equal(patch.types, kinds[labels]) and patch.types.dtype == np.uint8
    parts = split_set(pictures)
    assert {part: len(own) for part, own in parts.items()} == {"training": 4, "validation": 0, "test": 2}
    assert len({picture.slide for picture in parts["test"]}) == 1


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("images.npy", np.zeros((6, 48, 48, 3), np.float32), "not uint8"),
        ("labels.npy", np.zeros((6, 24, 48, 2), np.uint16), "of the same N, H, W"),
        ("labels.npy", np.zeros((6, 48, 48, 2), np.float32), "float32, not whole numbers"),
        ("labels.npy", np.full((6, 48, 48, 2), 9, np.uint16), "type 9; types are 1 to 6"),
        ("labels.npy", np.zeros((6, 48, 48, 2), np.uint16), "outlines no nuclei"),
    ],
)
def test_conic_arrays_that_are_wrong(tmp_path, name, values, words):
    folder = write_conic(tmp_path / "CoNIC")
    np.save(folder / name, values)
    with pytest.raises(BadRequestError, match=words):
        read_set(f"conic:{folder}", ["nuclei"])


class Bomb:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_conic_is_never_unpickled_and_its_files_are_named(tmp_path):
    folder = write_conic(tmp_path / "CoNIC")
    write_table(folder / "patch_info.csv", ["patch_info"], [["a-0"]])
    with pytest.raises(BadRequestError, match="names 1 patches; there are 6"):
        read_set(f"conic:{folder}", ["nuclei"])
    write_table(folder / "patch_info.csv", ["patch"], [])
    with pytest.raises(BadRequestError, match="no column 'patch_info'"):
        read_set(f"conic:{folder}", ["nuclei"])
    (folder / "patch_info.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the file “patch_info.csv”"):
        read_set(f"conic:{folder}", ["nuclei"])
    (folder / "labels.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadRequestError, match="cannot be read as one array"):
        read_set(f"conic:{folder}", ["nuclei"])
    np.save(folder / "labels.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(BadRequestError, match="cannot be read as one array"):
        read_set(f"conic:{folder}", ["nuclei"])


def test_our_own_layout_knows_of_each_picture_what_has_a_file(tmp_path):
    pictures = by_name(read_set(f"folder:{write_own(tmp_path / 'own')}", ["gland", "nuclei"]))
    assert [sorted(pictures[str(number)].labels) for number in range(2)] == [["gland", "lumen", "nuclei"], ["nuclei"]]
    _, labels, kinds = drawn(1)
    nuclei = pictures["1"].of("nuclei")
    assert np.array_equal(nuclei.labels, labels) and np.array_equal(nuclei.types, kinds[labels])
    assert pictures["0"].of("gland").types is None and pictures["0"].kind == "teacher"
    parts = names_of(split_set(list(pictures.values())))
    assert parts == {"training": ["0", "1"], "validation": ["2"], "test": ["3"]}
    assert names_of(split_set(list(pictures.values()), test=["slide-0"]))["test"] == ["0", "3"]


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda f: save(f / "nuclei" / "0.png", np.zeros((48, 40), np.uint8)), BadRequestError, "must be of one size"),
        (lambda f: save(f / "glands" / "0.png", np.zeros((48, 40), np.uint8)), BadRequestError, "label map 40 × 48"),
        (lambda f: save(f / "nuclei" / "0.png", np.zeros((48, 48, 3), np.uint8)), BadRequestError, "one channel of 8"),
        (lambda f: save(f / "nuclei" / "0.png", np.zeros((48, 48), bool)), BadRequestError, "holds bool"),
        (lambda f: save(f / "nuclei_types" / "0.png", np.full((48, 48), 7, np.uint8)), BadRequestError, "type 7"),
        (lambda f: save(f / "nuclei" / "x.png", np.zeros((4, 4), np.uint8)), FileNotFoundError, "no picture of that"),
        (lambda f: (f / "nuclei" / "0.png").unlink(), FileNotFoundError, "needs the label map “nuclei/0.png”"),
        (lambda f: (f / "images" / "0.png").write_text("no"), BadRequestError, "cannot be read as a picture"),
        (lambda f: (f / "images" / "3.png").rename(f / "3.png"), FileNotFoundError, "names “3.png”"),
        (lambda f: write_table(f / "pictures.csv", ["name"], []), BadRequestError, "no column 'file'"),
        (lambda f: write_table(f / "pictures.csv", ["file", "part"], [["0.png", "all"]]), BadRequestError, "'all'"),
        (lambda f: write_table(f / "pictures.csv", ["file", "labels"], [["0.png", "own"]]), BadRequestError, "'own'"),
        (
            lambda f: write_table(
                f / "pictures.csv", ["file", "slide", "part"], [["0.png", "s", "test"], ["1.png", "s", "training"]]
            ),
            BadRequestError, "Slide “s” has pictures in two parts",
        ),
    ],
)  # fmt: skip
def test_our_own_layout_refuses_what_is_wrong(tmp_path, spoil, error, words):
    folder = write_own(tmp_path / "own")
    spoil(folder)
    with pytest.raises(error, match=words):
        read_set(f"folder:{folder}", ["nuclei"])


def test_sets_that_are_missing_empty_or_of_no_layout(tmp_path):
    folder = write_own(tmp_path / "own", 2)
    for name in ("0.png", "1.png"):
        save(folder / "nuclei" / name, np.zeros((48, 48), np.uint16))
    with pytest.raises(BadRequestError, match="outlines no nuclei: its label maps are missing or empty"):
        read_set(f"folder:{folder}", ["nuclei"])
    for layout, error in (("glas", "no GlaS"), ("crag", "no CRAG"), ("folder", "no pictures"), ("conic", "images.npy")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match=error):
            read_set(f"{layout}:{tmp_path / 'empty'}", ["gland"])
        with pytest.raises(FileNotFoundError, match="is no folder"):
            read_set(f"{layout}:{tmp_path / 'nowhere'}", ["gland"])
    with pytest.raises(BadRequestError, match="names no folder"):
        read_set("pannuke:x", ["nuclei"])


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda f: (f / "train_1.bmp").unlink(), FileNotFoundError, "lacks the file “train_1.bmp”"),
        (lambda f: (f / "train_1_anno.bmp").unlink(), FileNotFoundError, "lacks the file “train_1_anno.bmp”"),
        (lambda f: write_glas(f, ("other_1",), False), BadRequestError, "is of no part of GlaS"),
        (lambda f: write_glas(f, ("train_9",), False), BadRequestError, "does not name “train_9”"),
        (lambda f: save(f / "train_1.bmp", np.zeros((20, 48, 3), np.uint8)), BadRequestError, "48 × 20 px and its"),
    ],
)
def test_glas_folders_that_are_wrong(tmp_path, spoil, error, words):
    folder = write_glas(tmp_path / "GlaS")
    spoil(folder)
    with pytest.raises(error, match=words):
        read_set(f"glas:{folder}", ["gland"])


def test_an_unknown_grade_and_a_lacking_annotation_are_named(tmp_path):
    folder = write_glas(tmp_path / "GlaS", ("train_1",))
    write_table(folder / "Grade.csv", ["name", "patient ID", "grade (GlaS)"], [["train_1", "1", "high"]])
    with pytest.raises(BadRequestError, match="the grade 'high', not benign or malignant"):
        read_set(f"glas:{folder}", ["gland"])
    folder = write_crag(tmp_path / "CRAG")
    (folder / "train" / "Annotation" / "train_0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"“Annotation” lacks the file “train_0.png”"):
        read_set(f"crag:{folder}", ["gland"])
