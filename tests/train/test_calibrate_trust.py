"""Calibration of trust maps: fitted on training slides only, written into the card and nothing else of it."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.train.patches import drawn_picture
from train.calibrate_trust import main, spread
from train.sr_fast import Config
from wsi_ml.sr.calibration import calibration_of
from wsi_ml.sr.upscaler import WEIGHTS_FOLDER, available_upscalers, read_card

TEST, VALIDATION, TRAINED = Config().test, Config().validation, ("metaplasia", "morphea")


@pytest.fixture
def data(tmp_path):
    """Three drawn tiles of 128 px for each slide of the split; training slides hold the strongest and no detail."""
    folder = tmp_path / "data" / "sr-x40-dev"
    folder.mkdir(parents=True)
    with (folder / "index.csv").open("w", newline="") as lines:
        rows = csv.DictWriter(lines, ["repo", "file"])
        rows.writeheader()
        for number, slide in enumerate((*TEST, *VALIDATION, *TRAINED)):
            for tile in range(3):
                rng = np.random.default_rng([number, tile])
                picture = drawn_picture(128, rng, 0)
                picture[:64] = picture[:64] // (1 + tile) + 60
                Image.fromarray(picture).save(folder / f"{slide}-{tile}.png")
                rows.writerow({"repo": f"atlas/{slide}", "file": f"{slide}-{tile}.png"})
    return folder.parent


@pytest.fixture
def card_file(tmp_path):
    """A copy of the shipped upscaler, not calibrated."""
    shutil.copy(WEIGHTS_FOLDER / "sr-fast.safetensors", tmp_path)
    value = json.loads((WEIGHTS_FOLDER / "sr-fast.json").read_text())
    value.pop("trust")
    file = tmp_path / "sr-fast.json"
    file.write_text(json.dumps(value))
    return file


def test_the_card_gets_a_calibration_of_its_training_slides(data, card_file, capsys):
    before, weights = json.loads(card_file.read_text()), card_file.with_suffix(".safetensors").read_bytes()
    assert main(["--card", str(card_file), "--data", str(data), "--tiles", "2", "--device", "cpu"]) == 0
    after = json.loads(card_file.read_text())
    trust = after.pop("trust")
    assert after == before and card_file.with_suffix(".safetensors").read_bytes() == weights
    assert trust["fitted_on"] == {"slides": sorted(TRAINED), "cells": 2 * 2 * 4, "jpeg": "steps 5/7 4:4:4"}
    assert [(row["part"], row["slide"]) for row in trust["held_out"]] == [
        *(("validation", slide) for slide in VALIDATION), *(("test", slide) for slide in TEST),
    ]  # fmt: skip
    assert trust["test"]["cells"] == sum(row["cells"] for row in trust["reliability"]) == 3 * 2 * 4
    card = read_card(card_file)
    assert calibration_of(card.trust, card.sha256) is not None
    printed = capsys.readouterr().out
    assert "detail → difference: " in printed and "all test slides" in printed


def test_held_out_slides_do_not_move_the_calibration(data, card_file):
    arguments = ["--card", str(card_file), "--data", str(data), "--tiles", "2", "--device", "cpu"]
    main(arguments)
    knots = read_card(card_file).trust["knots"]
    for slide in (*TEST, *VALIDATION):
        for file in (data / "sr-x40-dev").glob(f"{slide}-*.png"):
            Image.fromarray(drawn_picture(128, np.random.default_rng(99), 1)).save(file)
    main(arguments)
    trust = read_card(card_file).trust
    assert trust["knots"] == knots
    # The same drawing twice: all cells of one estimate, so no order that a correlation could tell.
    assert [row["correlation"] for row in trust["held_out"]] == [None] * len(trust["held_out"])


def test_what_cannot_be_calibrated_is_said_in_one_sentence(data, card_file, tmp_path, capsys):
    def refused(*arguments):
        assert main([*map(str, arguments)]) == 2
        return capsys.readouterr().err.strip()

    assert "holds none of the ×40 tile sets" in refused("--card", card_file, "--data", tmp_path / "none")
    assert "There is no upscaler 'sr-none'" in refused("--card", "sr-none", "--data", data)
    value = json.loads(card_file.read_text())
    value["data"][0]["slides"].append("BS12")
    card_file.write_text(json.dumps(value))
    assert refused("--card", card_file, "--data", data) == "sr-fast was trained on BS12, a test slide."
    assert json.loads(card_file.read_text()) == value
    index = data / "sr-x40-dev" / "index.csv"
    lines = [line for line in index.read_text().splitlines() if not any(slide in line for slide in TRAINED)]
    index.write_text("\n".join(lines) + "\n")
    value["data"][0]["slides"].remove("BS12")
    card_file.write_text(json.dumps(value))
    assert "lack training or test slides" in refused("--card", card_file, "--data", data)


def test_tiles_are_spread_over_a_slide():
    assert spread(list("abcdefghi"), 3) == ["a", "e", "i"] and spread(list("ab"), 3) == ["a", "b"]


def test_shipped_calibrations_were_fitted_for_the_shipped_weights():
    calibrated = [card for card in available_upscalers() if card.trust]
    assert "sr-fast" in [card.name for card in calibrated]
    for card in calibrated:
        assert calibration_of(card.trust, card.sha256) is not None, f"run train.calibrate_trust --card {card.name}"
        assert not {*TEST, *VALIDATION} & set(card.trust["fitted_on"]["slides"])
        for row in card.trust["held_out"]:
            assert row["correlation"] > max(0.7, row["cycle_correlation"])
