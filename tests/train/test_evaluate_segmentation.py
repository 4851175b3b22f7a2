"""A run measured on what it held out: the row, the report, faults."""

import json

import numpy as np
import pytest
import torch

from tests.data.pixel_folder import write_folder
from tests.train.test_semi_supervised import SETTINGS
from train import evaluate_segmentation, loop, script, semi_supervised
from train.pixel_watching import PixelWatcher, coloured
from wsi_ml.data.pixel_batches import LabelledPicture
from wsi_ml.models.esp_psp import Told


@pytest.fixture
def run(tmp_path):
    data = write_folder(tmp_path / "data")
    keys = {**SETTINGS, "data": data, "steps": 2, "pixel_share": 0.5, "run": tmp_path / "first"}
    assert semi_supervised.main([f"--set={name}={value}" for name, value in keys.items()]) == 0
    return tmp_path / "first"


def test_a_run_is_measured_on_its_own_test_pictures(run, tmp_path, capsys):
    output = tmp_path / "out"
    argv = ["--run", str(run), "--output", str(output), "--device", "cpu", "--threads", "1"]
    assert evaluate_segmentation.main(argv) == 0
    results = json.loads((output / "results.json").read_text())
    (row,) = results["runs"]
    assert (row["run"], row["pictures"], row["pixel_share"], row["steps"]) == ("first", 2, 0.5, 2)
    assert row["losses"] == ["dwf", "dwf"] and row["learnt_from"] == {"segmentation": 4, "classification": 8}
    assert row["pixels"] == 2 * 16 * 16 == np.sum(row["confusion"]["rows"]) and row["minutes"] >= 0
    if row["dsc"] is not None:
        assert row["iou"] == pytest.approx(row["dsc"] / (2 - row["dsc"]))
    report = (output / "README.md").read_text()
    assert (
        report in capsys.readouterr().out
        and "| first | esp-psp | S+C | alternating | folder | test | 50 % (4) | 100 % (8) |" in report
    )
    assert str(tmp_path) not in report and (output / "first.png").is_file()
    assert evaluate_segmentation.main([*argv, "--part", "validation"]) == 0
    assert json.loads((output / "results.json").read_text())["runs"][0]["part"] == "validation"


def test_what_is_no_such_run_ends_with_one_sentence(run, tmp_path, capsys):
    argv = ["--output", str(tmp_path / "out"), "--device", "cpu"]
    assert evaluate_segmentation.main(["--run", str(tmp_path / "nowhere"), *argv]) == 2
    assert loop.STATE_FILE in capsys.readouterr().err
    facts = json.loads((run / script.NETWORK_FILE).read_text())
    (run / script.NETWORK_FILE).write_text(json.dumps({**facts, "script": "joint"}))
    assert evaluate_segmentation.main(["--run", str(run), *argv]) == 2
    message = capsys.readouterr().err
    assert "a run of train.joint" in message and message.count("\n") == 1
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_network_that_tells_by_colour_is_counted_rightly(tmp_path):
    class Reddish(torch.nn.Module):
        def forward(self, rgb, task):
            red = rgb[:, 0] - 0.5
            pixels = torch.stack([-red, red], 1)
            return Told(pixels, pixels.mean((2, 3)), None)

    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2] = 255
    mask = np.zeros((4, 4), np.int8)
    mask[:3] = 1
    mask[0] = -1
    pictures = [LabelledPicture("a", "s", rgb, mask, 1), LabelledPicture("b", "s", 255 - rgb * 0, None, 0)]
    run = script.Run(tmp_path, loop.Ranks(0, 1, 0), torch.device("cpu"), False)
    pooled, confusion = PixelWatcher(pictures, ("Other", "Red")).measure(Reddish(), run)
    assert pooled.counts.tolist() == [[4, 0], [4, 4]] and confusion.tolist() == [[0, 1], [1, 0]]
    assert coloured(mask[None])[0, :, 0].tolist() == [[0, 0, 0], [0, 114, 178], [0, 114, 178], [238, 238, 238]]
