"""Stage 2 of the joint system: super-resolution and tissue classes from one encoder, started from stage 1.

Minutes on a CPU:        python -m train.joint --set preset=tiny --set run=runs/try --set start_run=runs/try-gan
The paper's settings:    python -m train.joint --set source=msu --set data=PATH-DT-MSU --set start_run=runs/sr-gan
On the sets at hand:     python -m train.joint --set source=atlas+tissue-weak --set start_run=runs/sr-gan
Several GPUs:            torchrun --nproc-per-node 4 -m train.joint ...
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from train import command, loop, script
from train.config import key
from train.course import Course
from train.presets import Preset, Stage, preset
from train.script import PRESET_S, UNSET, Run, SharedConfig, as_rgb, on_device, read_network
from train.watching import Watcher, averaged
from wsi_ml.data.batches import NO_CLASS, BatchSource
from wsi_ml.data.mixed_batches import shares
from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count
from wsi_ml.models.foreign import LoadReport, copy_partial, load_partial
from wsi_ml.models.sr_joint import Mode, SrJoint, SrJointConfig

CONFIGS = Path(__file__).parent / "configs"
HEAD = "fc"
"""The part that knows the classes; everything else of another run or file fits, whatever its classes are."""
SHAPE_KEYS = ("channels", "growth", "blocks", "pixel_shuffle")


@dataclass(frozen=True)
class Config(SharedConfig):
    """Keys of the training; the meanings are printed by `--help`."""

    run: str = key("runs/joint", "folder of this run: state, journal, pictures, TensorBoard")
    source: str = key("atlas+tissue-weak", "as for stage 1; msu and library give both pictures and classes")
    start_run: str = key("", "run of stage 1 (or 2) to start from: all but the last layer, and its size")
    start: str = key("", "weights to start from (.safetensors), in place of a run")
    labelled_side: int = key(PRESET_S, "source a+b: side of b's patches, where it is another than a's; 0: the same")
    channels: int = key(PRESET_S, "channels of the shared features; 0: the start's, else the preset's")
    growth: int = key(PRESET_S, "channels each convolution of a dense block adds; 0: as above")
    blocks: int = key(PRESET_S, "residual-in-residual dense blocks; 0: as above")
    pixel_shuffle: bool = key(False, "enlarge by sub-pixel convolution, not as published; false: as the start")
    dropout: float = key(UNSET, "share of pooled features dropped before the last layer; -1: the preset's")
    smoothing: float = key(UNSET, "label smoothing; -1: the preset's")
    class_weight: float = key(1.0, "factor of the cross-entropy beside L1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start and self.start_run:
            raise ValueError("start and start_run cannot both be told")


def open_sources(config: Config, stage: Stage, here: loop.Ranks) -> list[BatchSource]:
    """What is trained on: one source, or two where their patches differ in size and so cannot lie in one batch.

    Classes want to see more of the tissue than pictures need to.
    """
    if "+" not in config.source or config.labelled_side in (PRESET_S, config.side):
        return [script.open_training(config, stage, here)]
    options = script.source_options(config, stage, here, "training")
    first, second = config.source.split("+", 1)
    pairs, labelled = shares(options.batch, config.labelled_share)
    return [
        script.open_source(first, dataclasses.replace(options, batch=pairs)),
        script.open_source(
            second,
            dataclasses.replace(
                options, batch=labelled, side=config.labelled_side, data=options.labelled_data or options.data
            ),
        ),
    ]


class Counts(NamedTuple):
    """Rows of a step, over its parts and all ranks, that a loss is the mean of."""

    pictures: float
    labels: float


def network_of(config: Config, chosen: Preset, classes: int) -> dict[str, Any]:
    """Arguments of the network: what was told, else what the start has, else the preset's."""
    shape = {name: getattr(chosen, name) for name in SHAPE_KEYS if hasattr(chosen, name)}
    if config.start_run:
        shape |= {name: value for name, value in read_network(Path(config.start_run)).items() if name in SHAPE_KEYS}
    shape |= {name: getattr(config, name) for name in SHAPE_KEYS if getattr(config, name)}
    return {**shape, "classes": classes, "dropout": config.dropout}


def start_model(config: Config, network: dict[str, Any], run: Run) -> tuple[SrJoint, str]:
    """The network from the seed, from stage 1 or from a file, and the report of what was taken over."""
    torch.manual_seed(config.seed)
    model = SrJoint(SrJointConfig(**network))
    report: LoadReport | None = None
    if config.start_run:
        _, _, tensors = loop.read_state(Path(config.start_run))
        averages = loop.part(tensors, "average")
        report = copy_partial(model, averages, Path(config.start_run).name, _other_head(model, averages))
    elif config.start:
        report = load_partial(model, Path(config.start), (HEAD,))
    on_device(model, run.device)
    return model, report.text() if report else "nothing"


def _other_head(model: nn.Module, tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """The last layer is left out where it is for other classes."""
    name = f"{HEAD}.weight"
    same = name not in tensors or tensors[name].shape == model.state_dict()[name].shape
    return () if same else (HEAD,)


def counts_of(parts: list[dict[str, Tensor]], run: Run) -> Counts:
    """Rows with a ×40 picture and rows with a class."""
    pictures = sum(int(part["has_base"].sum()) for part in parts)
    labels = sum(int((part["labels"] != NO_CLASS).sum()) for part in parts)
    return Counts(*loop.total_over_ranks([float(pictures), float(labels)], run.here, run.device))


def forward(model: SrJoint, part: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of the rows with a class and pictures of the rows with a ×40 picture, in their order.

    Each branch runs on its own rows only: what a row is not judged by costs nothing, and the classifier's batch norm
    sees labelled patches alone. Where every row has both, this is the network's own call.
    """
    features = model.encode(as_rgb(part["stored"]))
    labelled, pictured = features[part["labels"] != NO_CLASS], features[part["has_base"]]
    # Batch norm takes no empty batch.
    logits = model.classify(labelled) if len(labelled) else features.new_zeros((0, model.config.classes))
    return logits, model.decode(pictured) if len(pictured) else features.new_zeros(())


def joint_terms(
    logits: Tensor, made: Tensor, part: dict[str, Tensor], counts: Counts, class_weight: float, smoothing: float
) -> dict[str, Tensor]:
    """`l1`, `cross_entropy` (weighted) and their sum `total`: a part's share of the means over all rows of the step."""
    base, labels = as_rgb(part["base"][part["has_base"]]), part["labels"][part["labels"] != NO_CLASS]
    terms = {"l1": made.new_zeros(()), "cross_entropy": made.new_zeros(())}
    if len(base):
        terms["l1"] = (made - base).abs().mean(dim=(1, 2, 3)).sum() / counts.pictures
    if len(labels):
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
        terms["cross_entropy"] = class_weight * loss / counts.labels
    return {**terms, "total": terms["l1"] + terms["cross_entropy"]}


class Runnable(nn.Module):
    """The joint network as one call over a part of a step, so that it can be compiled whole."""

    def __init__(self, model: SrJoint):
        super().__init__()
        self.model = model

    def forward(self, part: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See `forward` of the file."""
        return forward(self.model, part)


def joint_step(
    parts: list[dict[str, Tensor]], model: nn.Module, network: nn.Module, config: Config, run: Run
) -> dict[str, float]:
    """Gradients over all parts of a step; gives the terms of the whole step."""
    counts = counts_of(parts, run)
    sums = {"l1": 0.0, "cross_entropy": 0.0, "total": 0.0}
    for part in parts:
        with run.autocast():
            logits, made = network(part)
        terms = joint_terms(logits.float(), made.float(), part, counts, config.class_weight, config.smoothing)
        # Gradients are averaged over the ranks afterwards, the counts are sums over them.
        if terms["total"].requires_grad:
            (terms["total"] * run.here.world).backward()
        for name, term in terms.items():
            sums[name] += float(term.detach())
    loop.mean_gradients(model, run.here)
    return dict(zip(sums, loop.total_over_ranks(list(sums.values()), run.here, run.device), strict=True))


def step_flops(model: nn.Module, config: Config, run: Run) -> int:
    """Operations of a rank's part of a step, counted without computing them; branches run on their own rows."""
    rows = config.batch // run.here.world
    kinds: list[tuple[int, int, Mode]] = [(rows, config.side, "both")]
    if "+" in config.source:
        pairs, labelled = shares(rows, config.labelled_share)
        kinds = [(pairs, config.side, "sr"), (labelled, config.labelled_side or config.side, "cl")]
    unreal = copy.deepcopy(model).to("meta")

    def one(side: int, mode: Mode) -> None:
        made = unreal(torch.empty(2, 3, side, side, device="meta"), mode)
        results = made if isinstance(made, tuple) else (made,)
        torch.stack([result.mean() for result in results]).sum().backward()

    return sum(rows * loop.count_flops(partial(one, side, mode)) // 2 for rows, side, mode in kinds)


def validate(network: dict[str, Any], average: loop.Average, watcher: Watcher, course: Course) -> None:
    """Note gains over bicubic and balanced accuracy with the averaged weights, and one picture."""
    model = averaged(build("sr-joint", **network), average.tensors, course.run)
    values, shown = watcher.look_at_pictures(lambda rgb: model(rgb, "sr"), course.run)
    course.write(values | watcher.look_at_classes(lambda rgb: model(rgb, "cl"), course.run))
    course.show(shown)


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    chosen = preset(config.preset)
    stage = chosen.stage_two
    config = settled(script.settled(config, stage, here))
    run = script.open_run(config, stage, here)
    sources = open_sources(config, stage, here)
    source = sources[-1]
    if not source.classes:
        raise BadRequestError(f"The source {config.source} has no classes; join one that has: atlas+tissue-weak.")
    config = script.with_steps(config, stage, script.epoch_steps(config, source, here))
    network = network_of(config, chosen, len(source.classes))
    model, taken = start_model(config, network, run)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate)
    watcher = Watcher.open(script.open_validation(config, stage, source.classes), config.validation_batches)
    average = loop.Average(model, config.average)
    start = script.resumed(run, resume, model, average, optimizer)
    script.write_network(run, config, "joint", "sr-joint", network, source.classes)
    facts = {"parameters": parameter_count(model), "classes": source.classes, "taken": taken}
    runnable: Any = Runnable(model)
    runnable = torch.compile(runnable) if config.compile else runnable

    with Course(config, run, start, step_flops(model, config, run), facts) as course:
        for step, parts in course.steps(*sources):
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            script.set_rate(optimizer, rate)
            optimizer.zero_grad()
            terms = joint_step(parts, model, runnable, config, run)
            course.check(loss=terms["total"], gradient=script.cut_gradients(model, config.clip))
            optimizer.step()
            average.update(model, step)
            course.note({**terms, "rate": rate})
            if course.validates:
                validate(network, average, watcher, course)
            course.save(model, average, optimizer)
    return facts | course.last


def settled(config: Config) -> Config:
    """The preset's dropout and smoothing in place of what was not told."""
    stage = preset(config.preset).stage_two
    return dataclasses.replace(
        config,
        dropout=stage.dropout if config.dropout < 0 else config.dropout,
        smoothing=stage.smoothing if config.smoothing < 0 else config.smoothing,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; see `command.run_script`."""
    return command.run_script("joint", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
