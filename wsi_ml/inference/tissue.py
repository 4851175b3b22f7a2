"""Where a slide has tissue: Otsu's threshold on the HSV saturation of a low level; pen, dust and glass left out.

Saturation alone would lose the grey stroma of a pale counterstain, so what is merely darker than glass counts too where
it hangs together with coloured tissue; a smudge by itself does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from wsi_ml.geometry import Region
from wsi_ml.slides.pyramid import Pyramid

BAND_ROWS = 1024
MAX_PIXELS = 1 << 24
"""A level of more pixels is not looked at: memory stays bounded whatever the slide's size."""
INK_GREEN = 15
"""Stained tissue takes green light away; what is this much greener than red, and strong in colour, is a pen's ink."""
INK_SATURATION = 90
BLACK = 40
GLASS_SPREAD = 20
GLASS_LEAST = 190
"""The brightest pixels are empty glass when their channels differ by at most GLASS_SPREAD and none is darker."""
PALE_SHARE = 0.9
FULL = 255


@dataclass(frozen=True)
class TissueRule:
    """How tissue is found; saturations run from 0 to 1."""

    mpp: float = 8.0
    """µm per pixel of the level it is looked for in, about."""
    min_saturation: float = 0.05
    """Otsu's threshold is raised to this: a blank slide has only noise to part."""
    max_saturation: float = 0.1
    """Otsu's threshold is lowered to this: a slide full of tissue has only tissue to part."""
    grey: float = 0.06
    """Pixels that let this much less light through than glass are tissue too, where they touch coloured ones."""
    min_area_um2: float = 8_000.0
    """Smaller pieces (100 µm across) are dust."""
    max_hole_um2: float = 1_000_000.0
    """Smaller holes in tissue are filled: fat and lumina are white."""
    margin_um: float = 32.0
    """Added round the tissue, so that its edge is not lost to the level's coarseness."""


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide; a mask pixel stands for 2**halvings stored pixels a side."""

    mask: np.ndarray
    """bool, rows × columns."""
    halvings: int
    threshold: int
    """Saturation, 0 to 255, above which a pixel is coloured."""
    glass: tuple[int, int, int]
    """RGB of empty glass, 255 each where the slide shows none."""


def find_tissue(pyramid: Pyramid, rule: TissueRule | None = None) -> TissueMask:
    """The tissue of a slide; an empty mask for a blank one. Raises DamagedError for a damaged tile."""
    rule = rule or TissueRule()
    level = _level(pyramid, rule)
    glass = glass_colour(_whole(pyramid, len(pyramid.counts) - 1))
    size = pyramid.card.levels[level]
    saturation, absorption, ink = (np.empty((size.height, size.width), kind) for kind in (np.uint8, np.uint8, bool))
    for y in range(0, size.height, BAND_ROWS):
        band = pyramid.region(Region(0, y, size.width, min(BAND_ROWS, size.height - y)), level)
        rows = slice(y, y + band.shape[0])
        saturation[rows], absorption[rows], ink[rows] = colour_of(band, glass)
    mpp = pyramid.card.stored_mpp * (1 << level)
    threshold, mask = mask_of(saturation, absorption, ink, mpp, rule)
    return TissueMask(mask, level, threshold, glass)


def everything(pyramid: Pyramid) -> TissueMask:
    """A mask that calls all of a slide tissue."""
    level = len(pyramid.counts) - 1
    size = pyramid.card.levels[level]
    return TissueMask(np.ones((size.height, size.width), bool), level, 0, (FULL, FULL, FULL))


def glass_colour(rgb: np.ndarray) -> tuple[int, int, int]:
    """RGB of the empty glass in a picture of the whole slide: a lamp's tint must not count as colour."""
    flat = rgb.reshape(-1, 3)
    darkest = flat.min(axis=1)
    pale = flat[darkest >= np.quantile(darkest, PALE_SHARE)]
    red, green, blue = (int(each) for each in np.median(pale, axis=0))
    least, most = min(red, green, blue), max(red, green, blue)
    return (red, green, blue) if least >= GLASS_LEAST and most - least <= GLASS_SPREAD else (FULL, FULL, FULL)


def colour_of(rgb: np.ndarray, glass: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(HSV saturation, light kept back, both uint8; True where ink or black) of RGB H×W×3 on glass of that colour."""
    levels = np.arange(FULL + 1, dtype=np.float32)[:, None] * (FULL / np.asarray(glass, np.float32))
    table = levels.round().clip(0, FULL).astype(np.uint8)[:, None]
    clear = cv2.LUT(np.ascontiguousarray(rgb), table)
    _, saturation, value = cv2.split(cv2.cvtColor(clear, cv2.COLOR_RGB2HSV))
    red, green, blue = cv2.split(clear)
    inked = (cv2.subtract(green, red) > INK_GREEN) & (saturation > INK_SATURATION)
    absorption = FULL - cv2.min(cv2.min(red, green), blue)
    return saturation, absorption, inked | (value < BLACK)


def mask_of(
    saturation: np.ndarray, absorption: np.ndarray, ink: np.ndarray, mpp: float, rule: TissueRule
) -> tuple[int, np.ndarray]:
    """(threshold, mask) of a level of `mpp` µm per pixel; see `TissueRule`."""
    smooth = _median(saturation)
    # The rim of a pen stroke is a pale mixture of ink and glass: it goes with the ink.
    ink = cv2.dilate(ink.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    seen = smooth[~ink]
    otsu = cv2.threshold(seen.reshape(-1, 1), 0, FULL, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0] if seen.size else 0.0
    threshold = round(min(max(otsu, rule.min_saturation * FULL), rule.max_saturation * FULL))
    coloured = _opened((smooth > threshold) & ~ink)
    coloured = _without_specks(coloured, rule.min_area_um2 / mpp**2)
    grey = _opened((_median(absorption) > rule.grey * FULL) & ~ink)
    mask = _touching(grey | coloured, coloured)
    mask = _without_holes(mask, rule.max_hole_um2 / mpp**2)
    margin = math.ceil(rule.margin_um / mpp)
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return threshold, cv2.dilate(mask, round_).astype(bool)


def _median(channel: np.ndarray) -> np.ndarray:
    return cv2.medianBlur(channel, 5) if min(channel.shape) >= 5 else channel


def _opened(mask: np.ndarray) -> np.ndarray:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def _touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Pieces of a mask that hold a seed."""
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    keep = np.zeros(count, bool)
    keep[np.unique(labels[seeds > 0])] = True
    keep[0] = False
    return keep[labels].astype(np.uint8)


def _without_specks(mask: np.ndarray, least: float) -> np.ndarray:
    """Pieces of at least that many pixels."""
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = facts[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return keep[labels].astype(np.uint8)


def _without_holes(mask: np.ndarray, most: float) -> np.ndarray:
    """Holes of fewer pixels than that filled; one that is open to the slide's edge is no hole."""
    height, width = mask.shape
    _, labels, facts, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    x, y = facts[:, cv2.CC_STAT_LEFT], facts[:, cv2.CC_STAT_TOP]
    inside = (x > 0) & (y > 0)
    inside &= (x + facts[:, cv2.CC_STAT_WIDTH] < width) & (y + facts[:, cv2.CC_STAT_HEIGHT] < height)
    fill = inside & (facts[:, cv2.CC_STAT_AREA] < most)
    fill[0] = False
    return mask | fill[labels]


def _level(pyramid: Pyramid, rule: TissueRule) -> int:
    """The stored level nearest to the rule's µm/px that is not too large."""
    last = len(pyramid.counts) - 1
    level = min(last, max(0, round(math.log2(rule.mpp / pyramid.card.stored_mpp))))
    while level < last and math.prod(pyramid.card.levels[level]) > MAX_PIXELS:
        level += 1
    return level


def _whole(pyramid: Pyramid, level: int) -> np.ndarray:
    return pyramid.region(Region(0, 0, *pyramid.card.levels[level]), level)
