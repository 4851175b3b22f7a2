"""Overlap of pixel classes pooled over a whole set: counts of all pictures are added up before anything is divided.

Paper B's tables obey IOU = DSC / (2 − DSC), which means over pictures do not; pooled values do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsi_ml.metrics.classification import accuracy
from wsi_ml.metrics.segmentation import dice, jaccard

NO_LABEL = -1


@dataclass
class PooledPixels:
    """Counts of pixels by true and told class, over any number of pictures."""

    classes: tuple[str, ...]
    """The first is what is not looked for: it counts in no mean."""
    counts: np.ndarray = field(init=False)
    """int64 classes×classes: rows are true classes."""

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.classes), len(self.classes)), np.int64)

    def add(self, truth: np.ndarray, told: np.ndarray) -> None:
        """Count pixels of integer arrays of one shape; those whose truth is −1 take no part.

        Raises ValueError for unlike shapes or a class outside 0…classes − 1.
        """
        if truth.shape != told.shape:
            raise ValueError(f"truth of shape {truth.shape} and told classes of shape {told.shape} do not agree")
        known = truth != NO_LABEL
        rows, columns = truth[known].astype(np.int64), told[known].astype(np.int64)
        number = len(self.classes)
        for name, values in (("true", rows), ("told", columns)):
            if len(values) and (int(values.min()) < 0 or int(values.max()) >= number):
                raise ValueError(f"a {name} class is outside 0…{number - 1}")
        self.counts += np.bincount(rows * number + columns, minlength=number**2).reshape(number, number)

    def dsc(self, place: int) -> float | None:
        """2·|T ∩ P| / (|T| + |P|) of a class; None where it is neither there nor told."""
        return dice(*self._areas(place))

    def iou(self, place: int) -> float | None:
        """|T ∩ P| / |T ∪ P| of a class; None where it is neither there nor told."""
        return jaccard(*self._areas(place))

    def report(self) -> dict[str, Any]:
        """Plain JSON values: both figures of every class, their means over the classes after the first, the counts."""
        places = range(len(self.classes))
        dscs, ious = [self.dsc(place) for place in places], [self.iou(place) for place in places]
        return {
            "pixels": int(self.counts.sum()),
            "dsc": _mean(dscs[1:]),
            "iou": _mean(ious[1:]),
            "pixel_accuracy": accuracy(self.counts),
            "dsc_of": dict(zip(self.classes, dscs, strict=True)),
            "iou_of": dict(zip(self.classes, ious, strict=True)),
            "confusion": {"classes": list(self.classes), "rows": self.counts.tolist()},
        }

    def _areas(self, place: int) -> tuple[float, float, float]:
        row, column = self.counts[place].sum(), self.counts[:, place].sum()
        return float(self.counts[place, place]), float(row), float(column)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
