"""Stage 1 of the joint system: the auxiliary generator against a discriminator; and the rows of paper A's Table 2.

Minutes on a CPU:          python -m train.sr_gan --set preset=tiny --set run=runs/try
The paper's settings:      python -m train.sr_gan --set run=runs/sr-gan --set vgg=vgg19.safetensors
ESRGAN in the same frame:  python -m train.sr_gan --set baseline=esrgan --set vgg=vgg19.safetensors --set run=...
By L1 alone:               python -m train.sr_gan --set architecture=rrdb-plain --set adversarial=0 --set perceptual=0
Several GPUs:              torchrun --nproc-per-node 4 -m train.sr_gan ...
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from train import command, loop, script
from train.config import key
from train.course import Course
from train.presets import BASELINES, StageOne, preset
from train.script import PRESET_S, UNSET, Run, SharedConfig, as_rgb, on_device
from train.watching import Watcher, averaged
from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count
from wsi_ml.models.foreign import load_partial
from wsi_ml.models.losses import (
    PAPER_TAPS,
    Perceptual,
    StageOneWeights,
    discriminator_loss,
    open_perceptual,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    stage_one_loss,
)
from wsi_ml.models.rrdb import RrdbNet, start_as_bilinear

CONFIGS = Path(__file__).parent / "configs"
GENERATORS = ("sr-gan-generator", "srresnet", "msrresnet", "esrgan", "rrdb-plain")
DEFAULT_BETAS = (0.9, 0.999)
SHAPE_KEYS = ("channels", "growth", "blocks", "pixel_shuffle")


@dataclass(frozen=True)
class Config(SharedConfig):
    """Keys of the training; the meanings are printed by `--help`."""

    run: str = key("runs/sr-gan", "folder of this run: state, journal, pictures, TensorBoard")
    baseline: str = key("", "srgan or esrgan: that network with its reference settings in place of the preset's")
    architecture: str = key("", "generator: sr-gan-generator, srresnet, msrresnet, esrgan or rrdb-plain")
    channels: int = key(PRESET_S, "feature channels of the generator; 0: the preset's, or the architecture's own")
    growth: int = key(PRESET_S, "channels each convolution of a dense block adds; 0: as above")
    blocks: int = key(PRESET_S, "blocks of the generator; 0: as above")
    pixel_shuffle: bool = key(False, "enlarge by sub-pixel convolution, not as published: learns in far fewer steps")
    discriminator_channels: int = key(PRESET_S, "channels of the discriminator at full size; 0: the preset's")
    l1: float = key(UNSET, "factor of the L1 loss; -1: the preset's, as below")
    perceptual: float = key(UNSET, "factor of the perceptual loss; 0: without")
    adversarial: float = key(UNSET, "factor of the adversarial loss; 0: without a discriminator")
    vgg: str = key("", "weights of VGG-19 (.safetensors, see train.convert), for the perceptual loss")
    l1_steps: int = key(0, "first steps in which the generator learns by L1 alone and the discriminator rests")
    start: str = key(
        "",
        "what the generator starts from: weights (.safetensors); bilinear: that interpolation, with pixel_shuffle; "
        "none: at random, whatever the preset says",
    )
    start_discriminator: str = key("", "the same for the discriminator")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline not in ("", *BASELINES):
            raise ValueError(f"baseline {self.baseline!r} is none of {', '.join(BASELINES)}")
        if self.architecture not in ("", *GENERATORS):
            raise ValueError(f"architecture {self.architecture!r} is none of {', '.join(GENERATORS)}")


@dataclass(frozen=True)
class Recipe:
    """What preset or baseline and the keys come to."""

    stage: StageOne
    side: int
    """Of a patch in stored pixels."""
    architecture: str
    network: dict[str, Any]
    """Arguments of the generator."""
    discriminator: str
    judge: dict[str, int]
    """Arguments of the discriminator."""
    taps: Mapping[str, float]
    relativistic: bool = False
    betas: tuple[float, float] = DEFAULT_BETAS
    milestones: tuple[int, ...] = ()
    """Steps at which the rate is halved; none: a cosine."""
    steps: int = 0
    """Of the whole run; 0: epochs."""
    steps_per_epoch: int | None = None

    def rate(self, config: Config, step: int) -> float:
        """The generator's learning rate of a step (0-based)."""
        if self.milestones:
            return config.rate * 0.5 ** sum(step >= milestone for milestone in self.milestones)
        return loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)

    def judge_rate(self, config: Config, step: int) -> float:
        """The discriminator's: constant, or in proportion to the generator's."""
        if self.stage.discriminator_constant:
            return self.stage.discriminator_rate
        return self.rate(config, step) * self.stage.discriminator_rate / self.stage.rate


def recipe_of(config: Config) -> Recipe:
    """Preset or baseline with the keys that were told in place of its own."""
    chosen = preset(config.preset)
    stage, side = chosen.stage_one, config.side or chosen.side
    told = {name: getattr(config, name) for name in SHAPE_KEYS if getattr(config, name)}
    judge = {"channels": config.discriminator_channels or chosen.discriminator_channels}
    if not config.baseline:
        architecture = config.architecture or "sr-gan-generator"
        own = {"channels": chosen.channels, "growth": chosen.growth, "blocks": chosen.blocks}
        network = {**own, **told} if architecture == "sr-gan-generator" else told
        stage = dataclasses.replace(stage, weights=_weights(config, stage.weights))
        recipe = Recipe(stage, side, architecture, network, "unet-discriminator", judge, PAPER_TAPS)
        return dataclasses.replace(recipe, steps_per_epoch=stage.steps_per_epoch)
    base = BASELINES[config.baseline]
    stage = dataclasses.replace(
        stage, batch=base.batch, rate=base.rate, weights=_weights(config, base.weights), average=base.average,
        warm_up_epochs=0, discriminator_optimizer="adam", discriminator_rate=base.rate, discriminator_constant=False,
        start="",
    )  # fmt: skip
    side = config.side or base.truth_side // 2
    return Recipe(
        stage, side, config.architecture or base.architecture, told, base.discriminator, {**judge, "side": 2 * side},
        {base.taps: 1.0}, base.relativistic, base.betas, base.milestones, base.steps,
    )  # fmt: skip


def _weights(config: Config, weights: StageOneWeights) -> StageOneWeights:
    told = {name: getattr(config, name) for name in ("l1", "perceptual", "adversarial")}
    return dataclasses.replace(weights, **{name: value for name, value in told.items() if value >= 0})


@dataclass
class Networks:
    """Everything that is trained or judges."""

    generator: nn.Module
    optimizer: torch.optim.Optimizer
    judge: loop.Trained | None
    perceptual: Perceptual | None


def start_networks(config: Config, recipe: Recipe, run: Run) -> Networks:
    """Fresh networks from the seed, or from files; a missing file of VGG-19 ends it with a sentence."""
    torch.manual_seed(config.seed)
    weights = recipe.stage.weights
    generator = on_device(build(recipe.architecture, **recipe.network), run.device)
    _start(generator, config.start or recipe.stage.start, "start")
    perceptual = None
    if weights.perceptual > 0:
        perceptual = open_perceptual(Path(config.vgg) if config.vgg else None, recipe.taps).to(run.device)
    optimizer = torch.optim.Adam(generator.parameters(), lr=config.rate, betas=recipe.betas)
    judge = None
    if weights.adversarial > 0:
        discriminator = on_device(build(recipe.discriminator, **recipe.judge), run.device)
        _start(discriminator, config.start_discriminator or recipe.stage.start, "start_discriminator")
        kind = torch.optim.AdamW if recipe.stage.discriminator_optimizer == "adamw" else torch.optim.Adam
        judge = loop.Trained(discriminator, kind(discriminator.parameters(), lr=config.rate, betas=recipe.betas))
    return Networks(generator, optimizer, judge, perceptual)


def _start(model: nn.Module, file: str, name: str) -> None:
    if file in ("", "none"):
        return
    if file == "bilinear":
        if not isinstance(model, RrdbNet):
            raise BadRequestError(
                f"{name}=bilinear is for networks of RRDB blocks, not for srresnet or a discriminator."
            )
        start_as_bilinear(model)
        return
    if file == "realesrgan-x2plus":
        raise BadRequestError(
            f"The preset starts from Real-ESRGAN x2plus, which is not part of Ocular: convert its files by "
            f"`python -m train.convert` and tell them by {name}=FILE, or start at random by {name}=none."
        )
    load_partial(model, Path(file))


def verdicts(judge: nn.Module, rgb: Tensor, run: Run) -> Tensor:
    """Logits of “real”, fp32."""
    with run.autocast():
        return judge(rgb).float()


def generator_terms(
    made: Tensor, base: Tensor, nets: Networks, judging: bool, recipe: Recipe, run: Run
) -> dict[str, Tensor]:
    """Weighted terms of the generator's loss and their sum `total`, of pictures N×3×2S×2S 0…1."""
    weights, perceptual = recipe.stage.weights, nets.perceptual if judging else None
    if nets.judge is None or not judging:
        return stage_one_loss(made, base, None, perceptual, weights)
    logits = verdicts(nets.judge.model, made, run)
    if not recipe.relativistic:
        return stage_one_loss(made, base, logits, perceptual, weights)
    terms = stage_one_loss(made, base, None, perceptual, weights)
    with torch.no_grad():
        real = verdicts(nets.judge.model, base, run)
    terms["adversarial"] = weights.adversarial * relativistic_generator_loss(real, logits)
    return {**terms, "total": terms["total"] + terms["adversarial"]}


def judge_terms(made: Tensor, base: Tensor, judge: nn.Module, recipe: Recipe, run: Run) -> Tensor:
    """The discriminator's loss of a scanned and a made picture, which brings no gradient."""
    loss = relativistic_discriminator_loss if recipe.relativistic else discriminator_loss
    return loss(verdicts(judge, base, run), verdicts(judge, made, run))


Pictures = list[tuple[Tensor, Tensor]]


def generator_step(
    parts: list[dict[str, Tensor]], nets: Networks, network: nn.Module, judging: bool, recipe: Recipe, run: Run
) -> tuple[dict[str, float], Pictures]:
    """Gradients of the generator over all parts of a step; gives mean terms, and the pictures made with their truth."""
    if nets.judge is not None:
        nets.judge.model.requires_grad_(False)
    nets.optimizer.zero_grad()
    sums: dict[str, float] = {}
    pictures: Pictures = []
    for part in parts:
        if not bool(part["has_base"].all()):
            raise BadRequestError("The source gives patches without a ×40 picture, which stage 1 cannot learn from.")
        base = as_rgb(part["base"])
        with run.autocast():
            made = network(as_rgb(part["stored"]))
        made = made.float()
        terms = generator_terms(made, base, nets, judging, recipe, run)
        (terms["total"] / len(parts)).backward()
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term.detach()) / len(parts)
        pictures.append((made.detach(), base))
    loop.mean_gradients(nets.generator, run.here)
    return sums, pictures


def judge_step(pictures: Pictures, judge: loop.Trained, recipe: Recipe, run: Run) -> float:
    """Gradients of the discriminator over the pictures of the generator's step; gives the mean loss."""
    judge.model.requires_grad_(True)
    judge.optimizer.zero_grad()
    total = 0.0
    for made, base in pictures:
        loss = judge_terms(made, base, judge.model, recipe, run) / len(pictures)
        loss.backward()
        total += float(loss.detach())
    loop.mean_gradients(judge.model, run.here)
    return total


def step_flops(nets: Networks, config: Config, recipe: Recipe, run: Run) -> int:
    """Operations of a whole step of one rank, counted without computing them."""
    unreal = torch.device("meta")
    judge = copy.deepcopy(nets.judge.model).to(unreal) if nets.judge is not None else None
    copies = Networks(
        copy.deepcopy(nets.generator).to(unreal), nets.optimizer,
        loop.Trained(judge, nets.judge.optimizer) if judge is not None and nets.judge is not None else None,
        copy.deepcopy(nets.perceptual).to(unreal) if nets.perceptual is not None else None,
    )  # fmt: skip
    plain = dataclasses.replace(run, bf16=False)
    stored, base = (torch.empty(1, 3, side, side, device=unreal) for side in (config.side, 2 * config.side))

    def one() -> None:
        if judge is not None:
            judge.requires_grad_(False)
        made = copies.generator(stored)
        generator_terms(made, base, copies, True, recipe, plain)["total"].backward()
        if judge is not None:
            judge.requires_grad_(True)
            judge_terms(made.detach(), base, judge, recipe, plain).backward()

    return loop.count_flops(one) * config.batch // run.here.world


def validate(recipe: Recipe, average: loop.Average, watcher: Watcher, course: Course) -> None:
    """Note gains over bicubic with the averaged weights, and one picture."""
    model = averaged(build(recipe.architecture, **recipe.network), average.tensors, course.run)
    values, shown = watcher.look_at_pictures(model, course.run)
    course.write(values)
    course.show(shown)


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    recipe = recipe_of(config)
    config = script.settled(dataclasses.replace(config, side=recipe.side), recipe.stage, here)
    run = script.open_run(config, recipe.stage, here)
    nets = start_networks(config, recipe, run)
    source = script.open_training(config, recipe.stage, here)
    epoch = script.epoch_steps(config, source, here, recipe.steps_per_epoch)
    config = script.with_steps(dataclasses.replace(config, steps=config.steps or recipe.steps), recipe.stage, epoch)
    watcher = Watcher.open(script.open_validation(config, recipe.stage, ()), config.validation_batches)
    average = loop.Average(nets.generator, config.average)
    start = script.resumed(run, resume, nets.generator, average, nets.optimizer, nets.judge)
    script.write_network(run, config, "sr_gan", recipe.architecture, recipe.network, ())
    facts = {"parameters": parameter_count(nets.generator), "epoch_steps": epoch}
    network: Any = torch.compile(nets.generator) if config.compile else nets.generator

    with Course(config, run, start, step_flops(nets, config, recipe, run), facts) as course:
        for step, parts in course.steps(source):
            rate = recipe.rate(config, step)
            script.set_rate(nets.optimizer, rate)
            terms, pictures = generator_step(parts, nets, network, step >= config.l1_steps, recipe, run)
            course.check(loss=terms["total"], gradient=script.cut_gradients(nets.generator, config.clip))
            nets.optimizer.step()
            average.update(nets.generator, step)
            if nets.judge is not None and step >= config.l1_steps:
                script.set_rate(nets.judge.optimizer, recipe.judge_rate(config, step))
                terms["discriminator"] = judge_step(pictures, nets.judge, recipe, run)
                norm = script.cut_gradients(nets.judge.model, config.clip)
                course.check(discriminators_loss=terms["discriminator"], discriminators_gradient=norm)
                nets.judge.optimizer.step()
            course.note({**terms, "rate": rate})
            if course.validates:
                validate(recipe, average, watcher, course)
            course.save(nets.generator, average, nets.optimizer, nets.judge)
    return facts | course.last


def main(argv: list[str] | None = None) -> int:
    """Command line; see `command.run_script`."""
    return command.run_script("sr_gan", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
