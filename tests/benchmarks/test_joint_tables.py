"""The paper's tables beside ours: every row, seeds joined, reasons for empty ones."""

import json

import pytest

from benchmarks import joint_tables
from benchmarks.joint_tables import CLASSES, TABLE_1, TABLE_2


def sr_result(row, psnr, seed=None, **model):
    means = {"psnr": psnr, "ssim": 0.9, "psnr_luma": psnr + 2, "ssim_gaussian": 0.88, "ssim_luma": 0.9}
    plain = {**means, "psnr": 30.0}
    return {
        "format": 1, "model": {"name": row, "row": row, "seed": seed, **model}, "classification": [],
        "sr": [{"set": "atlas", "mean": {"pictures": 120, "model": means, "bicubic": plain}, "slides": []}],
    }  # fmt: skip


def class_result(row, accuracy):
    recall = dict.fromkeys(CLASSES, accuracy)
    rows = [
        {"set": "tissue-weak, place", "recall": recall, "accuracy": accuracy, "balanced_accuracy": accuracy,
         "calibration_error": 0.04},
        {"set": "tissue-weak, slide", "recall": {**dict.fromkeys(CLASSES), "BG": 1.0, "GLA": 0.72}, "accuracy": 0.8,
         "balanced_accuracy": 0.86, "calibration_error": 0.1},
    ]  # fmt: skip
    return {"format": 1, "model": {"name": row, "row": row}, "sr": [], "classification": rows}


@pytest.fixture
def folder(tmp_path):
    values = {
        "bicubic": sr_result("bicubic", 30.0),
        "joint-1": sr_result("sr-joint", 31.0, 1, minutes=60.0, parameters=1000, steps=500, hardware="2 cores"),
        "joint-2": sr_result("sr-joint", 31.4, 2, minutes=80.0, parameters=1000, steps=500, hardware="2 cores"),
        "tissue-fast": class_result("tissue-fast", 0.98),
    }
    for name, value in values.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(value))
    return tmp_path


def line_of(text, title):
    return next(line for line in text.splitlines() if line.startswith(f"| {title} |"))


def test_every_row_of_the_paper_stands_with_its_figures(folder):
    text = joint_tables.body(joint_tables.read_results(folder))
    for line in (*TABLE_1, *TABLE_2):
        assert f"| {line.title} |" in text
    assert ".947 / 1.000 / 0.873 / 0.911 / 0.849 | 0.971 | 0.916" in line_of(text, "SR+CLS (`sr-joint`)")
    assert "| 31.82 | 0.86 | – |" in line_of(text, "ESRGAN (`esrgan`)")
    assert "not comparable" in text and "Trained on: 2 cores." in text


def test_seeds_of_a_row_are_joined(folder):
    rows = joint_tables.read_results(folder)
    row = joint_tables.picture_row(TABLE_2[2], rows["sr-joint"])
    assert row["ours: PSNR"] == "31.20 ± 0.28" and row["PSNR over bicubic"] == "1.20 ± 0.28"
    assert (row["seeds"], row["minutes a run"], row["parameters"]) == ("1, 2", "70 ± 14", "1,000")
    assert row["pictures"] == "120"


def test_classes_stand_for_both_kinds_of_held_out_patches(folder):
    row = joint_tables.class_row(TABLE_1[-1], joint_tables.read_results(folder)["tissue-fast"])
    assert row["ours: accuracy"] == "0.980" and row["another slide: BG / GLA"] == "1.000 / 0.720"


def test_an_empty_row_says_why(folder):
    text = joint_tables.body(joint_tables.read_results(folder))
    assert "- ResNet50: not trained: `python -m train.classifier --set architecture=resnet50" in text
    assert "- bicubic:" not in text and "- Lanczos: not measured" in text


def test_a_damaged_or_foreign_file_is_named(folder):
    (folder / "bicubic" / "results.json").write_text("{")
    with pytest.raises(SystemExit, match=r"bicubic/results.json is no JSON"):
        joint_tables.read_results(folder)
    (folder / "bicubic" / "results.json").write_text('{"format": 9}')
    with pytest.raises(SystemExit, match="has format 9, not 1"):
        joint_tables.read_results(folder)


def test_results_of_no_row_are_named(folder):
    (folder / "srresnet").mkdir()
    (folder / "srresnet" / "results.json").write_text(json.dumps(sr_result("srresnet", 30.5)))
    assert "In no row (name one with `--row`): srresnet." in joint_tables.body(joint_tables.read_results(folder))
