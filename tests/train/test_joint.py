"""Stage 2: the joint loss and its gradients, rows without picture or class, the start from stage 1, resume."""

import json

import pytest
import torch
from torch.nn import functional

from tests.train.patches import DrawnPatches
from train import joint, loop, script, sr_gan
from train.config import read_config
from train.script import Run, as_rgb
from wsi_ml.data.batches import joined
from wsi_ml.models.losses import stage_two_loss
from wsi_ml.models.sr_joint import SrJoint, SrJointConfig

HERE = loop.Ranks(0, 1, 0)
NETWORK = SrJointConfig(channels=8, growth=4, blocks=1, classes=2, dropout=0.0)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, HERE, torch.device("cpu"), False)


@pytest.fixture
def model():
    torch.manual_seed(81)
    return SrJoint(NETWORK)


def part_of(source, index=0):
    return {name: torch.from_numpy(rows) for name, rows in source.batch(index)._asdict().items()}


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def test_the_joint_loss_is_that_of_the_paper_and_its_gradients_are_the_sum_of_both(model):
    part = part_of(DrawnPatches(4))
    logits, made = joint.forward(model, part)
    whole_logits, whole_made = model(as_rgb(part["stored"]))
    counts = joint.Counts(4, 4)
    terms = joint.joint_terms(logits, made, part, counts, 1.0, 0.1)
    wanted = stage_two_loss(whole_logits, part["labels"], whole_made, as_rgb(part["base"]), 0.1)
    for name in ("l1", "cross_entropy", "total"):
        assert terms[name].item() == pytest.approx(wanted[name].item(), rel=1e-5)

    both = gradients_of(model, terms["total"])
    alone = []
    for name in ("l1", "cross_entropy"):
        logits, made = joint.forward(model, part)
        alone.append(gradients_of(model, joint.joint_terms(logits, made, part, counts, 1.0, 0.1)[name]))
    assert "fc.weight" in alone[1] and "conv_last.weight" in alone[0] and "conv_last.weight" not in alone[1]
    for name, gradient in both.items():
        parts = sum(each[name] for each in alone if name in each)
        assert torch.allclose(gradient, parts, rtol=1e-3, atol=1e-6), name


def test_rows_without_picture_or_class_take_no_part_in_that_loss(model):
    pairs, labelled = DrawnPatches(2, labelled=False).batch(0), DrawnPatches(2, bases=False, seed=5).batch(0)
    part = {name: torch.from_numpy(rows) for name, rows in joined([pairs, labelled])._asdict().items()}
    logits, made = joint.forward(model, part)
    assert logits.shape == (2, 2) and made.shape == (2, 3, 32, 32)
    terms = joint.joint_terms(logits, made, part, joint.Counts(2, 2), 3.0, 0.0)
    base = as_rgb(part["base"])[:2]
    assert terms["l1"].item() == pytest.approx((made - base).abs().mean().item(), rel=1e-6)
    entropy = functional.cross_entropy(logits, part["labels"][2:])
    assert terms["cross_entropy"].item() == pytest.approx(3.0 * entropy.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["pairs", "labelled"])
def test_a_part_of_one_kind_alone_trains_its_branch_alone(model, kind):
    source = DrawnPatches(2, labelled=False) if kind == "pairs" else DrawnPatches(2, bases=False)
    part = part_of(source)
    logits, made = joint.forward(model, part)
    terms = joint.joint_terms(logits, made, part, joint.Counts(2, 2), 1.0, 0.0)
    found = gradients_of(model, terms["total"])
    assert ("fc.weight" in found) == (kind == "labelled") and ("conv_hr.weight" in found) == (kind == "pairs")
    assert "conv_first.weight" in found


def test_parts_of_unlike_counts_give_the_mean_over_all_rows(model, run):
    """One part has three pictures and the other one: every picture counts the same."""
    config = joint.Config(smoothing=0.0)
    rows = DrawnPatches(4, labelled=False).batch(0)
    parts = [
        {name: torch.from_numpy(getattr(rows, name)[cut]) for name in rows._fields}
        for cut in (slice(0, 3), slice(3, 4))
    ]
    terms = joint.joint_step(parts, model, joint.Runnable(model), config, run)
    whole = {name: torch.from_numpy(values) for name, values in rows._asdict().items()}
    _, made = joint.forward(model, whole)
    assert terms["l1"] == pytest.approx((made - as_rgb(whole["base"])).abs().mean().item(), rel=1e-5)
    assert terms["cross_entropy"] == 0.0


@pytest.fixture
def stage_one(drawn, settings, tmp_path):
    run = tmp_path / "gan"
    assert sr_gan.main([*settings, f"--set=run={run}", "--set=channels=8", "--set=steps=4"]) == 0
    return run


def test_stage_two_starts_from_stage_one_and_takes_its_size(stage_one, settings, tmp_path):
    run = tmp_path / "joint"
    more = [f"--set=run={run}", f"--set=start_run={stage_one}", "--set=peak_tflops=1"]
    assert joint.main([*settings, *more]) == 0
    lines = [json.loads(line) for line in (run / loop.JOURNAL_FILE).read_text().splitlines()]
    assert lines[0]["classes"] == ["blue", "red"] and "body.0 (30)" in lines[0]["taken"]
    assert "missing" in lines[0]["taken"] and "layer1" in lines[0]["taken"]
    assert [line["step"] for line in lines if "cross_entropy" in line] == [2, 4, 6, 8]
    assert all({"l1", "total", "mfu"} <= line.keys() for line in lines if "cross_entropy" in line)
    looked = [line for line in lines if "balanced_accuracy" in line]
    assert [line["step"] for line in looked] == [4, 8] and "psnr_gain/drawn" in looked[0]
    network = json.loads((run / script.NETWORK_FILE).read_text())
    assert network["classes"] == ["blue", "red"] and network["held_out"] == ["some"]
    assert network["config"] == {"channels": 8, "growth": 8, "blocks": 1, "classes": 2, "dropout": 0.0}


def test_a_run_with_other_classes_gives_all_but_the_last_layer(stage_one, settings, tmp_path):
    first = tmp_path / "two"
    assert joint.main([*settings, f"--set=run={first}", f"--set=start_run={stage_one}", "--set=steps=4"]) == 0
    network = {**joint.read_network(first), "classes": 6}
    fresh, _ = joint.start_model(joint.Config(), network, Run(tmp_path, HERE, torch.device("cpu"), False))
    config = joint.Config(start_run=str(first))
    six, report = joint.start_model(config, network, Run(tmp_path, HERE, torch.device("cpu"), False))
    _, _, tensors = loop.read_state(first)
    averages = loop.part(tensors, "average")
    assert "wrong shape" in report and "fc.weight: (2, 128) in the file, (6, 128) in the network" in report
    for name, tensor in six.state_dict().items():
        wanted = fresh.state_dict()[name] if name.startswith("fc.") else averages[name]
        assert torch.equal(tensor, wanted), name


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(drawn, settings, tmp_path, monkeypatch):
    # Dropout is on: its draws must be those of the uninterrupted run.
    common = [*settings, "--set=dropout=0.5", "--set=accumulate=2"]
    assert joint.main([*common, f"--set=run={tmp_path / 'whole'}"]) == 0
    assert joint.main([*common, f"--set=run={tmp_path / 'cut'}", "--set=steps=4", "--set=rate_end=0.002"]) == 0
    step, _, early = loop.read_state(tmp_path / "cut")
    assert step == 4
    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_then_die(*args):
        saved(*args)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_then_die)
    with pytest.raises(Killed):
        joint.main([*common, f"--set=run={tmp_path / 'cut'}"])
    monkeypatch.setattr(loop, "save_state", saved)
    assert joint.main([*common, f"--set=run={tmp_path / 'cut'}", "--resume"]) == 0
    _, _, whole = loop.read_state(tmp_path / "whole")
    _, _, cut = loop.read_state(tmp_path / "cut")
    assert whole.keys() == cut.keys() and not torch.equal(early["model.fc.weight"], cut["model.fc.weight"])
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


def test_two_sources_of_unlike_sides_are_learnt_together(drawn, settings, tmp_path):
    drawn["pairs"] = lambda options: DrawnPatches(options.batch, options.side, options.seed, labelled=False)
    drawn["classes"] = lambda options: DrawnPatches(options.batch, options.side, options.seed, bases=False)
    asked = []
    for name in ("pairs", "classes"):
        maker = drawn[name]
        drawn[name] = lambda options, maker=maker: asked.append((options.batch, options.side)) or maker(options)
    more = ["--set=source=pairs+classes", "--set=labelled_side=24", "--set=labelled_share=0.25", "--set=steps=4"]
    assert joint.main([*settings, *more, f"--set=run={tmp_path / 'run'}"]) == 0
    assert asked[:2] == [(3, 16), (1, 24)]
    lines = (tmp_path / "run" / loop.JOURNAL_FILE).read_text().splitlines()
    values = json.loads(lines[-1]) | json.loads(lines[-2])
    assert values["l1"] > 0 and values["cross_entropy"] > 0 and "psnr/drawn" in values and "log_loss" in values


def test_a_loss_that_is_not_finite_stops_before_any_state(drawn, settings, tmp_path, monkeypatch, capsys):
    terms = joint.joint_terms
    monkeypatch.setattr(joint, "joint_terms", lambda *args: {n: t * torch.inf for n, t in terms(*args).items()})
    assert joint.main([*settings, f"--set=run={tmp_path / 'run'}"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "in step 1" in message and "no state was saved yet" in message
    assert not (tmp_path / "run" / loop.STATE_FILE).exists()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("start_run=/nowhere/gan", "gan is no run"), ("start=/nowhere/x.safetensors", "x.safetensors"),
     ("source=pairs", "no classes"), ("preset=big", "big")],
)  # fmt: skip
def test_a_wrong_setting_ends_with_one_sentence_naming_it(drawn, settings, tmp_path, capsys, wrong, word):
    drawn["pairs"] = lambda options: DrawnPatches(options.batch, options.side, labelled=False)
    assert joint.main([*settings, f"--set=run={tmp_path / 'run'}", f"--set={wrong}"]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1


def test_the_presets_reach_the_training():
    for name, dropout, rate in (("paper", 0.25, 1e-3), ("authors-code", 0.5, 1.25e-5)):
        config = joint.Config(preset=name)
        config = joint.settled(script.settled(config, joint.preset(name).stage_two, HERE))
        assert (config.dropout, config.rate, config.smoothing) == (dropout, pytest.approx(rate), 0.1)
        assert joint.network_of(config, joint.preset(name), 5) == {
            "channels": 64, "growth": 32, "blocks": 15, "classes": 5, "dropout": dropout,
        }  # fmt: skip
        assert (config.batch, config.epochs, config.side) == (32, 50, 224)


def test_without_names_the_split_is_that_of_the_sets_at_hand():
    held = script.with_split(joint.Config())
    assert held.validation == ("hacettepe-com-case-12", "EAS22")
    assert held.test == (
        "BS12", "lung-squamous-cell-carcinoma", "ectopic-pancreas", "duodenum-tubular-adenoma",
    )  # fmt: skip
    assert script.with_split(joint.Config(source="msu")).test == ()
    assert script.with_split(joint.Config(test=("one",))).test == ("one",)


def test_the_small_recipe_names_only_keys_that_exist():
    assert read_config(joint.Config, joint.CONFIGS / "joint_small.toml", []).start_run == "runs/sr-gan-small"
