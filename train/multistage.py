"""Paper D (Takahama et al. 2019): classes of patches told from their surroundings on the slide, in four stages.

`stage=picture` is what the paper compares with, a network that sees the whole slide at once and only small.

    python -m train.multistage --set stage=extractor    --set run=runs/d-extractor ...
    python -m train.multistage --set stage=features     --set run=runs/d-maps --set extractor=runs/d-extractor ...
    python -m train.multistage --set stage=segmentation --set run=runs/d-separate --set maps=runs/d-maps
    python -m train.multistage --set stage=end-to-end   --set run=runs/d-joint --set extractor=runs/d-extractor
                               --set segmentation=runs/d-separate ...

Minutes on a CPU: --config train/configs/multistage_tiny.toml; as published: train/configs/multistage_paper.toml.
Several GPUs: torchrun --nproc-per-node 4 -m train.multistage ...
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from train import command, loop, script
from train.course import Course
from train.script import Run
from train.slide_scoring import (
    scores_of,
    tell_patches,
    tell_pictures,
    tell_rows,
    tell_slide,
    told_cells,
    watched,
)
from train.slide_setup import (
    NEW_LAYERS,
    RANDOM,
    Config,
    checksum,
    keep_extractor,
    open_slides,
    prepared,
    read_networks,
    require,
    settled,
    stage_of,
    with_split,
    without_classes,
    write_networks,
)
from train.slide_steps import (
    FEATURES_FOLDER,
    Look,
    empty_maps,
    entropy_step,
    look_at,
    look_at_slides,
    read_all_features,
    slide_step,
)
from wsi_ml.data.batches import RowSource
from wsi_ml.data.patch_grid import NOLABEL
from wsi_ml.data.patch_slide_batches import MiddleRows, PatchRows, SlideTurns, check_crop
from wsi_ml.data.slide_maps import ENDING, MapRows, SlideFeatures, features_bytes, read_features, slide_maps
from wsi_ml.data.slide_pictures import PictureRows, slide_pictures
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.models import parameter_count
from wsi_ml.models.feature_unet import TakahamaUnet, TakahamaUnetConfig
from wsi_ml.models.foreign import load_partial
from wsi_ml.models.googlenet import TakahamaExtractor, TakahamaExtractorConfig
from wsi_ml.models.split_learning import check_repeatable

CONFIGS = Path(__file__).parent / "configs"


# -- extractor and segmentation: one network learns from batches -------------------------------------------------------


def learn(
    config: Config, resume: bool, run: Run, model: nn.Module, source: RowSource, flops: int, facts: dict[str, Any],
    tell: Callable[[nn.Module, dict[str, Tensor]], Tensor], look: Callable[[Any], Look],
) -> dict[str, Any]:  # fmt: skip
    """Run the steps of one network, return the last journal values; the extractor's and the segmentation's loop."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate)
    average = loop.Average(model, config.average)
    start = script.resumed(run, resume, model, average, optimizer)
    facts = {"parameters": parameter_count(model), **facts}
    runnable: Any = torch.compile(model) if config.compile else model

    with Course(config, run, start, flops, facts) as course:
        for step, parts in course.steps(source):
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            script.set_rate(optimizer, rate)
            optimizer.zero_grad()
            loss = entropy_step(parts, model, lambda part: tell(runnable, part), run)
            course.check(loss=loss, gradient=script.cut_gradients(model, config.clip))
            optimizer.step()
            average.update(model, step)
            course.note({"loss": loss, "rate": rate})
            if course.validates:
                seen = copy.deepcopy(model)
                seen.load_state_dict(average.tensors)
                found = look(seen.eval())
                course.write(found.values)
                course.show(found.picture, "truth, told")
            course.save(model, average, optimizer)
    return facts | course.last


def with_steps(config: Config, source: RowSource, here: loop.Ranks) -> Config:
    """The configuration with its steps, where an epoch is as long as the source."""
    return dataclasses.replace(
        config, steps=config.steps or config.epochs * script.epoch_steps(config, source, here)
    )  # fmt: skip


def train_extractor(config: Config, resume: bool, run: Run) -> dict[str, Any]:
    """Stage 1: GoogLeNet with 16 features tells the class of single patches."""
    slides = {slide.name: slide for slide in open_slides(config)}
    config, split = with_split(config, list(slides))
    training = [slides[name] for name in split.training]
    part = config.batch // (run.here.world * config.accumulate)
    source = PatchRows(training, part, config.crop, config.seed, config.balance == "yes")
    config = with_steps(config, source, run.here)
    torch.manual_seed(config.seed)
    model = TakahamaExtractor(TakahamaExtractorConfig(style=config.style, dropout=config.dropout))
    taken = "nothing"
    if config.start not in ("", RANDOM):
        taken = load_partial(model, Path(config.start), NEW_LAYERS).text()
    script.on_device(model, run.device)
    write_networks(run, config, model, None, config.imagenet)
    rows = None
    if split.validation:
        rows = MiddleRows([slides[name] for name in split.validation], part, config.crop, config.validation_patches)

    def tell(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return network(prepared(batch["stored"], config.imagenet))

    def look(network: TakahamaExtractor) -> Look:
        return Look(watched(scores_of(*tell_rows(network, rows, config.imagenet, run))) if rows else {})

    rgb = torch.empty(2, 3, config.crop, config.crop, device="meta")
    unreal = copy.deepcopy(model).to("meta")
    flops = loop.count_flops(lambda: unreal(rgb).mean().backward()) * config.batch // (2 * run.here.world)
    facts = {"patches": len(source.places), "slides": split._asdict()}
    return learn(config, resume, run, model, source, flops, {**facts, "taken": taken}, tell, look)


def train_segmentation(config: Config, resume: bool, run: Run) -> dict[str, Any]:
    """Stage 3: the U-Net tells the class of each patch from the features of all (the paper's Separate learning)."""
    found = read_all_features(require(config.maps, "maps", config.stage))
    config, split = with_split(config, list(found))
    maps = [each for name in split.training for each in slide_maps(found[name], config.map_side, config.maps_of)]
    source = MapRows(maps, config.batch // (run.here.world * config.accumulate), config.seed)
    config = with_steps(config, source, run.here)
    channels = next(iter(found.values())).features.shape[1]
    torch.manual_seed(config.seed)
    model = TakahamaUnet(TakahamaUnetConfig(features=channels, base=config.base)).to(run.device)
    write_networks(run, config, None, model, False)
    watching = [found[name] for name in split.validation]

    def tell(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return network(batch["maps"])

    def look(network: TakahamaUnet) -> Look:
        told = [tell_patches(network, each, config.map_side, config.maps_of, run) for each in watching]
        return look_at(told, [each.labels for each in watching], [each.cells for each in watching])

    unreal = copy.deepcopy(model).to("meta")
    example = torch.empty(1, channels, config.map_side, config.map_side, device="meta")
    flops = loop.count_flops(lambda: unreal(example).mean().backward()) * config.batch // run.here.world
    return learn(config, resume, run, model, source, flops, {"maps": len(source.maps)}, tell, look)


def train_picture(config: Config, resume: bool, run: Run) -> dict[str, Any]:
    """The row “segmentation only”: the U-Net sees the slide itself at ⅛ of the resolution, and no patch alone."""
    slides = {slide.name: slide for slide in open_slides(config)}
    config, split = with_split(config, list(slides))
    pictures = [
        each
        for name in split.training
        for each in slide_pictures(slides[name], config.map_side, config.maps_of, config.shrink)
    ]
    source = PictureRows(pictures, config.batch // (run.here.world * config.accumulate), config.seed)
    config = with_steps(config, source, run.here)
    torch.manual_seed(config.seed)
    model = TakahamaUnet(TakahamaUnetConfig(features=3, base=config.base)).to(run.device)
    write_networks(run, config, None, model, False)
    watching = [slides[name] for name in split.validation]

    def tell(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return told_cells(network, batch["pictures"], config.map_side)

    def look(network: TakahamaUnet) -> Look:
        told = [tell_pictures(network, each, config.map_side, config.maps_of, config.shrink, run) for each in watching]
        return look_at(told, [each.labels for each in watching], [each.cells for each in watching])

    unreal = copy.deepcopy(model).to("meta")
    example = torch.empty(1, 3, *pictures[0].rgb.shape[:2], device="meta")
    flops = loop.count_flops(lambda: unreal(example).mean().backward()) * config.batch // run.here.world
    return learn(config, resume, run, model, source, flops, {"pictures": len(source.pictures)}, tell, look)


# -- features ----------------------------------------------------------------------------------------------------------


def make_features(config: Config, resume: bool, run: Run) -> dict[str, Any]:
    """Stage 2: what the frozen extractor tells of every patch of every slide, a file each; files at hand are kept."""
    if config.features_of == "layer" or config.extractor:
        networks = read_networks(require(config.extractor, "extractor", config.stage), ("extractor", "end-to-end"))
        model, imagenet = networks.extractor, networks.imagenet
    else:
        torch.manual_seed(config.seed)
        model, imagenet = TakahamaExtractor(TakahamaExtractorConfig(style=config.style)), config.imagenet
        if require(config.start, "start", config.stage) != Path(RANDOM):
            load_partial(model, Path(config.start), NEW_LAYERS)
    if model is None:
        raise ModelUnavailableError(f"{config.extractor} holds no extractor.")
    model = without_classes(model).eval().to(run.device)
    slides = open_slides(config)
    check_crop(slides, config.crop)
    made_by, folder = f"{checksum(model)} {config.features_of} {config.crop}", run.folder / FEATURES_FOLDER
    folder.mkdir(exist_ok=True)
    keep_extractor(run, config, model, imagenet)
    made = 0
    with loop.Journal(run.folder, run.here.first) as journal:
        for slide in slides[run.here.rank :: run.here.world]:
            path = folder / f"{slide.name}{ENDING}"
            if resume and path.is_file() and read_features(path).made_by == made_by:
                continue
            told = tell_slide(
                model, slide, config.crop, config.chunk, imagenet, run, features_of=config.features_of
            )  # fmt: skip
            found = SlideFeatures(slide.name, told, slide.cells, slide.labels, made_by)
            loop.write_atomic(path, features_bytes(found))
            made += 1
            journal.add(made, event="features", slide=slide.name, patches=len(told))
    return {"slides": len(slides), "made": made}


# -- end to end --------------------------------------------------------------------------------------------------------


def train_end_to_end(config: Config, resume: bool, run: Run) -> dict[str, Any]:
    """Stage 4: both networks at once, one update after each slide; batch norm keeps its averages."""
    before = read_networks(require(config.extractor, "extractor", config.stage), ("extractor", "end-to-end"))
    after = read_networks(require(config.segmentation, "segmentation", config.stage), ("segmentation", "end-to-end"))
    if before.extractor is None or after.segmentation is None:
        raise ModelUnavailableError("The runs named hold no extractor and no segmentation network.")
    extractor, segmentation = without_classes(before.extractor).eval(), after.segmentation
    if segmentation.config.features != extractor.config.features:
        raise BadRequestError(
            f"The segmentation takes {segmentation.config.features} features, the extractor gives "
            f"{extractor.config.features}."
        )
    extractor, segmentation = extractor.to(run.device), segmentation.to(run.device)
    check_repeatable(extractor, replay=True)
    slides = {slide.name: slide for slide in open_slides(config)}
    check_crop(list(slides.values()), config.crop)
    config, split = with_split(config, list(slides))
    places = {name: empty_maps(slide, config.map_side, config.maps_of) for name, slide in slides.items()}
    training = [name for name in split.training if any((each.labels != NOLABEL).any() for each in places[name])]
    if not training:
        raise BadRequestError("No patch of the slides to train on has a label.")
    source = SlideTurns(len(training), config.seed)
    config = with_steps(config, source, run.here)
    optimizer = torch.optim.Adam(extractor.parameters(), lr=config.rate)
    beside = loop.Trained(segmentation, torch.optim.Adam(segmentation.parameters(), lr=config.segmentation_rate))
    average = loop.Average(extractor, config.average)
    start = script.resumed(run, resume, extractor, average, optimizer, beside)
    write_networks(run, config, extractor, segmentation, before.imagenet)
    facts = {"parameters": parameter_count(extractor) + parameter_count(segmentation), "slides": len(training)}

    with Course(config, run, start, 0, facts) as course:
        for step, parts in course.steps(source):
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            script.set_rate(optimizer, rate)
            script.set_rate(beside.optimizer, rate * config.segmentation_rate / config.rate)
            optimizer.zero_grad()
            beside.optimizer.zero_grad()
            loss, turn = 0.0, (config.seed, step)
            for part in parts:
                name = training[int(part["slide"])]
                loss += slide_step(
                    slides[name], places[name], extractor, segmentation, config, before.imagenet, turn, run,
                    1 / len(parts),
                )  # fmt: skip
            for model in (extractor, segmentation):
                loop.mean_gradients(model, run.here)
            course.check(
                loss=loss,
                gradient=script.cut_gradients(extractor, config.clip),
                segmentation_gradient=script.cut_gradients(segmentation, config.clip),
            )
            optimizer.step()
            beside.optimizer.step()
            average.update(extractor, step)
            course.note({"loss": loss, "rate": rate})
            if course.validates:
                seen = look_at_slides(
                    extractor, segmentation, [slides[name] for name in split.validation], config, before.imagenet, run
                )
                course.write(seen.values)
                course.show(seen.picture, "truth, told")
            course.save(extractor, average, optimizer, beside)
    return facts | course.last


TRAIN = {
    "extractor": train_extractor,
    "features": make_features,
    "segmentation": train_segmentation,
    "end-to-end": train_end_to_end,
    "picture": train_picture,
}


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run one stage, return its last values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    config = settled(config, here)
    return TRAIN[config.stage](config, resume, script.open_run(config, stage_of(config), here))


def main(argv: list[str] | None = None) -> int:
    """Command line; see `command.run_script`."""
    return command.run_script("multistage", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
