"""A segmentation network looked at on held-out pictures: pooled overlap, accuracy of picture classes, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from train.script import Run, as_rgb
from wsi_ml.data.batches import NO_CLASS
from wsi_ml.data.pixel_batches import LabelledPicture, batch_of
from wsi_ml.metrics.classification import accuracy, confusion_matrix
from wsi_ml.metrics.pooled import PooledPixels

LOOK_BATCH = 8
SHOWN = 6
PALETTE = np.array(
    [[238, 238, 238], [0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0]],
    np.uint8,
)
"""Colours of classes 0, 1 … (Okabe and Ito); black is no label."""


class PixelWatcher:
    """Held-out pictures of one side; those without a mask or a class count only where they have one."""

    def __init__(self, pictures: Sequence[LabelledPicture], classes: tuple[str, ...]):
        self.pictures, self.classes = list(pictures), classes

    def measure(self, network: nn.Module, run: Run) -> tuple[PooledPixels, np.ndarray]:
        """(pooled pixels, confusion matrix of picture classes) of a network as `esp-psp`, in evaluation mode."""
        pooled = PooledPixels(self.classes)
        confusion = np.zeros((len(self.classes),) * 2, np.int64)
        for batch, pixels, told in self._told(network, run):
            pooled.add(batch.masks, pixels)
            known = batch.labels != NO_CLASS
            confusion += confusion_matrix(batch.labels[known], told[known], len(self.classes))
        return pooled, confusion

    def look(self, network: nn.Module, run: Run) -> tuple[dict[str, Any], np.ndarray | None]:
        """Values for the journal, and picture, truth and told classes of the first pictures with a mask, in rows."""
        if not self.pictures:
            return {}, None
        pooled, confusion = self.measure(network, run)
        values = {"dsc": pooled.report()["dsc"], "iou": pooled.report()["iou"], "accuracy": accuracy(confusion)}
        noted = {name: round(value, 4) for name, value in values.items() if value is not None}
        return noted, self._shown(network, run)

    def _told(self, network: nn.Module, run: Run) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        for first in range(0, len(self.pictures), LOOK_BATCH):
            batch = batch_of(self.pictures[first : first + LOOK_BATCH])
            yield batch, *told_classes(network, batch.stored, run)

    def _shown(self, network: nn.Module, run: Run) -> np.ndarray | None:
        masked = [picture for picture in self.pictures if picture.mask is not None][:SHOWN]
        if not masked:
            return None
        batch = batch_of(masked)
        pixels, _ = told_classes(network, batch.stored, run)
        rows = [batch.stored, coloured(batch.masks), coloured(pixels)]
        return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


@torch.inference_mode()
def told_classes(network: nn.Module, rgb: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """uint8 N×H×W×3 → (class of each pixel N×H×W, class of each picture N), int64."""
    with run.autocast():
        told = network(as_rgb(torch.from_numpy(rgb).to(run.device)), "both")
    return told.pixels.float().argmax(1).cpu().numpy(), told.pictures.float().argmax(1).cpu().numpy()


def coloured(classes: np.ndarray) -> np.ndarray:
    """Class numbers N×H×W → uint8 N×H×W×3; −1 is black."""
    colours = PALETTE[np.maximum(classes, 0) % len(PALETTE)]
    colours[classes == NO_CLASS] = 0
    return colours
