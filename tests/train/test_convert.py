"""Conversion of .pth files: what is read, what is reported, and that a file which would run code is refused."""

import argparse
import os
import pickle

import pytest
import safetensors.torch
import torch

from train.convert import convert, main, read_weights
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.models import build
from wsi_ml.models.foreign import load_partial

SMALL = {"channels": 8, "growth": 4}


class Running:
    """What a hostile file holds: unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def source(tmp_path):
    def save(value, **options):
        torch.save(value, tmp_path / "given.pth", **options)
        return tmp_path / "given.pth"

    return save


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", "model", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_come_out_equal_from_every_container(source, tmp_path, key, zipped):
    model = build("rrdb-plain", **SMALL)
    tensors = model.state_dict()
    file = source({key: tensors, "epoch": 3} if key else tensors, _use_new_zipfile_serialization=zipped)
    said = convert(file, tmp_path / "ours.safetensors")
    assert said.startswith("given.pth: ") and ("under" in said) == bool(key)
    found = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    again = build("rrdb-plain", **SMALL)
    assert load_partial(again, tmp_path / "ours.safetensors").missing == ()


def test_averaged_weights_win_and_parallel_names_are_undone(source):
    file = source({"params": {"module.a": torch.zeros(2)}, "params_ema": {"module.a": torch.ones(2)}})
    tensors, key = read_weights(file)
    assert key == "params_ema" and list(tensors) == ["a"] and tensors["a"].tolist() == [1.0, 1.0]


def test_options_of_a_script_beside_the_weights_do_no_harm(source):
    tensors, _ = read_weights(source({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}))
    assert list(tensors) == ["a"]


def test_views_of_one_storage_are_written_apart(source, tmp_path):
    whole = torch.arange(6.0)
    convert(source({"a": whole[:3], "b": whole.reshape(2, 3).T}), tmp_path / "ours.safetensors")
    found = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    assert found["b"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] and found["a"].tolist() == [0.0, 1.0, 2.0]


def test_the_report_says_what_fits_an_architecture(source, tmp_path, capsys):
    tensors = {f"features.{index}.bias": torch.zeros(64) for index in (0, 2)}
    tensors |= {"features.34.bias": torch.zeros(9), "classifier.6.bias": torch.zeros(1000)}
    target = tmp_path / "vgg.safetensors"
    assert main([str(source(tensors)), str(target), "--architecture", "vgg19"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0] == "given.pth: 4 tensors, 1,137 values"
    assert "taken            2  features.0…2 (2)" in told
    assert "unused           1  classifier.6 (1)" in told
    assert "features.34.bias: (9,) in the file, (512,) in the network" in told
    assert told.endswith("written: vgg.safetensors\n") and target.is_file()


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(source, tmp_path, capsys):
    made = tmp_path / "made"
    for zipped in (True, False):
        file = source({"params": {"a": torch.ones(1)}, "more": Running(made)}, _use_new_zipfile_serialization=zipped)
        assert main([str(file), str(tmp_path / "ours.safetensors")]) == 2
        assert "given.pth is refused: to read it, posix.mkdir would have to be called" in capsys.readouterr().err
    for protocol in range(6):
        file.write_bytes(pickle.dumps(Running(made), protocol))
        assert main([str(file), str(tmp_path / "ours.safetensors")]) == 2
        assert capsys.readouterr().err.startswith("given.pth ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.pth"]


def test_damaged_files_are_refused_with_a_sentence(source, tmp_path):
    for zipped in (True, False):
        whole = source({"a": torch.arange(40.0)}, _use_new_zipfile_serialization=zipped).read_bytes()
        generator = torch.Generator().manual_seed(41)
        for number in range(60):
            data = bytearray(whole)
            if number % 3 == 0:
                del data[int(torch.randint(len(data), (1,), generator=generator)) :]
            else:
                place = int(torch.randint(len(data), (1,), generator=generator))
                data[place] ^= 1 + int(torch.randint(255, (1,), generator=generator))
            (tmp_path / "hurt.pth").write_bytes(bytes(data))
            try:
                read_weights(tmp_path / "hurt.pth")
            except ModelUnavailableError as refused:
                assert "hurt.pth" in str(refused) and "\n" not in str(refused)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, 2], "holds a list, no dictionary"),
        ({"epoch": 3, "best": 0.5}, "no dictionary of weights; it holds best, epoch"),
        ({"params": {"a": torch.tensor([float("inf")])}}, "tensor a has values not finite"),
        (
            {"a.norm": torch.ones(1), "denselayer1.norm.1.b": torch.ones(1), "denselayer1.norm1.b": torch.ones(1)},
            "two ten",
        ),
    ],
)
def test_files_without_usable_weights_are_refused(source, value, told):
    with pytest.raises(ModelUnavailableError, match=told):
        read_weights(source(value))


def test_wrong_targets_and_names_are_refused_before_anything_is_written(source, tmp_path):
    file = source({"conv_first.bias": torch.zeros(64)})
    with pytest.raises(BadRequestError, match=r"ends in \.safetensors, not as ours\.pth"):
        convert(file, tmp_path / "ours.pth")
    with pytest.raises(BadRequestError, match=r"ours\.safetensors cannot be written: No such file"):
        convert(file, tmp_path / "gone" / "ours.safetensors")
    with pytest.raises(BadRequestError, match="no architecture 'sr-slow'"):
        convert(file, tmp_path / "ours.safetensors", "sr-slow")
    with pytest.raises(ModelUnavailableError, match="nothing in it fits vgg19"):
        convert(file, tmp_path / "ours.safetensors", "vgg19")
    with pytest.raises(ModelUnavailableError, match=r"gone\.pth cannot be read: No such file"):
        convert(tmp_path / "gone.pth", tmp_path / "ours.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["given.pth"]
