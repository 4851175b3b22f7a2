"""What the scripts that train on patch batches share: keys, data, the schedule, a run's folder, the command line.

The loops themselves are in `sr_gan`, `joint` and `classifier`, each to be read from top to bottom.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor, nn

from train import loop
from train.config import PUBLISH, key
from train.presets import Stage, preset
from wsi_ml.data.batch_dataset import batch_loader
from wsi_ml.data.batches import BatchSource, FiniteSource, RowSource
from wsi_ml.data.sources import SourceOptions, open_source
from wsi_ml.data.tissue import TEST_SLIDES
from wsi_ml.errors import ModelUnavailableError

NETWORK_FILE = "network.json"
VALIDATION_BATCH = 8
ATLAS_VALIDATION = ("hacettepe-com-case-12", "EAS22")
ATLAS_TEST = ("BS12", "lung-squamous-cell-carcinoma", "ectopic-pancreas")
"""The split of docs/training.md, fixed before any score was seen."""
PRESET_S = 0
"""Value of a number that means: as the preset has it."""
UNSET = -1.0
"""The same for a number that may be 0."""


@dataclass(frozen=True)
class RunConfig:
    """Keys that say how a run goes on, whatever it learns; the meanings are printed by `--help`."""

    run: str = key("", "folder of this run: state, journal, pictures, TensorBoard")
    validation: tuple[str, ...] = key((), "slides or pictures for watching the run, not trained on")
    test: tuple[str, ...] = key((), "slides or pictures held out for the final scores, never read here")
    batch: int = key(PRESET_S, "patches a step over all ranks and accumulated parts; 0: the preset's")
    accumulate: int = key(1, "parts a rank's share of a batch is computed in, where memory is short")
    steps: int = key(PRESET_S, "optimizer steps of the whole run; 0: epochs times the steps of an epoch")
    warm_up: int = key(-1, "steps of linear warm-up; -1: the preset's epochs")
    rate: float = key(0.0, "top learning rate of Adam; 0: the preset's")
    rate_end: float = key(UNSET, "last learning rate of the cosine; -1: the preset's")
    clip: float = key(0.0, "largest norm of the gradient; 0: it is not cut")
    average: float = key(
        UNSET, "decay of the moving average of the weights, which is validated and shipped; 0: none; -1: the preset's"
    )
    seed: int = key(80, "seed of weights, batches and augmentation")
    precision: str = key("auto", "auto (bf16 where the preset wants it and the machine has it), bf16 or fp32")
    device: str = key("auto", "auto (GPU when there is one), cpu, cuda")
    threads: int = key(2, "CPU threads for the network")
    workers: int = key(0, "processes that make batches; 0: a thread of this one")
    compile: bool = key(False, "compile the network before the first step (GPU)")
    peak_tflops: float = key(0.0, "the machine's peak in TFLOP/s, for the journal's mfu; 0: not told, no mfu")
    row: str = key("", "row of the paper's tables that this run stands for; empty: the architecture")
    publish: str = key(*PUBLISH)
    log_every: int = key(50, "steps between lines of the journal")
    validate_every: int = key(1000, "steps between validations")
    save_every: int = key(500, "steps between saved states")

    def __post_init__(self) -> None:
        if set(self.test) & set(self.validation):
            raise ValueError("a slide is in both test and validation")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision {self.precision!r} is not auto, bf16 or fp32")
        if min(self.accumulate, self.log_every, self.validate_every, self.save_every) < 1:
            raise ValueError("accumulate and intervals are at least 1")
        if min(self.batch, self.steps, self.workers) < 0:
            raise ValueError("batch, steps and workers are not negative")
        if self.average >= 1.0:
            raise ValueError(f"average {self.average} is not below 1")


@dataclass(frozen=True)
class SharedConfig(RunConfig):
    """Keys of the scripts that train on patches with ×40 pictures or classes."""

    preset: str = key(
        "paper", "settings that the keys below do not name: paper, authors-code or tiny (minutes on a CPU)"
    )
    source: str = key("atlas", "what is trained on: atlas, tissue-weak, msu, library, slides, or two joined by +")
    data: str = key("../shared/data", "folder of the data; for library the library, for msu and slides the slides")
    validation: tuple[str, ...] = key(
        (), "slides for watching the run, not trained on; none named: those of docs/training.md for atlas"
    )
    test: tuple[str, ...] = key(
        (),
        "slides held out for the final scores, never read here; none named: docs/training.md's, atlas and tissue-weak",
    )
    classes: tuple[str, ...] = key((), "classes to tell, in the order of the network's output; none named: all found")
    class_chances: tuple[str, ...] = key((), "chance of each class, in that order; none named: the same for all")
    layer: str = key("", "source library: name of the layer with the annotations")
    pairs: str = key(
        "store", "ready slides: `store` reduces x40 as the store does, `levels` takes two levels of the file"
    )
    labelled_share: float = key(0.5, "source a+b: share of a batch that comes from b")
    coefficient: float = key(0.3, "regions by size: -1 prefers small ones, 0 all alike, 1 by area")
    intersection: float = key(0.7, "share of a labelled patch that must lie in its region")
    labelled_data: str = key("", "source a+b: folder of b's data, where it is another than a's")
    mpp: float = key(0.0, "µm/px of slides that state none; 0: such slides are refused")
    blur: float = key(UNSET, "chance that the x20 patch is blurred; -1: the preset's, which is one half for the paper")
    stain: bool = key(True, "atlas and tissue-weak: stains, sizes and light are varied, beyond what the preset says")
    scan_tiles: int = key(150, "source atlas: tissue tiles cut from each whole x40 scan, besides the ready tiles")
    side: int = key(PRESET_S, "side of a patch in stored pixels; 0: the preset's")
    epochs: int = key(PRESET_S, "epochs, where steps are not told; 0: the preset's")
    validation_batches: int = key(8, "batches of 8 patches of each validation source that are looked at")
    validation_side: int = key(224, "side of these patches in stored pixels")

    def __post_init__(self) -> None:
        preset(self.preset)
        super().__post_init__()
        if min(self.side, self.epochs) < 0:
            raise ValueError("side and epochs are not negative")


ConfigType = TypeVar("ConfigType", bound=SharedConfig)


@dataclass(frozen=True)
class Run:
    """A run's place: folder, machine and rank."""

    folder: Path
    here: loop.Ranks
    device: torch.device
    bf16: bool

    def autocast(self) -> torch.autocast:
        """bf16 for layers that gain by it, where it is switched on."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def open_run(config: RunConfig, stage: Stage, here: loop.Ranks) -> Run:
    """Make the folder, choose device and precision, set threads."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    folder = Path(config.run)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    device = loop.pick_device(config.device, here.local)
    wanted = config.precision if stage.mixed_precision or config.precision != "auto" else "fp32"
    return Run(folder, here, device, loop.pick_bf16(wanted, device))


def settled(config: ConfigType, stage: Stage, here: loop.Ranks) -> ConfigType:
    """The configuration with the preset's numbers in place of what was not told; steps are settled with the data."""
    chosen = preset(config.preset)
    whole = dataclasses.replace(
        with_split(config),
        batch=config.batch or stage.batch,
        side=config.side or chosen.side,
        epochs=config.epochs or stage.epochs,
        rate=config.rate or stage.rate,
        average=stage.average if config.average < 0 else config.average,
        rate_end=stage.rate_end if config.rate_end < 0 else config.rate_end,
    )
    parts = here.world * config.accumulate
    if whole.batch % parts:
        raise ValueError(f"batch {whole.batch} is no multiple of ranks times accumulate, {parts}")
    return whole


def with_split(config: ConfigType) -> ConfigType:
    """The configuration with the split of the sets at hand, where no slides are named."""
    names = config.source.split("+")
    validation = ATLAS_VALIDATION if "atlas" in names else ()
    test = (ATLAS_TEST if "atlas" in names else ()) + (TEST_SLIDES if "tissue-weak" in names else ())
    return dataclasses.replace(config, validation=config.validation or validation, test=config.test or test)


def with_steps(config: ConfigType, stage: Stage, epoch_steps: int) -> ConfigType:
    """The configuration with steps and warm-up, where an epoch has so many steps."""
    return dataclasses.replace(
        config,
        steps=config.steps or config.epochs * epoch_steps,
        warm_up=stage.warm_up_epochs * epoch_steps if config.warm_up < 0 else config.warm_up,
    )


def source_options(config: SharedConfig, stage: Stage, here: loop.Ranks, part: str) -> SourceOptions:
    """How a part of the data is read; the patches of one rank's part of a step are one batch."""
    blur = stage.augmentation.blur if config.blur < 0 else config.blur
    augmentation = dataclasses.replace(stage.augmentation, blur=blur)
    return SourceOptions(
        data=Path(config.data),
        batch=config.batch // (here.world * config.accumulate),
        side=config.side,
        seed=config.seed,
        part=part,
        validation=config.validation,
        test=config.test,
        classes=config.classes,
        class_chances=tuple(float(chance) for chance in config.class_chances),
        labelled_share=config.labelled_share,
        coefficient=config.coefficient,
        intersection=config.intersection,
        pairs=config.pairs,
        layer=config.layer,
        labelled_data=Path(config.labelled_data) if config.labelled_data else None,
        mpp=config.mpp or None,
        stain=config.stain,
        scan_tiles=config.scan_tiles,
        augmentation=augmentation,
    )


def open_training(config: SharedConfig, stage: Stage, here: loop.Ranks) -> BatchSource:
    """The patches to train on; raises an error of one sentence when they are not there."""
    return open_source(config.source, source_options(config, stage, here, "training"))


def open_validation(config: SharedConfig, stage: Stage, classes: tuple[str, ...]) -> list[FiniteSource]:
    """The validation patches of each part of the source; none of a part for which no slide is named."""
    whole = dataclasses.replace(
        config, classes=classes, batch=VALIDATION_BATCH, accumulate=1, side=config.validation_side
    )  # fmt: skip
    options = source_options(whole, stage, loop.Ranks(0, 1, 0), "validation")
    # tissue-weak alone has a validation part without whole slides: other places of those trained on.
    sources = []
    for place, name in enumerate(config.source.split("+")):
        beside = options.labelled_data if place and options.labelled_data else options.data
        if config.validation or name == "tissue-weak":
            sources.append(open_source(name, dataclasses.replace(options, data=beside)))
    return sources  # type: ignore[return-value]


def epoch_steps(config: RunConfig, source: RowSource, here: loop.Ranks, most: int | None = None) -> int:
    """Steps of an epoch: the source's batches go to all ranks and parts of a step."""
    steps = max(1, len(source) // (here.world * config.accumulate))
    return steps if most is None else min(steps, most)


def parts_of_steps(
    config: RunConfig, sources: Sequence[RowSource], start: int, here: loop.Ranks, device: torch.device
) -> Iterator[list[dict[str, Tensor]]]:
    """For every step from `start` on, this rank's `accumulate` batches of each source on the device, read ahead."""
    turns = here.world * config.accumulate
    # Part p of step s on rank r is batch (s·parts + p)·ranks + r, whatever the workers: nothing twice, nothing lost.
    indexes = range(start * turns + here.rank, config.steps * turns, here.world)
    pin = device.type == "cuda"
    loaders = [iter(batch_loader(source, indexes, config.workers, pin=pin)) for source in sources]

    def take() -> list[dict[str, Tensor]]:
        taken = [part for loader in loaders for part in islice(loader, config.accumulate)]
        return [{name: tensor.to(device, non_blocking=True) for name, tensor in part.items()} for part in taken]

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(take)
        for _ in range(start, config.steps):
            parts = coming.result()
            coming = pool.submit(take)
            yield parts


def as_rgb(pictures: Tensor) -> Tensor:
    """N×H×W×3 uint8 → N×3×H×W float 0…1 in channels-last memory."""
    return pictures.permute(0, 3, 1, 2).float().div_(255.0)


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, channels last."""
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def cut_gradients(model: nn.Module, largest: float) -> float:
    """Norm of all gradients before they are scaled down to `largest` (0: they are left as they are)."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if largest > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return float(norm)


def resumed(
    run: Run, resume: bool, model: nn.Module, average: loop.Average, optimizer: torch.optim.Optimizer,
    beside: loop.Trained | None = None,
) -> int:  # fmt: skip
    """Steps done before: those of the run's state, which is put back where it is wanted and there, else 0."""
    if not resume or not (run.folder / loop.STATE_FILE).is_file():
        return 0
    done, _, tensors = loop.read_state(run.folder)
    loop.restore(tensors, model, average, optimizer, beside)
    return done


def write_network(
    run: Run, config: RunConfig, script: str, architecture: str, network: dict[str, Any], classes: tuple[str, ...],
    normalise: str = "", picture: str = "stored", held_out: Sequence[str] = (),
) -> None:  # fmt: skip
    """What `train.evaluate` and the exports must know to rebuild and judge the network of a run."""
    if run.here.first:
        write_network_file(run.folder, config, script, architecture, network, classes, normalise, picture, held_out)


def write_network_file(
    folder: Path, config: Any, script: str, architecture: str, network: dict[str, Any], classes: tuple[str, ...],
    normalise: str = "", picture: str = "stored", held_out: Sequence[str] = (),
) -> None:  # fmt: skip
    """See `write_network`; `config` is any script's, of which seed, row and split are told.

    `held_out` are slides that the data itself holds out, besides those that keys name.
    """
    named = [*getattr(config, "validation", ()), *config.test]
    facts = {
        "script": script, "architecture": architecture, "config": network, "classes": list(classes),
        "weights": "average", "normalise": normalise, "input": picture, "seed": config.seed,
        "row": getattr(config, "row", "") or architecture,
        "held_out": list(dict.fromkeys([*named, *held_out])),
    }  # fmt: skip
    loop.write_atomic(folder / NETWORK_FILE, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())


def read_network(folder: Path) -> dict[str, Any]:
    """Arguments of the network of a run; raises ModelUnavailableError when the folder holds no run."""
    try:
        return json.loads((folder / NETWORK_FILE).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailableError(
            f"{folder.name} is no run to start from: its {NETWORK_FILE} cannot be read."
        ) from error
