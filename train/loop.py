"""What every training script shares: ranks, precision, schedule, moving average, state on disk, journal, stopping."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wsi_ml.errors import ModelOutputError, ModelUnavailableError

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # an extra: the JSONL journal is always written
    SummaryWriter = None  # type: ignore[assignment,misc]

STATE_FILE = "state.safetensors"
JOURNAL_FILE = "journal.jsonl"


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those `torchrun` started; alone it is rank 0 of 1."""

    rank: int
    world: int
    local: int

    @property
    def first(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Join the process group that `torchrun` describes in the environment, and leave it at the end."""
    env = os.environ
    here = Ranks(int(env.get("RANK", "0")), int(env.get("WORLD_SIZE", "1")), int(env.get("LOCAL_RANK", "0")))
    if here.world > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield here
    finally:
        if here.world > 1:
            torch.distributed.destroy_process_group()


def any_rank(wish: bool, here: Ranks, device: torch.device) -> bool:
    """True in every rank when `wish` is true in one of them: ranks must end after the same step."""
    if here.world == 1:
        return wish
    flag = torch.tensor(float(wish), device=device)
    torch.distributed.all_reduce(flag)
    return bool(flag > 0)


def seed_step(seed: int, step: int, here: Ranks) -> None:
    """Random numbers of a step (dropout) are a function of seed, step and rank: a resumed run draws the same."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, here.rank]).generate_state(1)[0]))


def mean_gradients(model: nn.Module, here: Ranks) -> None:
    """Replace every gradient by its mean over the ranks; once a step, after the last backward.

    In place of DistributedDataParallel, whose hooks allow neither two forwards before one backward nor gradients that
    gather over several batches without more code than this. A parameter without gradient counts as zeros.
    """
    if here.world == 1:
        return
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in learned if parameter.grad is not None])
    torch.distributed.all_reduce(flat)
    flat /= here.world
    for parameter, mean in zip(learned, flat.split([parameter.numel() for parameter in learned]), strict=True):
        parameter.grad = mean.view_as(parameter)


def total_over_ranks(counts: list[float], here: Ranks, device: torch.device) -> list[float]:
    """Each number's sum over the ranks."""
    if here.world == 1:
        return counts
    sums = torch.tensor(counts, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    torch.distributed.all_reduce(sums)
    return sums.tolist()


def stop_unless_finite(values: dict[str, float], step: int, saved: int, here: Ranks, device: torch.device) -> None:
    """Raise ModelOutputError in every rank when one of a step's numbers is NaN or infinite in one of them.

    Called before the weights change, so that what is on disk stays the last good state, of step `saved`.
    """
    bad = next((name for name, value in values.items() if not math.isfinite(value)), "")
    if any_rank(bool(bad), here, device):
        what = f"The {bad} is {values[bad]}" if bad else "A number of another rank is not finite"
        state = f"the last good state is that of step {saved}" if saved else "no state was saved yet"
        raise ModelOutputError(
            f"{what} in step {step}: the training stops, {state}. Go on from it with a lower rate, or find the batch."
        )


def count_flops(step: Callable[[], object]) -> int:
    """Operations (two per multiplication and addition) of convolutions and matrix products while `step` runs."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def hardware(device: torch.device) -> str:
    """What computes, in words for the journal."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"


def pick_device(wanted: str, local: int) -> torch.device:
    """`auto`: the rank's GPU when there is one, else the CPU; or the device named."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")


def pick_bf16(wanted: str, device: torch.device) -> bool:
    """`auto`: bf16 where the machine computes it in hardware; or `bf16`, `fp32` as asked."""
    if wanted != "auto":
        return wanted == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())


def cosine(step: int, steps: int, warm_up: int, top: float, end: float) -> float:
    """Learning rate of `step` (0-based): linear to `top` over `warm_up` steps, then half a cosine down to `end`."""
    if step < warm_up:
        return top * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return end + (top - end) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Trained:
    """A network and what changes it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


class Average:
    """Exponential moving average of a model's parameters, which is what is validated and shipped."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the parameters after `step` (0-based); early steps move further, so the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = model.state_dict()
        numbers = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.tensors[name] for name in numbers], [now[name] for name in numbers], 1.0 - decay)
        for name in self.tensors.keys() - set(numbers):
            self.tensors[name].copy_(now[name])  # counters of batch norm


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one: temp file, fsync, rename."""
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    with temp.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temp.replace(path)


def save_state(
    folder: Path,
    step: int,
    config: dict[str, Any],
    model: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    beside: Trained | None = None,
) -> None:
    """Everything a resumed run needs, in one safetensors file: model, average, optimizer, random state; atomic.

    `beside` is a second network that is trained with the first and not averaged: a discriminator.
    """
    tensors = {f"average.{name}": tensor for name, tensor in average.tensors.items()}
    for prefix, trained in (("", Trained(model, optimizer)), ("beside.", beside)):
        if trained is None:
            continue
        tensors |= {f"{prefix}model.{name}": tensor for name, tensor in trained.model.state_dict().items()}
        for number, state in trained.optimizer.state_dict()["state"].items():
            tensors |= {f"{prefix}optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    tensors["random"] = torch.get_rng_state()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"step": str(step), "config": json.dumps(config)}
    write_atomic(folder / STATE_FILE, safetensors.torch.save(plain, metadata))


def read_state(folder: Path) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    """Steps done, configuration and tensors of a run's state; raises ModelUnavailableError when it is not readable."""
    try:
        with safe_open(folder / STATE_FILE, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return int(metadata["step"]), json.loads(metadata["config"]), tensors
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ModelUnavailableError(f"The state {STATE_FILE} of the run cannot be read: {error}.") from error


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a dot, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def restore(
    tensors: dict[str, Tensor],
    model: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    beside: Trained | None = None,
) -> None:
    """Put a saved state back into fresh objects, so that the next step equals that of an uninterrupted run."""
    try:
        for name, tensor in part(tensors, "average").items():
            average.tensors[name].copy_(tensor)
        _restore_trained(tensors, Trained(model, optimizer))
        if beside is not None:
            _restore_trained(part(tensors, "beside"), beside)
        torch.set_rng_state(tensors["random"])
    except (KeyError, RuntimeError, ValueError) as error:
        first = str(error).split("\n")[0]
        raise ModelUnavailableError(
            f"The state {STATE_FILE} of the run is of another network than the keys describe: {first}"
        ) from error


def _restore_trained(tensors: dict[str, Tensor], trained: Trained) -> None:
    trained.model.load_state_dict(part(tensors, "model"))
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part(tensors, "optimizer").items():
        number, _, field = name.partition(".")
        states.setdefault(int(number), {})[field] = tensor
    groups = trained.optimizer.state_dict()["param_groups"]
    trained.optimizer.load_state_dict({"state": states, "param_groups": groups})


class Journal:
    """The record of a run: one JSON object per line always, TensorBoard when it is installed; only rank 0 writes."""

    def __init__(self, folder: Path, write: bool):
        self.file = (folder / JOURNAL_FILE).open("a", encoding="utf-8") if write else None
        self.board = SummaryWriter(str(folder / "tensorboard")) if write and SummaryWriter is not None else None

    def add(self, step: int, **values: Any) -> None:
        """Note numbers (or texts, which TensorBoard leaves out) of one step."""
        if self.file is None:
            return
        self.file.write(json.dumps({"step": step, "time": round(time.time(), 1), **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            if self.board is not None and isinstance(value, int | float):
                self.board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, rgb: np.ndarray) -> None:
        """Show a uint8 H×W×3 picture in TensorBoard."""
        if self.board is not None:
            self.board.add_image(name, rgb, step, dataformats="HWC")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()


@contextmanager
def stop_request() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM or SIGINT came: the loop then saves and ends."""
    seen: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: seen.append(got)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
