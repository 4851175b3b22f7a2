"""Paper C's training: losses by hand, which parts learn, heads on a frozen encoder, parts of a step, resume."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.data.task_circles import circles_picture, flat_patches
from train import cerberus, loop, script
from train.cerberus_data import CerberusData
from train.script import Run, as_rgb
from wsi_ml.data.task_batches import TaskBatches
from wsi_ml.data.task_pictures import instance_task
from wsi_ml.models.cerberus import Cerberus, CerberusConfig
from wsi_ml.models.task_losses import instance_loss, patch_loss, type_loss

HERE = loop.Ranks(0, 1, 0)
CLASSES = ("red", "green", "blue")
NETWORK = CerberusConfig({"gland": 3, "nuclei": 3}, 3, width=4, blocks=(1, 1, 1, 1))
KNOWN = ("gland", "nuclei", "patch")


@pytest.fixture(autouse=True)
def circles(monkeypatch):
    """`open_data` gives drawn discs."""

    def open_circles(config, settings):
        dense = list(dict.fromkeys(instance_task(task) for task in config.tasks if task != "patch"))
        typed = any(task.endswith("_type") for task in config.tasks)
        training = {task: [circles_picture(task, number, 48, typed) for number in range(3)] for task in dense}
        held_out = {task: [circles_picture(task, 9, 48, typed)] for task in dense}
        patches = flat_patches(side=32) if "patch" in config.tasks else []
        source = TaskBatches(training, patches, CLASSES, settings, config.seed)
        return CerberusData(source, held_out, patches[:3], ("held",), ("kept",))

    monkeypatch.setattr(cerberus, "open_data", open_circles)


@pytest.fixture
def settings(tmp_path):
    values = {
        "preset": "tiny", "tasks": "gland,nuclei,patch", "width": 4, "batch": 4, "side": 32, "patch_side": 16,
        "patch_share": 0.4, "steps": 6, "log_every": 1, "validate_every": 3, "save_every": 3, "threads": 1,
        "device": "cpu", "precision": "fp32", "average": 0.9,
    }  # fmt: skip
    return [f"--set={name}={value}" for name, value in values.items()]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, HERE, torch.device("cpu"), False)


def a_model(config=NETWORK):
    torch.manual_seed(5)
    return Cerberus(config)


def a_config(**changes):
    config = cerberus.Config(preset="tiny", tasks=("gland", "nuclei", "patch"), batch=4, side=32, patch_side=16)
    return cerberus.settled(dataclasses.replace(config, **changes), HERE)


def parts_of(config, count=1, known=("gland", "nuclei"), patches=False):
    """`count` batches of rows with instances, or of patches."""
    data = cerberus.open_data(config, cerberus.batch_settings(config, HERE))
    batches = (data.source.batch(index) for index in range(100))
    chosen = [batch for batch in batches if (batch.labels[0] >= 0) == patches][:count]
    return [{name: torch.from_numpy(values) for name, values in batch._asdict().items()} for batch in chosen]


def lines_of(folder):
    return [json.loads(line) for line in (folder / loop.JOURNAL_FILE).read_text().splitlines()]


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_loss_is_the_sum_of_masked_means_and_gradients_follow(run):
    config, model = a_config(), a_model()
    (part,) = parts_of(config)
    assert len(part["task"].unique()) == 2
    terms = cerberus.task_step([part], model, model, KNOWN, config, {}, run)
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    told = a_model()(as_rgb(part["rgb"]), ["gland", "nuclei"])
    by_hand = {}
    for number, task in enumerate(("gland", "nuclei")):
        rows = part["task"] == number
        own = instance_loss(
            told[task][rows], part["target"][rows].long(), part["weights"][rows], torch.ones(int(rows.sum()))
        )
        by_hand[task] = own.item()
        assert terms[f"loss/{task}"] == pytest.approx(own.item(), rel=1e-5)
    assert terms["total"] == pytest.approx(sum(by_hand.values()), rel=1e-5)
    assert not any(name.startswith("patch") for name in gradients)
    assert all(gradients[name].abs().sum() > 0 for name in ("encoder.conv1.weight", "decoders.gland.head.3.weight"))
    weighted = cerberus.task_step(
        [part], a_model(), a_model(), KNOWN, a_config(task_weights="authors"), {}, run
    )  # fmt: skip
    assert weighted["total"] == pytest.approx(1.4 * by_hand["gland"] + by_hand["nuclei"], rel=1e-5)


def test_patches_alone_teach_encoder_and_patch_head(run):
    config, model = a_config(), a_model()
    (part,) = parts_of(config, patches=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    logits = model.eval()(as_rgb(part["rgb"]), ["patch"])["patch"]
    terms = cerberus.task_step([part], model, model, KNOWN, config, {}, run)
    assert terms["loss/patch"] == pytest.approx(patch_loss(logits, part["labels"], torch.ones(4)).item(), rel=1e-5)
    model.train()
    cerberus.task_step([part], model, model, KNOWN, config, {}, run)
    optimizer.step()
    after = model.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"encoder", "patch"}


def test_heads_that_no_row_knows_get_no_step_of_zeros_either():
    """After a mean over ranks every parameter has a gradient."""
    model = a_model()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    cerberus.leave_unlearnt(model, ["gland", "nuclei"], dense=False)
    left = {name.split(".")[0] for name, each in model.named_parameters() if each.grad is not None}
    assert left == {"encoder", "patch"}
    cerberus.leave_unlearnt(model, ["patch"], dense=True)
    assert {name.split(".")[0] for name, each in model.named_parameters() if each.grad is not None} == {"encoder"}


def test_parts_of_unlike_counts_count_every_row_the_same(run):
    """Without batch norm's coupling two parts of a step equal their one batch."""
    config, model = a_config(), a_model().eval()
    (part,) = parts_of(config)
    model.requires_grad_(True)
    whole = cerberus.task_step([part], model, model, KNOWN, config, {}, run)
    wanted = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    cut = [{name: values[rows] for name, values in part.items()} for rows in (slice(0, 3), slice(3, 4))]
    terms = cerberus.task_step(cut, model, model, KNOWN, config, {}, run)
    assert terms == pytest.approx(whole, rel=1e-5)
    for name, each in model.named_parameters():
        if name in wanted:
            assert torch.allclose(each.grad, wanted[name], rtol=1e-3, atol=1e-6), name


def test_types_are_learnt_of_rows_that_know_them(run):
    config = a_config(tasks=("nuclei_type",))
    (part,) = parts_of(config)
    part["types"][0] = 0
    model = a_model(CerberusConfig({"nuclei_type": 4}, 0, 4, (1, 1, 1, 1)))
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0])
    terms = cerberus.task_step([part], model, model, ("nuclei",), config, {"nuclei_type": weights}, run)
    logits = a_model(model.config)(as_rgb(part["rgb"]))["nuclei_type"]
    has = torch.tensor([0.0, 1.0, 1.0, 1.0])
    wanted = type_loss(logits, part["types"].long(), weights, has).item()
    assert terms["loss/nuclei_type"] == pytest.approx(wanted, rel=1e-5)


def test_a_run_notes_its_tasks_and_what_is_held_out(settings, tmp_path):
    folder = tmp_path / "run"
    assert cerberus.main([*settings, f"--set=run={folder}", "--set=peak_tflops=1"]) == 0
    lines = lines_of(folder)
    assert lines[0]["instances"] == {"gland": 12, "nuclei": 12} and lines[0]["patches"] == 6
    rates = [line["rate"] for line in lines if "rate" in line]
    assert rates == pytest.approx([3e-3] * 4 + [3e-4] * 2)  # a tenth after four fifths of the steps
    noted = {name for line in lines for name in line}
    assert {"loss/gland", "loss/nuclei", "loss/patch", "balanced_accuracy", "mfu"} <= noted
    network = json.loads((folder / script.NETWORK_FILE).read_text())
    assert network["held_out"] == ["held", "kept"] and network["classes"] == list(CLASSES)
    wanted = {"tasks": {"gland": 3, "nuclei": 3}, "patch_classes": 3, "width": 4, "blocks": [1, 1, 1, 1]}
    assert network["config"] == wanted
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["000003.png", "000006.png"]


def test_a_new_head_leaves_all_else_bit_identical(settings, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert cerberus.main([*settings, f"--set=run={first}"]) == 0
    more = [f"--set=run={second}", f"--set=start_run={first}", "--set=tasks=nuclei_type"]
    assert cerberus.main([*settings, *more]) == 0
    _, _, old = loop.read_state(first)
    _, _, new = loop.read_state(second)
    kept = loop.part(old, "average")
    for kind in ("model", "average"):
        tensors = loop.part(new, kind)
        assert all(torch.equal(tensors[name], kept[name]) for name in kept), kind
        fresh = [name for name in tensors if name not in kept]
        assert fresh and all(name.startswith("decoders.nuclei_type.") for name in fresh)
    losses = [line["loss/nuclei_type"] for line in lines_of(second) if "loss/nuclei_type" in line]
    assert losses[-1] < losses[0]
    assert json.loads((second / script.NETWORK_FILE).read_text())["config"]["tasks"]["nuclei_type"] == 4


def test_batch_norm_of_frozen_parts_does_not_move():
    model = a_model(CerberusConfig({"nuclei": 3, "nuclei_type": 4}, 3, 4, (1, 1, 1, 1)))
    cerberus.freeze_all_but(model, ["nuclei_type"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.rand(2, 3, 32, 32))["nuclei_type"].sum().backward()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved and all(name.startswith("decoders.nuclei_type.") for name in moved)
    assert model.encoder.conv1.weight.grad is None and model.decoders["nuclei_type"].head[0].weight.grad is not None


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(settings, tmp_path):
    common = [*settings, "--set=accumulate=2"]
    assert cerberus.main([*common, f"--set=run={tmp_path / 'whole'}"]) == 0
    cut = [*common, f"--set=run={tmp_path / 'cut'}"]
    # Three steps of the run of six: the rate falls where it falls in six.
    assert cerberus.main([*cut, "--set=steps=3", "--set=drop_after=4"]) == 0
    assert cerberus.main([*cut, "--resume"]) == 0
    assert same(loop.read_state(tmp_path / "whole")[2], loop.read_state(tmp_path / "cut")[2])


def test_a_loss_that_is_not_finite_stops_with_one_sentence(settings, tmp_path, capsys):
    assert cerberus.main([*settings, f"--set=run={tmp_path / 'run'}", "--set=rate=1e30"]) == 2
    assert "the training stops" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("tasks=cells", "tasks are some of"), ("preset=huge", "preset 'huge'"), ("nuclei_sets=lizard", "nuclei_sets"),
        ("task_weights=mine", "task_weights"), ("target=both", "target 'both'"), ("side=40", "multiples of 16"),
        ("start_run=nowhere", "no run to start from"), ("type_weights=1,2", "type_weights are 4 numbers"),
    ],
)  # fmt: skip
def test_wrong_keys_end_with_one_sentence(settings, tmp_path, capsys, key, words):
    tasks = ["--set=tasks=nuclei_type"] if key.startswith("type") else []
    assert cerberus.main([*settings, f"--set=run={tmp_path / 'run'}", *tasks, f"--set={key}"]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_task_that_the_start_has_is_no_new_head(settings, tmp_path, capsys):
    first = tmp_path / "first"
    assert cerberus.main([*settings, f"--set=run={first}", "--set=steps=1"]) == 0
    assert cerberus.main([*settings, f"--set=run={tmp_path / 'b'}", f"--set=start_run={first}"]) == 2
    assert "has the task gland already" in capsys.readouterr().err


def test_type_weights_are_inverse_to_pixels_with_mean_one():
    config = a_config(tasks=("nuclei_type",))
    data = cerberus.open_data(config, cerberus.batch_settings(config, HERE))
    weights = data.type_weights(config)["nuclei_type"]
    types = np.concatenate([picture.types.ravel() for picture in data.source.pictures["nuclei"]])
    pixels = np.bincount(types, minlength=4)
    assert weights[0] == 0 and weights[3] == 0  # no pixel has type 3
    assert weights[1] * pixels[1] == pytest.approx(weights[2] * pixels[2])
    assert sum(weights) == pytest.approx(3)
