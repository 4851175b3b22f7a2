"""Paper D on slides: patches told alone, or from the features of all patches of the slide at once.

Patches are those of the training: cells of a fixed grid with enough tissue by the training's own rule. Told alone, a
window gives its probability. Told from the slide, windows give their features, which are kept like any result (so that
work is gone on with after an interruption), and the maps are made of them when all are there.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsi_ml.data.patch_grid import NOLABEL, ShareRules, kept_cells
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.patch_truth import grid_of, tissue_shares
from wsi_ml.data.slide_maps import SlideFeatures, slide_maps
from wsi_ml.errors import BadRequestError, ModelOutputError, ModelUnavailableError, NotPredictableError
from wsi_ml.geometry import Region
from wsi_ml.inference.card import PredictorCard
from wsi_ml.inference.network_predictor import FULL, NetworkPredictor
from wsi_ml.models.takahama import Takahama
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.slides.reading import SlideLevel


class StoredPixels:
    """A stored pyramid as `wsi_ml.slides.reading.SlideReader` reads slides."""

    def __init__(self, pyramid: Pyramid):
        self._pyramid = pyramid
        self.name, self.size = "The slide", pyramid.card.stored_size
        self.mpp: float | None = pyramid.card.stored_mpp
        self.levels = tuple(SlideLevel(size, float(1 << level)) for level, size in enumerate(pyramid.card.levels))

    def region(self, level: int, region: Region) -> np.ndarray:
        """RGB uint8 of a region of a level."""
        return self._pyramid.region(region, level)

    def close(self) -> None:
        """Nothing: the pyramid is its owner's."""

    def __enter__(self) -> StoredPixels:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def open_slide_predictor(card: PredictorCard, weights: Path, device: str = "auto", threads: int = 0) -> PatchPredictor:
    """The predictor of a card of `takahama`; raises ModelUnavailableError as `NetworkPredictor` does."""
    alone = card.about.get("config", {}).get("segmentation", {}) is None
    return (PatchPredictor if alone else SlidePredictor)(card, weights, device, threads)


class PatchPredictor(NetworkPredictor):
    """Told patch by patch: N×side×side×3 → N×1×1×1; see `wsi_ml.inference.predictor.Choosing` for its windows."""

    model: Takahama
    windows: np.ndarray
    """n×2 int32, column and row of the patches of the slide; there after `for_slide`."""

    def __init__(self, card: PredictorCard, weights: Path, device: str = "auto", threads: int = 0):
        super().__init__(card, weights, device, threads)
        if not isinstance(self.model, Takahama):
            raise ModelUnavailableError(f"The card of {card.name} names another network than takahama.")
        if (card.kind, card.halo, card.stride) != ("heatmap", 0, card.side) or self.model.config.crop > card.side:
            raise ModelUnavailableError(
                f"The card of {card.name} does not fit its network: a heatmap with a value for each patch has halo 0, "
                "a stride equal to the side, and a crop not larger than that."
            )
        # Few patches make a slide, and values are compared with the training's: full precision.
        self.dtype = torch.float32
        self.numbers = f"{self.device.type} float32"

    def for_slide(self, pyramid: Pyramid) -> PatchPredictor:
        """The predictor for a slide, with the patches that the training's rule keeps.

        Raises NotPredictableError for a slide without any.
        """
        config, pixels = self.model.config, PatchReader(StoredPixels(pyramid))
        try:
            shares = tissue_shares(pixels, grid_of(pixels.size, self.card.side), config.tissue)
            cells = kept_cells(shares, ShareRules(tissue=config.tissue_share))
        except BadRequestError as error:
            raise NotPredictableError(f"{self.card.name} tells patches of {self.card.side} px: {error}") from error
        fitted = copy.copy(self)
        fitted.windows = cells[:, ::-1].astype(np.int32)
        return fitted

    def _run(self, windows: Tensor) -> Tensor:
        """N×S×S×3 uint8 → N×C×1×1 uint8 on the same device."""
        with torch.inference_mode():
            told = self._told(self._squares(windows))
            # A NaN or infinity makes the sum one, and one number is cheaper to look at than all.
            if not torch.isfinite(told.sum()):
                raise ModelOutputError(f"The model {self.card.name} gave NaN or infinite values.")
            return self._packed(told)[:, :, None, None].contiguous()

    def _squares(self, windows: Tensor) -> Tensor:
        """The middle of each patch as the extractor takes it, N×3×crop×crop."""
        crop = self.model.config.crop
        start = (self.card.side - crop) // 2
        return self._rgb(windows[:, start : start + crop, start : start + crop])

    def _told(self, rgb: Tensor) -> Tensor:
        return self.model.tell(rgb)[:, None]

    def _packed(self, told: Tensor) -> Tensor:
        return told.mul(FULL).round_().to(torch.uint8)


class SlidePredictor(PatchPredictor):
    """Told from the whole slide; see `wsi_ml.inference.predictor.WholeSlide`."""

    @property
    def part_shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns of what a window gives: the bytes of its features."""
        return 4 * self.model.features, 1, 1

    def whole(self, windows: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the patches that lie on a map, and their values, n×1×1×1 uint8."""
        features = np.ascontiguousarray(parts).reshape(len(parts), -1).view(np.float32)
        cells = windows[:, ::-1].astype(np.int64)
        found = SlideFeatures("", features, cells, np.full(len(cells), NOLABEL, np.int64), "")
        config, told = self.model.config, np.full(len(cells), np.nan, np.float32)
        for each in slide_maps(found, config.map_side, config.maps_of):
            with torch.inference_mode():
                heat = self.model(torch.from_numpy(each.features)[None].to(self.device))[0].cpu().numpy()
            told[each.numbers[each.placement.kept]] = heat[each.placement.rows, each.placement.columns]
        kept = np.flatnonzero(np.isfinite(told))
        return kept, np.rint(told[kept] * FULL).astype(np.uint8)[:, None, None, None]

    def _told(self, rgb: Tensor) -> Tensor:
        return self.model.extract(rgb)

    def _packed(self, told: Tensor) -> Tensor:
        # Features are no probabilities: their four bytes each are kept, so that nothing is rounded.
        return told.contiguous().view(torch.uint8)
