"""Keys and presets of `train.semi_supervised`; what each leaves open in paper B is said where it stands."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal

from train import loop
from train.config import key
from train.presets import Stage
from train.script import PRESET_S, RunConfig
from wsi_ml.models.weighted_entropy import BETA, FALLING, RISING

SEGMENTATION: Final = "segmentation"
CLASSIFICATION: Final = "classification"
Task = Literal["segmentation", "classification"]
TASKS: dict[str, tuple[Task, ...]] = {"S": (SEGMENTATION,), "S+C": (SEGMENTATION, CLASSIFICATION)}
LOSSES = ("dwf", "fw", "ce")
ARCHITECTURES = {"esp-psp": 8, "resnet18-multitask": 32}
"""Networks and what the side of a picture is a multiple of."""
METHODS = ("alternating", "transfer", "together", "mil")


@dataclass(frozen=True)
class Recipe:
    """Settings that a preset gives."""

    stage: Stage
    side: int
    widths: tuple[str, ...]


# The paper gives rate and batch; it says nothing of epochs, sides, widths or a change of the rate.
RECIPES = {
    "paper": Recipe(
        Stage(batch=8, epochs=50, rate=1e-4, rate_end=1e-4, warm_up_epochs=0), 256, ("64", "128", "256", "512")
    ),
    "tiny": Recipe(
        Stage(batch=8, epochs=10, rate=2e-3, rate_end=1e-4, warm_up_epochs=1), 64, ("8", "16", "24", "32")
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Config(RunConfig):
    """Keys of the training; the meanings are printed by `--help`."""

    preset: str = key("paper", "settings that the keys below do not name: paper or tiny (minutes on a CPU)")
    run: str = key("runs/semi", "folder of this run: state, journal, pictures, TensorBoard")
    source: str = key(
        "drawn", "pictures: drawn, nuclei, tissue-weak, folder, camelyon, or two joined by + (docs/training.md)"
    )
    data: str = key("../shared/data", "folder of the data; for folder and camelyon that layout itself")
    classes: tuple[str, ...] = key((), "source folder: names of the classes 0, 1 …; none named: Other and Target")
    slides: tuple[str, ...] = key((), "source folder: slides that are used; none named: all")
    tasks: str = key("S+C", "S (segmentation alone) or S+C (alternating steps)")
    architecture: str = key("esp-psp", "esp-psp (paper B) or resnet18-multitask, to compare it with")
    method: str = key(
        "alternating", "S+C: alternating (paper B), or to compare it with: transfer, together, mil (docs/training.md)"
    )
    pixel_share: float = key(1.0, "share of the pixel-labelled pictures whose labels are used; 0: one picture")
    picture_share: float = key(1.0, "share of the pictures whose class is used; 0: one picture")
    class_pictures: str = key("all", "pictures that teach classes: all, or others (those without pixel labels in use)")
    share_seed: int = key(5, "seed of the shuffle that the shares are taken from; shares of one seed are nested")
    segmentation_loss: str = key("dwf", "dwf (by certainty), fw (by class) or ce (plain cross-entropy)")
    classification_loss: str = key("dwf", "the same for pictures")
    beta: float = key(BETA, "exponent of the probability in dwf")
    form: str = key(FALLING, "weights of dwf: falling, or rising as printed")
    alpha: float = key(1.0, "factor of the classification loss")
    class_weights: tuple[str, ...] = key((), "fw: a weight for each class; none named: by rarity, mean 1 over labels")
    side: int = key(
        PRESET_S, "side of a picture in stored pixels, a multiple of 8 (resnet18-multitask: of 32); 0: the preset's"
    )
    epochs: int = key(PRESET_S, "epochs over the larger set of pictures, where steps are not told; 0: the preset's")
    widths: tuple[str, ...] = key((), "channels of the four levels; none named: the preset's")
    present: float = key(0.0, "share of its pixels above which a picture is of a class, where only pixels are labelled")
    halvings: int = key(0, "times that pictures are halved before they are cut to the side: 1 is ×10, 1 µm/px")
    stain: float = key(0.0, "the amount of each stain is multiplied by e^-stain to e^stain; 0: colours as they are")
    scenes: int = key(6, "source drawn: scenes to train on; one each is drawn for validation and test")
    slide_pictures: int = key(100, "source camelyon: pictures of tissue taken of each slide")
    mpp: float = key(0.0, "µm/px of slides that state none; 0: such slides are refused")
    validation_pictures: int = key(64, "held-out pictures that are looked at")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in RECIPES:
            raise ValueError(f"preset {self.preset!r} is not {' or '.join(RECIPES)}")
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is not {', '.join(METHODS)}")
        if self.tasks not in TASKS:
            raise ValueError(f"tasks {self.tasks!r} is not {' or '.join(TASKS)}")
        for name in (self.segmentation_loss, self.classification_loss):
            if name not in LOSSES:
                raise ValueError(f"loss {name!r} is not {', '.join(LOSSES)}")
        if self.class_pictures not in ("all", "others"):
            raise ValueError(f"class_pictures {self.class_pictures!r} is not all or others")
        if self.beta < 1 or self.form not in (FALLING, RISING):
            raise ValueError(f"beta is at least 1 and form {FALLING} or {RISING}, not {self.beta:g} and {self.form!r}")
        if not (0 <= self.pixel_share <= 1 and 0 <= self.picture_share <= 1 and 0 <= self.present < 1):
            raise ValueError("shares lie between 0 and 1")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture!r} is not {' or '.join(ARCHITECTURES)}")
        multiple = ARCHITECTURES[self.architecture]
        if min(self.alpha, self.stain, self.side) < 0 or self.side % multiple:
            raise ValueError(f"alpha and stain are not negative, side a multiple of {multiple}")
        if min(self.epochs, self.scenes, self.slide_pictures, self.validation_pictures, self.halvings) < 0:
            raise ValueError("epochs, scenes, halvings and counts of pictures are not negative")


def settled(config: Config, here: loop.Ranks) -> Config:
    """The configuration with the preset's numbers in place of what was not told; steps are settled with the data."""
    recipe = RECIPES[config.preset]
    stage = recipe.stage
    whole = dataclasses.replace(
        config,
        batch=config.batch or stage.batch,
        side=config.side or recipe.side,
        epochs=config.epochs or stage.epochs,
        widths=config.widths or recipe.widths,
        rate=config.rate or stage.rate,
        rate_end=stage.rate_end if config.rate_end < 0 else config.rate_end,
        average=stage.average if config.average < 0 else config.average,
    )
    parts = here.world * config.accumulate
    if whole.batch % parts or whole.batch // parts < 2:
        # The pooling to one cell leaves a batch norm one value a picture: of a single picture there is no variance.
        raise ValueError(f"batch {whole.batch} is no multiple, at least twofold, of ranks times accumulate, {parts}")
    return whole
