"""Weights are checked before they are used, and every refusal names the file."""

import hashlib

import pytest
import torch

from wsi_ml.errors import ModelOutputError, ModelUnavailableError
from wsi_ml.models import build, checkpoint

SMALL = {"channels": 16, "layers": 1}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(3)
    model = build("sr-fast", **SMALL)
    data, sha256 = checkpoint.weights_bytes(model.state_dict())
    file = tmp_path / "small.safetensors"
    file.write_bytes(data)
    return model, file, sha256


def test_saved_weights_come_back_equal(saved):
    model, file, sha256 = saved
    again = checkpoint.load(file, sha256, "sr-fast", SMALL)
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_one_flipped_bit_is_refused(saved):
    _, file, sha256 = saved
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelUnavailableError, match=r"small\.safetensors are damaged"):
        checkpoint.load(file, sha256, "sr-fast", SMALL)


def test_missing_weights_are_named(saved):
    _, file, sha256 = saved
    with pytest.raises(ModelUnavailableError, match=r"gone\.safetensors"):
        checkpoint.load(file.with_name("gone.safetensors"), sha256, "sr-fast", SMALL)


def test_weights_of_another_shape_name_the_tensor(saved):
    _, file, sha256 = saved
    with pytest.raises(ModelUnavailableError, match=r"small\.safetensors.*tensor first\.bias is \(16,\), not \(32,\)"):
        checkpoint.load(file, sha256, "sr-fast", {"channels": 32, "layers": 1})


def test_weights_of_another_depth_name_the_tensor(saved):
    _, file, sha256 = saved
    with pytest.raises(ModelUnavailableError, match=r"inner\.1\.bias is None"):
        checkpoint.load(file, sha256, "sr-fast", {"channels": 16, "layers": 2})


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    file = tmp_path / "text.safetensors"
    file.write_bytes(b"not weights")
    with pytest.raises(ModelUnavailableError, match=r"text\.safetensors cannot be used"):
        checkpoint.load(file, hashlib.sha256(b"not weights").hexdigest(), "sr-fast", SMALL)


def test_half_weights_come_back_as_fp32_with_batch_norm_untouched(tmp_path):
    torch.manual_seed(4)
    config = {"channels": 8, "growth": 4, "blocks": 1, "classes": 2}
    model = build("sr-joint", **config)
    running = model.state_dict()["layer1.0.bn1.running_var"]
    running.fill_(70000.0)
    model.state_dict()["layer1.0.bn1.num_batches_tracked"].fill_(70001)
    whole, _ = checkpoint.weights_bytes(model.state_dict())
    data, sha256 = checkpoint.weights_bytes(model.state_dict(), half=True)
    assert sha256 == hashlib.sha256(data).hexdigest() and len(data) < 0.6 * len(whole)
    file = tmp_path / "joint.safetensors"
    file.write_bytes(data)
    again = checkpoint.load(file, sha256, "sr-joint", config).state_dict()
    for name, tensor in model.state_dict().items():
        assert again[name].dtype == tensor.dtype, name
        learned = tensor.is_floating_point() and "running" not in name
        assert torch.equal(again[name], tensor.half().float() if learned else tensor), name


def test_a_number_too_large_for_half_is_refused_by_name():
    tensors = {"fine": torch.ones(2), "wide.weight": torch.tensor([1.0, 7e4])}
    with pytest.raises(ModelOutputError, match=r"wide\.weight"):
        checkpoint.weights_bytes(tensors, half=True)
