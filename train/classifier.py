"""Classifiers of single patches in the frame of the joint system: the rows of paper A's Table 1.

Minutes on a CPU:         python -m train.classifier --set preset=tiny --set architecture=mobilenet --set run=runs/try
ResNet-50 on x20:         python -m train.classifier --set source=msu --set data=PATH-DT-MSU --set run=runs/resnet50
ResNet-50 on x40:         python -m train.classifier --set picture=base --set row=resnet50-x40 ...
The joint network alone:  python -m train.classifier --set architecture=sr-joint ...
From ImageNet's weights:  python -m train.classifier --set start=resnet50.safetensors ...    (see train.convert)
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from train import command, loop, script
from train.config import key
from train.course import Course
from train.presets import preset
from train.script import PRESET_S, UNSET, Run, SharedConfig, as_rgb, on_device
from train.watching import Watcher, averaged
from wsi_ml.data.batches import NO_CLASS
from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count
from wsi_ml.models.foreign import load_partial
from wsi_ml.models.losses import IMAGENET_DEVIATION, IMAGENET_MEAN

JOINT = "sr-joint"
LAST_LAYERS = {
    "resnet50": "fc", "densenet121": "classifier", "efficientnet": "classifier", "mobilenet": "classifier", JOINT: "fc",
}  # fmt: skip
"""Architecture → the part that knows the classes, which weights of elsewhere do not fill."""
PICTURES = ("stored", "base")
NORMALISATIONS = ("auto", "none", "imagenet")


@dataclass(frozen=True)
class Config(SharedConfig):
    """Keys of the training; the meanings are printed by `--help`."""

    run: str = key("runs/classifier", "folder of this run: state, journal, TensorBoard")
    source: str = key("tissue-weak", "patches with classes: tissue-weak, msu or library")
    architecture: str = key("resnet50", f"one of {', '.join(LAST_LAYERS)}")
    picture: str = key("stored", "what is shown to it: stored (x20) or base (x40, where the source has it)")
    start: str = key("", "weights to start from (.safetensors), all but the last layer")
    normalise: str = key("auto", "pictures by ImageNet's mean and deviation: imagenet, none, auto (with start only)")
    channels: int = key(PRESET_S, "sr-joint: channels of the shared features; 0: the preset's")
    growth: int = key(PRESET_S, "sr-joint: channels each convolution of a dense block adds; 0: the preset's")
    blocks: int = key(PRESET_S, "sr-joint: residual-in-residual dense blocks; 0: the preset's")
    dropout: float = key(UNSET, "share of pooled features dropped before the last layer; -1: the preset's")
    smoothing: float = key(UNSET, "label smoothing; -1: the preset's")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (
            ("architecture", tuple(LAST_LAYERS)),
            ("picture", PICTURES),
            ("normalise", NORMALISATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(allowed)}")

    @property
    def imagenet(self) -> bool:
        """Pictures are normalised as ImageNet's weights want it."""
        return self.normalise == "imagenet" or (self.normalise == "auto" and bool(self.start))


class Classifier(nn.Module):
    """A network of `wsi_ml.models` as one call: N×3×H×W RGB 0…1 → N×classes logits."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, joint: bool, imagenet: bool):
        super().__init__()
        self.network, self.joint, self.imagenet = network, joint, imagenet
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        if self.imagenet:
            rgb = (rgb - self.mean) / self.deviation
        return self.network(rgb, "cl") if self.joint else self.network(rgb)


def network_of(config: Config, classes: int) -> dict[str, Any]:
    """Arguments of the network."""
    arguments: dict[str, Any] = {"classes": classes, "dropout": config.dropout}
    if config.architecture == JOINT:
        chosen = preset(config.preset)
        shape = {name: getattr(config, name) or getattr(chosen, name) for name in ("channels", "growth", "blocks")}
        return {**shape, **arguments}
    return arguments


def start_model(config: Config, network: dict[str, Any], run: Run) -> tuple[Classifier, str]:
    """The network from the seed or a file, and the report of what was taken over."""
    torch.manual_seed(config.seed)
    model = build(config.architecture, **network)
    taken = "nothing"
    if config.start:
        taken = load_partial(model, Path(config.start), (LAST_LAYERS[config.architecture],)).text()
    if config.architecture == JOINT:
        # The decoder takes no part: without this it would drift by nothing but count as trained.
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(("conv_up", "conv_hr", "conv_last")))
    return Classifier(on_device(model, run.device), config.architecture == JOINT, config.imagenet).to(run.device), taken


def class_step(
    parts: list[dict[str, Tensor]], model: Classifier, network: nn.Module, config: Config, run: Run
) -> float:
    """Gradients over all parts of a step; gives the label-smoothed cross-entropy of the whole step."""
    shown = [(part[config.picture], part["labels"]) for part in parts]
    rows = float(sum(int((labels != NO_CLASS).sum()) for _, labels in shown))
    (count,) = loop.total_over_ranks([rows], run.here, run.device)
    total = 0.0
    for pictures, labels in shown:
        known = labels != NO_CLASS
        with run.autocast():
            logits = network(as_rgb(pictures[known]))
        loss = functional.cross_entropy(
            logits.float(), labels[known], label_smoothing=config.smoothing, reduction="sum"
        )
        loss = loss / count
        (loss * run.here.world).backward()
        total += float(loss.detach())
    loop.mean_gradients(model, run.here)
    return loop.total_over_ranks([total], run.here, run.device)[0]


def step_flops(model: Classifier, config: Config, run: Run) -> int:
    """Operations of a step of one rank, counted without computing them."""
    unreal = copy.deepcopy(model).to("meta")
    side = config.side * (2 if config.picture == "base" else 1)
    rgb = torch.empty(2, 3, side, side, device="meta")
    return loop.count_flops(lambda: unreal(rgb).mean().backward()) * config.batch // (2 * run.here.world)


def settled(config: Config) -> Config:
    """The preset's dropout and smoothing in place of what was not told."""
    stage = preset(config.preset).stage_two
    return dataclasses.replace(
        config,
        dropout=stage.dropout if config.dropout < 0 else config.dropout,
        smoothing=stage.smoothing if config.smoothing < 0 else config.smoothing,
    )


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    stage = preset(config.preset).stage_two
    config = settled(script.settled(config, stage, here))
    run = script.open_run(config, stage, here)
    source = script.open_training(config, stage, here)
    if not source.classes:
        raise BadRequestError(f"The source {config.source} has no classes to learn; take tissue-weak, msu or library.")
    config = script.with_steps(config, stage, script.epoch_steps(config, source, here))
    network = network_of(config, len(source.classes))
    model, taken = start_model(config, network, run)
    inner = model.network
    optimizer = torch.optim.Adam([each for each in inner.parameters() if each.requires_grad], lr=config.rate)
    watcher = Watcher.open(script.open_validation(config, stage, source.classes), config.validation_batches)
    average = loop.Average(inner, config.average)
    start = script.resumed(run, resume, inner, average, optimizer)
    normalise = "imagenet" if config.imagenet else ""
    script.write_network(
        run, config, "classifier", config.architecture, network, source.classes, normalise, config.picture
    )
    facts = {"parameters": parameter_count(inner), "classes": source.classes, "taken": taken}
    runnable: Any = torch.compile(model) if config.compile else model

    with Course(config, run, start, step_flops(model, config, run), facts) as course:
        for step, parts in course.steps(source):
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            script.set_rate(optimizer, rate)
            optimizer.zero_grad()
            loss = class_step(parts, model, runnable, config, run)
            course.check(loss=loss, gradient=script.cut_gradients(inner, config.clip))
            optimizer.step()
            average.update(inner, step)
            course.note({"loss": loss, "rate": rate})
            if course.validates:
                fresh = averaged(build(config.architecture, **network), average.tensors, run)
                looking = Classifier(fresh, model.joint, model.imagenet).eval().to(run.device)
                course.write(watcher.look_at_classes(looking, run, from_base=config.picture == "base"))
            course.save(inner, average, optimizer)
    return facts | course.last


def main(argv: list[str] | None = None) -> int:
    """Command line; see `command.run_script`."""
    return command.run_script("classifier", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
