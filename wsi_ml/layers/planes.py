"""Coordinates of annotation files to base-plane pixels and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import is_close_level, power_of_two_steps
from wsi_ml.slides.card import Card

PLANES = ("base", "stored", "scan")


class PlaneMap(NamedTuple):
    """base = (point - offset) · scale, per axis; `offset` in the other plane's pixels."""

    scale: float = 1.0
    x_offset: float = 0.0
    y_offset: float = 0.0

    def to_base(self, geometry: shapely.Geometry) -> shapely.Geometry:
        """A geometry of the other plane in base-plane pixels."""
        if self == PlaneMap():
            return geometry
        return shapely.transform(geometry, lambda points: (points - self._offset) * self.scale)

    def from_base(self, geometry: shapely.Geometry) -> shapely.Geometry:
        """A base-plane geometry in the other plane's pixels."""
        if self == PlaneMap():
            return geometry
        return shapely.transform(geometry, lambda points: points / self.scale + self._offset)

    @property
    def _offset(self) -> np.ndarray:
        return np.array([self.x_offset, self.y_offset])


def plane_map(plane: str, card: Card) -> PlaneMap:
    """Map between the base plane and `plane`: `base`, `stored`, or `scan` (level 0 of the vendor's file, untrimmed).

    Raises BadRequestError for any other word.
    """
    if plane == "base":
        return PlaneMap()
    if plane == "stored":
        return PlaneMap(2.0)
    if plane == "scan":
        return PlaneMap(_scan_scale(card), *map(float, card.source.l0_bounds_offset))
    raise BadRequestError(f"There is no plane “{plane[:20]}”: say {', '.join(PLANES)}.")


def _scan_scale(card: Card) -> float:
    """Base-plane pixels per pixel of level 0: a power of two, but for scans whose levels are not."""
    ratio = card.source.l0_mpp / card.base_mpp
    exact = float(2 ** power_of_two_steps(ratio)) if ratio >= 1 else 1.0 / 2 ** power_of_two_steps(1 / ratio)
    return exact if is_close_level(ratio, exact) else ratio
