"""What is learnt in a step of paper D's stages, and what a validation looks at; the loops are in `multistage`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train import loop
from train.script import Run
from train.slide_scoring import (
    chunks_of,
    heat_picture,
    joined_scores,
    labelled_cells,
    tell_patches,
    tell_slide,
    watched,
)
from train.slide_setup import Config, prepared
from wsi_ml.data.patch_grid import NOLABEL
from wsi_ml.data.patch_slide_batches import read_chunk
from wsi_ml.data.patch_slides import PatchSlide
from wsi_ml.data.slide_maps import ENDING, SlideFeatures, SlideMap, read_features, slide_maps
from wsi_ml.errors import ModelUnavailableError
from wsi_ml.models.feature_unet import TakahamaUnet, feature_map
from wsi_ml.models.googlenet import TakahamaExtractor
from wsi_ml.models.split_learning import split_backward

FEATURES_FOLDER = "features"


class Look(NamedTuple):
    """What a validation gives."""

    values: dict[str, float]
    picture: np.ndarray | None = None


def entropy_step(
    parts: list[dict[str, Tensor]], model: nn.Module, tell: Callable[[dict[str, Tensor]], Tensor], run: Run
) -> float:
    """Gradients over all parts of a step; gives the mean cross-entropy over the labelled patches of the whole step."""
    (count,) = loop.total_over_ranks(
        [float(sum(labelled_cells(part["labels"]) for part in parts))], run.here, run.device
    )
    total = 0.0
    for part in parts:
        with run.autocast():
            logits = tell(part)
        loss = functional.cross_entropy(logits.float(), part["labels"], ignore_index=NOLABEL, reduction="sum")
        loss = loss / max(count, 1.0)
        # Gradients are averaged over the ranks afterwards, the count is a sum over them.
        (loss * run.here.world).backward()
        total += float(loss.detach())
    loop.mean_gradients(model, run.here)
    return loop.total_over_ranks([total], run.here, run.device)[0]


def read_all_features(folder: Path) -> dict[str, SlideFeatures]:
    """The features of all slides of a run, by name; raises ModelUnavailableError for none or of several extractors."""
    found = [read_features(path) for path in sorted((folder / FEATURES_FOLDER).glob(f"*{ENDING}"))]
    if not found:
        raise ModelUnavailableError(f"{folder.name} holds no features; make them with stage=features.")
    if len({each.made_by for each in found}) > 1:
        raise ModelUnavailableError(f"The features in {folder.name} are of several extractors; make them all again.")
    return {each.name: each for each in found}


def empty_maps(slide: PatchSlide, side: int, maps_of: str) -> list[SlideMap]:
    """The maps of a slide without features: where its patches will lie."""
    nothing = np.zeros((len(slide.cells), 0), np.float32)
    return slide_maps(SlideFeatures(slide.name, nothing, slide.cells, slide.labels, ""), side, maps_of)


def slide_loss(features: Tensor, maps: Sequence[SlideMap], segmentation: nn.Module, run: Run) -> Tensor:
    """Cross-entropy over the labelled cells of all maps of a slide, from N×16 features of its patches."""
    placed = []
    for each in maps:
        kept, rows, columns = (torch.from_numpy(part).to(run.device) for part in each.placement)
        mine = features[torch.from_numpy(each.numbers).to(run.device)]
        placed.append(feature_map(mine, kept, rows, columns, each.labels.shape[0]))
    labels = torch.from_numpy(np.stack([each.labels for each in maps])).to(run.device)
    with run.autocast():
        logits = segmentation(torch.stack(placed))
    return functional.cross_entropy(logits.float(), labels, ignore_index=NOLABEL)


def slide_step(
    slide: PatchSlide, maps: Sequence[SlideMap], extractor: TakahamaExtractor, segmentation: nn.Module, config: Config,
    imagenet: bool, turn: tuple[int, int], run: Run, share: float = 1.0,
) -> float:  # fmt: skip
    """Gradients of both networks for one slide, in the memory of one chunk (the five steps of section 3.3)."""

    def extract(numbers: range) -> Tensor:
        # Both passes of split_backward see the same variation: it is drawn from the turn and the patch's number.
        rgb = torch.from_numpy(read_chunk(slide, numbers, config.crop, turn)).to(run.device)
        with run.autocast():
            return extractor(prepared(rgb, imagenet)).float()

    chunks = chunks_of(len(slide.cells), config.chunk)
    loss = split_backward(extract, chunks, lambda features: share * slide_loss(features, maps, segmentation, run))
    return float(loss)


def look_at(told: list[np.ndarray], labels: list[np.ndarray], cells: list[np.ndarray]) -> Look:
    """Scores over all validation slides and a picture of the first; nothing where there is no slide or no label."""
    if not told or not any((each != NOLABEL).any() for each in labels):
        return Look({})
    return Look(watched(joined_scores(told, labels)), heat_picture(cells[0], labels[0], told[0]))


def look_at_slides(
    extractor: TakahamaExtractor, segmentation: TakahamaUnet, slides: Sequence[PatchSlide], config: Config,
    imagenet: bool, run: Run,
) -> Look:  # fmt: skip
    """Scores of both networks on whole slides."""
    told = []
    for slide in slides:
        features = tell_slide(extractor, slide, config.crop, config.chunk, imagenet, run)
        found = SlideFeatures(slide.name, features, slide.cells, slide.labels, "")
        told.append(tell_patches(segmentation, found, config.map_side, config.maps_of, run))
    return look_at(told, [slide.labels for slide in slides], [slide.cells for slide in slides])
