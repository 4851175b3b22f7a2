"""The nuclei training on a CPU: the loss falls, resume, refusals, its help; and the shipped card."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train import export_predictor, loop, nuclei, publish
from train.config import read_config
from wsi_ml.data.nuclei import HAND_SET
from wsi_ml.inference.card import read_card
from wsi_ml.inference.predictor import WEIGHTS_FOLDER
from wsi_ml.models import checkpoint, parameter_count
from wsi_ml.slides.library import Library

CONFIGS = Path(nuclei.__file__).parent / "configs"


@pytest.fixture
def data_root(tmp_path):
    """Four violet pictures with nine discs each."""
    folder = tmp_path / "data" / HAND_SET
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rows, columns = np.mgrid[:96, :96]
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id"])
        for number in range(4):
            labels = np.zeros((96, 96), np.uint16)
            for place in range(9):
                y, x = 16 + 32 * (place // 3), 16 + 32 * (place % 3)
                labels[(rows - y) ** 2 + (columns - x) ** 2 <= (7 + number) ** 2] = place + 1
            rgb = np.where((labels > 0)[..., None], np.uint8((100, 50, 180)), np.uint8((185, 165, 210)))
            Image.fromarray(rgb).save(folder / "images" / f"p{number}.png")
            Image.fromarray(labels).save(folder / "labels" / f"p{number}.png")
            writer.writerow([f"p{number}"])
    return folder.parent


@pytest.fixture
def settings(data_root):
    values = {
        "data": data_root, "test": "p3", "validation": "p2", "channels": 16, "batch": 2, "side": 64, "margin": 8,
        "scenes": 0, "scene_parts": 1, "warm_up": 5, "log_every": 2, "validate_every": 6, "validation_batches": 1,
        "save_every": 6, "threads": 1, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return [f"--set={name}={value}" for name, value in values.items()]


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def journal(folder):
    return [json.loads(line) for line in (folder / loop.JOURNAL_FILE).read_text().splitlines()]


def test_a_tiny_run_lowers_the_loss_and_leaves_state_journal_and_pictures(settings, tmp_path):
    run = tmp_path / "run"
    assert nuclei.main([*settings, f"--set=run={run}", "--set=steps=24"]) == 0
    lines = journal(run)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 12 and np.mean(losses[-4:]) < 0.9 * np.mean(losses[:3])
    assert [line["step"] for line in lines if "dice/hand" in line] == [6, 12, 18, 24]
    with Image.open(run / "pictures" / "000024.png") as picture:
        assert picture.size == (2 * 48, 3 * 48)
    step, config, tensors = loop.read_state(run)
    assert step == 24 and config["channels"] == 16
    assert set(loop.part(tensors, "average")) == set(loop.part(tensors, "model"))


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(settings, tmp_path, monkeypatch):
    common = [*settings, "--set=steps=9"]
    assert nuclei.main([*common, f"--set=run={tmp_path / 'whole'}"]) == 0
    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_then_die(*args):
        saved(*args)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_then_die)
    with pytest.raises(Killed):
        nuclei.main([*common, f"--set=run={tmp_path / 'cut'}"])
    monkeypatch.setattr(loop, "save_state", saved)
    assert loop.read_state(tmp_path / "cut")[0] == 6
    assert nuclei.main([*common, f"--set=run={tmp_path / 'cut'}", "--resume"]) == 0
    whole, cut = (loop.read_state(tmp_path / name)[2] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_run_becomes_weights_with_a_card_that_opens(settings, data_root, tmp_path):
    run, output = tmp_path / "run", tmp_path / "weights"
    assert nuclei.main([*settings, f"--set=run={run}", "--set=steps=2"]) == 0
    arguments = ["--model", "nuclei-fast", "--run", str(run), "--output", str(output), "--commit", "abc"]
    assert export_predictor.main(arguments) == 0
    card = read_card(output / "nuclei-fast.json")
    assert card.about["training"]["steps"] == 2 and card.about["training"]["commit"] == "abc"
    assert str(tmp_path) not in (output / "nuclei-fast.json").read_text()
    assert card.about["data"][0]["pictures"] == 2 and card.about["data"][0]["held_out"] == ["p2", "p3"]
    about = card.about
    model = checkpoint.load(output / about["weights"], card.sha256, about["architecture"], about["config"])
    wanted = loop.part(loop.read_state(run)[2], "average")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())

    library = Library.create(tmp_path / "library").root
    assert publish.main(["--run", str(run), "--library", str(library), "--name", "discs"]) == 0
    mine = read_card(library / "models" / "discs.json")
    assert (mine.kind, mine.postprocess, mine.side) == (card.kind, card.postprocess, card.side)
    assert mine.about["licence"] == "MIT" and mine.about["data"] == about["data"]


def test_an_unknown_model_is_not_exported(tmp_path, capsys):
    arguments = ["--model", "cells", "--run", str(tmp_path), "--output", str(tmp_path)]
    assert export_predictor.main(arguments) == 2
    assert "nuclei-fast" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("stepz=4", "stepz"), ("side=60", "60"), ("margin=40", "margin 40"), ("test=p2", "both test and validation"),
     ("test=p9", "p9"), ("data=/nowhere", "holds no"), ("precision=int3", "int3")],
)  # fmt: skip
def test_a_wrong_setting_ends_with_one_sentence_naming_it(settings, capsys, wrong, word):
    assert nuclei.main([*settings, f"--set={wrong}"]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1


def test_help_lists_every_key_with_its_meaning(capsys):
    with pytest.raises(SystemExit) as ended:
        nuclei.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, field in nuclei.Config.__dataclass_fields__.items():
        assert f"{name} = " in text and field.metadata["meaning"] in text


def test_the_recipe_names_only_keys_that_exist():
    assert read_config(nuclei.Config, CONFIGS / "nuclei.toml", []).channels == 32


def test_the_loss_is_lowest_where_the_truth_is_told():
    maps = torch.zeros(1, 2, 16, 16)
    maps[:, 0, 4:8, 4:8] = 1
    touching = torch.zeros(1, 16, 16)
    right, wrong = (nuclei.loss_of(20 * (sign * (2 * maps - 1)), maps, touching, 3.0) for sign in (1, -1))
    assert float(right) < 0.3 < 10 < float(wrong)


def test_the_shipped_card_fits_its_weights():
    file = WEIGHTS_FOLDER / "nuclei-fast.json"
    card, about = read_card(file), read_card(file).about
    model = checkpoint.load(file.parent / about["weights"], card.sha256, about["architecture"], about["config"])
    assert parameter_count(model) == about["parameters"] <= 600_000
    assert card == replace(export_predictor.nuclei_card_facts(about["config"], card.sha256), about=about)
    assert (card.side - 2 * card.halo) % about["multiple"] == 0 and card.halo % about["multiple"] == 0
    assert all(entry["licence"] in ("CC0 1.0", "MIT") for entry in about["data"])
