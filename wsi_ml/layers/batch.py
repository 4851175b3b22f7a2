"""Features in bulk: the form in which inference hands them to a layer, and a layer to whoever reads it whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeatureBatch:
    """N features of one layer as columns, row i of each belonging together."""

    geometries: np.ndarray
    """Object array of N shapely Polygons or MultiPolygons in base-plane pixels."""
    class_numbers: np.ndarray
    """uint16, index into the layer's class names."""
    scores: np.ndarray
    """float32, 0 to 1; NaN for a feature without a score."""

    def __len__(self) -> int:
        return len(self.geometries)
