"""Weights on disk: safetensors, checked against the card's hash and the architecture before they are used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsi_ml.errors import BadRequestError, ModelOutputError, ModelUnavailableError
from wsi_ml.models import build

RUNNING = ("running_mean", "running_var")
"""Averages of batch norm, which may be larger than fp16 holds; and they are few."""


def weights_bytes(tensors: dict[str, Tensor], half: bool = False) -> tuple[bytes, str]:
    """A weights file's bytes and their hex SHA-256; contiguous, on the CPU, in fp32.

    `half` stores learned numbers in fp16, at half the size; `load` gives fp32 again. Raises ModelOutputError for a
    number that fp16 cannot hold.
    """
    plain = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    for name in [name for name in plain if half and tensors[name].is_floating_point() and not name.endswith(RUNNING)]:
        plain[name] = plain[name].half()
        if not torch.isfinite(plain[name]).all():
            raise ModelOutputError(f"Tensor {name} has a number too large for fp16 or not finite; store it in fp32.")
    data = safetensors.torch.save(plain)
    return data, hashlib.sha256(data).hexdigest()


def load(weights: Path, sha256: str, architecture: str, config: dict[str, Any]) -> nn.Module:
    """The network with the weights of a file, in evaluation mode.

    Raises ModelUnavailableError naming the file when it is missing, its hash is not `sha256`, or a tensor's name or
    shape is not that of the architecture.
    """
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise ModelUnavailableError(f"The weights {weights.name} cannot be read: {type(error).__name__}.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelUnavailableError(f"The weights {weights.name} are damaged: their SHA-256 is not that of the card.")
    try:
        tensors = safetensors.torch.load(data)
        model = build(architecture, **config)
    except (safetensors.SafetensorError, BadRequestError) as error:
        raise ModelUnavailableError(f"The weights {weights.name} cannot be used: {error}") from error
    _check_shapes(weights.name, tensors, model)
    model.load_state_dict(tensors)
    return model.eval()


def _check_shapes(file_name: str, tensors: dict[str, Tensor], model: nn.Module) -> None:
    """Raise ModelUnavailableError naming the first tensor that is missing, unknown or of another shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ModelUnavailableError(
                f"The weights {file_name} do not fit the architecture: tensor {name} is {found.get(name)}, "
                f"not {wanted.get(name)}."
            )
