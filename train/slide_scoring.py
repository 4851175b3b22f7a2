"""What networks of paper D tell of patches and slides, and how right it is: no learning here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.script import Run, as_rgb
from train.slide_setup import TUMOUR, prepared
from wsi_ml.data.patch_grid import NOLABEL
from wsi_ml.data.patch_slide_batches import MiddleRows, read_chunk
from wsi_ml.data.patch_slides import PatchSlide
from wsi_ml.data.slide_maps import SlideFeatures, SlideMap, slide_maps
from wsi_ml.data.slide_pictures import slide_pictures
from wsi_ml.metrics.precision_recall import accuracy_at, average_precision, trapezoid_area
from wsi_ml.models.feature_unet import TakahamaUnet
from wsi_ml.models.googlenet import TakahamaExtractor

CELL = 8
"""Pixels of a picture for each patch."""
GREY = 96


def scores_of(probability: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy at one half and both areas below precision and recall, of the patches with label and prediction.

    The areas are None where no patch is tumour.
    """
    known = (labels != NOLABEL) & np.isfinite(probability)
    told, positive = probability[known], labels[known] == TUMOUR
    any_tumour = bool(positive.any())
    return {
        "patches": int(known.sum()),
        "tumour": int(positive.sum()),
        "not_told": int(((labels != NOLABEL) & ~np.isfinite(probability)).sum()),
        "accuracy": accuracy_at(told, positive),
        "average_precision": average_precision(told, positive) if any_tumour else None,
        "pr_trapezoid": trapezoid_area(told, positive) if any_tumour else None,
    }


def watched(scores: dict[str, Any]) -> dict[str, float]:
    """The scores that make a line of the journal."""
    names = ("accuracy", "average_precision", "pr_trapezoid")
    return {name: round(scores[name], 4) for name in names if scores[name] is not None}


@torch.inference_mode()
def tell_rows(model: TakahamaExtractor, rows: MiddleRows, imagenet: bool, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(probability of tumour, label) of every row by the extractor's own classes."""
    told, labels = [], []
    for index in range(len(rows)):
        batch = rows.batch(index)
        with run.autocast():
            logits = model(prepared(torch.from_numpy(batch.stored).to(run.device), imagenet))
        told.append(logits.float().softmax(1)[:, TUMOUR].cpu().numpy())
        labels.append(batch.labels)
    return np.concatenate(told), np.concatenate(labels)


def chunks_of(count: int, size: int) -> list[range]:
    """Numbers 0 … count − 1 in chunks."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


@torch.inference_mode()
def tell_slide(
    model: TakahamaExtractor, slide: PatchSlide, crop: int, chunk: int, imagenet: bool, run: Run, *,
    features_of: str = "layer",
) -> np.ndarray:  # fmt: skip
    """What the extractor gives for the middle of each patch of a slide, float32 N×(classes or features)."""
    function = model.trunk if features_of == "trunk" else model
    told = []
    for numbers in chunks_of(len(slide.cells), chunk):
        rgb = torch.from_numpy(read_chunk(slide, numbers, crop)).to(run.device)
        with run.autocast():
            told.append(function(prepared(rgb, imagenet)).float().cpu().numpy())
    return np.concatenate(told)


@torch.inference_mode()
def tell_map(model: TakahamaUnet, found: SlideMap, run: Run) -> np.ndarray:
    """Probability of tumour of each cell of a map, float32 side×side."""
    with run.autocast():
        logits = model(torch.from_numpy(found.features)[None].to(run.device))
    return logits.float().softmax(1)[0, TUMOUR].cpu().numpy()


def tell_patches(model: TakahamaUnet, found: SlideFeatures, side: int, maps_of: str, run: Run) -> np.ndarray:
    """Probability of tumour of each patch of a slide, float32 N; NaN for those that did not fit on the map."""
    told = np.full(len(found.cells), np.nan, np.float32)
    for each in slide_maps(found, side, maps_of):
        place = each.placement
        told[each.numbers[place.kept]] = tell_map(model, each, run)[place.rows, place.columns]
    return told


def told_cells(model: nn.Module, pictures: Tensor, side: int) -> Tensor:
    """N×S×S×3 uint8 → N×2×side×side logits: the mean over the pixels of each patch."""
    return functional.avg_pool2d(model(as_rgb(pictures)), pictures.shape[1] // side)


@torch.inference_mode()
def tell_pictures(
    model: TakahamaUnet, slide: PatchSlide, side: int, maps_of: str, shrink: int, run: Run
) -> np.ndarray:  # fmt: skip
    """Probability of tumour of each patch, float32 N, from the small picture alone; NaN beyond the picture."""
    told = np.full(len(slide.cells), np.nan, np.float32)
    for each in slide_pictures(slide, side, maps_of, shrink):
        with run.autocast():
            logits = told_cells(model, torch.from_numpy(each.rgb)[None].to(run.device), side)
        probability = logits.float().softmax(1)[0, TUMOUR].cpu().numpy()
        told[each.numbers[each.placement.kept]] = probability[each.placement.rows, each.placement.columns]
    return told


def heat_picture(cells: np.ndarray, labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Truth and what was told of a slide side by side, uint8 RGB: tumour red, normal blue, without label grey."""
    low, high = cells.min(axis=0), cells.max(axis=0)
    rows, columns = (cells - low).T
    truth, told = (np.zeros((*(high - low + 1), 3), np.uint8) for _ in range(2))
    truth[rows, columns] = GREY
    for label, colour in ((TUMOUR, (220, 50, 50)), (0, (60, 90, 200))):
        truth[rows[labels == label], columns[labels == label]] = colour
    share = np.nan_to_num(probability)[:, None]
    told[rows, columns] = (share * (220, 50, 50) + (1 - share) * (60, 90, 200)).astype(np.uint8)
    told[rows[np.isnan(probability)], columns[np.isnan(probability)]] = GREY
    gap = np.full((truth.shape[0], 1, 3), 255, np.uint8)
    joined = np.concatenate([truth, gap, told], axis=1)
    return cv2.resize(joined, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_NEAREST)


def joined_scores(told: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, Any]:
    """Scores over the patches of several slides pooled."""
    return scores_of(np.concatenate(list(told)), np.concatenate(list(labels)))


def labelled_cells(labels: Tensor) -> int:
    """How many cells of maps count."""
    return int((labels != NOLABEL).sum())
