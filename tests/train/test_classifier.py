"""Classifiers of Table 1: each learns, what is shown to it, weights of elsewhere, resume, refusals."""

import json

import pytest
import safetensors.torch
import torch

from tests.train.patches import DrawnPatches
from train import classifier, loop, script
from train.script import Run
from wsi_ml.models import build
from wsi_ml.models.losses import IMAGENET_DEVIATION, IMAGENET_MEAN

HERE = loop.Ranks(0, 1, 0)


@pytest.fixture
def quick(settings):
    return [*settings, "--set=side=32", "--set=validation_side=32", "--set=steps=4"]


@pytest.mark.parametrize("name", ["sr-joint", "mobilenet"])
def test_a_run_learns_and_says_what_it_is(drawn, quick, tmp_path, name):
    run = tmp_path / "run"
    assert classifier.main([*quick, f"--set=architecture={name}", f"--set=run={run}"]) == 0
    lines = [json.loads(line) for line in (run / loop.JOURNAL_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]
    assert 0 <= lines[-1]["balanced_accuracy"] <= 1 and lines[-1]["log_loss"] > 0
    network = json.loads((run / script.NETWORK_FILE).read_text())
    assert (network["architecture"], network["classes"], network["normalise"]) == (name, ["blue", "red"], "")
    _, _, tensors = loop.read_state(run)
    model = build(name, **network["config"])
    model.load_state_dict(loop.part(tensors, "average"))
    fresh, _ = classifier.start_model(
        classifier.Config(preset="tiny", architecture=name),
        network["config"],
        Run(run, HERE, torch.device("cpu"), False),
    )
    moved = {
        key.partition(".")[0]
        for key, value in fresh.network.state_dict().items()
        if not torch.equal(value, loop.part(tensors, "model")[key])
    }
    if name == "sr-joint":
        # The decoder takes no part.
        assert moved == {"conv_first", "body", "conv_body", "layer1", "layer2", "fc"}
    else:
        assert moved == {"features", "classifier"}


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "efficientnet"])
def test_every_other_row_makes_a_step(tmp_path, name):
    config = classifier.Config(architecture=name, dropout=0.1, smoothing=0.1)
    run = Run(tmp_path, HERE, torch.device("cpu"), False)
    model, _ = classifier.start_model(config, classifier.network_of(config, 2), run)
    part = {key: torch.from_numpy(rows) for key, rows in DrawnPatches(2, side=32).batch(0)._asdict().items()}
    assert classifier.class_step([part], model, model, config, run) > 0
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_classifier_learns_to_tell_colours(drawn, quick, tmp_path):
    more = ["--set=architecture=sr-joint", "--set=steps=60", "--set=batch=8", "--set=validate_every=60"]
    more += ["--set=validation_batches=4", "--set=average=0.9", "--set=rate=0.005"]
    assert classifier.main([*quick, *more, f"--set=run={tmp_path / 'run'}"]) == 0
    lines = (tmp_path / "run" / loop.JOURNAL_FILE).read_text().splitlines()
    assert json.loads(lines[-1])["balanced_accuracy"] > 0.9


def test_the_picture_at_40_is_shown_where_it_is_asked_for(tmp_path):
    seen = []
    part = {key: torch.from_numpy(rows) for key, rows in DrawnPatches(2, side=16).batch(0)._asdict().items()}
    run = Run(tmp_path, HERE, torch.device("cpu"), False)
    for picture, side in (("stored", 16), ("base", 32)):
        config = classifier.Config(picture=picture, smoothing=0.0)
        head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
        model = classifier.Classifier(head, joint=False, imagenet=False)
        head.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
        classifier.class_step([part], model, model, config, run)
        assert seen[-1] == (2, 3, side, side)


def test_imagenet_weights_come_with_their_normalisation_and_without_their_last_layer(drawn, quick, tmp_path):
    torch.manual_seed(82)
    weights = build("mobilenet", classes=10).state_dict()
    file = tmp_path / "mobilenet.safetensors"
    safetensors.torch.save_file(weights, file)
    run = tmp_path / "run"
    more = ["--set=architecture=mobilenet", f"--set=start={file}", "--set=rate=1e-12", "--set=steps=2"]
    assert classifier.main([*quick, *more, f"--set=run={run}"]) == 0
    assert json.loads((run / script.NETWORK_FILE).read_text())["normalise"] == "imagenet"
    _, _, tensors = loop.read_state(run)
    mine = loop.part(tensors, "model")
    assert torch.allclose(mine["features.0.0.weight"], weights["features.0.0.weight"], atol=1e-6)
    assert mine["classifier.1.weight"].shape == (2, 1280)
    grey = torch.full((1, 3, 2, 2), 0.5)
    shown = classifier.Classifier(torch.nn.Identity(), joint=False, imagenet=True)(grey)
    wanted = [(0.5 - mean) / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)]
    assert shown[0, :, 0, 0].tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(drawn, quick, tmp_path, monkeypatch):
    # Batch norm's averages, dropout and skipped blocks are part of what must come back.
    common = [*quick, "--set=architecture=mobilenet", "--set=dropout=0.3", "--set=save_every=2"]
    assert classifier.main([*common, f"--set=run={tmp_path / 'whole'}"]) == 0
    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_then_die(*args):
        saved(*args)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_then_die)
    with pytest.raises(Killed):
        classifier.main([*common, f"--set=run={tmp_path / 'cut'}"])
    monkeypatch.setattr(loop, "save_state", saved)
    assert classifier.main([*common, f"--set=run={tmp_path / 'cut'}", "--resume"]) == 0
    _, _, whole = loop.read_state(tmp_path / "whole")
    _, _, cut = loop.read_state(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for key, tensor in whole.items():
        assert torch.equal(tensor, cut[key]), key


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("architecture=vit", "vit"), ("picture=both", "both"), ("normalise=maybe", "maybe"),
     ("source=pairs", "no classes"),
     ("start=/nowhere/r50.safetensors", "r50.safetensors"), ("start=/nowhere/r50.pth", "train.convert")],
)  # fmt: skip
def test_a_wrong_setting_ends_with_one_sentence_naming_it(drawn, quick, tmp_path, capsys, wrong, word):
    drawn["pairs"] = lambda options: DrawnPatches(options.batch, options.side, labelled=False)
    assert classifier.main([*quick, f"--set=run={tmp_path / 'run'}", f"--set={wrong}"]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1
