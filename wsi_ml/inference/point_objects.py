"""Places of small discs in a map of probabilities: what a head for points tells."""

from __future__ import annotations

import cv2
import numpy as np

HALF = 0.5
LEAST_SHARE = 0.25
"""Of a whole disc's area: smaller spots are no points."""


def find_points(probability: np.ndarray, radius: float) -> np.ndarray:
    """(row, column) of each spot above one half, n × 2: the mean of its pixels weighted by probability.

    `probability` float32 H×W, `radius` of the discs that were learnt. Spots connect over edges.
    """
    mask = (probability > HALF).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4, ltype=cv2.CV_32S)
    weight = np.bincount(labels.ravel(), probability.ravel().astype(np.float64), count)
    rows, columns = np.indices(labels.shape)
    sums = [np.bincount(labels.ravel(), (probability * at).ravel(), count) for at in (rows, columns)]
    kept = stats[:, cv2.CC_STAT_AREA] >= LEAST_SHARE * np.pi * radius * radius
    kept[0] = False
    return np.stack([each[kept] / weight[kept] for each in sums], -1)
