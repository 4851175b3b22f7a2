"""Weights made elsewhere: safetensors files taken over wholly or in part, with a report of what was and was not.

Nothing is unpickled here; `python -m train.convert` turns a .pth file into safetensors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors import safe_open
from torch import Tensor, nn

from wsi_ml.errors import ModelUnavailableError

PICKLES = (".pth", ".pt", ".ckpt", ".bin", ".pkl", ".tar")
Shape = tuple[int, ...]

# DenseNet files of torchvision before 0.3 put a dot before the number, which a module's name may not hold.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
# ESRGAN's first files, before BasicSR.
_OLD_ESRGAN = (
    ("RRDB_trunk.", "body."), (".RDB", ".rdb"), ("trunk_conv.", "conv_body."), ("upconv", "conv_up"),
    ("HRconv.", "conv_hr."),
)  # fmt: skip


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a file went into a network; names as the network has them."""

    taken: tuple[str, ...]
    """Copied into the network."""
    missing: tuple[str, ...]
    """Of the network, not in the file; they keep their start."""
    unused: tuple[str, ...]
    """Of the file, not in the network."""
    left: tuple[str, ...]
    """In both and of one shape, but left out as told."""
    wrong_shape: tuple[tuple[str, Shape, Shape], ...]
    """In both, with the shape in the file and in the network."""

    def text(self) -> str:
        """One line for each kind that occurs, tensors counted by the part they belong to."""
        wrong = tuple(name for name, _, _ in self.wrong_shape)
        kinds = (
            ("taken", self.taken), ("missing", self.missing), ("unused", self.unused), ("left out", self.left),
            ("wrong shape", wrong),
        )  # fmt: skip
        lines = [f"{kind:<12}{len(names):>6}  {_parts(names)}" for kind, names in kinds if names]
        lines += [f"  {name}: {found} in the file, {wanted} in the network" for name, found, wanted in self.wrong_shape]
        return "\n".join(lines)


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Name in a file → name in our networks: known old spellings and the `module.` of parallel training are undone."""
    found = list(names)
    parallel = bool(found) and all(name.startswith("module.") for name in found)
    old_esrgan = any("RRDB_trunk." in name for name in found)
    plain = {}
    for name in found:
        new = name.removeprefix("module.") if parallel else name
        new = _OLD_DENSENET.sub(r"\1\2", new)
        for old, ours in _OLD_ESRGAN if old_esrgan else ():
            new = new.replace(old, ours)
        plain[name] = new
    return plain


def fit(found: Mapping[str, Shape], wanted: Mapping[str, Shape], leave: Sequence[str] = ()) -> LoadReport:
    """Compare a file's shapes with a network's; `leave` are modules or tensors that shall not be taken."""
    both = sorted(found.keys() & wanted.keys())
    same = [name for name in both if found[name] == wanted[name]]
    return LoadReport(
        taken=tuple(name for name in same if not _within(name, leave)),
        missing=tuple(sorted(wanted.keys() - found.keys())),
        unused=tuple(sorted(found.keys() - wanted.keys())),
        left=tuple(name for name in same if _within(name, leave)),
        wrong_shape=tuple((name, found[name], wanted[name]) for name in both if found[name] != wanted[name]),
    )


def load_partial(model: nn.Module, file: Path, leave: Sequence[str] = ()) -> LoadReport:
    """Copy what fits of a safetensors file into the network, all or nothing, and report it.

    `leave` names modules or tensors that are not taken, whatever their shape (`fc`). Raises ModelUnavailableError for
    a file that cannot be read, has no tensor of the network, a number that is not finite, or, outside `leave`, a
    tensor of another shape.
    """
    for part in leave:
        if not any(_within(name, (part,)) for name in model.state_dict()):
            raise ModelUnavailableError(f"The network has no part {part!r} to leave out of {file.name}.")
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with _opened(file) as opened:
            old = _inverted(file.name, plain_names(opened.keys()))
            report = fit({new: tuple(opened.get_slice(name).get_shape()) for new, name in old.items()}, wanted, leave)
            _refuse(file.name, report, leave)
            tensors = {name: opened.get_tensor(old[name]) for name in report.taken}
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelUnavailableError(f"The weights {file.name} cannot be read: {error}.") from error
    check_finite(file.name, tensors)
    _copy(model, tensors)
    return report


def copy_partial(
    model: nn.Module, tensors: Mapping[str, Tensor], name: str, leave: Sequence[str] = ()
) -> LoadReport:  # fmt: skip
    """Copy what fits of tensors that are already read, all or nothing, and report it; as `load_partial`.

    `name` says in errors where they are from.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    report = fit({key: tuple(tensor.shape) for key, tensor in tensors.items()}, wanted, leave)
    _refuse(name, report, leave)
    taken = {key: tensors[key] for key in report.taken}
    check_finite(name, taken)
    _copy(model, taken)
    return report


def check_finite(file_name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelUnavailableError naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelUnavailableError(f"The weights {file_name} are damaged: tensor {name} has values not finite.")


def _within(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _opened(file: Path) -> safe_open:
    if file.suffix.lower() in PICKLES:
        raise ModelUnavailableError(
            f"{file.name} may hold a pickle, which is not read here; convert it first: "
            f"`python -m train.convert {file.name} {file.stem}.safetensors`."
        )
    return safe_open(file, "pt")


def _inverted(file_name: str, plain: Mapping[str, str]) -> dict[str, str]:
    old = {new: name for name, new in plain.items()}
    if len(old) != len(plain):
        twice = next(new for name, new in plain.items() if old[new] != name)
        raise ModelUnavailableError(f"The weights {file_name} hold tensor {twice} twice.")
    return old


def _refuse(file_name: str, report: LoadReport, leave: Sequence[str]) -> None:
    for name, found, wanted in report.wrong_shape:
        if not _within(name, leave):
            raise ModelUnavailableError(
                f"The weights {file_name} do not fit the network: tensor {name} is {found} in the file, {wanted} in "
                f"the network. Leave {name.rpartition('.')[0] or name!r} out, or set the network up to match."
            )
    if not report.taken:
        raise ModelUnavailableError(f"The weights {file_name} are of another network: no tensor has a known name.")


@torch.no_grad()
def _copy(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    # By hand: load_state_dict's hooks for spectral norm want every tensor of a layer at once.
    state = model.state_dict()
    for name, tensor in tensors.items():
        state[name].copy_(tensor)


def _parts(names: Sequence[str]) -> str:
    """`body.15…22 (240), fc (2)`: parts with their tensors, at most twelve, then how many more."""
    counts = Counter(name.partition(".")[0] for name in names)
    numbers: dict[str, set[int]] = {part: set() for part in counts}
    for name in names:
        part, _, rest = name.partition(".")
        if (number := rest.partition(".")[0]).isdigit():
            numbers[part].add(int(number))
    listed = [f"{part}{_range(numbers[part])} ({count})" for part, count in list(counts.items())[:12]]
    return ", ".join(listed) + (f" and {len(counts) - 12} more parts" if len(counts) > 12 else "")


def _range(numbers: set[int]) -> str:
    if not numbers:
        return ""
    return f".{min(numbers)}…{max(numbers)}" if len(numbers) > 1 else f".{min(numbers)}"
