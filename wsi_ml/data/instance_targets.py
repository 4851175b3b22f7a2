"""Targets of instance tasks: eroded interiors, contours, weights between neighbours (Graham et al. 2022, section 3.2).

Label maps are int H×W, 0 for background. Discs are OpenCV's elliptic structuring elements, worked out here so that the
targets do not change with its version.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from wsi_ml.errors import BadRequestError

INTERIOR, CONTOUR = 1, 2
NUCLEI_SIDE, GLAND_SIDE = 3, 11
"""Side of the disc for nuclei and lumina, and for glands, in pixels at 0.5 µm."""
NEAR = 10
"""Pixels around an instance's box within which its distance counts."""
WEIGHT = 10.0


def disc(side: int) -> np.ndarray:
    """Elliptic structuring element, uint8 side×side of 0 and 1 (OpenCV's MORPH_ELLIPSE)."""
    if side < 1:
        raise BadRequestError(f"A disc of side {side} has no pixels.")
    radius, element = side // 2, np.zeros((side, side), np.uint8)
    for row in range(side):
        rise = row - radius
        if abs(rise) <= radius:
            reach = round(radius * np.sqrt((radius * radius - rise * rise) / (radius * radius))) if radius else 0
            element[row, max(radius - reach, 0) : min(radius + reach + 1, side)] = 1
    return element


def boxes(labels: np.ndarray) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """(number, rows and columns) of each instance, by number; raises BadRequestError for what is no label map."""
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise BadRequestError(f"A label map is H×W of whole numbers from 0, not {labels.dtype} {labels.shape}.")
    places = np.nonzero(labels)
    found, which = np.unique(labels[places], return_inverse=True)
    first = np.full((2, len(found)), np.iinfo(np.int64).max)
    last = np.zeros((2, len(found)), np.int64)
    for axis, where in enumerate(places):
        np.minimum.at(first[axis], which, where)
        np.maximum.at(last[axis], which, where)
    for index, number in enumerate(found.tolist()):
        rows, columns = (slice(int(first[axis, index]), int(last[axis, index]) + 1) for axis in (0, 1))
        yield number, (rows, columns)


def relabelled(labels: np.ndarray) -> np.ndarray:
    """Label map of connected instances: parts of one that mirroring split apart get numbers of their own."""
    parts = np.zeros(labels.shape, np.int32)
    count = 0
    for number, box in boxes(labels):
        found, alone = cv2.connectedComponents((labels[box] == number).astype(np.uint8), connectivity=8)
        inside = alone > 0
        parts[box][inside] = alone[inside] + count
        count += found - 1
    return parts


def eroded(labels: np.ndarray, side: int) -> np.ndarray:
    """Label map with each instance eroded by a disc; pixels beyond the picture count as outside it."""
    result = np.zeros(labels.shape, np.int32)
    for number, box in boxes(labels):
        result[box][_shrunk(labels[box] == number, side)] = number
    return result


def interior_target(labels: np.ndarray, side: int) -> np.ndarray:
    """The `base` target, uint8 H×W: 1 inside eroded instances."""
    return (eroded(labels, side) > 0).astype(np.uint8)


def contour_target(labels: np.ndarray, side: int) -> np.ndarray:
    """The `plus` target, uint8 H×W: 1 inside eroded instances, 2 on contours (dilated less eroded), 0 elsewhere.

    A later instance's contour is drawn over an earlier interior, so that neighbours stay apart.
    """
    target = interior_target(labels, side)
    for number, box in boxes(labels):
        rows, columns = (slice(max(0, part.start - side), part.stop + side) for part in box)
        mask = (labels[rows, columns] == number).astype(np.uint8)
        grown = cv2.dilate(mask, disc(side), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        ring = (grown > 0) & ~_shrunk(mask > 0, side)
        target[rows, columns][ring] = CONTOUR
    return target


def point_target(labels: np.ndarray, radius: float) -> np.ndarray:
    """The target of tasks of points, uint8 H×W: 1 within `radius` of each instance's centre (mean of its pixels)."""
    target = np.zeros(labels.shape, np.uint8)
    reach = int(np.ceil(radius))
    for number, box in boxes(labels):
        inside = np.nonzero(labels[box] == number)
        row, column = (float(each.mean()) + part.start for each, part in zip(inside, box, strict=True))
        top, left = max(0, int(row) - reach), max(0, int(column) - reach)
        near = target[top : int(row) + reach + 2, left : int(column) + reach + 2]
        rows, columns = np.ogrid[top : top + near.shape[0], left : left + near.shape[1]]
        near[(rows - row) ** 2 + (columns - column) ** 2 <= radius * radius] = 1
    return target


def weight_map(labels: np.ndarray, side: int) -> np.ndarray:
    """Loss weights, float32 H×W: 1 + 10·exp(−((d1 + d2)/σ)²/2) outside instances, 1 inside and where neighbours lack.

    d1 and d2 are the distances to the two nearest eroded instances, each counted within 10 px of its box; σ = side.
    """
    inside = eroded(labels, side)
    first = np.full(labels.shape, np.inf, np.float32)
    second = first.copy()
    for number, box in boxes(inside):
        rows, columns = (slice(max(0, part.start - NEAR), part.stop + NEAR) for part in box)
        beyond = (inside[rows, columns] != number).astype(np.uint8)
        away = cv2.distanceTransform(beyond, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # Its last bit changes from call to call; squares of distances are whole numbers, so this is exact.
        away = np.sqrt(np.rint(away**2))
        second[rows, columns] = np.minimum(second[rows, columns], np.maximum(first[rows, columns], away))
        first[rows, columns] = np.minimum(first[rows, columns], away)
    weights = 1.0 + WEIGHT * np.exp(-(((first + second) / side) ** 2) / 2)
    weights[inside > 0] = 1.0
    return weights.astype(np.float32)


def _shrunk(mask: np.ndarray, side: int) -> np.ndarray:
    """An instance's mask less what a disc takes away."""
    framed = np.pad(mask.astype(np.uint8), side)
    return cv2.erode(framed, disc(side))[side:-side, side:-side] > 0
