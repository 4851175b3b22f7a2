"""Alternating steps: what each leaves untouched to the last bit, the shares, the losses, resume."""

import json
import math

import numpy as np
import pytest
import torch

from tests.data.pixel_folder import write_folder
from train import loop, script, semi_supervised
from train.config import read_config
from train.script import Run
from train.semi_config import CLASSIFICATION, SEGMENTATION, Config, settled
from wsi_ml.data.pixel_batches import LabelledPicture, PictureBatches
from wsi_ml.models.weighted_entropy import dynamic_cross_entropy, fixed_cross_entropy

HERE = loop.Ranks(0, 1, 0)
NETWORK = {"classes": 2, "picture_classes": 2, "widths": [8, 8, 12, 16]}
SETTINGS = {
    "preset": "tiny", "source": "folder", "side": 16, "widths": "8,8,12,16", "batch": 2, "steps": 6, "threads": 1,
    "device": "cpu", "precision": "fp32", "log_every": 2, "validate_every": 3, "save_every": 3, "warm_up": 1,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    torch.set_num_threads(1)
    return Run(tmp_path, HERE, torch.device("cpu"), False)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(4)
    return [
        LabelledPicture(f"p{n}", f"s{n}", rng.integers(0, 256, (16, 16, 3)).astype(np.uint8),
                        rng.integers(0, 2, (16, 16)).astype(np.int8), n % 2)
        for n in range(8)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


@pytest.fixture
def settings(folder):
    return [f"--set=data={folder}", *(f"--set={name}={value}" for name, value in SETTINGS.items())]


def part_of(pictures, index=0):
    rows = PictureBatches(pictures, 4, 0).batch(index)._asdict()
    return {name: torch.from_numpy(values) for name, values in rows.items()}


def state_of(model, names):
    """Parameters and batch norm's counts of the parts named."""
    return {key: value.clone() for key, value in model.state_dict().items() if key.split(".")[0] in names}


def one_step(model, optimizer, task, pictures, config, run, index=0):
    with semi_supervised.learning(model, (task,)):
        optimizer.zero_grad()
        weights = torch.ones(2)
        loss = semi_supervised.task_step([part_of(pictures, index)], task, model, model, config, weights, run)
        optimizer.step()
    return loss


PARTS = {
    "esp-psp": {"encoder": ("levels",), "decoder": ("pyramids", "fuses", "told"), "classifier": ("classifier",)},
    "resnet18-multitask": {
        "encoder": ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), "decoder": ("fuses", "told"),
        "classifier": ("fc",),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "changed", "untouched"),
    [(SEGMENTATION, ("encoder", "decoder"), "classifier"), (CLASSIFICATION, ("encoder", "classifier"), "decoder")],
)
@pytest.mark.parametrize("architecture", list(PARTS))
def test_a_step_changes_its_own_parts_and_leaves_the_other_to_the_last_bit(
    run, pictures, architecture, task, changed, untouched
):
    config = Config(preset="tiny", architecture=architecture)
    if architecture != "esp-psp":
        larger = [each.rgb.repeat(2, 0).repeat(2, 1) for each in pictures]
        masks = [each.mask.repeat(2, 0).repeat(2, 1) for each in pictures]
        pictures = [each._replace(rgb=r, mask=m) for each, r, m in zip(pictures, larger, masks, strict=True)]
    model = semi_supervised.start_model(NETWORK, config, run)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    # Adam's momentum of an earlier step of the other task must not move what is frozen now.
    for index, each in enumerate((SEGMENTATION, CLASSIFICATION)):
        one_step(model, optimizer, each, pictures, config, run, index)
    parts = PARTS[architecture]
    assert {name.split(".")[0] for name in model.state_dict()} == {name for each in parts.values() for name in each}
    before = {name: state_of(model, names) for name, names in parts.items()}
    for index in range(2):
        one_step(model, optimizer, task, pictures, config, run, index)
    for name in changed:
        after = state_of(model, parts[name])
        learned = [key for key in after if not key.endswith("num_batches_tracked")]
        assert all(not torch.equal(after[key], before[name][key]) for key in learned), name
    after = state_of(model, parts[untouched])
    assert any(key.endswith("running_var") for key in after) or untouched == "classifier"
    for key, value in before[untouched].items():
        assert torch.equal(after[key], value), key
    assert all(each.requires_grad for each in model.parameters()) and all(each.training for each in model.modules())


def test_the_frozen_parts_stand_still_even_where_the_whole_network_runs(run, pictures):
    """A pass through everything in between, as a validation in training mode would be, counts nothing in them."""
    model = semi_supervised.start_model(NETWORK, Config(preset="tiny"), run)
    before = state_of(model, semi_supervised.FROZEN[CLASSIFICATION])
    with semi_supervised.learning(model, (CLASSIFICATION,)):
        model(script.as_rgb(part_of(pictures)["stored"]), "both").pixels.sum().backward()
    after = state_of(model, semi_supervised.FROZEN[CLASSIFICATION])
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(
        each.grad is None for part in ("pyramids", "fuses", "told") for each in getattr(model, part).parameters()
    )


def test_the_losses_are_those_of_the_switches_and_alpha_scales_the_classification(run, pictures):
    part = part_of(pictures)
    weights = torch.tensor([0.5, 2.0])

    def value(task, **keys):
        config = Config(preset="tiny", **keys)
        model = semi_supervised.start_model(NETWORK, config, run)
        told = model(script.as_rgb(part["stored"]), task)
        logits, target = (told.pixels, part["masks"]) if task == SEGMENTATION else (told.pictures, part["labels"])
        model = semi_supervised.start_model(NETWORK, config, run)
        return semi_supervised.task_step([part], task, model, model, config, weights, run), logits.detach(), target

    for keys, wanted in (
        ({"segmentation_loss": "ce"}, fixed_cross_entropy),
        ({"segmentation_loss": "fw"}, lambda logits, target: fixed_cross_entropy(logits, target, weights)),
        ({"beta": 2.0}, lambda logits, target: dynamic_cross_entropy(logits, target, 2.0)),
        ({"form": "rising"}, lambda logits, target: dynamic_cross_entropy(logits, target, 3.0, "rising")),
    ):
        loss, logits, target = value(SEGMENTATION, **keys)
        assert loss == pytest.approx(float(wanted(logits, target)), rel=1e-5), keys
    loss, logits, target = value(CLASSIFICATION, alpha=0.2)
    assert loss == pytest.approx(0.2 * float(dynamic_cross_entropy(logits, target)), rel=1e-5)


def test_parts_of_unlike_numbers_of_labels_give_the_mean_over_all_places(run, pictures):
    config = Config(preset="tiny", segmentation_loss="ce")
    model = semi_supervised.start_model(NETWORK, config, run).eval()
    half = np.where(np.arange(16)[:, None] < 8, np.int8(-1), pictures[0].mask)
    first, second = [pictures[0]._replace(mask=half)] * 2, pictures[2:4]
    parts = [part_of(each) for each in (first, second)]
    loss = semi_supervised.task_step(parts, SEGMENTATION, model, model, config, torch.ones(2), run)
    with torch.no_grad():
        values = [
            fixed_cross_entropy(model(script.as_rgb(part["stored"]), SEGMENTATION).pixels, part["masks"])
            for part in parts
        ]
    assert loss == pytest.approx((values[0] * 1 + values[1] * 2).item() / 3, rel=1e-5)


def test_shares_of_the_pixel_labels_are_nested_and_none_means_one(pictures):
    def names(task, **keys):
        found = semi_supervised.taught(Config(preset="tiny", **keys), pictures)
        return {each.name for each in found.get(task, [])}

    assert len(names(SEGMENTATION, pixel_share=0.0)) == 1
    assert len(names(SEGMENTATION, pixel_share=0.5)) == 4
    assert names(SEGMENTATION, pixel_share=0.0) < names(SEGMENTATION, pixel_share=0.5) < names(SEGMENTATION)
    assert len(names(CLASSIFICATION, pixel_share=0.5)) == 8
    others = names(CLASSIFICATION, pixel_share=0.5, class_pictures="others")
    assert len(others) == 4 and not others & names(SEGMENTATION, pixel_share=0.5)
    assert len(names(CLASSIFICATION, picture_share=0.25)) == 2
    assert names(CLASSIFICATION, tasks="S") == set()


def test_fixed_weights_are_by_rarity_with_mean_one_over_the_labels(pictures):
    three = [pictures[0], pictures[2], pictures[4], pictures[1]]  # classes 0, 0, 0, 1
    assert semi_supervised.rarity(three, CLASSIFICATION, 2) == pytest.approx([4 / 6, 2.0], abs=1e-6)
    told = Config(preset="tiny", class_weights=("1", "3"))
    assert semi_supervised.class_weights(told, three, SEGMENTATION, 2) == [1.0, 3.0]
    mask = np.zeros((16, 16), np.int8)
    assert semi_supervised.rarity([pictures[0]._replace(mask=mask)], SEGMENTATION, 2) == [1.0, 0.0]


def lines_of(folder):
    return [json.loads(line) for line in (folder / loop.JOURNAL_FILE).read_text().splitlines()]


def test_a_run_trains_both_tasks_notes_them_and_says_what_it_is(settings, tmp_path):
    folder = tmp_path / "run"
    assert semi_supervised.main([*settings, f"--set=run={folder}"]) == 0
    lines = lines_of(folder)
    assert lines[0]["pictures"] == {"segmentation": 8, "classification": 8} and lines[0]["classes"] == [
        "Other",
        "Target",
    ]
    noted = [line for line in lines if "loss" in line]
    assert [line["step"] for line in noted] == [2, 4, 6]
    for line in noted:
        assert line["loss"] == pytest.approx(line["segmentation"] + line["classification"])
        assert math.isfinite(line["loss"])
    assert [line["step"] for line in lines if "accuracy" in line] == [3, 6]
    assert (folder / "pictures" / "000006.png").is_file()
    network = json.loads((folder / script.NETWORK_FILE).read_text())
    assert network["architecture"] == "esp-psp" and network["config"] == NETWORK
    assert network["held_out"] == ["slide-3", "slide-4", "slide-8", "slide-9"]


def test_segmentation_alone_never_touches_the_classifier(settings, tmp_path):
    folder = tmp_path / "run"
    assert semi_supervised.main([*settings, f"--set=run={folder}", "--set=tasks=S", "--set=average=0.9"]) == 0
    assert "classification" not in lines_of(folder)[2]
    _, _, tensors = loop.read_state(folder)
    fresh = semi_supervised.start_model(NETWORK, Config(preset="tiny"), Run(folder, HERE, torch.device("cpu"), False))
    for name, tensor in state_of(fresh, ("classifier",)).items():
        assert torch.equal(tensors[f"model.{name}"], tensor), name
    assert not torch.equal(tensors["model.told.weight"], fresh.told.weight)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(settings, tmp_path, monkeypatch):
    common = [*settings, "--set=accumulate=2", "--set=batch=4"]
    assert semi_supervised.main([*common, f"--set=run={tmp_path / 'whole'}"]) == 0
    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_then_die(*args):
        saved(*args)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_then_die)
    with pytest.raises(Killed):
        semi_supervised.main([*common, f"--set=run={tmp_path / 'cut'}"])
    monkeypatch.setattr(loop, "save_state", saved)
    assert loop.read_state(tmp_path / "cut")[0] == 3
    assert semi_supervised.main([*common, f"--set=run={tmp_path / 'cut'}", "--resume"]) == 0
    (_, _, whole), (_, _, cut) = (loop.read_state(tmp_path / name) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


def test_a_loss_that_is_not_finite_stops_before_any_state(settings, tmp_path, monkeypatch, capsys):
    whole = semi_supervised.loss_of
    monkeypatch.setattr(semi_supervised, "loss_of", lambda *args: whole(*args) * torch.nan)
    assert semi_supervised.main([*settings, f"--set=run={tmp_path / 'run'}"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "segmentation is nan in step 1" in message and not (tmp_path / "run" / loop.STATE_FILE).exists()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("beta=0.5", "beta"), ("form=up", "form"), ("segmentation_loss=mse", "mse"), ("tasks=C", "'C'"),
     ("method=magic", "magic"), ("architecture=vgg", "vgg"), ("pixel_share=1.5", "shares"),
     ("side=20", "multiple of 8"), ("batch=1", "twofold"), ("preset=big", "big"), ("validation=nobody", "nobody"),
     ("class_weights=1,2,3", "3 numbers for 2"), ("source=there", "there"), ("data=/nowhere", "nowhere"),
     ("widths=8,8,8", "four widths")],
)  # fmt: skip
def test_a_wrong_setting_ends_with_one_sentence_naming_it(settings, folder, tmp_path, capsys, wrong, word):
    if wrong.startswith("validation"):
        (folder / "pictures.csv").unlink()
    assert semi_supervised.main([*settings, f"--set=run={tmp_path / 'run'}", f"--set={wrong}"]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1


def test_pixel_labels_are_needed_and_so_are_classes(settings, tmp_path, capsys):
    bare = write_folder(tmp_path / "bare", masked=0)
    assert semi_supervised.main([*settings, f"--set=run={tmp_path / 'run'}", f"--set=data={bare}"]) == 2
    assert "no pixel labels" in capsys.readouterr().err
    assert semi_supervised.main([*settings, f"--set=run={tmp_path / 'run'}", "--set=class_pictures=others"]) == 2
    assert "class_pictures=all" in capsys.readouterr().err


def test_the_presets_and_recipes_are_what_they_say():
    paper = settled(Config(), HERE)
    assert (paper.rate, paper.rate_end, paper.batch, paper.alpha, paper.beta) == (1e-4, 1e-4, 8, 1.0, 3.0)
    assert paper.widths == ("64", "128", "256", "512") and paper.side == 256
    for name, source in (("semi_paper", "camelyon"), ("semi_tiny", "drawn")):
        config = read_config(Config, semi_supervised.CONFIGS / f"{name}.toml", [])
        assert config.source == source and config.pixel_share == 0.1


def test_the_methods_it_is_compared_with_update_what_they_should():
    def order(step, **keys):
        return semi_supervised.turns(Config(steps=10, **keys), step)

    both = ((SEGMENTATION,), (CLASSIFICATION,))
    assert order(0) == order(9) == order(3, method="mil") == both
    assert order(0, method="together") == ((SEGMENTATION, CLASSIFICATION),)
    assert order(4, method="transfer") == ((CLASSIFICATION,),) and order(5, method="transfer") == ((SEGMENTATION,),)
    assert order(0, tasks="S", method="transfer") == ((SEGMENTATION,),)


def test_together_adds_the_gradients_of_both_tasks(run, pictures):
    config, part = Config(preset="tiny"), part_of(pictures)
    model = semi_supervised.start_model(NETWORK, config, run)

    def gradients(*tasks):
        model.zero_grad()
        for task in tasks:
            semi_supervised.task_step([part], task, model, model, config, torch.ones(2), run)
        return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}

    both, alone = gradients(SEGMENTATION, CLASSIFICATION), [gradients(SEGMENTATION), gradients(CLASSIFICATION)]
    assert len(both) == len(list(model.parameters()))
    for name, gradient in both.items():
        assert torch.allclose(gradient, sum(each[name] for each in alone if name in each), atol=1e-6), name


def test_multiple_instances_are_pooled_from_the_pixels_and_teach_the_decoder(run, pictures):
    config = Config(preset="tiny", method="mil")
    model = semi_supervised.start_model(NETWORK, config, run)
    network = semi_supervised.of_method(model, "mil")
    told = network(script.as_rgb(part_of(pictures)["stored"]), CLASSIFICATION)
    wanted = (4 * told.pixels.double()).exp().mean((2, 3)).log() / 4
    assert torch.allclose(told.pictures.double(), wanted, atol=1e-5)
    before = state_of(model, ("classifier",))
    with semi_supervised.learning(model, (CLASSIFICATION,), "mil"):
        semi_supervised.task_step([part_of(pictures)], CLASSIFICATION, model, network, config, torch.ones(2), run)
    assert model.told.weight.grad.abs().sum() > 0 and model.classifier[0].weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in state_of(model, ("classifier",)).items())


@pytest.mark.parametrize("method", ["transfer", "together", "mil"])
def test_runs_of_the_other_methods_end_and_are_noted(settings, tmp_path, method):
    folder = tmp_path / "run"
    argv = [*settings, f"--set=run={folder}", f"--set=method={method}", "--set=steps=2", "--set=log_every=1"]
    assert semi_supervised.main(argv) == 0
    noted = [line.keys() & {"segmentation", "classification"} for line in lines_of(folder) if "loss" in line]
    both = {"segmentation", "classification"}
    assert noted == ([{"classification"}, {"segmentation"}] if method == "transfer" else [both, both])


def test_what_is_looked_at_is_spread_over_the_list():
    assert semi_supervised.spread(list("abcdefg"), 3) == ["a", "d", "g"]
    assert semi_supervised.spread(list("ab"), 5) == ["a", "b"] and semi_supervised.spread([], 5) == []


@pytest.mark.slow
def test_both_tasks_are_learnt_on_drawn_discs(tmp_path):
    data = write_folder(tmp_path / "discs", count=80, side=32)
    keys = {**SETTINGS, "data": data, "side": 32, "steps": 120, "batch": 8, "validate_every": 120, "save_every": 120}
    argv = [f"--set={name}={value}" for name, value in keys.items()]
    assert semi_supervised.main([*argv, f"--set=run={tmp_path / 'run'}", "--set=pixel_share=0.25"]) == 0
    last = [line for line in lines_of(tmp_path / "run") if "accuracy" in line][-1]
    assert last["dsc"] > 0.9 and last["iou"] == pytest.approx(last["dsc"] / (2 - last["dsc"]), abs=1e-3)
    assert last["accuracy"] > 0.9
