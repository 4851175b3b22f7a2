"""What the teacher is shown, how windows are joined, what is refused; the real network where it is there."""

import numpy as np
import openslide
import pytest

from tests.inference.fake_teacher import ColourSession, stained
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.inference import teacher
from wsi_ml.inference.teacher import (
    EPITHELIUM,
    LUMEN,
    REST,
    Staining,
    Teacher,
    open_teacher,
    stain_channels,
    staining_of,
)

PLAIN = Staining(240.0, (0.5, 0.5, 0.5), 0.0)


def test_channels_are_the_amounts_of_the_stains_over_their_tops():
    hematoxylin, eosin = np.array([[0.0, 0.4, 0.0, 0.2]]), np.array([[0.0, 0.0, 0.3, 0.1]])
    shown = stain_channels(stained(hematoxylin, eosin), Staining(240.0, (0.6, 0.8, 0.5), 0.0))
    assert shown.shape == (3, 1, 4) and shown.dtype == np.float32
    assert shown[0] == pytest.approx(eosin / 0.6, abs=0.01)
    assert shown[1] == pytest.approx(hematoxylin / 0.8, abs=0.01)
    assert shown[2, 0, 0] == 0 and shown[2, 0, 1] == pytest.approx(0.4 * (1.64 / 0.9983) / 3 / 0.5, abs=0.01)


def test_staining_reads_glass_and_the_99th_percentile_of_tissue():
    hematoxylin = np.concatenate([np.zeros(500), np.linspace(0.1, 1.1, 1001)])[None]
    found = staining_of(stained(hematoxylin, np.where(hematoxylin > 0, 0.2, 0.0)))
    assert found.glass == 240 and found.is_he and found.brown == 0
    assert found.tops[0] == pytest.approx(0.2, abs=0.02)
    assert found.tops[1] == pytest.approx(1.09 / teacher.HEMATOXYLIN_GAIN, abs=0.02)


def test_without_enough_glass_a_usual_brightness_is_taken():
    assert staining_of(np.full((20, 20, 3), (150, 80, 140), np.uint8)).glass == teacher.GLASS_UNKNOWN


def test_brown_is_no_hematoxylin_and_eosin():
    rgb = np.full((50, 50, 3), (150, 80, 140), np.uint8)
    rgb[:5] = (140, 95, 60)
    assert staining_of(rgb).brown == pytest.approx(0.1) and not staining_of(rgb).is_he


def test_hematoxylin_alone_is_no_hematoxylin_and_eosin():
    amount = np.linspace(0.1, 1.0, 900).reshape(30, 30)
    assert not staining_of(stained(amount, np.zeros_like(amount))).is_he
    assert staining_of(stained(amount, 0.4 * amount)).is_he


def test_glass_alone_teaches_no_stains():
    with pytest.raises(BadRequestError, match="no tissue, only glass"):
        staining_of(np.full((30, 30, 3), 240, np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (65, 40), (769, 300), (1500, 70)])
def test_windows_join_to_what_one_look_gives(size):
    rng = np.random.default_rng(3)
    rgb = stained(rng.uniform(0, 0.5, size), rng.uniform(0, 0.2, size))
    session = ColourSession()
    found = Teacher(session).probabilities(rgb, PLAIN)
    shown = stain_channels(rgb, PLAIN)
    sure = 1 / (1 + np.exp(-6.0))
    assert found.shape == (3, *size) and found.dtype == np.float32
    assert found[EPITHELIUM] == pytest.approx(np.where(shown[1] > 0.5, sure, 1 - sure), abs=1e-5)
    assert found[LUMEN] == pytest.approx(np.where(shown[2] < 0.1, sure, 1 - sure), abs=1e-5)
    assert all(max(shape[2:]) <= teacher.WINDOW for shape in session.shapes)
    assert len(session.shapes) == (1 if max(size) < 769 else 2 if max(size) == 769 else 3)


def test_the_picture_is_mirrored_around_itself():
    axis = teacher._axis(3)
    assert len(axis.places) == 256 and axis.starts == (0,)
    middle = axis.places[teacher.MARGIN - 3 : teacher.MARGIN + 7]
    assert middle.tolist() == [1, 2, 1, 0, 1, 2, 1, 0, 1, 2]


def test_the_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(teacher, "onnxruntime", None)
    with pytest.raises(BadRequestError, match=r"pip install -e \.\[onnx\]"):
        open_teacher(tmp_path / "model_v1.onnx")


def test_missing_and_broken_files_are_named(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime (the extra onnx) is not installed")
    path = tmp_path / "model_v1.onnx"
    with pytest.raises(ModelUnavailableError, match=r"“model_v1\.onnx” is not in"):
        open_teacher(path)
    path.write_bytes(b"no network")
    with pytest.raises(ModelUnavailableError, match=r"“model_v1\.onnx\.data” is not in"):
        open_teacher(path)
    path.with_name("model_v1.onnx.data").write_bytes(b"no weights")
    with pytest.raises(ModelUnavailableError, match="cannot be opened as an ONNX network"):
        open_teacher(path)


def test_the_real_teacher_tells_a_gland_from_its_lumen_and_from_stroma(shared_data):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime (the extra onnx) is not installed")
    path = shared_data / "weights-shell-onnx" / "model_v1.onnx"
    if not path.is_file():
        pytest.skip("the teacher's weights (weights-shell-onnx) are not on this machine")
    with openslide.OpenSlide(shared_data / "wsi-atlas-dev" / "duodenum-adenoma-HE-x40.svs") as slide:
        rgb = np.asarray(slide.read_region((350 * 8, 20 * 8), 3, (256, 256)).convert("RGB"))
    found = open_teacher(path).probabilities(rgb, staining_of(rgb))
    # A gland cut across: its lumen is white glass, its wall the dark ring around it; beside it loose stroma.
    lumen, wall = (slice(170, 195), slice(60, 90)), (slice(144, 152), slice(66, 86))
    stroma = (slice(222, 240), slice(145, 158))
    assert found[LUMEN, *lumen].mean() > 0.9 and found[EPITHELIUM, *lumen].mean() < 0.1
    assert found[EPITHELIUM, *wall].mean() > 0.6 and found[LUMEN, *wall].mean() < 0.1
    assert found[EPITHELIUM, *stroma].mean() < 0.2 and found[REST, *stroma].mean() > 0.6
