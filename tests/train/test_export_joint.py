"""A run of stage 2 becomes fp16 weights and two cards that the product opens and runs."""

import json

import numpy as np
import pytest
import torch

from tests.train.patches import DrawnPatches, write_tiles
from train import export_joint, joint, loop, sr_gan
from wsi_ml.data.tissue import CLASSES
from wsi_ml.inference.predictor import open_predictor
from wsi_ml.sr import open_upscaler


@pytest.fixture
def trained(drawn, settings, tmp_path):
    """Folder of data and of a run of both stages, as short as can be."""
    write_tiles(tmp_path / "data" / "sr-x40-dev2", ("lung", "skin"))
    classes = tuple(CLASSES.values())
    drawn["drawn"] = lambda options: DrawnPatches(options.batch, options.side, options.seed, classes=classes)
    more = [*settings, f"--set=data={tmp_path / 'data'}", "--set=test=skin", "--set=validation=lung", "--set=steps=2"]
    more += ["--set=channels=8", "--set=growth=4"]
    assert sr_gan.main([*more, "--set=pixel_shuffle=true", f"--set=run={tmp_path / 'gan'}"]) == 0
    start = [f"--set=start_run={tmp_path / 'gan'}", "--set=validation_side=32"]
    assert joint.main([*more, *start, f"--set=run={tmp_path / 'joint'}"]) == 0
    return tmp_path


def test_both_cards_open_and_run_and_name_one_file(trained, monkeypatch):
    monkeypatch.setattr(export_joint, "class_scores", lambda file, data: [{"set": file.name}])
    output = trained / "out"
    arguments = ["--run", str(trained / "joint"), "--output", str(output), "--commit", "abc"]
    assert export_joint.main(arguments) == 0
    enlarging = json.loads((output / "sr-joint.json").read_text())
    telling = json.loads((output / "tissue-joint.json").read_text())
    assert (
        enlarging["sha256"] == telling["sha256"]
        and enlarging["weights"] == telling["weights"] == "sr-joint.safetensors"
    )
    assert sorted(file.name for file in output.iterdir()) == [
        "sr-joint.json",
        "sr-joint.safetensors",
        "tissue-joint.json",
    ]

    upscaler = open_upscaler(output / "sr-joint.json")
    card = upscaler.card
    assert (card.kind, card.multiple, card.config["channels"]) == ("sr", 2, 8) and card.halo % 8 == 0
    assert card.config["pixel_shuffle"] is True and "sub-pixel convolution" in card.notes
    assert card.training["halo"]["halo_recommended"] == card.halo and card.training["commit"] == "abc"
    assert [row["slide"] for row in card.scores] == ["skin"] and "sr-joint" in card.scores[0]
    assert "reduced width (8 channels of 64, 4 growth of 32, 1 blocks of 15)" in card.notes
    assert card.training["stage_one"]["steps"] == card.training["steps"] == 2
    assert upscaler(np.zeros((9, 12, 3), np.uint8)).shape == (18, 24, 3)

    predictor = open_predictor(output / "tissue-joint.json")
    assert predictor.card.channels == tuple(CLASSES.values()) and predictor.card.background == ("Background",)
    assert predictor.card.about["patch"] == 32 and predictor.card.about["scores"] == [{"set": "tissue-joint.json"}]
    shares = predictor.classify(np.full((2, 32, 32, 3), 200, np.uint8))
    assert shares.shape == (2, 6) and np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    # No place of this machine is told.
    assert str(trained) not in (output / "sr-joint.json").read_text() + (output / "tissue-joint.json").read_text()

    _, _, tensors = loop.read_state(trained / "joint")
    kept = upscaler.model.state_dict()["body.0.rdb1.conv1.weight"].float()
    wanted = loop.part(tensors, "average")["body.0.rdb1.conv1.weight"].half().float()
    assert torch.allclose(kept, wanted, rtol=1e-2)


def test_only_runs_of_the_joint_script_are_exported(trained, capsys):
    arguments = ["--output", str(trained / "out")]
    assert export_joint.main(["--run", str(trained / "gan"), *arguments]) == 2
    assert "gan is a run of sr_gan" in capsys.readouterr().err.splitlines()[-1]
    assert export_joint.main(["--run", str(trained / "none"), *arguments]) == 2
    assert "state.safetensors" in capsys.readouterr().err.splitlines()[-1]
    assert not (trained / "out").exists()


def test_the_full_width_is_not_called_reduced():
    assert export_joint.width_words({**export_joint.PUBLISHED, "pixel_shuffle": False}) == ""
    other = export_joint.width_words({**export_joint.PUBLISHED, "pixel_shuffle": True})
    assert other.startswith("The published network with sub-pixel convolution") and "reduced" not in other
