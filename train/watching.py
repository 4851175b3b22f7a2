"""Validation while a network trains: pictures against bicubic, classes against labels, on patches not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.script import Run, as_rgb
from wsi_ml.data.batches import NO_CLASS, FiniteSource
from wsi_ml.metrics.image import psnr, ssim
from wsi_ml.sr.bicubic import BicubicUpscaler
from wsi_ml.sr.upscaler import bicubic_card

Network = Callable[[Tensor], Tensor]
SMALLEST_SHARE = 1e-6
"""A class told with less counts as this much in the log loss."""


@dataclass(frozen=True)
class _Picture:
    slide: str
    stored: np.ndarray
    base: np.ndarray
    plain: np.ndarray
    """Bicubic of `stored`."""
    plain_psnr: float
    plain_ssim: float


@dataclass
class Watcher:
    """The first batches of every validation source, read once."""

    pictures: list[_Picture] = field(default_factory=list)
    stored: list[np.ndarray] = field(default_factory=list)
    base: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    @classmethod
    def open(cls, sources: Sequence[FiniteSource], batches: int) -> Watcher:
        """Reads up to `batches` batches of each source, evenly spread over it, so that every slide and class is met."""
        watcher = cls()
        bicubic = BicubicUpscaler(bicubic_card())
        for source in sources:
            chosen = np.unique(np.linspace(0, len(source) - 1, min(batches, len(source))).round().astype(int))
            for index in chosen.tolist():
                batch = source.batch(index)
                for row, slide in enumerate(source.slides_of(index)):
                    stored, base = batch.stored[row], batch.base[row]
                    if batch.has_base[row]:
                        plain = bicubic(stored)
                        scores = psnr(plain, base), ssim(plain, base)
                        watcher.pictures.append(_Picture(slide, stored, base, plain, *scores))
                    if batch.labels[row] != NO_CLASS:
                        watcher.stored.append(stored)
                        watcher.base.append(base)
                        watcher.labels.append(int(batch.labels[row]))
        return watcher

    def look_at_pictures(self, network: Network, run: Run) -> tuple[dict[str, Any], np.ndarray | None]:
        """PSNR and gains over bicubic per slide, and bicubic, network and scan of one patch side by side."""
        rows: dict[str, list[tuple[float, float, float]]] = {}
        shown = None
        for picture in self.pictures:
            made = upscaled(network, picture.stored, run)
            reached = psnr(made, picture.base)
            gain = reached - picture.plain_psnr, ssim(made, picture.base) - picture.plain_ssim
            rows.setdefault(picture.slide, []).append((reached, *gain))
            if shown is None:
                shown = np.concatenate([picture.plain, made, picture.base], axis=1)
        values: dict[str, Any] = {}
        for slide, scores in sorted(rows.items()):
            mean = np.mean(scores, axis=0)
            values[f"psnr/{slide}"] = round(float(mean[0]), 4)
            values[f"psnr_gain/{slide}"] = round(float(mean[1]), 4)
            values[f"ssim_gain/{slide}"] = round(float(mean[2]), 5)
        return values, shown

    def look_at_classes(self, network: Network, run: Run, from_base: bool = False) -> dict[str, Any]:
        """Balanced accuracy and log loss of a network that gives logits; `from_base` shows it the ×40 pictures."""
        if not self.labels:
            return {}
        pictures = self.base if from_base else self.stored
        shares = np.concatenate([probabilities(network, rgb[None], run) for rgb in pictures])
        labels = np.array(self.labels)
        told = shares.argmax(axis=1)
        recalls = [float(np.mean(told[labels == label] == label)) for label in np.unique(labels)]
        log_loss = -np.log(np.maximum(shares[np.arange(len(labels)), labels], SMALLEST_SHARE)).mean()
        return {"balanced_accuracy": round(float(np.mean(recalls)), 4), "log_loss": round(float(log_loss), 4)}


@torch.inference_mode()
def upscaled(network: Network, rgb: np.ndarray, run: Run) -> np.ndarray:
    """uint8 H×W×3 with even sides → 2H×2W×3, clamped and rounded."""
    with run.autocast():
        made = network(as_rgb(torch.from_numpy(rgb[None]).to(run.device)))
    return made.float()[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


@torch.inference_mode()
def probabilities(network: Network, rgb: np.ndarray, run: Run) -> np.ndarray:
    """uint8 N×H×W×3 → N×classes, float32."""
    with run.autocast():
        logits = network(as_rgb(torch.from_numpy(rgb).to(run.device)))
    return logits.float().softmax(dim=1).cpu().numpy()


def averaged(fresh: nn.Module, tensors: dict[str, Tensor], run: Run) -> nn.Module:
    """A network with the averaged weights, ready to be looked at."""
    fresh.load_state_dict(tensors)
    return fresh.eval().to(device=run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
