"""Scores of one model on one held-out set, as plain JSON values; their definitions are in DEFINITIONS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from train.candidates import Candidate
from train.held_out import PairSet, PatchSet, places_of
from wsi_ml.data.batches import NO_CLASS
from wsi_ml.errors import BadRequestError
from wsi_ml.metrics import image
from wsi_ml.metrics.classification import classification_report
from wsi_ml.sr.scores import Upscale

MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "psnr": image.psnr,
    "ssim": image.ssim,
    "psnr_luma": image.psnr_luma,
    "ssim_gaussian": image.ssim_gaussian,
    "ssim_luma": image.ssim_luma,
}
DEFINITIONS = {
    "psnr": "paper and BasicSR: 10·log10(255²/MSE) dB on uint8 RGB, no border cut",
    "ssim": "paper: scikit-image's default, 7×7 uniform window, sample covariance, mean over colours",
    "psnr_luma": "BasicSR with test_y_channel: PSNR of BT.601 luma, no border cut",
    "ssim_gaussian": "BasicSR: 11×11 Gaussian window, σ 1.5, windows wholly inside, mean over colours, no border cut",
    "ssim_luma": "BasicSR with test_y_channel: the same of the luma",
}
"""Means are over pictures. BasicSR's test files cut `crop_border` pixels off first; nothing is cut here."""
DIGITS = 5


@dataclass(frozen=True)
class SlideScores:
    """The pictures of a slide (or of a class) and the scores of each."""

    slide: str
    rows: list[dict[str, float]]
    """Scores of each picture by MEASURES."""

    def median_picture(self) -> int:
        """Number of the picture with the median PSNR (of two the better one): shown, so that none is chosen."""
        order = np.argsort([row["psnr"] for row in self.rows], kind="stable")
        return int(order[len(order) // 2])


def score_slide(upscale: Upscale, pairs: list[tuple[np.ndarray, np.ndarray]], slide: str) -> SlideScores:
    """Every measure of every picture of a slide."""
    rows = []
    for stored, base in tqdm(pairs, desc=slide, unit="picture", leave=False):
        made = upscale(stored)[: base.shape[0], : base.shape[1]]
        rows.append({name: measure(made, base) for name, measure in MEASURES.items()})
    return SlideScores(slide, rows)


def score_pairs(upscale: Upscale, pairs: PairSet) -> list[SlideScores]:
    """Scores of every group of a set."""
    return [score_slide(upscale, pairs.read(slide), slide) for slide in pairs.groups]


def pairs_json(pairs: PairSet, scored: list[SlideScores], plain: list[SlideScores]) -> dict[str, Any]:
    """A model's scores on a set beside those of bicubic on the same stored pixels."""
    return {
        "set": pairs.name,
        "words": pairs.words,
        "definitions": DEFINITIONS,
        "slides": [
            {"slide": one.slide, "pictures": len(one.rows), "model": means(one.rows), "bicubic": means(two.rows)}
            for one, two in zip(scored, plain, strict=True)
        ],
        "mean": {
            "pictures": sum(len(one.rows) for one in scored),
            "model": means([row for one in scored for row in one.rows]),
            "bicubic": means([row for one in plain for row in one.rows]),
        },
    }


def means(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """Mean of each measure over pictures; None where it is infinite, because a picture equals the scan."""
    found = {name: float(np.mean([row[name] for row in rows])) for name in MEASURES}
    return {name: round(value, DIGITS) if np.isfinite(value) else None for name, value in found.items()}


def patches_json(candidate: Candidate, patches: PatchSet) -> dict[str, Any]:
    """What a model tells of a set's patches against their classes.

    Raises BadRequestError when it lacks a class that occurs, or reads ×40 pixels and there are none.
    """
    classes, places = places_of(patches, candidate.classes)
    shares, labels = [], []
    for batch in tqdm(patches.read(), desc=patches.name, unit="batch", leave=False):
        counted = batch.labels != NO_CLASS
        pictures = batch.base if candidate.picture == "base" else batch.stored
        if candidate.picture == "base" and not batch.has_base[counted].all():
            raise BadRequestError(f"{candidate.name} tells classes from ×40 pixels; {patches.name} has none.")
        here = places[batch.labels[counted]]
        if (here == NO_CLASS).any():
            name = patches.classes[batch.labels[counted][here == NO_CLASS][0]]
            raise BadRequestError(f"{candidate.name} tells no class {name}; it tells {', '.join(classes)}.")
        if counted.any():
            shares.append(candidate.told(pictures[counted]))
            labels.append(here)
    if not labels:
        raise BadRequestError(f"{patches.name} holds no patch with a class.")
    report = classification_report(np.concatenate(shares), np.concatenate(labels), classes)
    return {"set": patches.name, "words": patches.words, **_rounded(report)}


def _rounded(value: Any) -> Any:
    """The same JSON values with numbers cut to DIGITS."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
