"""Turn a .pth file of weights into safetensors, without running anything it may hold, and say which network it fits.

    python -m train.convert RealESRGAN_x2plus.pth x2plus.safetensors --architecture sr-joint
    python -m train.convert vgg19-dcbb9e9d.pth vgg19.safetensors --architecture vgg19

Only numbers are read (`weights_only`): a file that asks for any code is refused. docs/networks.md names the files.
"""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from train.loop import write_atomic
from wsi_ml.errors import BadRequestError, ModelUnavailableError, OcularError
from wsi_ml.models import ARCHITECTURES, build, weightless
from wsi_ml.models.foreign import LoadReport, check_finite, fit, plain_names

# Where programs put the weights in a checkpoint, the averaged ones first.
CONTAINERS = ("params_ema", "params", "state_dict", "model", "generator")
# What a damaged pickle or zip makes torch.load raise; an unsafe one raises UnpicklingError.
DAMAGE = (
    RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError, AssertionError,
    OverflowError, struct.error,
)  # fmt: skip

# torch names what it will not call amid advice to trust the file, which is not passed on.
CULPRIT = re.compile(r"(?:GLOBAL|class|function) ([\w.]+\.[\w.]+)")


def read_weights(source: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors of a .pth file by our names, and the key of the checkpoint they lay under (empty: the file itself).

    Raises ModelUnavailableError for a file that is unsafe, damaged, or holds no tensors.
    """
    try:
        # argparse.Namespace, in which many scripts save their options, holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old ways of saving; what cannot be read is refused anyway
            loaded = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = CULPRIT.search(str(error))
        if culprit is None:
            raise ModelUnavailableError(f"{source.name} is damaged, or no file that torch.save wrote.") from error
        raise ModelUnavailableError(
            f"{source.name} is refused: to read it, {culprit[1]} would have to be called, and a file of weights needs "
            "no call. Ask its makers for the weights alone, best as safetensors."
        ) from error
    except OSError as error:
        raise ModelUnavailableError(f"{source.name} cannot be read: {error.strerror or error}.") from error
    except DAMAGE as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelUnavailableError(f"{source.name} cannot be read as weights: {first}.") from error
    found, key = _state_dict(source.name, loaded)
    names = plain_names(found)
    tensors = {names[name]: tensor.detach().to_dense().clone().contiguous() for name, tensor in found.items()}
    if len(tensors) != len(found):
        raise ModelUnavailableError(f"{source.name} holds two tensors of one name.")
    check_finite(source.name, tensors)
    return tensors, key


def _state_dict(file_name: str, loaded: Any) -> tuple[dict[str, Tensor], str]:
    """The dictionary of tensors in what a file held, and its key."""
    if not isinstance(loaded, Mapping):
        raise ModelUnavailableError(f"{file_name} holds a {type(loaded).__name__}, no dictionary of weights.")
    for key in CONTAINERS:
        if isinstance(loaded.get(key), Mapping) and _tensors(loaded[key]):
            return _tensors(loaded[key]), key
    if not _tensors(loaded):
        keys = ", ".join(sorted(str(key) for key in loaded)[:8]) or "nothing"
        raise ModelUnavailableError(f"{file_name} holds no dictionary of weights; it holds {keys}.")
    return _tensors(loaded), ""


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in values.items() if isinstance(value, Tensor)}


def compare(tensors: Mapping[str, Tensor], architecture: str) -> LoadReport:
    """How weights fit an architecture in its published configuration; raises BadRequestError for an unknown one."""
    with weightless():
        wanted = {name: tuple(tensor.shape) for name, tensor in build(architecture).state_dict().items()}
    return fit({name: tuple(tensor.shape) for name, tensor in tensors.items()}, wanted)


def convert(source: Path, target: Path, architecture: str | None = None) -> str:
    """Write `target` in one atomic step and return the report; nothing is written unless some tensor fits.

    Raises BadRequestError for a wrong target or architecture, ModelUnavailableError for a source that is refused.
    """
    if target.suffix != ".safetensors":
        raise BadRequestError(f"The target ends in .safetensors, not as {target.name} does.")
    tensors, key = read_weights(source)
    lines = [f"{source.name}: {len(tensors)} tensors, {sum(each.numel() for each in tensors.values()):,} values"]
    lines[0] += f", under {key!r}" if key else ""
    if architecture is not None:
        report = compare(tensors, architecture)
        if not report.taken:
            raise ModelUnavailableError(f"{source.name} is of another network: nothing in it fits {architecture}.")
        lines += [f"as {architecture}:", report.text()]
        if report.wrong_shape:
            lines.append("Leave those of wrong shape out at loading, or configure the network to match.")
    metadata = {"source": source.name} | ({"key": key} if key else {})
    try:
        write_atomic(target, safetensors.torch.save(tensors, metadata))
    except OSError as error:
        raise BadRequestError(f"{target.name} cannot be written: {error.strerror or error}.") from error
    return "\n".join([*lines, f"written: {target.name}"])


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when something is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m train.convert", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="file that torch.save wrote")
    parser.add_argument("target", type=Path, metavar="TARGET", help="safetensors file to write")
    parser.add_argument("--architecture", metavar="NAME", help=f"network to compare with: {', '.join(ARCHITECTURES)}")
    args = parser.parse_args(argv)
    try:
        sys.stdout.write(convert(args.source, args.target, args.architecture) + "\n")
    except OcularError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
