"""Runs of classifiers and of super-resolution as models of a library: they tell what the run's network tells."""

import json

import numpy as np
import pytest
import torch

from tests.train.patches import CLASSES, DrawnPatches, write_tiles
from train import classifier, joint, loop, publish, sr_gan
from train.run_facts import read_run
from wsi_ml.inference.predictor import open_predictor
from wsi_ml.models import build
from wsi_ml.slides.library import Library
from wsi_ml.sr import open_upscaler

SIDE = 32


@pytest.fixture
def library(tmp_path):
    torch.set_num_threads(1)
    return Library.create(tmp_path / "library").root


@pytest.fixture
def quick(settings, tmp_path):
    """Keys of a run of two steps."""
    write_tiles(tmp_path / "data" / "sr-x40-dev2", ("lung", "skin"), side=160)
    more = ("test=skin", "validation=lung", "steps=2", "channels=8", "growth=4")
    return [*settings, f"--set=data={tmp_path / 'data'}", *(f"--set={each}" for each in more)]


def published(run, library, *more):
    return publish.main(["--run", str(run), "--library", str(library), *more])


def card_of(library, name):
    return json.loads((library / "models" / f"{name}.json").read_text())


def opened(library, name):
    predictor = open_predictor(name, device="cpu", threads=1, folders=[library / "models"])
    predictor.dtype = torch.float32
    return predictor


@pytest.mark.parametrize("normalise", ["none", "imagenet"])
def test_a_classifier_tells_a_patch_what_its_network_tells(drawn, settings, library, tmp_path, normalise):
    run = tmp_path / "mobile"
    told = ["--set=architecture=mobilenet", f"--set=side={SIDE}", "--set=steps=2", f"--set=normalise={normalise}"]
    assert classifier.main([*settings, *told, f"--set=run={run}"]) == 0
    assert published(run, library) == 0
    predictor = opened(library, "mobile")
    card = predictor.card
    assert (card.kind, card.side, card.halo, card.stride, card.channels) == ("patch", SIDE, 0, SIDE, CLASSES)
    assert card.about["licence"] == "MIT" and "overlap=0.5" in card.about["notes"]

    facts = read_run(run)
    network = build("mobilenet", **facts.network).eval()
    network.load_state_dict(facts.weights)
    patches = DrawnPatches(3, SIDE, 5).batch(0).stored
    model = classifier.Classifier(network, joint=False, imagenet=normalise == "imagenet")
    with torch.inference_mode():
        wanted = model(torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255).softmax(1).numpy()
    assert np.abs(predictor(patches)[:, :, 0, 0] / 255 - wanted).max() < 0.02


def test_a_network_of_pictures_at_40_is_not_published(drawn, settings, library, tmp_path, capsys):
    run = tmp_path / "base"
    told = ["--set=architecture=mobilenet", "--set=steps=2", "--set=side=32", "--set=picture=base"]
    assert classifier.main([*settings, *told, f"--set=run={run}"]) == 0
    assert published(run, library) == 2
    assert "base was trained on ×40 pictures, and predictors are shown stored" in capsys.readouterr().err


def test_both_stages_become_upscalers_and_the_second_a_predictor_of_the_same_weights(drawn, quick, library, tmp_path):
    gan, both = tmp_path / "gan", tmp_path / "both"
    assert sr_gan.main([*quick, f"--set=run={gan}"]) == 0
    assert published(gan, library, "--name", "own-gan", "--title", "A try") == 0
    card = card_of(library, "own-gan")
    assert (card["architecture"], card["kind"], card["halo"] % 8) == ("sr-gan-generator", "sr", 0)
    assert card["training"]["halo"]["halo_recommended"] == card["halo"] and card["notes"].startswith("A try. ")
    upscaler = open_upscaler("own-gan", device="cpu", folders=[library / "models"])
    rgb = DrawnPatches(1, 24, 2).batch(0).stored[0]
    facts = read_run(gan)
    network = build("sr-gan-generator", **facts.network).eval()
    network.load_state_dict(facts.weights)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255).clamp(0, 1)[0]
    assert np.abs(upscaler(rgb) - wanted.permute(1, 2, 0).numpy() * 255).max() < 3

    assert joint.main([*quick, f"--set=start_run={gan}", "--set=validation_side=32", f"--set=run={both}"]) == 0
    assert published(both, library) == 0
    enlarging, telling = card_of(library, "both"), card_of(library, "both-classes")
    assert enlarging["weights"] == telling["weights"] and enlarging["sha256"] == telling["sha256"]
    assert telling["channels"] == list(CLASSES) and opened(library, "both-classes").card.about["patch"] == 32
    assert str(tmp_path) not in json.dumps([enlarging, telling])
    assert loop.read_state(both)[0] == telling["training"]["steps"] == 2
