"""The two presets of paper A, and the exact list of what differs between them."""

import pytest

from train.presets import AUTHORS_CODE, BASELINES, PAPER, differences, preset
from wsi_ml.errors import BadRequestError
from wsi_ml.models import ARCHITECTURES
from wsi_ml.models.losses import ESRGAN_TAPS, StageOneWeights

DIFFERENT = {
    "stage_one.weights.l1": (0.2, 1.0),
    "stage_one.weights.adversarial": (1.0, 0.1),
    "stage_one.batch": (32, 16),
    "stage_one.epochs": (50, 100),
    "stage_one.rate": (1e-3, 6.25e-7),
    "stage_one.dropout": (0.25, 0.2),
    "stage_one.classes": (5, 6),
    "stage_one.discriminator_optimizer": ("adam", "adamw"),
    "stage_one.discriminator_rate": (1e-3, 2.5e-6),
    "stage_one.discriminator_constant": (False, True),
    "stage_one.start": ("", "realesrgan-x2plus"),
    "stage_one.augmentation.flip_vertical": (0.5, 0.0),
    "stage_one.augmentation.blur": (0.5, 0.0),
    "stage_two.rate": (1e-3, 1.25e-5),
    "stage_two.dropout": (0.25, 0.5),
    "stage_two.augmentation.rotate_degrees": (30.0, 45.0),
    "stage_two.augmentation.shift": (0.0, 0.0625),
    "stage_two.augmentation.zoom": (0.0, 0.1),
    "stage_two.augmentation.blur_kind": ("gaussian", "box"),
    "stage_two.augmentation.blur_truth": (False, True),
}


def test_the_presets_differ_exactly_where_the_program_differs_from_the_paper():
    found = differences(PAPER, AUTHORS_CODE)
    assert found.keys() == DIFFERENT.keys()
    for key, (paper, code) in DIFFERENT.items():
        assert found[key] == (pytest.approx(paper), pytest.approx(code)) if key.endswith("rate") else (paper, code), key


def test_the_paper_is_the_default():
    assert preset() is preset("paper") is PAPER and preset("authors-code") is AUTHORS_CODE
    assert PAPER.stage_one.weights == StageOneWeights(l1=0.2, perceptual=1.0, adversarial=1.0)
    for stage in (PAPER.stage_one, PAPER.stage_two):
        assert (stage.batch, stage.epochs, stage.rate, stage.dropout) == (32, 50, 1e-3, 0.25)
        assert (stage.classes, stage.warm_up_epochs, stage.rate_end) == (5, 3, 1e-6)
    assert PAPER.stage_two.smoothing == AUTHORS_CODE.stage_two.smoothing == 0.1
    with pytest.raises(BadRequestError, match="no preset 'ours'; there are paper, authors-code, tiny"):
        preset("ours")


def test_baselines_have_the_reference_settings():
    assert BASELINES["esrgan"].relativistic and not BASELINES["srgan"].relativistic
    for baseline in BASELINES.values():
        assert {baseline.architecture, baseline.discriminator} <= ARCHITECTURES.keys()
        assert baseline.taps in ESRGAN_TAPS
        assert baseline.weights == StageOneWeights(l1=0.01, perceptual=1.0, adversarial=0.005)
        assert (baseline.rate, baseline.betas, baseline.batch, baseline.truth_side) == (1e-4, (0.9, 0.99), 16, 128)
        assert (baseline.steps, baseline.milestones[-1], baseline.average) == (400_000, 300_000, 0.999)
