"""Segmentation from few pixel labels and many picture labels: `esp-psp` in alternating steps (paper B).

Minutes on a CPU:        python -m train.semi_supervised --config train/configs/semi_tiny.toml
The paper's settings:    python -m train.semi_supervised --config train/configs/semi_paper.toml --set data=CAMELYON16
Segmentation alone:      ... --set tasks=S --set pixel_share=0.1
Several GPUs:            torchrun --nproc-per-node 4 -m train.semi_supervised ...
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train import command, loop, script
from train.course import Course
from train.pixel_watching import PixelWatcher
from train.script import Run, as_rgb, on_device
from train.semi_config import CLASSIFICATION, RECIPES, SEGMENTATION, TASKS, Config, Task, settled
from train.watching import averaged
from wsi_ml.data.batches import NO_CLASS
from wsi_ml.data.label_fraction import labelled_part
from wsi_ml.data.pixel_batches import LabelledPicture, PictureBatches
from wsi_ml.data.segmentation_sets import PictureOptions, PictureSet, open_pictures
from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count
from wsi_ml.models.esp_psp import Told
from wsi_ml.models.weighted_entropy import dynamic_cross_entropy, fixed_cross_entropy

CONFIGS = Path(__file__).parent / "configs"
DECODERS = ("pyramids", "fuses", "told")
"""Parts of the networks that only the segmentation uses; a network has some of them."""
CLASSIFIERS = ("classifier", "fc")
FROZEN = {SEGMENTATION: CLASSIFIERS, CLASSIFICATION: DECODERS}
"""Parts that a task's update leaves as they are, to the last bit."""
POOLING = 4.0
"""Sharpness of the multiple-instance pooling: 0 is the mean of the pixels, infinity their maximum."""


def open_set(config: Config, *parts: str) -> PictureSet:
    """Parts of the pictures of a (settled) configuration; raises an error of one sentence when they are not there."""
    return open_pictures(
        config.source,
        PictureOptions(
            data=Path(config.data), side=config.side, seed=config.seed, classes=config.classes,
            validation=config.validation, test=config.test, slides=config.slides, present=config.present,
            scenes=config.scenes, slide_pictures=config.slide_pictures, mpp=config.mpp or None,
            halvings=config.halvings, parts=parts,
        ),
    )  # fmt: skip


def taught(config: Config, training: Sequence[LabelledPicture]) -> dict[Task, list[LabelledPicture]]:
    """The pictures that each task of the run learns from, by the label-fraction rule."""
    masked = [picture for picture in training if picture.mask is not None]
    if not masked:
        raise BadRequestError(f"The source {config.source} has no pixel labels to train on; join one that has.")
    kept, _ = labelled_part(masked, config.pixel_share, config.share_seed)
    pictures: dict[Task, list[LabelledPicture]] = {SEGMENTATION: kept}
    if CLASSIFICATION in TASKS[config.tasks]:
        used = {picture.name for picture in kept} if config.class_pictures == "others" else set()
        labelled = [each for each in training if each.label != NO_CLASS and each.name not in used]
        if not labelled:
            raise BadRequestError(
                f"The source {config.source} has no picture with a class beside those used for their pixels; set "
                "class_pictures=all or tasks=S."
            )
        pictures[CLASSIFICATION], _ = labelled_part(labelled, config.picture_share, config.share_seed)
    return pictures


def rarity(pictures: Sequence[LabelledPicture], task: Task, classes: int) -> list[float]:
    """Fixed weights: 1 / frequency of each class among the labels, scaled so that their mean over labels is 1."""
    known = [each.label if task == CLASSIFICATION else each.mask for each in pictures]
    found = np.concatenate([np.ravel(labels) for labels in known]).astype(np.int64)  # type: ignore[arg-type]
    counts = np.bincount(found[found != NO_CLASS], minlength=classes)
    there = counts > 0
    return np.where(there, counts.sum() / np.maximum(counts, 1) / there.sum(), 0.0).round(6).tolist()


class Instances(nn.Module):
    """Multiple-instance form of a network: a picture's class is told by its pixels, and the classifier is not used.

    Pixels' logits are pooled by log-mean-exp of sharpness POOLING (Pinheiro & Collobert 2015, equation 7).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor, task: str) -> Told:
        """N×3×H×W → pixels N×C×H×W and pictures N×C, whatever `task` asks for."""
        pixels = self.model(rgb, SEGMENTATION).pixels
        pooled = torch.logsumexp(POOLING * pixels.float().flatten(2), 2) - math.log(pixels[0, 0].numel())
        return Told(pixels, pooled / POOLING, None)


def of_method(model: nn.Module, method: str) -> nn.Module:
    """The network as a method runs it; the same weights."""
    return Instances(model) if method == "mil" else model


def turns(config: Config, step: int) -> tuple[tuple[Task, ...], ...]:
    """The updates of a step in their order, each with the tasks whose gradients it adds up."""
    if config.tasks == "S":
        return ((SEGMENTATION,),)
    if config.method == "transfer":
        # What the pictures' classes have taught the encoder is where the segmentation starts.
        return ((CLASSIFICATION,),) if step < config.steps // 2 else ((SEGMENTATION,),)
    return (TASKS["S+C"],) if config.method == "together" else ((SEGMENTATION,), (CLASSIFICATION,))


@contextmanager
def learning(model: nn.Module, update: tuple[Task, ...], method: str = "alternating") -> Iterator[None]:
    """Inside, the parts that an update leaves alone have no gradients and their batch norm counts nothing."""
    left = CLASSIFIERS if method == "mil" else () if len(update) > 1 else FROZEN[update[0]]
    frozen = [part for name, part in model.named_children() if name in left]
    for part in frozen:
        part.requires_grad_(False).eval()
    try:
        yield
    finally:
        for part in frozen:
            part.requires_grad_(True).train()


def loss_of(logits: Tensor, target: Tensor, kind: str, config: Config, weights: Tensor) -> Tensor:
    """The mean loss over labelled places: by certainty, by class or plain."""
    if kind == "dwf":
        return dynamic_cross_entropy(logits, target, config.beta, config.form)
    return fixed_cross_entropy(logits, target, weights if kind == "fw" else None)


def task_step(
    parts: list[dict[str, Tensor]], task: Task, model: nn.Module, network: nn.Module, config: Config, weights: Tensor,
    run: Run,
) -> float:  # fmt: skip
    """Gradients of one task over all parts of a step; gives its loss, classification times α."""
    targets = [part["masks" if task == SEGMENTATION else "labels"] for part in parts]
    counts = [float((target != NO_CLASS).sum()) for target in targets]
    (places,) = loop.total_over_ranks([sum(counts)], run.here, run.device)
    kind, factor = (
        (config.segmentation_loss, 1.0) if task == SEGMENTATION else (config.classification_loss, config.alpha)
    )
    total = 0.0
    for part, target, count in zip(parts, targets, counts, strict=True):
        if not count:
            continue
        with run.autocast():
            told = network(as_rgb(part["stored"]), task)
        logits = told.pixels if task == SEGMENTATION else told.pictures
        loss = factor * loss_of(logits.float(), target, kind, config, weights) * (count / places)
        # Gradients are averaged over the ranks afterwards, the places are a sum over them.
        (loss * run.here.world).backward()
        total += float(loss.detach())
    loop.mean_gradients(model, run.here)
    return loop.total_over_ranks([total], run.here, run.device)[0]


def start_model(network: dict[str, Any], config: Config, run: Run) -> nn.Module:
    """A fresh network from the seed."""
    torch.manual_seed(config.seed)
    return on_device(build(config.architecture, **network), run.device)


def step_flops(model: nn.Module, config: Config, run: Run) -> int:
    """Operations of all updates of a step on one rank, counted without computing them."""
    unreal: Any = of_method(copy.deepcopy(model).to("meta"), config.method)
    rgb = torch.empty(2, 3, config.side, config.side, device="meta")

    def one() -> None:
        for task in (task for update in turns(config, config.steps) for task in update):
            told = unreal(rgb, task)
            (told.pixels if task == SEGMENTATION else told.pictures).mean().backward()

    return loop.count_flops(one) * config.batch // (2 * run.here.world)


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    config = settled(config, here)
    stage, tasks = RECIPES[config.preset].stage, TASKS[config.tasks]
    run = script.open_run(config, stage, here)
    found = open_set(config, "training", "validation")
    pictures = taught(config, found.training)
    part_size = config.batch // (here.world * config.accumulate)
    sources = [
        PictureBatches(pictures[task], part_size, config.seed + number, config.stain)
        for number, task in enumerate(tasks)
    ]
    config = script.with_steps(config, stage, max(script.epoch_steps(config, source, here) for source in sources))  # type: ignore[type-var]
    count = len(found.classes)
    network = {"classes": count, "picture_classes": count, "widths": list(map(int, config.widths))}
    model = start_model(network, config, run)
    weights = {task: class_weights(config, pictures[task], task, count) for task in tasks}
    fixed = {task: torch.tensor(weights[task], device=run.device) for task in tasks}
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate)
    average = loop.Average(model, config.average)
    start = script.resumed(run, resume, model, average, optimizer)
    script.write_network(
        run, config, "semi_supervised", config.architecture, network, found.classes, held_out=sorted(found.held_out)
    )
    watcher = PixelWatcher(spread(found.validation, config.validation_pictures), found.classes)
    facts = {
        "parameters": parameter_count(model), "classes": found.classes,
        "pictures": {task: len(pictures[task]) for task in tasks}, "class_weights": weights,
    }  # fmt: skip
    runnable: Any = of_method(model, config.method)
    runnable = torch.compile(runnable) if config.compile else runnable

    with Course(config, run, start, step_flops(model, config, run), facts) as course:
        for step, parts in course.steps(*sources):
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            script.set_rate(optimizer, rate)
            losses: dict[str, float] = {}
            # First the few pixel labels, then the picture labels through the network that this left behind.
            for update in turns(config, step):
                with learning(model, update, config.method):
                    optimizer.zero_grad()
                    for task in update:
                        first = tasks.index(task) * config.accumulate
                        mine, given = parts[first : first + config.accumulate], fixed[task]
                        losses[task] = task_step(mine, task, model, runnable, config, given, run)
                    course.check(**losses, gradient=script.cut_gradients(model, config.clip))
                    optimizer.step()
            average.update(model, step)
            course.note({**losses, "loss": sum(losses.values()), "rate": rate})
            if course.validates:
                told = of_method(averaged(build(config.architecture, **network), average.tensors, run), config.method)
                values, shown = watcher.look(told, run)
                course.write(values)
                course.show(shown, "picture, truth, told")
            course.save(model, average, optimizer)
    return facts | course.last


def class_weights(config: Config, pictures: Sequence[LabelledPicture], task: Task, classes: int) -> list[float]:
    """Weights of `fw`: what was told, else by rarity; raises BadRequestError for another number of them."""
    if not config.class_weights:
        return rarity(pictures, task, classes)
    if len(config.class_weights) != classes:
        raise BadRequestError(f"class_weights has {len(config.class_weights)} numbers for {classes} classes.")
    return [float(weight) for weight in config.class_weights]


def spread(pictures: Sequence[LabelledPicture], count: int) -> list[LabelledPicture]:
    """At most `count` pictures, evenly over a list, so that every set that was joined is among them."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int))
    return [pictures[place] for place in chosen.tolist()]


def main(argv: list[str] | None = None) -> int:
    """Command line; see `command.run_script`."""
    return command.run_script("semi_supervised", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
