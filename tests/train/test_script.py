"""What the scripts on patch batches share: settling of keys, data options, the order of batches, the step's numbers."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.train.patches import DrawnPatches
from train import loop, script
from train.presets import PAPER
from train.script import SharedConfig
from wsi_ml.errors import BadRequestError, ModelOutputError

HERE = loop.Ranks(0, 1, 0)
CPU = torch.device("cpu")


def test_what_is_not_told_is_the_preset_s():
    config = script.settled(SharedConfig(rate=0.5, epochs=2), PAPER.stage_two, HERE)
    assert (config.batch, config.rate, config.rate_end, config.side, config.average) == (32, 0.5, 1e-6, 224, 0.0)
    config = script.with_steps(config, PAPER.stage_two, 10)
    assert (config.steps, config.warm_up) == (20, 30)
    told = script.with_steps(dataclasses.replace(config, steps=7, warm_up=0), PAPER.stage_two, 10)
    assert (told.steps, told.warm_up) == (7, 0)
    with pytest.raises(ValueError, match="no multiple of ranks times accumulate, 6"):
        script.settled(SharedConfig(accumulate=3), PAPER.stage_two, loop.Ranks(0, 2, 0))


@pytest.mark.parametrize(
    "wrong", [{"preset": "big"}, {"test": ("a",), "validation": ("a",)}, {"precision": "fp8"}, {"accumulate": 0},
              {"batch": -1}, {"average": 1.0}],
)  # fmt: skip
def test_keys_out_of_range_are_refused(wrong):
    with pytest.raises((ValueError, BadRequestError)):
        SharedConfig(**wrong)


def test_the_data_is_read_as_keys_and_preset_say():
    config = script.settled(SharedConfig(accumulate=2, mpp=0.25, labelled_data="other"), PAPER.stage_one, HERE)
    options = script.source_options(config, PAPER.stage_one, HERE, "training")
    assert (options.batch, options.side, options.mpp, options.labelled_data.name) == (16, 224, 0.25, "other")
    assert options.augmentation == PAPER.stage_one.augmentation
    sharp = script.source_options(dataclasses.replace(config, blur=0.0, mpp=0.0), PAPER.stage_one, HERE, "test")
    assert sharp.augmentation == dataclasses.replace(PAPER.stage_one.augmentation, blur=0.0)
    assert sharp.mpp is None and sharp.part == "test"


def test_validation_reads_each_source_by_itself_and_skips_those_without_slides(monkeypatch):
    opened = []
    monkeypatch.setattr(script, "open_source", lambda name, options: opened.append((name, options)) or name)
    config = SharedConfig(source="slides+library", labelled_data="annotated", validation=("a",), validation_side=64)
    assert script.open_validation(config, PAPER.stage_two, ("x", "y")) == ["slides", "library"]
    assert [(name, options.data.name, options.side) for name, options in opened] == [
        ("slides", "data", 64), ("library", "annotated", 64),
    ]  # fmt: skip
    assert all(options.part == "validation" and options.classes == ("x", "y") for _, options in opened)
    bare = dataclasses.replace(config, source="slides+tissue-weak", validation=())
    assert script.open_validation(bare, PAPER.stage_two, ()) == ["tissue-weak"]


@pytest.mark.parametrize("world", [1, 2])
def test_ranks_and_parts_share_the_batches_without_loss(world):
    """A stop after two of four steps, and every batch has still been seen once."""
    config = SharedConfig(steps=4, accumulate=2)
    source = DrawnPatches(1, side=4)
    seen = []
    for rank in range(world):
        here = loop.Ranks(rank, world, rank)
        for start, count in ((0, 2), (2, 2)):
            steps = script.parts_of_steps(config, [source], start, here, CPU)
            for parts in [next(steps) for _ in range(count)]:
                assert len(parts) == 2
                seen += [part["base"].numpy().tobytes() for part in parts]
            steps.close()
    wanted = [source.batch(index).base.tobytes() for index in range(8 * world)]
    assert sorted(seen) == sorted(wanted) and len(set(seen)) == len(seen)


def test_two_sources_give_parts_of_each():
    config = SharedConfig(steps=2, accumulate=2)
    steps = list(script.parts_of_steps(config, [DrawnPatches(1, side=4), DrawnPatches(2, side=6)], 0, HERE, CPU))
    assert [[part["stored"].shape[:2] for part in parts] for parts in steps] == [[(1, 4), (1, 4), (2, 6), (2, 6)]] * 2


def test_a_step_s_random_numbers_depend_on_seed_step_and_rank_alone():
    def drawn(seed, step, rank):
        torch.rand(3)
        loop.seed_step(seed, step, loop.Ranks(rank, 2, rank))
        return torch.rand(4).tolist()

    assert drawn(1, 5, 0) == drawn(1, 5, 0)
    assert len({tuple(drawn(*each)) for each in ((1, 5, 0), (2, 5, 0), (1, 6, 0), (1, 5, 1))}) == 4


def test_the_average_follows_weights_and_copies_counters():
    model = nn.BatchNorm1d(1)
    average = loop.Average(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.num_batches_tracked.fill_(7)
    average.update(model, 100)
    assert average.tensors["weight"].item() == 2.0 and average.tensors["num_batches_tracked"].item() == 7
    plain = loop.Average(model, 0.0)
    with torch.no_grad():
        model.weight.fill_(5.0)
    plain.update(model, 100)
    assert plain.tensors["weight"].item() == 5.0


def test_gradients_are_cut_to_a_norm_and_the_norm_is_told():
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert script.cut_gradients(model, 0.0) == 5.0 and model.weight.grad.tolist() == [[3.0, 4.0]]
    assert script.cut_gradients(model, 1.0) == 5.0
    assert model.weight.grad[0].tolist() == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.mark.parametrize(("value", "saved", "words"), [(math.nan, 30, "that of step 30"), (math.inf, 0, "no state")])
def test_numbers_that_are_not_finite_stop_with_what_and_where(value, saved, words):
    loop.stop_unless_finite({"loss": 1.0}, 33, saved, HERE, CPU)
    with pytest.raises(ModelOutputError, match=f"The gradient is {value} in step 33.*{words}"):
        loop.stop_unless_finite({"loss": 1.0, "gradient": value}, 33, saved, HERE, CPU)


def test_pictures_become_unit_range_in_channels_last_memory():
    rgb = torch.from_numpy(np.array([[[[0, 51, 255]] * 2] * 3], np.uint8))
    unit = script.as_rgb(rgb)
    assert unit.shape == (1, 3, 3, 2) and unit[0, :, 0, 0].tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert unit.is_contiguous(memory_format=torch.channels_last)
