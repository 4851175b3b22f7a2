"""Paper C: one encoder for nuclei, glands, lumina and patches, trained on batches that mix tasks; then new heads on it.

Minutes on a CPU:        python -m train.cerberus --config train/configs/cerberus_tiny.toml
The paper's settings:    python -m train.cerberus --config train/configs/cerberus_paper.toml
A new head, the rest frozen:
    python -m train.cerberus --set start_run=runs/cerberus --set tasks=nuclei_type --set run=runs/cerberus-types
Several GPUs:            torchrun --nproc-per-node 3 -m train.cerberus ...
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from train import loop, script
from train.cerberus_data import CerberusData, open_data
from train.cerberus_watching import look
from train.config import key
from train.course import Course
from train.presets import Stage
from train.script import PRESET_S, UNSET, Run, RunConfig, as_rgb, on_device
from train.watching import averaged
from wsi_ml.data.task_batches import PATCH, SAMPLERS, TARGETS, TaskBatchSettings
from wsi_ml.data.task_pictures import INSTANCE_TASKS, SETS, TYPE, instance_task
from wsi_ml.errors import BadRequestError
from wsi_ml.models import parameter_count
from wsi_ml.models.cerberus import Cerberus, CerberusConfig
from wsi_ml.models.foreign import LoadReport, copy_partial, load_partial
from wsi_ml.models.task_losses import TASK_WEIGHTS, instance_loss, patch_loss, type_loss

RATE_DROP = 0.1
KNOWN = (*INSTANCE_TASKS, f"nuclei{TYPE}", PATCH)


@dataclass(frozen=True)
class Preset:
    """What the keys below do not name."""

    batch: int = 27
    side: int = 448
    patch_side: int = 144
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    steps: int = 90_000
    drop_after: int = 70_000
    rate: float = 1e-3
    sampler: str = "paper"
    weights: str = "paper"
    average: float = 0.0


PRESETS = {
    "paper": Preset(),
    # Their 140 epochs are not converted to steps; see docs/training.md.
    "authors-code": Preset(batch=12, drop_after=75_000, sampler="authors", weights="authors"),
    "tiny": Preset(4, 96, 48, 16, (1, 1, 1, 1), 300, 240, 3e-3, average=0.98),
}


@dataclass(frozen=True)
class Config(RunConfig):
    """Keys of the training; the meanings are printed by `--help`."""

    run: str = key("runs/cerberus", "folder of this run: state, journal, pictures, TensorBoard")
    preset: str = key("paper", f"settings that the keys below do not name: {', '.join(PRESETS)} (minutes on a CPU)")
    tasks: tuple[str, ...] = key((*INSTANCE_TASKS, PATCH), f"what is learned, any of {', '.join(KNOWN)}")
    data: str = key("../shared/data", "folder of the data sets")
    nuclei_sets: tuple[str, ...] = key(("dsb2018",), f"sets that teach nuclei: {', '.join(SETS)} (monuseg: research)")
    scenes: int = key(4, "drawn scenes for gland, lumen and, in nuclei_sets, drawn nuclei")
    scene_parts: int = key(9, "parts of 512 stored pixels of each scene, 1...9")
    target: str = key("plus", f"instances as {' or '.join(TARGETS)}: eroded interior without or with contour")
    sampler: str = key("", f"how batches mix tasks: {', '.join(SAMPLERS)}; empty: the preset's")
    patch_share: float = key(0.3, "samplers paper and fixed: share of batches that are of patches")
    task_weights: str = key("", "factors of the tasks' losses: paper (all 1) or authors; empty: the preset's")
    type_weights: tuple[str, ...] = key((), "weights of the types, background first; none: by the types' pixels")
    side: int = key(PRESET_S, "side of a picture with instances, a multiple of 16; 0: the preset's")
    patch_side: int = key(PRESET_S, "side of a patch, a multiple of 16; 0: the preset's")
    width: int = key(PRESET_S, "channels of the finest features; 0: the start's, else the preset's")
    drop_after: int = key(PRESET_S, "steps after which the rate falls to a tenth; 0: in the preset's proportion")
    start: str = key("", "weights of a ResNet-34 to start from (.safetensors, torchvision's names)")
    start_run: str = key("", "run to put new heads on: all that it has learned is frozen, batch norm included")
    validation_pictures: int = key(8, "pictures of each task and patches of each class that are looked at")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is not {', '.join(PRESETS)}")
        if not self.tasks or set(self.tasks) - set(KNOWN):
            raise ValueError(f"tasks are some of {', '.join(KNOWN)}, not {', '.join(self.tasks) or 'none'}")
        if set(self.nuclei_sets) - set(SETS):
            raise ValueError(f"nuclei_sets are some of {', '.join(SETS)}, not {', '.join(self.nuclei_sets)}")
        if self.task_weights not in ("", "paper", "authors"):
            raise ValueError(f"task_weights {self.task_weights!r} is not paper or authors")
        if self.start and self.start_run:
            raise ValueError("start and start_run cannot both be told")


def settled(config: Config, here: loop.Ranks) -> Config:
    """The preset's values in place of what was not told; the drop keeps its place where steps are told."""
    chosen = PRESETS[config.preset]
    steps = config.steps or chosen.steps
    whole = dataclasses.replace(
        config,
        steps=steps,
        batch=config.batch or chosen.batch,
        side=config.side or chosen.side,
        patch_side=config.patch_side or chosen.patch_side,
        rate=config.rate or chosen.rate,
        drop_after=config.drop_after or steps * chosen.drop_after // chosen.steps,
        average=chosen.average if config.average == UNSET else config.average,
        warm_up=max(0, config.warm_up),
        sampler=config.sampler or chosen.sampler,
        task_weights=config.task_weights or chosen.weights,
    )
    parts = here.world * whole.accumulate
    if whole.batch % parts:
        raise ValueError(f"batch {whole.batch} is no multiple of ranks times accumulate, {parts}")
    return whole


def batch_settings(config: Config, here: loop.Ranks) -> TaskBatchSettings:
    """What one rank's part of a step is made of."""
    rows = config.batch // (here.world * config.accumulate)
    return TaskBatchSettings(
        rows, config.side, config.patch_side, config.target, config.sampler, config.patch_share
    )  # fmt: skip


def network_of(config: Config, data: CerberusData) -> dict[str, Any]:
    """Arguments of the network: by the tasks and the preset, or those of the run to start from with the new heads."""
    chosen = PRESETS[config.preset]
    dense = {task: data.channels(task, config.target) for task in config.tasks if task != PATCH}
    classes = len(data.source.classes)
    if not config.start_run:
        width = config.width or chosen.width
        return {"tasks": dense, "patch_classes": classes, "width": width, "blocks": list(chosen.blocks)}
    network = script.read_network(Path(config.start_run))
    known = {*network["tasks"], *((PATCH,) if network["patch_classes"] else ())}
    again = sorted(known & set(config.tasks))
    if again:
        raise BadRequestError(f"The run to start from has the task {again[0]} already; name new ones.")
    return {**network, "tasks": network["tasks"] | dense, "patch_classes": network["patch_classes"] or classes}


def start_model(config: Config, network: dict[str, Any], run: Run) -> tuple[Cerberus, str]:
    """The network from the seed, from a ResNet-34's file or from a run, and the report of what was taken over."""
    torch.manual_seed(config.seed)
    model = Cerberus(CerberusConfig(**network))
    report: LoadReport | None = None
    if config.start:
        report = load_partial(model.encoder, Path(config.start))
    elif config.start_run:
        folder = Path(config.start_run)
        _, _, tensors = loop.read_state(folder)
        report = copy_partial(model, loop.part(tensors, "average"), folder.name)
        freeze_all_but(model, config.tasks)
    if run.device.type != "cpu":  # see pictures_of
        on_device(model, run.device)
    return model, report.text() if report else "nothing"


def pictures_of(part: dict[str, Tensor]) -> Tensor:
    """N×3×H×W float 0…1 of a part; channels last on a GPU alone.

    On the CPU the oneDNN of PyTorch 2.13 writes beyond its memory in the backward pass of this network in channels last
    with few channels (seen in fp32 at widths 4 and 8 and 96 px).
    """
    rgb = as_rgb(part["rgb"])
    return rgb.contiguous() if rgb.device.type == "cpu" else rgb


def freeze_all_but(model: Cerberus, tasks: Sequence[str]) -> None:
    """Leave only the heads of `tasks` to learn; all else keeps its numbers, batch norm's averages included."""
    model.eval().requires_grad_(False)
    for task in tasks:
        head_of(model, task).train().requires_grad_(True)


def head_of(model: nn.Module, task: str) -> nn.Module:
    """The part of the network that one task has for itself."""
    return model.get_submodule(PATCH if task == PATCH else f"decoders.{task}")


def leave_unlearnt(model: nn.Module, absent: Sequence[str], dense: bool) -> None:
    """Take the gradients from the heads of tasks that no row of the step knows, so that Adam leaves them alone.

    The mean over several ranks has given them zeros, by which Adam's momentum would go on. `dense`: whether a dense
    task is known, else the layer before the decoders rests as well.
    """
    resting = [head_of(model, task) for task in absent]
    for part in resting if dense else [*resting, model.get_submodule("conv_map")]:
        for parameter in part.parameters():
            parameter.grad = None


class TaskRows(NamedTuple):
    """A task and the rows of a part of a step that know it."""

    task: str
    has: Tensor
    """float N of 0 and 1."""


def rows_by_task(part: dict[str, Tensor], tasks: Sequence[str], known: Sequence[str]) -> list[TaskRows]:
    """The tasks to learn that occur among the rows; `known` names the numbers in the part's `task`."""
    found = []
    for task in tasks:
        name = instance_task(task)
        if name not in known:
            continue
        has = part["task"] == known.index(name)
        if task != name:
            has = has & part["types"].flatten(1).any(1)
        if has.any():
            found.append(TaskRows(task, has.float()))
    return found


def task_loss(rows: TaskRows, logits: Tensor, part: dict[str, Tensor], type_weights: Tensor) -> Tensor:
    """The mean loss of a task over the rows that know it."""
    if rows.task == PATCH:
        return patch_loss(logits, part["labels"].clamp(min=0), rows.has)
    if rows.task.endswith(TYPE):
        types = part["types"].long() * rows.has[:, None, None].long()
        return type_loss(logits, types, type_weights, rows.has)
    return instance_loss(logits, part["target"].long(), part["weights"], rows.has)


def counts_of(by_part: Sequence[Sequence[TaskRows]], tasks: Sequence[str], run: Run) -> dict[str, float]:
    """How many rows of the step know each task, over its parts and all ranks."""
    own = dict.fromkeys(tasks, 0.0)
    for rows in (each for part in by_part for each in part):
        own[rows.task] += float(rows.has.sum())
    return dict(zip(own, loop.total_over_ranks(list(own.values()), run.here, run.device), strict=True))


def task_step(
    parts: list[dict[str, Tensor]], network: Any, model: nn.Module, known: Sequence[str], config: Config,
    type_weights: Tensor, run: Run,
) -> dict[str, float]:  # fmt: skip
    """Gradients over all parts of a step; gives the loss of each task that occurs and their weighted sum, `total`.

    Decoders run on every row, so that batch norm sees all, and only where their task occurs: the others get no
    gradient and no step.
    """
    by_part = [rows_by_task(part, config.tasks, known) for part in parts]
    counts = counts_of(by_part, config.tasks, run)
    factors = TASK_WEIGHTS if config.task_weights == "authors" else {}
    sums = {task: 0.0 for task, count in counts.items() if count}
    for part, found in zip(parts, by_part, strict=True):
        if not found:
            continue
        with run.autocast():
            told = network(pictures_of(part), [rows.task for rows in found])
        total = next(iter(told.values())).new_zeros((), dtype=torch.float32)
        for rows in found:
            loss = task_loss(rows, told[rows.task].float(), part, type_weights)
            # Every row of the step counts the same, whichever part or rank it is in.
            share = loss * rows.has.sum() / counts[rows.task]
            sums[rows.task] += float(share.detach())
            total = total + factors.get(rows.task, 1.0) * share
        (total * run.here.world).backward()
    loop.mean_gradients(model, run.here)
    names = list(sums)
    leave_unlearnt(model, [task for task in config.tasks if task not in sums], any(name != PATCH for name in names))
    losses = dict(zip(names, loop.total_over_ranks([sums[name] for name in names], run.here, run.device), strict=True))
    whole = sum(factors.get(task, 1.0) * loss for task, loss in losses.items())
    return {**{f"loss/{task}": loss for task, loss in losses.items()}, "total": whole}


def step_flops(model: Cerberus, config: Config, data: CerberusData, run: Run) -> int:
    """Operations of a rank's part of a step with every dense task in it, averaged with steps of patches."""
    rows = config.batch // run.here.world
    unreal = copy.deepcopy(model).to("meta")
    dense = [task for task in config.tasks if task != PATCH]
    share = config.patch_share if PATCH in config.tasks and dense else float(not dense)

    def one(side: int, tasks: list[str]) -> None:
        told = unreal(torch.empty(2, 3, side, side, device="meta"), tasks)
        torch.stack([logits.mean() for logits in told.values()]).sum().backward()

    flops = (1 - share) * loop.count_flops(partial(one, config.side, dense)) if dense else 0.0
    if share:
        flops += share * loop.count_flops(partial(one, config.patch_side, [PATCH]))
    return int(rows * flops / 2)


def rate_at(step: int, config: Config) -> float:
    """Learning rate of `step` (0-based): linear warm-up, if any, then constant, a tenth of it from `drop_after` on."""
    if step < config.warm_up:
        return config.rate * (step + 1) / config.warm_up
    return config.rate * (RATE_DROP if step >= config.drop_after else 1.0)


def validate(
    network: dict[str, Any], average: loop.Average, data: CerberusData, config: Config, course: Course
) -> None:  # fmt: skip
    """Note panoptic quality of instances and balanced accuracy of classes with the averaged weights, and a picture."""
    model = Cerberus(CerberusConfig(**network))
    averaged(model, average.tensors, course.run)
    values, shown = look(model, data, config.tasks, config.side, course.run)
    course.write(values)
    course.show(shown, "picture, truth, told")


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    config = settled(config, here)
    run = script.open_run(config, Stage(), here)
    data = open_data(config, batch_settings(config, here))
    network = network_of(config, data)
    model, taken = start_model(config, network, run)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=config.rate)
    average = loop.Average(model, config.average)
    start = script.resumed(run, resume, model, average, optimizer)
    held_out = dataclasses.replace(config, validation=data.validation_names, test=data.test_names)
    script.write_network(run, held_out, "cerberus", "cerberus", network, data.source.classes)
    facts = {"parameters": parameter_count(model), "classes": data.source.classes, "taken": taken, **data.counts()}
    type_weights = torch.tensor(data.type_weights(config), device=run.device)
    runnable: Any = torch.compile(model) if config.compile else model

    with Course(config, run, start, step_flops(model, config, data, run), facts) as course:
        for step, parts in course.steps(data.source):
            rate = rate_at(step, config)
            script.set_rate(optimizer, rate)
            optimizer.zero_grad()
            terms = task_step(parts, runnable, model, data.source.tasks, config, type_weights, run)
            course.check(loss=terms["total"], gradient=script.cut_gradients(model, config.clip))
            optimizer.step()
            average.update(model, step)
            course.note({**terms, "rate": rate})
            if course.validates:
                validate(network, average, data, config, course)
            course.save(model, average, optimizer)
    return facts | course.last


def main(argv: list[str] | None = None) -> int:
    """Command line; see `loop.run_script`."""
    return loop.run_script("cerberus", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
