"""The tissue training on a CPU: the loss falls, export, refusals; and the shipped card."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train import export_predictor, loop, publish, tissue
from train.config import read_config
from wsi_ml.data.tissue import CLASSES, TISSUE_SET
from wsi_ml.inference.card import read_card
from wsi_ml.inference.predictor import WEIGHTS_FOLDER
from wsi_ml.models import checkpoint, parameter_count
from wsi_ml.slides.library import Library

CONFIGS = Path(tissue.__file__).parent / "configs"


@pytest.fixture
def data_root(tmp_path):
    """Glass and a striped tissue, from two slides each."""
    folder = tmp_path / "data" / TISSUE_SET
    folder.mkdir(parents=True)
    stripes = (np.arange(224) // 8 % 2 * 120 + 60).astype(np.uint8)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "repo", "slide", "x", "y", "side_px_level0"])
        for code, rgb in (("BG", np.full((224, 224, 3), 240, np.uint8)),
                          ("MUS", np.repeat(np.tile(stripes, (224, 1))[..., None], 3, axis=2))):  # fmt: skip
            for number in range(6):
                Image.fromarray(rgb).save(folder / f"{code}{number}.png")
                slide = "atlas/two" if number == 5 else "atlas/one"
                writer.writerow([f"{code}{number}.png", code, slide, "HE", 448 * number, 0, 448])
    return folder.parent


@pytest.fixture
def settings(data_root):
    values = {
        "data": data_root, "test": "two", "channels": 16, "batch": 4, "warm_up": 4, "log_every": 2,
        "validate_every": 10, "save_every": 10, "threads": 1, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return [f"--set={name}={value}" for name, value in values.items()]


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_tiny_run_lowers_the_loss_and_becomes_weights_with_a_card(settings, tmp_path):
    run, output = tmp_path / "run", tmp_path / "weights"
    assert tissue.main([*settings, f"--set=run={run}", "--set=steps=20"]) == 0
    lines = [json.loads(line) for line in (run / loop.JOURNAL_FILE).read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert [line["step"] for line in lines if "balanced_accuracy/place" in line] == [10, 20]
    arguments = ["--model", "tissue-fast", "--run", str(run), "--output", str(output)]
    assert export_predictor.main(arguments) == 0
    card = read_card(output / "tissue-fast.json")
    assert card.channels == tuple(CLASSES.values()) and card.background == ("Background",)
    assert card.map_side == 16 and card.about["training"]["steps"] == 20

    library = Library.create(tmp_path / "library").root
    assert publish.main(["--run", str(run), "--library", str(library), "--name", "stripes"]) == 0
    mine = read_card(library / "models" / "stripes.json")
    assert (mine.channels, mine.background, mine.side) == (card.channels, card.background, card.side)
    assert mine.about["training"]["steps"] == 20 and mine.about["data"] == card.about["data"]


@pytest.mark.parametrize(("wrong", "word"), [("steps=0", "at least 1"), ("data=/nowhere", "holds no")])
def test_a_wrong_setting_ends_with_one_sentence_naming_it(settings, capsys, wrong, word):
    assert tissue.main([*settings, f"--set={wrong}"]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1


def test_the_recipe_names_only_keys_that_exist():
    assert read_config(tissue.Config, CONFIGS / "tissue.toml", []).channels == 32


def test_the_shipped_card_fits_its_weights():
    file = WEIGHTS_FOLDER / "tissue-fast.json"
    card, about = read_card(file), read_card(file).about
    model = checkpoint.load(file.parent / about["weights"], card.sha256, about["architecture"], about["config"])
    assert parameter_count(model) == about["parameters"] <= 500_000
    assert tuple(each.name for each in card.classes) == tuple(CLASSES.values()) == card.channels
    assert "weak" in about["data"][0]["labels"] and about["data"][0]["licence"].startswith("MIT")
