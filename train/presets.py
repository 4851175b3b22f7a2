"""Settings of paper A's two stages, as data: `paper` (Sun, Khvostikov et al. 2024), `authors-code` (their program) and
`tiny` (ours, for a CPU and the tests).

The two differ where the program differs from the paper and nowhere else. What the paper leaves open is taken from the
program in both: length of the warm-up, last rate, steps of an epoch, angle and chance of the augmentations.
docs/networks.md has the table; a test holds the differences.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from wsi_ml.errors import BadRequestError
from wsi_ml.models.losses import LABEL_SMOOTHING, StageOneWeights

RATE_BATCH = 256
"""The program's rates are given for a batch of 256 and scaled by batch / 256."""


@dataclass(frozen=True)
class Augmentation:
    """Geometry is shared by the ×20 and the ×40 picture; colour is never changed."""

    flip_horizontal: float = 0.5
    """Chance of a mirror image, left for right."""
    flip_vertical: float = 0.5
    """Chance of a mirror image, top for bottom."""
    rotate: float = 0.5
    """Chance of a turn."""
    rotate_degrees: float = 30.0
    """Largest turn to either side."""
    shift: float = 0.0
    """Largest shift that comes with a turn, as a share of the side."""
    zoom: float = 0.0
    """Largest change of size that comes with a turn, as a share."""
    blur: float = 0.5
    """Chance of blur."""
    blur_kind: str = "gaussian"
    """`gaussian` or `box`."""
    blur_side: int = 7
    """Largest side of the blur's kernel in pixels."""
    blur_truth: bool = False
    """Blur the ×40 picture too, so that the network learns to give blurred pictures for blurred ones."""


@dataclass(frozen=True)
class Stage:
    """What both stages have."""

    batch: int = 32
    """×20 patches a step, over all ranks."""
    epochs: int = 50
    """Passes; an epoch is what the data says."""
    rate: float = 1e-3
    """Top learning rate of Adam (default betas, no weight decay), reached after the warm-up."""
    rate_end: float = 1e-6
    """Last learning rate of the half cosine; the program's first stage starts below it and rises."""
    warm_up_epochs: int = 3
    """Epochs over which the rate grows linearly from 0, step by step."""
    dropout: float = 0.25
    """Share of pooled features dropped before the classifier's last layer."""
    classes: int = 5
    """Classes of the classifier."""
    average: float = 0.0
    """Decay of a moving average of the weights; neither the paper nor the program has one."""
    mixed_precision: bool = True
    """Computing in half the precision where the machine has it."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How patches are varied."""


@dataclass(frozen=True)
class StageOne(Stage):
    """The auxiliary generator against the discriminator; the generator's step comes first."""

    weights: StageOneWeights = field(default_factory=StageOneWeights)
    """Factors of L1, perceptual and adversarial loss."""
    steps_per_epoch: int = 2000
    """Most steps an epoch."""
    discriminator_optimizer: str = "adam"
    """`adam` (no weight decay) or `adamw` (0.01)."""
    discriminator_rate: float = 1e-3
    """Its top learning rate."""
    discriminator_constant: bool = False
    """Its rate neither warms up nor falls."""
    start: str = ""
    """Weights of generator and discriminator to start from: none, or `realesrgan-x2plus` (first 15 of 23 blocks)."""


@dataclass(frozen=True)
class StageTwo(Stage):
    """The joint network, from the first stage's encoder and decoder; the loss is L1 + cross-entropy, unweighted."""

    smoothing: float = LABEL_SMOOTHING
    """Label smoothing of the cross-entropy."""


@dataclass(frozen=True)
class Preset:
    """Both stages of the training, and the size of what is trained."""

    name: str
    stage_one: StageOne
    stage_two: StageTwo
    channels: int = 64
    """Of the shared features."""
    growth: int = 32
    """Of a dense block."""
    blocks: int = 15
    """Residual-in-residual dense blocks of the generator and of the joint network."""
    discriminator_channels: int = 64
    """Of the discriminator at full size."""
    side: int = 224
    """Side of a ×20 patch in stored pixels."""


def scaled_rate(base: float, batch: int) -> float:
    """The program's learning rate for a batch."""
    return base * batch / RATE_BATCH


PAPER = Preset("paper", StageOne(), StageTwo())

AUTHORS_CODE = Preset(
    "authors-code",
    StageOne(
        batch=16,
        epochs=100,
        rate=scaled_rate(1e-5, 16),
        dropout=0.2,
        classes=6,
        weights=StageOneWeights(l1=1.0, perceptual=1.0, adversarial=0.1),
        discriminator_optimizer="adamw",
        discriminator_rate=1e-5 / 4,
        discriminator_constant=True,
        start="realesrgan-x2plus",
        augmentation=Augmentation(flip_vertical=0.0, blur=0.0),
    ),
    StageTwo(
        rate=scaled_rate(1e-4, 32),
        dropout=0.5,
        augmentation=Augmentation(rotate_degrees=45.0, shift=0.0625, zoom=0.1, blur_kind="box", blur_truth=True),
    ),
)

# Not of the paper: it shows in minutes on a CPU that both stages learn. No perceptual term, as it needs a file; the
# adversarial one is small, since so small a generator under so short a training would otherwise not beat bicubic.
_TINY_CHANGES = Augmentation(rotate=0.0, blur=0.0)
TINY = Preset(
    "tiny",
    StageOne(
        batch=8,
        epochs=8,
        rate=2e-3,
        warm_up_epochs=1,
        average=0.99,
        weights=StageOneWeights(l1=1.0, perceptual=0.0, adversarial=1e-3),
        steps_per_epoch=100,
        augmentation=_TINY_CHANGES,
    ),
    StageTwo(batch=8, epochs=8, rate=2e-3, warm_up_epochs=1, dropout=0.0, average=0.99, augmentation=_TINY_CHANGES),
    channels=16,
    growth=8,
    blocks=1,
    discriminator_channels=8,
    side=32,
)

PRESETS = {preset.name: preset for preset in (PAPER, AUTHORS_CODE, TINY)}


def preset(name: str = "paper") -> Preset:
    """A preset by name; raises BadRequestError for an unknown one."""
    if name not in PRESETS:
        raise BadRequestError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


def differences(one: Preset, other: Preset) -> dict[str, tuple[object, object]]:
    """`stage_one.weights.l1` → the two values, for every setting in which two presets differ; names are left out."""
    first, second = _flat("", dataclasses.asdict(one)), _flat("", dataclasses.asdict(other))
    return {key: (first[key], second[key]) for key in first if key != "name" and first[key] != second[key]}


def _flat(prefix: str, values: dict[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(f"{prefix}{key}.", value) if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@dataclass(frozen=True)
class Baseline:
    """Reference settings of the generators of Table 2, from BasicSR; Adam, rate halved at each milestone."""

    architecture: str
    taps: str = "conv5_4"
    """Layer of VGG-19 whose L1 is the perceptual loss."""
    weights: StageOneWeights = field(default_factory=lambda: StageOneWeights(l1=0.01, perceptual=1.0, adversarial=5e-3))
    """Factors of L1, perceptual and adversarial loss."""
    relativistic: bool = False
    """Relativistic average adversarial loss in place of the plain one."""
    discriminator: str = "vgg-discriminator"
    batch: int = 16
    truth_side: int = 128
    """Side of the ×40 patch in pixels."""
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    steps: int = 400_000
    milestones: tuple[int, ...] = (50_000, 100_000, 200_000, 300_000)
    """Steps at which the rate is halved."""
    average: float = 0.999
    """Decay of the moving average of the generator's weights."""


BASELINES = {
    "srgan": Baseline("srresnet"),
    "esrgan": Baseline("esrgan", relativistic=True),
}
