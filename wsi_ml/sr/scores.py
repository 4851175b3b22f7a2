"""How well an upscaler gives back scanned pixels: mean PSNR and SSIM over held-out tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from wsi_ml.metrics.image import psnr, psnr_luma, ssim, ssim_gaussian

Upscale = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scores:
    """Means over pictures; definitions in `wsi_ml.metrics.image`."""

    psnr: float
    ssim: float
    psnr_luma: float
    ssim_gaussian: float
    pictures: int


def score(upscale: Upscale, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Scores:
    """Mean scores of `upscale(stored)` against the scanned picture over (stored, scanned) pairs, uint8 RGB."""
    rows = []
    for stored, base in pairs:
        made = upscale(stored)[: base.shape[0], : base.shape[1]]
        rows.append((psnr(made, base), ssim(made, base), psnr_luma(made, base), ssim_gaussian(made, base)))
    rgb, similarity, luma, gaussian = np.mean(np.array(rows, dtype=np.float64), axis=0).tolist()
    return Scores(rgb, similarity, luma, gaussian, len(rows))


def lanczos(rgb: np.ndarray) -> np.ndarray:
    """×2 by Pillow's Lanczos filter: the second comparison in every table of scores."""
    size = (2 * rgb.shape[1], 2 * rgb.shape[0])
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
