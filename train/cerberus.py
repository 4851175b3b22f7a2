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
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from train import command, loop, script
from train.cerberus_config import PRESETS, Config, batch_settings, settled
from train.cerberus_data import CerberusData, open_data
from train.cerberus_watching import look
from train.course import Course
from train.presets import Stage
from train.script import Run, as_rgb, on_device
from train.watching import averaged
from wsi_ml.data.task_batches import PATCH
from wsi_ml.data.task_pictures import TYPE, instance_task
from wsi_ml.errors import BadRequestError
from wsi_ml.models import parameter_count
from wsi_ml.models.cerberus import Cerberus, CerberusConfig
from wsi_ml.models.foreign import LoadReport, copy_partial, load_partial
from wsi_ml.models.task_losses import TASK_WEIGHTS, instance_loss, patch_loss, type_loss

RATE_DROP = 0.1


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


def held_out_by(config: Config, data: CerberusData) -> Config:
    """The configuration with the names of all that was held out, also by the run that new heads are put on."""
    before: list[str] = []
    if config.start_run:
        before = json.loads((Path(config.start_run) / script.NETWORK_FILE).read_text(encoding="utf-8"))["held_out"]
    test = tuple(dict.fromkeys((*data.test_names, *(name for name in before if name not in data.validation_names))))
    return dataclasses.replace(config, validation=data.validation_names, test=test)


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


def task_loss(
    rows: TaskRows, logits: Tensor, part: dict[str, Tensor], type_weights: Mapping[str, Tensor]
) -> Tensor:  # fmt: skip
    """The mean loss of a task over the rows that know it."""
    if rows.task == PATCH:
        return patch_loss(logits, part["labels"].clamp(min=0), rows.has)
    if rows.task.endswith(TYPE):
        types = part["types"].long() * rows.has[:, None, None].long()
        return type_loss(logits, types, type_weights[rows.task], rows.has)
    # Other rows may hold classes that this task does not have.
    target = part["target"].long() * rows.has[:, None, None].long()
    return instance_loss(logits, target, part["weights"], rows.has)


def counts_of(by_part: Sequence[Sequence[TaskRows]], tasks: Sequence[str], run: Run) -> dict[str, float]:
    """How many rows of the step know each task, over its parts and all ranks."""
    own = dict.fromkeys(tasks, 0.0)
    for rows in (each for part in by_part for each in part):
        own[rows.task] += float(rows.has.sum())
    return dict(zip(own, loop.total_over_ranks(list(own.values()), run.here, run.device), strict=True))


def task_step(
    parts: list[dict[str, Tensor]], network: Any, model: nn.Module, known: Sequence[str], config: Config,
    type_weights: Mapping[str, Tensor], run: Run,
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
    script.write_network(run, held_out_by(config, data), "cerberus", "cerberus", network, data.source.classes)
    facts = {"parameters": parameter_count(model), "classes": data.source.classes, "taken": taken, **data.counts()}
    type_weights = {
        task: torch.tensor(weights, device=run.device) for task, weights in data.type_weights(config).items()
    }  # fmt: skip
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
    """Command line; see `command.run_script`."""
    return command.run_script("cerberus", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
