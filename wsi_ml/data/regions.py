"""Places for square patches in annotated regions, by the rules of psimage and paper A. Pure geometry, no pixels.

All coordinates are pixels of one plane, in which the patches are cut too (here the stored plane, ×20).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely

from wsi_ml.errors import BadRequestError, RegionTooSmallError
from wsi_ml.geometry import Size

INTERSECTION = 0.75
"""Share of a patch that must lie in its region; psimage's default."""
MISSES = 500
"""Draws in a row that may fall outside before a region counts as unfit."""


def region_weights(areas: Sequence[float], coefficient: float) -> np.ndarray:
    """Chances of the regions of one class: w ∝ 1/n + b (a/Σa − 1/n), for b < 0 with 1/a for a and |b| for b.

    b = 0: all alike; 1: by area; −1: by inverse area. Sums to 1. Raises BadRequestError for no regions, an area that
    is not positive, or b outside −1…1.
    """
    values = np.asarray(areas, float)
    if not len(values) or not (values > 0).all() or not np.isfinite(values).all():
        raise BadRequestError("Region weights need at least one region, each with an area above 0.")
    if not -1.0 <= coefficient <= 1.0:
        raise BadRequestError(f"The region coefficient is {coefficient:g}; it must lie in −1…1.")
    shared = values if coefficient >= 0 else 1.0 / values
    even = 1.0 / len(values)
    weights = even + abs(coefficient) * (shared / shared.sum() - even)
    return weights / weights.sum()


def inside(region: shapely.Geometry, x: float, y: float, side: int, intersection: float = INTERSECTION) -> bool:
    """True where more than `intersection` of the square at x, y lies in the region (strictly more)."""
    square = shapely.box(x, y, x + side, y + side)
    if region.contains(square):
        return intersection < 1.0
    if not region.intersects(square):
        return False
    return region.intersection(square).area > intersection * side * side


def check_region(region: shapely.Geometry, side: int, intersection: float, what: str = "region") -> None:
    """Raise RegionTooSmallError where the region has less area than a patch must share with it."""
    if region.area < intersection * side * side:
        raise RegionTooSmallError(
            f"The {what} is too small: it covers {region.area:.0f} px² and a patch of {side} px must have more than "
            f"{intersection:g} of its area in it; leave the region out or take smaller patches."
        )


def random_places(
    region: shapely.Geometry,
    size: Size,
    side: int,
    count: int,
    rng: np.random.Generator,
    intersection: float = INTERSECTION,
    what: str = "region",
) -> list[tuple[int, int]]:
    """`count` random upper left corners of patches of `side` px of which more than `intersection` lie in the region.

    Drawn evenly over all places on the slide of `size` that can qualify. Raises RegionTooSmallError for a region of
    too little area, or one in which 500 draws in a row fail.
    """
    check_region(region, side, intersection, what)
    shapely.prepare(region)
    left, top, right, bottom = region.bounds
    slack = (1.0 - intersection) * side  # how far a patch may hang out of the region's box and still qualify
    x_low, y_low = max(0, math.floor(left - slack)), max(0, math.floor(top - slack))
    x_high = min(size.width - side, math.ceil(right + slack) - side)
    y_high = min(size.height - side, math.ceil(bottom + slack) - side)
    places: list[tuple[int, int]] = []
    misses = 0
    while len(places) < count:
        if misses == MISSES or x_high < x_low or y_high < y_low:
            raise RegionTooSmallError(
                f"The {what} holds no patch of {side} px with more than {intersection:g} of its area in it "
                f"({misses} random places tried in a row); leave it out, take smaller patches or a smaller share."
            )
        x, y = int(rng.integers(x_low, x_high + 1)), int(rng.integers(y_low, y_high + 1))
        if inside(region, x, y, side, intersection):
            places.append((x, y))
            misses = 0
        else:
            misses += 1
    return places


def dense_places(
    region: shapely.Geometry, size: Size, side: int, stride: int, intersection: float = INTERSECTION
) -> list[tuple[int, int]]:
    """Upper left corners of a grid over the region's box, row by row, where the strict test holds; may be none.

    The grid starts at the box's rounded corner and steps by `stride` up to the box's far edge or the last place on the
    slide, exclusive, as psimage does.
    """
    if stride < 1:
        raise BadRequestError(f"The stride is {stride}; it must be at least 1 px.")
    shapely.prepare(region)
    left, top, right, bottom = region.bounds
    return [
        (x, y)
        for y in range(max(0, round(top)), min(math.ceil(bottom), size.height - side), stride)
        for x in range(max(0, round(left)), min(math.ceil(right), size.width - side), stride)
        if inside(region, x, y, side, intersection)
    ]


def patches_in(regions: Sequence[shapely.Geometry], side: int) -> float:
    """Length of a data set as psimage counts it: the regions' area in patches of `side`, ΣA / side²."""
    return float(sum(region.area for region in regions)) / (side * side)
