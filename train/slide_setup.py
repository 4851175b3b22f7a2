"""What the stages of paper D share: keys, recipes, slides, networks of earlier runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from train import loop, script
from train.config import key
from train.presets import Stage
from train.script import PRESET_S, UNSET, RunConfig, as_rgb
from wsi_ml.data.patch_grid import ShareRules
from wsi_ml.data.patch_slides import Cutting, PatchSlide, SlideSplit, camelyon_slides, library_slides, split_names
from wsi_ml.data.slide_pictures import SHRINK
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.models.feature_unet import TakahamaUnet, TakahamaUnetConfig
from wsi_ml.models.googlenet import TakahamaExtractor, TakahamaExtractorConfig
from wsi_ml.models.losses import IMAGENET_DEVIATION, IMAGENET_MEAN

STAGES = ("extractor", "features", "segmentation", "end-to-end", "picture")
SOURCES = ("library", "camelyon")
CLASSES = ("Normal", "Tumour")
TUMOUR = 1
NEW_LAYERS = ("features", "fc")
"""Parts of the extractor that weights of elsewhere do not fill."""
FEATURES_OF = ("layer", "trunk")
RANDOM = "random"
"""In place of a file of weights: numbers drawn by the seed."""


@dataclass(frozen=True)
class Recipe:
    """Settings that a preset gives."""

    extractor: Stage
    segmentation: Stage
    end_to_end: Stage
    picture: Stage
    """One picture at once is the paper's (its table of costs); it tells no more of this row."""
    segmentation_rate: float
    """Of the segmentation network in the end-to-end stage; `end_to_end.rate` is the extractor's."""
    patch_side: int = 256
    crop: int = 224
    map_side: int = 32
    maps_of: str = "lump"
    balance: bool = False
    base: int = 64


def _constant(batch: int, epochs: int, rate: float) -> Stage:
    """The paper tells of no change of the rate: it stays."""
    return Stage(batch=batch, epochs=epochs, rate=rate, rate_end=rate, warm_up_epochs=0)


# Section 4.1 (Stomach) and 4.2 (CAMELYON) of the paper; `tiny` is ours and shows in minutes on a CPU that all learn.
RECIPES = {
    "paper": Recipe(
        _constant(128, 30, 1e-4), _constant(32, 50, 1e-4), _constant(1, 10, 1e-9), _constant(1, 50, 1e-4), 1e-7
    ),
    "camelyon": Recipe(
        _constant(128, 30, 1e-4), _constant(32, 50, 1e-4), _constant(1, 5, 1e-9), _constant(1, 50, 1e-4), 1e-7,
        map_side=512, maps_of="slide", balance=True,
    ),
    "tiny": Recipe(
        _constant(8, 4, 1e-3), _constant(2, 40, 2e-3), _constant(1, 1, 1e-7), _constant(1, 40, 1e-3), 1e-5,
        patch_side=40, crop=32, map_side=32, maps_of="slide", base=8,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Config(RunConfig):
    """Keys of the training; the meanings are printed by `--help`."""

    stage: str = key("extractor", f"one of {', '.join(STAGES)}: the first four in this order")
    preset: str = key("paper", "settings that the keys below do not name: paper (Stomach), camelyon or tiny (a CPU)")
    run: str = key("runs/multistage", "folder of this stage's run: state, journal, pictures; stage features: its files")
    source: str = key("library", "slides: library (polygons of a layer) or camelyon (TIFF with XML or masks)")
    data: str = key("../shared/data", "folder of the library or of CAMELYON16 or 17")
    layer: str = key("", "source library: name of the layer; empty: the newest truth or annotation of each slide")
    tumour: tuple[str, ...] = key(("Tumour",), "source library: classes that count as tumour")
    normal: tuple[str, ...] = key((), "source library: classes that count as normal; none named: all the rest")
    mpp: float = key(0.0, "µm/px of slides that state none; 0: such slides are refused")
    mask_tumour: int = key(2, "source camelyon: number of tumour in masks")
    mask_normal: int = key(1, "source camelyon: number of normal tissue in masks")
    tissue: str = key("saturation", "how tissue is found, by Otsu: saturation, grey, or all (everything is tissue)")
    tissue_share: float = key(0.8, "share of a patch that must be tissue, strictly")
    tumour_share: float = key(0.2, "share annotated as tumour that makes a tumour patch, strictly; looked at first")
    normal_share: float = key(0.8, "share annotated as normal that makes a normal patch, strictly")
    patch_side: int = key(PRESET_S, "side of a patch in stored pixels; 0: the preset's")
    crop: int = key(PRESET_S, "side of the square of it that is shown; 0: the preset's")
    balance: str = key("auto", "stage extractor: as many normal as tumour patches: yes, no, auto (the preset's)")
    map_side: int = key(PRESET_S, "side of a map in patches, a multiple of 16; 0: the preset's")
    maps_of: str = key("auto", "a map shows a slide or a lump of tissue; auto: the preset's")
    base: int = key(PRESET_S, "channels of the segmentation network's first level; 0: the preset's")
    style: str = key("torchvision", "trunk of the extractor: torchvision (batch norm) or caffe (as published)")
    dropout: float = key(0.0, "stage extractor: share of pooled features dropped")
    shrink: int = key(SHRINK, "stage picture: the slide is shown at one pixel for so many, squared")
    start: str = key("", "extractor: ImageNet's GoogLeNet (.safetensors), all but the last two layers; random: none")
    normalise: str = key("auto", "pictures by ImageNet's mean and deviation: imagenet, none, auto (with start only)")
    features_of: str = key("layer", "stage features: layer (16 learnt ones) or trunk (1024, as for ImageNet features)")
    extractor: str = key("", "stages features and end-to-end: run of the extractor")
    maps: str = key("", "stage segmentation: run of stage features")
    segmentation: str = key("", "stage end-to-end: run of the segmentation")
    epochs: int = key(PRESET_S, "epochs, where steps are not told; 0: the preset's")
    segmentation_rate: float = key(UNSET, "stage end-to-end: rate of the segmentation network; -1: the preset's")
    chunk: int = key(32, "patches of a slide that are computed at once: memory, not result")
    validation_patches: int = key(512, "labelled patches of the validation slides that the extractor is watched on")

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "stage": STAGES, "preset": tuple(RECIPES), "source": SOURCES, "balance": ("auto", "yes", "no"),
            "maps_of": ("auto", "slide", "lump"), "normalise": ("auto", "imagenet", "none"),
            "features_of": FEATURES_OF,
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(allowed)}")
        if (
            min(self.chunk, self.shrink) < 1
            or self.map_side % 16
            or min(self.map_side, self.epochs, self.validation_patches) < 0
        ):
            raise ValueError("chunk and shrink are at least 1, map_side a multiple of 16, counts are not negative")
        if not all(0 <= share < 1 for share in (self.tissue_share, self.tumour_share, self.normal_share)):
            raise ValueError("shares lie between 0 and 1")

    @property
    def imagenet(self) -> bool:
        """Pictures are normalised as ImageNet's weights want it."""
        return self.normalise == "imagenet" or (self.normalise == "auto" and self.start not in ("", RANDOM))


def stage_of(config: Config) -> Stage:
    """The recipe of the stage that is run."""
    recipe = RECIPES[config.preset]
    stages = {"extractor": recipe.extractor, "segmentation": recipe.segmentation, "picture": recipe.picture}
    return stages.get(config.stage, recipe.end_to_end)


def settled(config: Config, here: loop.Ranks) -> Config:
    """The configuration with the preset's numbers in place of what was not told; steps are settled with the data."""
    recipe, stage = RECIPES[config.preset], stage_of(config)
    slides_a_step = here.world * config.accumulate
    whole = dataclasses.replace(
        config,
        # End to end a step is one slide of each rank; the paper updates after each.
        batch=slides_a_step if config.stage == "end-to-end" else config.batch or stage.batch,
        epochs=config.epochs or stage.epochs,
        rate=config.rate or stage.rate,
        rate_end=config.rate_end if config.rate_end >= 0 else config.rate or stage.rate_end,
        segmentation_rate=recipe.segmentation_rate if config.segmentation_rate < 0 else config.segmentation_rate,
        average=stage.average if config.average < 0 else config.average,
        warm_up=max(0, config.warm_up),
        patch_side=config.patch_side or recipe.patch_side,
        crop=config.crop or recipe.crop,
        map_side=config.map_side or recipe.map_side,
        maps_of=recipe.maps_of if config.maps_of == "auto" else config.maps_of,
        balance=("yes" if recipe.balance else "no") if config.balance == "auto" else config.balance,
        base=config.base or recipe.base,
    )
    if whole.batch % slides_a_step:
        raise ValueError(f"batch {whole.batch} is no multiple of ranks times accumulate, {slides_a_step}")
    return whole


def open_slides(config: Config) -> list[PatchSlide]:
    """All slides of a (settled) configuration as patches; raises an error of one sentence when they are not there."""
    rules = ShareRules(config.tissue_share, config.tumour_share, config.normal_share)
    cutting = Cutting(config.patch_side, rules, config.tissue)
    if config.source == "library":
        return library_slides(Path(config.data), config.layer, config.tumour, config.normal, cutting)
    return camelyon_slides(Path(config.data), cutting, config.mpp or None, config.mask_tumour, config.mask_normal)


def with_split(config: Config, names: list[str]) -> tuple[Config, SlideSplit]:
    """The split by patient, and the configuration that names its slides."""
    split = split_names(names, config.validation, config.test, config.seed)
    return dataclasses.replace(config, validation=split.validation, test=split.test), split


def prepared(stored: Tensor, imagenet: bool) -> Tensor:
    """N×H×W×3 uint8 → N×3×H×W float as the extractor takes it: 0…1, or by ImageNet's mean and deviation."""
    rgb = as_rgb(stored)
    if not imagenet:
        return rgb
    mean, deviation = (
        torch.tensor(each, device=rgb.device).reshape(1, 3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return (rgb - mean) / deviation


@dataclass(frozen=True)
class Networks:
    """The networks of a run and how their pictures are prepared."""

    extractor: TakahamaExtractor | None
    segmentation: TakahamaUnet | None
    imagenet: bool


def write_networks(
    run: script.Run, config: Config, extractor: TakahamaExtractor | None, segmentation: TakahamaUnet | None,
    imagenet: bool,
) -> None:  # fmt: skip
    """What a later stage must know to rebuild the networks of this run."""
    shapes = {
        name: dataclasses.asdict(network.config)
        for name, network in (("extractor", extractor), ("segmentation", segmentation))
        if network is not None
    }
    normalise = "imagenet" if imagenet else ""
    script.write_network(run, config, "multistage", f"takahama-{config.stage}", shapes, CLASSES, normalise)


def read_networks(folder: Path, stages: tuple[str, ...]) -> Networks:
    """The networks of a run of one of the stages; raises ModelUnavailableError where it is no such run."""
    try:
        facts: dict[str, Any] = json.loads((folder / script.NETWORK_FILE).read_text(encoding="utf-8"))
        found = facts["architecture"].removeprefix("takahama-")
        shapes, imagenet = facts["config"], facts["normalise"] == "imagenet"
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelUnavailableError(
            f"{folder.name or 'The empty name'} is no run of the stage {' or '.join(stages)}: "
            f"its {script.NETWORK_FILE} cannot be read."
        ) from error
    if found not in stages:
        raise ModelUnavailableError(f"{folder.name} is a run of {found}, not of {' or '.join(stages)}.")
    _, _, tensors = loop.read_state(folder)
    extractor, segmentation = None, None
    if "extractor" in shapes:
        extractor = TakahamaExtractor(TakahamaExtractorConfig(**shapes["extractor"]))
        extractor.load_state_dict(loop.part(tensors, "average"))
    if "segmentation" in shapes:
        segmentation = TakahamaUnet(TakahamaUnetConfig(**shapes["segmentation"]))
        name = "average" if extractor is None else "beside.model"
        segmentation.load_state_dict(loop.part(tensors, name))
    return Networks(extractor, segmentation, imagenet)


def keep_extractor(run: script.Run, config: Config, extractor: TakahamaExtractor, imagenet: bool) -> None:
    """Put the extractor that made features into their run, so that what is told from them can be told of new slides."""
    if not run.here.first:
        return
    tensors = {f"average.{name}": tensor.detach().cpu().contiguous() for name, tensor in extractor.state_dict().items()}
    metadata = {"step": "0", "config": json.dumps(dataclasses.asdict(config))}
    loop.write_atomic(run.folder / loop.STATE_FILE, safetensors.torch.save(tensors, metadata))
    write_networks(run, config, extractor, None, imagenet)


def without_classes(extractor: TakahamaExtractor) -> TakahamaExtractor:
    """The same network without its last layer, as the features and the end-to-end stage run it."""
    bare = TakahamaExtractor(dataclasses.replace(extractor.config, classes=0, dropout=0.0))
    bare.load_state_dict({name: each for name, each in extractor.state_dict().items() if not name.startswith("fc.")})
    return bare


def checksum(model: nn.Module) -> str:
    """Hex SHA-256 of the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def require(value: str, name: str, stage: str) -> Path:
    """The folder a key names; raises BadRequestError where the stage needs it and it is not told."""
    if not value:
        raise BadRequestError(f"The stage {stage} needs the key {name}: the folder of that run.")
    return Path(value)
