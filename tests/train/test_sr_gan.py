"""Stage 1: what a step changes, accumulation, resume, NaN, presets and baselines, refusals."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.train.patches import DrawnPatches, write_tiles
from train import joint, loop, script, sr_gan
from train.config import read_config
from train.presets import preset
from train.script import Run
from wsi_ml.errors import BadRequestError
from wsi_ml.models import build

HERE = loop.Ranks(0, 1, 0)


@pytest.fixture
def ready(tmp_path):
    """Tiny networks and parts of one batch, on the CPU in fp32."""

    def make(parts=1, batch=4, **keys):
        values = {"preset": "tiny", "batch": batch, "side": 16, "device": "cpu", "precision": "fp32", "threads": 1}
        config = sr_gan.Config(run=str(tmp_path / "run"), accumulate=parts, **values | keys)
        recipe = sr_gan.recipe_of(config)
        config = script.settled(config, recipe.stage, HERE)
        run = Run(tmp_path, HERE, torch.device("cpu"), False)
        nets = sr_gan.start_networks(config, recipe, run)
        whole = {name: torch.from_numpy(rows) for name, rows in DrawnPatches(batch).batch(0)._asdict().items()}
        step = batch // parts
        cut = [{name: rows[step * p : step * (p + 1)] for name, rows in whole.items()} for p in range(parts)]
        return config, recipe, run, nets, cut

    return make


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_a_step_gives_gradients_to_the_network_whose_turn_it_is(ready):
    _, recipe, run, nets, parts = ready()
    terms, pictures = sr_gan.generator_step(parts, nets, nets.generator, True, recipe, run)
    assert set(terms) == {"l1", "adversarial", "total"}
    assert terms["total"] == pytest.approx(terms["l1"] + terms["adversarial"], rel=1e-6)
    assert all(parameter.grad.abs().sum() > 0 for parameter in nets.generator.parameters())
    assert all(parameter.grad is None for parameter in nets.judge.model.parameters())
    before = gradients(nets.generator)
    loss = sr_gan.judge_step(pictures, nets.judge, recipe, run)
    # An untrained discriminator is undecided: −log ½ twice.
    assert loss == pytest.approx(2 * np.log(2), rel=0.05)
    assert all(torch.equal(now, before[name]) for name, now in gradients(nets.generator).items())
    weights = [parameter for name, parameter in nets.judge.model.named_parameters() if "bias" not in name]
    assert all(parameter.grad.abs().sum() > 0 for parameter in weights)


def test_the_terms_are_those_worked_out_by_hand(ready):
    _, recipe, run, nets, parts = ready()
    with torch.no_grad():
        made = nets.generator(parts[0]["stored"].permute(0, 3, 1, 2).float() / 255)
        base = parts[0]["base"].permute(0, 3, 1, 2).float() / 255
    terms, _ = sr_gan.generator_step(parts, nets, nets.generator, False, recipe, run)
    assert terms["l1"] == pytest.approx(float((made - base).abs().mean()), rel=1e-5) == terms["total"]


def test_two_parts_give_the_gradients_of_one_batch(ready):
    _, recipe, run, nets, parts = ready()
    sr_gan.generator_step(parts, nets, nets.generator, False, recipe, run)
    whole = gradients(nets.generator)
    _, _, _, nets, halves = ready(parts=2)
    _, pictures = sr_gan.generator_step(halves, nets, nets.generator, False, recipe, run)
    assert len(halves) == 2 and [len(made) for made, _ in pictures] == [2, 2]
    for name, gradient in gradients(nets.generator).items():
        assert torch.allclose(gradient, whole[name], rtol=1e-3, atol=1e-7), name


def test_a_run_leaves_state_journal_pictures_and_its_network(drawn, settings, tmp_path):
    run = tmp_path / "run"
    assert sr_gan.main([*settings, f"--set=run={run}", "--set=peak_tflops=1"]) == 0
    lines = [json.loads(line) for line in (run / loop.JOURNAL_FILE).read_text().splitlines()]
    assert lines[0]["event"] == "start" and lines[0]["config"]["rate"] == 2e-3 and "CPU" in lines[0]["hardware"]
    assert [line["step"] for line in lines if "l1" in line] == [2, 4, 6, 8]
    assert all({"discriminator", "adversarial", "mfu"} <= line.keys() for line in lines if "l1" in line)
    assert [line["step"] for line in lines if "psnr_gain/drawn" in line] == [4, 8]
    with Image.open(run / "pictures" / "000008.png") as picture:
        assert picture.size == (3 * 32, 32)
    network = json.loads((run / script.NETWORK_FILE).read_text())
    assert network["architecture"] == network["row"] == "sr-gan-generator" and network["held_out"] == ["some"]
    assert network["config"] == {"channels": 16, "growth": 8, "blocks": 1}
    _, _, tensors = loop.read_state(run)
    build("sr-gan-generator", **network["config"]).load_state_dict(loop.part(tensors, network["weights"]))


@pytest.mark.parametrize("more", [(), ("--set=accumulate=2", "--set=workers=1", "--set=precision=bf16")])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(drawn, settings, tmp_path, monkeypatch, more):
    common = [*settings, *more]
    assert sr_gan.main([*common, f"--set=run={tmp_path / 'whole'}"]) == 0
    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_then_die(*args):
        saved(*args)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_then_die)
    with pytest.raises(Killed):
        sr_gan.main([*common, f"--set=run={tmp_path / 'cut'}"])
    monkeypatch.setattr(loop, "save_state", saved)
    assert loop.read_state(tmp_path / "cut")[0] == 4
    assert sr_gan.main([*common, f"--set=run={tmp_path / 'cut'}", "--resume"]) == 0
    _, _, whole = loop.read_state(tmp_path / "whole")
    _, _, cut = loop.read_state(tmp_path / "cut")
    assert whole.keys() == cut.keys() and any(name.startswith("beside.optimizer.") for name in whole)
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


def test_sigterm_saves_the_step_it_came_in(drawn, settings, tmp_path, monkeypatch):
    update = loop.Average.update

    def update_and_signal(self, model, step):
        update(self, model, step)
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Average, "update", update_and_signal)
    assert sr_gan.main([*settings, f"--set=run={tmp_path / 'run'}"]) == 0
    assert loop.read_state(tmp_path / "run")[0] == 5


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_state(
    drawn, settings, tmp_path, monkeypatch, capsys
):
    made = sr_gan.generator_terms

    def spoiled(*args):
        terms = made(*args)
        calls.append(1)
        return {**terms, "total": terms["total"] * float("nan")} if len(calls) == 7 else terms

    calls = []
    monkeypatch.setattr(sr_gan, "generator_terms", spoiled)
    monkeypatch.setattr(sr_gan, "step_flops", lambda *_: 0)
    run = tmp_path / "run"
    assert sr_gan.main([*settings, f"--set=run={run}"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "The loss is nan in step 7" in message and "last good state is that of step 4" in message
    step, _, tensors = loop.read_state(run)
    assert step == 4 and all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())
    monkeypatch.setattr(sr_gan, "generator_terms", made)
    assert sr_gan.main([*settings, f"--set=run={run}", "--resume"]) == 0
    assert loop.read_state(run)[0] == 8


def test_the_presets_reach_the_training():
    for name, l1, rate, constant in (("paper", 0.2, 1e-3, False), ("authors-code", 1.0, 6.25e-7, True)):
        config = sr_gan.Config(preset=name)
        recipe = sr_gan.recipe_of(config)
        config = script.with_steps(script.settled(config, recipe.stage, HERE), recipe.stage, 2000)
        assert (recipe.stage.weights.l1, config.rate) == (l1, pytest.approx(rate))
        assert (config.batch, config.side, config.warm_up) == (preset(name).stage_one.batch, 224, 6000)
        assert config.steps == preset(name).stage_one.epochs * 2000 and config.average == 0.0
        assert recipe.network == {"channels": 64, "growth": 32, "blocks": 15} and recipe.judge == {"channels": 64}
        late = recipe.judge_rate(config, config.steps - 1)
        assert late == pytest.approx(2.5e-6 if constant else recipe.rate(config, config.steps - 1))
    assert sr_gan.recipe_of(sr_gan.Config(l1=0.5, adversarial=0.0)).stage.weights.l1 == 0.5


def test_esrgan_has_its_reference_settings():
    config = sr_gan.Config(baseline="esrgan")
    recipe = sr_gan.recipe_of(config)
    settled = script.settled(config, recipe.stage, HERE)
    assert (recipe.architecture, recipe.discriminator, recipe.relativistic) == ("esrgan", "vgg-discriminator", True)
    assert recipe.judge == {"channels": 64, "side": 128} and recipe.taps == {"conv5_4": 1.0}
    assert (settled.batch, recipe.side, settled.rate, settled.average) == (16, 64, 1e-4, 0.999)
    assert recipe.steps == 400_000 and recipe.betas == (0.9, 0.99)
    rates = [recipe.rate(settled, step) for step in (0, 49_999, 50_000, 399_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 1e-4 / 16])


def test_the_relativistic_pair_of_losses_trains_too(ready):
    _, recipe, run, nets, parts = ready()
    recipe = dataclasses.replace(recipe, relativistic=True)
    terms, pictures = sr_gan.generator_step(parts, nets, nets.generator, True, recipe, run)
    assert terms["adversarial"] / recipe.stage.weights.adversarial == pytest.approx(np.log(2), rel=0.05)
    assert sr_gan.judge_step(pictures, nets.judge, recipe, run) == pytest.approx(np.log(2), rel=0.05)


def test_flops_of_a_step_are_counted_not_computed(ready):
    config, recipe, run, nets, _ = ready(adversarial=0.0)
    nets.judge = None
    # By hand: multiplications of a convolution = pixels · 9 · in · out, two operations each, thrice with the backward
    # pass, less the first layer's gradient of the picture, which nobody needs.
    small, pixels, c, g = 8 * 8, 32 * 32, 16, 8
    dense = g * c + g * (c + g) + g * (c + 2 * g) + g * (c + 3 * g) + c * (c + 4 * g)
    first = small * 9 * 12 * c
    layers = first + small * 9 * (3 * dense + c * c) + 256 * 9 * c * c + pixels * 9 * (2 * c * c + 3 * c)
    assert sr_gan.step_flops(nets, config, recipe, run) == config.batch * 2 * (3 * layers - first)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("preset=ours", "ours"), ("baseline=edsr", "edsr"), ("architecture=unet", "unet"), ("accumulate=3", "multiple"),
     ("perceptual=1", "VGG-19"), ("vgg=/nowhere/vgg.safetensors", None), ("average=1", "below 1"),
     ("start=/nowhere/x2.safetensors", "x2.safetensors"), ("source=mars", "mars"), ("preset=authors-code", "VGG-19")],
)  # fmt: skip
def test_a_wrong_setting_ends_with_one_sentence_naming_it(settings, tmp_path, capsys, wrong, word):
    more = ["--set=start=none", "--set=start_discriminator=none"] if "authors" in wrong else []
    if word is None:
        wrong, word, more = "perceptual=1", "vgg.safetensors", [f"--set={wrong}"]
    assert sr_gan.main([*settings, f"--set=run={tmp_path / 'run'}", f"--set={wrong}", *more]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1


def test_the_program_s_start_is_asked_for_by_name(settings, tmp_path, capsys):
    assert sr_gan.main([*settings, f"--set=run={tmp_path / 'run'}", "--set=preset=authors-code"]) == 2
    assert "start=FILE" in capsys.readouterr().err


def test_patches_without_a_truth_are_refused(drawn, settings, tmp_path, capsys):
    drawn["drawn"] = lambda options: DrawnPatches(options.batch, options.side, bases=False)
    assert sr_gan.main([*settings, f"--set=run={tmp_path / 'run'}"]) == 2
    assert "without a ×40 picture" in capsys.readouterr().err.splitlines()[-1]


def test_a_state_of_another_network_is_refused(drawn, settings, tmp_path, capsys):
    run = f"--set=run={tmp_path / 'run'}"
    assert sr_gan.main([*settings, run]) == 0
    assert sr_gan.main([*settings, run, "--resume", "--set=channels=8"]) == 2
    assert "of another network" in capsys.readouterr().err.splitlines()[-1]


def test_a_bilinear_start_needs_a_network_that_can_begin_so(ready):
    with pytest.raises(BadRequestError, match="pixel_shuffle"):
        ready(start="bilinear")
    with pytest.raises(BadRequestError, match="srresnet"):
        ready(start="bilinear", architecture="srresnet", blocks=1)
    _, recipe, _, nets, parts = ready(start="bilinear", pixel_shuffle=True)
    assert recipe.network["pixel_shuffle"] is True
    stored = parts[0]["stored"].permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        made = nets.generator(stored)
    wanted = functional.interpolate(stored, scale_factor=2.0, mode="bilinear", align_corners=False)
    assert torch.allclose(made[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], atol=1e-5)


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns_in_two_parts(settings, tmp_path):
    write_tiles(tmp_path / "data" / "sr-x40-dev2", ("liver", "lung", "skin"), side=96)
    common = [*settings, "--set=source=atlas", f"--set=data={tmp_path / 'data'}", "--set=scan_tiles=0"]
    common += ["--set=test=skin", "--set=validation=lung", "--set=steps=2", "--set=warm_up=0"]
    # Without a discriminator, whose spectral norm takes one more step of its own at every forward.
    common += ["--set=adversarial=0"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert sr_gan.main([*common, f"--set=run={one}", "--set=accumulate=2"]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "train.sr_gan"]
    subprocess.run([*launch, *common, f"--set=run={two}"], check=True, cwd=sr_gan.CONFIGS.parent.parent)
    (step, _, wanted), (ranks_step, _, found) = loop.read_state(one), loop.read_state(two)
    assert step == ranks_step == 2 and wanted.keys() == found.keys()
    # Adam makes a whole step of a gradient's sign, so that rounding turns the few that are nearly nothing.
    apart = [(wanted[name] - found[name]).abs().flatten() for name in wanted if name.startswith("model.")]
    assert (torch.cat(apart) < 1e-5).float().mean() > 0.99


@pytest.mark.slow
def test_a_tiny_run_of_both_stages_beats_bicubic_on_pictures_it_never_saw(drawn, settings, tmp_path):
    common = [*settings, "--set=batch=8", "--set=side=32", "--set=validation_side=48", "--set=validate_every=1000"]
    common += ["--set=validation_batches=2", "--set=save_every=1000", "--set=warm_up=20", "--set=precision=auto"]
    first, second = tmp_path / "gan", tmp_path / "joint"
    quick = ["--set=pixel_shuffle=true", "--set=start=bilinear", "--set=steps=300"]
    assert sr_gan.main([*common, *quick, f"--set=run={first}"]) == 0
    assert joint.main([*common, "--set=steps=200", f"--set=start_run={first}", f"--set=run={second}"]) == 0
    last = json.loads((second / loop.JOURNAL_FILE).read_text().splitlines()[-1])
    assert last["psnr_gain/drawn"] > 0.5 and last["balanced_accuracy"] > 0.9


def test_the_small_recipe_names_only_keys_that_exist():
    config = read_config(sr_gan.Config, sr_gan.CONFIGS / "sr_gan_small.toml", [])
    assert (config.channels, config.growth, config.blocks, config.adversarial) == (32, 16, 4, 0.002)
