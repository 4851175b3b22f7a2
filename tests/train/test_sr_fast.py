"""The training script on a CPU: ten steps, resume, refusals, its help."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from train import loop, sr_fast
from train.config import read_config
from wsi_ml.errors import ModelUnavailableError
from wsi_ml.models.sr_fast import SrFast, SrFastConfig

CONFIGS = Path(sr_fast.__file__).parent / "configs"


@pytest.fixture
def data_root(tmp_path):
    folder = tmp_path / "data" / "sr-x40-dev2"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "repo"])
        for slide in ("liver", "lung", "skin"):
            small = rng.integers(60, 240, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{slide}.png")
            writer.writerow([f"{slide}.png", f"atlas/{slide}"])
    return folder.parent


@pytest.fixture
def settings(data_root):
    values = {
        "data": data_root, "test": "skin", "validation": "lung", "channels": 16, "layers": 1, "batch": 4, "per_tile": 2,
        "side": 16, "scan_tiles": 0, "warm_up": 2, "log_every": 2, "validate_every": 5, "save_every": 5,
        "threads": 1, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return [f"--set={name}={value}" for name, value in values.items()]


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def journal(folder):
    return [json.loads(line) for line in (folder / loop.JOURNAL_FILE).read_text().splitlines()]


def test_ten_steps_lower_the_loss_and_leave_state_journal_and_pictures(settings, tmp_path):
    run = tmp_path / "run"
    assert sr_fast.main([*settings, f"--set=run={run}", "--set=steps=10"]) == 0
    lines = journal(run)
    assert lines[0]["event"] == "start" and lines[0]["config"]["test"] == ["skin"]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert [line["step"] for line in lines if "psnr_gain/lung" in line] == [5, 10]
    with Image.open(run / "pictures" / "000010.png") as picture:
        assert picture.size == (3 * 96, 96)
    step, config, tensors = loop.read_state(run)
    assert step == 10 and config["channels"] == 16
    assert set(loop.part(tensors, "average")) == set(loop.part(tensors, "model"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(settings, tmp_path, monkeypatch, precision):
    common = [*settings, f"--set=precision={precision}", "--set=steps=10"]
    assert sr_fast.main([*common, f"--set=run={tmp_path / 'whole'}"]) == 0

    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_then_die(*args):
        saved(*args)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_then_die)
    with pytest.raises(Killed):
        sr_fast.main([*common, f"--set=run={tmp_path / 'cut'}"])
    monkeypatch.setattr(loop, "save_state", saved)
    assert loop.read_state(tmp_path / "cut")[0] == 5
    assert sr_fast.main([*common, f"--set=run={tmp_path / 'cut'}", "--resume"]) == 0

    _, _, whole = loop.read_state(tmp_path / "whole")
    _, _, cut = loop.read_state(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


def test_sigterm_saves_the_step_it_came_in(settings, tmp_path, monkeypatch):
    update = loop.Average.update

    def update_and_signal(self, model, step):
        update(self, model, step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Average, "update", update_and_signal)
    assert sr_fast.main([*settings, f"--set=run={tmp_path / 'run'}", "--set=steps=10"]) == 0
    assert loop.read_state(tmp_path / "run")[0] == 4


def test_a_truncated_state_is_refused_by_name(settings, tmp_path, capsys):
    run = tmp_path / "run"
    assert sr_fast.main([*settings, f"--set=run={run}", "--set=steps=5"]) == 0
    state = run / loop.STATE_FILE
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ModelUnavailableError, match=r"state\.safetensors"):
        loop.read_state(run)
    assert sr_fast.main([*settings, f"--set=run={run}", "--set=steps=6", "--resume"]) == 2
    assert "state.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("stepz=4", "stepz"), ("steps=many", "many"), ("steps", "key=value"), ("batch=5", "per_tile"),
     ("test=lung", "both test and validation"), ("data=/nowhere", "holds none"), ("precision=int3", "int3")],
)  # fmt: skip
def test_a_wrong_setting_ends_with_one_sentence_naming_it(settings, capsys, wrong, word):
    assert sr_fast.main([*settings, f"--set={wrong}"]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1


def test_help_lists_every_key_with_its_meaning(capsys):
    with pytest.raises(SystemExit) as ended:
        sr_fast.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, field in sr_fast.Config.__dataclass_fields__.items():
        assert f"{name} = " in text and field.metadata["meaning"] in text


def test_the_shipped_recipe_names_only_keys_that_exist():
    assert read_config(sr_fast.Config, CONFIGS / "sr_fast.toml", []).channels == 48


def test_the_schedule_warms_up_and_ends_low():
    rates = [loop.cosine(step, 100, 10, 1.0, 0.01) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[55] == pytest.approx(0.505) and rates[99] < 0.011


@pytest.mark.slow
def test_a_deeper_network_starts_as_the_one_it_comes_from(tmp_path):
    torch.manual_seed(3)
    small = SrFast(SrFastConfig(16, 1))
    torch.nn.init.normal_(small.last.weight, std=0.05)
    file = tmp_path / "small.safetensors"
    safetensors.torch.save_file(small.state_dict(), file)
    deep = sr_fast.start_model(sr_fast.Config(channels=16, layers=3, start=str(file)), torch.device("cpu"))
    grey = torch.randint(0, 256, (1, 3, 12, 12)).float()
    with torch.inference_mode():
        assert len(deep.inner) == 3 and torch.allclose(deep(grey), small(grey), atol=1e-3)


def test_weights_that_do_not_fit_are_refused_by_tensor(settings, tmp_path, capsys):
    file = tmp_path / "other.safetensors"
    safetensors.torch.save_file(SrFast(SrFastConfig(32, 1)).state_dict(), file)
    assert sr_fast.main([*settings, f"--set=start={file}", f"--set=run={tmp_path / 'run'}"]) == 2
    assert "first.weight must be (16, 3, 3, 3)" in capsys.readouterr().err


def test_two_ranks_take_batches_in_turn_and_end_together(settings, tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "train.sr_fast",
    ]
    run = tmp_path / "run"
    subprocess.run([*command, *settings, f"--set=run={run}", "--set=steps=5"], check=True, cwd=CONFIGS.parent.parent)
    assert loop.read_state(run)[0] == 5
    lines = journal(run)
    assert [line["world"] for line in lines if line.get("event") == "start"] == [2]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 5]
