"""`tissue`: the predictor without weights, which tells tissue from glass by colour."""

from __future__ import annotations

import hashlib
import os

import cv2
import numpy as np

from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.inference.tissue import FULL, TissueRule, colour_of, find_tissue
from wsi_ml.slides.pyramid import Pyramid

DEFINITION = (
    "Tissue by saturation, 1: mean of 8 x 8 stored pixels, tint of the glass divided out, HSV saturation less ink, "
    "3 x 3 mean; probability 0.5 at Otsu's threshold of the slide (wsi_ml.inference.tissue), linear over 0.1."
)
SIDE, HALO, STRIDE = 1056, 16, 8
RAMP = 25.5
"""Saturation, of 255, over which the probability rises from 0 to 1."""
WHITE = (FULL, FULL, FULL)


def tissue_card() -> PredictorCard:
    """The card of the built-in predictor."""
    return PredictorCard(
        name="tissue",
        kind="dense",
        classes=(PredictorClass("Glass"), PredictorClass("Tissue", "#cc79a7")),
        channels=("Glass", "Tissue"),
        mpp=0.5,
        mpp_range=(0.1, 4.0),
        side=SIDE,
        halo=HALO,
        stride=STRIDE,
        sha256=hashlib.sha256(DEFINITION.encode()).hexdigest(),
        background=("Glass",),
        postprocess={"min_area_um2": TissueRule().min_area_um2},
        about={"parameters": 0, "licence": "MIT", "notes": DEFINITION},
    )


class TissuePredictor:
    """See `wsi_ml.inference.predictor.Predictor`; a slide's own threshold and glass come with `for_slide`."""

    numbers = "cpu integers"

    def __init__(self, threshold: int | None = None, glass: tuple[int, int, int] = WHITE, threads: int = 0):
        self.card = tissue_card()
        self.threshold = round(FULL * TissueRule().min_saturation) if threshold is None else threshold
        self.glass = glass
        self.threads = threads

    def for_slide(self, pyramid: Pyramid) -> TissuePredictor:
        """The predictor with Otsu's threshold and the glass of a slide."""
        found = find_tissue(pyramid)
        return TissuePredictor(found.threshold, found.glass, self.threads)

    def callers(self, batches: int) -> int:
        """See `wsi_ml.inference.predictor.Shared`."""
        return min(self.threads or len(os.sched_getaffinity(0)), batches)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """N×1056×1056×3 → N×2×128×128: probabilities of glass and tissue."""
        return np.stack([self._one(window) for window in windows])

    def _one(self, window: np.ndarray) -> np.ndarray:
        cells = window.shape[0] // STRIDE
        small = cv2.resize(window, (cells, cells), interpolation=cv2.INTER_AREA)
        saturation, _, ink = colour_of(small, self.glass)
        saturation[ink] = 0
        smooth = cv2.blur(saturation, (3, 3))
        edge = HALO // STRIDE
        inner = smooth[edge:-edge, edge:-edge].astype(np.float32)
        tissue = ((inner - self.threshold) / RAMP + 0.5).clip(0, 1)
        tissue = (tissue * FULL).round().astype(np.uint8)
        return np.stack([FULL - tissue, tissue])
