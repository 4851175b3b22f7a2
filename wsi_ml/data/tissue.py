"""Weakly labelled patches of tissue (tissue-weak-dev, MIT): reading, the split, and batches for training."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsi_ml.data import nuclei_stain
from wsi_ml.data.augment import change_stain, dihedral
from wsi_ml.data.pairs import read_tiles
from wsi_ml.slides.kernel import halve_pixels

TISSUE_SET = "tissue-weak-dev"
CLASSES = {
    "ADI": "Adipose",
    "BG": "Background",
    "GLA": "Glandular mucosa",
    "LYM": "Lymphoid",
    "MUS": "Smooth muscle",
    "STR": "Collagen stroma",
}
"""Label in the set -> name of the class; their order is that of the network's output."""
CODES = tuple(CLASSES)
TEST_SLIDES = ("duodenum-tubular-adenoma",)
"""Held out whole. Only background and glandular mucosa come from more than one slide."""
HELD_BACK = 0.25
"""Share of each single-slide class that is held out by place: its patches furthest along the slide."""
GLAND_SET, GLAND_SLIDE = "sr-x40-dev", "metaplasia"
"""Tiles at x40 of the slide that all smooth muscle comes from, most of them mucosa: so that glands are not told from
muscle by the colours of their slides."""
NOT_GLANDS = (
    "3584_5632", "4096_6144", "4096_8704", "4608_5120", "4608_8192", "5632_5120", "6144_4608", "7168_7680", "7680_7680",
    "8704_7680", "9728_7168",
)  # fmt: skip
"""Places (x_y) of that slide's tiles that show something else, by eye."""
SIDE = 224
"""Stored pixels on a side of a patch."""


@dataclass(frozen=True)
class TissuePatch:
    """A patch and where it comes from."""

    rgb: np.ndarray
    """uint8 224×224×3."""
    label: int
    """Index into `CODES`."""
    slide: str
    """Last part of the source repository's name."""
    l0_x: int
    l0_y: int


@dataclass(frozen=True)
class TissueSplit:
    """Patches by their use."""

    training: list[TissuePatch]
    by_slide: list[TissuePatch]
    """Of slides that are not trained on at all."""
    by_place: list[TissuePatch]
    """Of slides that are trained on, from another part of them."""


def read_tissue_set(data_root: Path) -> list[TissuePatch]:
    """All patches under `data_root`, in the order of the index, then those of GLAND_SET where it is there too.

    Raises FileNotFoundError when the set is not there.
    """
    index = data_root / TISSUE_SET / "index.csv"
    if not index.is_file():
        raise FileNotFoundError(f"{data_root} holds no {TISSUE_SET}.")
    patches = []
    with index.open(newline="") as lines:
        for row in csv.DictReader(lines):
            with Image.open(index.parent / row["file"]) as picture:
                rgb = np.asarray(picture.convert("RGB"))
            slide = row["repo"].split("/")[-1]
            patches.append(TissuePatch(rgb, CODES.index(row["label"]), slide, int(row["x"]), int(row["y"])))
    return patches + _read_glands(data_root)


def middle_of(base_rgb: np.ndarray) -> np.ndarray:
    """The middle 224 px, at the stored resolution, of a x40 tile."""
    stored = halve_pixels(base_rgb)
    y, x = ((length - SIDE) // 2 for length in stored.shape[:2])
    return stored[y : y + SIDE, x : x + SIDE]


def _read_glands(data_root: Path) -> list[TissuePatch]:
    """Patches of the tiles of GLAND_SLIDE that show glands."""
    index = data_root / GLAND_SET / "index.csv"
    if not index.is_file():
        return []
    with index.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["repo"].split("/")[-1] == GLAND_SLIDE]
    label, patches = CODES.index("GLA"), []
    for row in rows:
        if f"{row['x']}_{row['y']}" not in NOT_GLANDS:
            (base_rgb,) = read_tiles([index.parent / row["file"]])
            patches.append(TissuePatch(middle_of(base_rgb), label, GLAND_SLIDE, int(row["x"]), int(row["y"])))
    return patches


def split_patches(patches: Sequence[TissuePatch], test_slides: Sequence[str]) -> TissueSplit:
    """The split: whole slides, and in the rest the far end of each class's patches of a slide.

    Along the longer side of the box that a class's patches take up on a slide, the last HELD_BACK of them are held
    out, so that neighbours fall together but for those at the one cut.
    """
    by_slide = [patch for patch in patches if patch.slide in test_slides]
    training: list[TissuePatch] = []
    by_place: list[TissuePatch] = []
    groups: dict[tuple[int, str], list[TissuePatch]] = {}
    for patch in patches:
        if patch.slide not in test_slides:
            groups.setdefault((patch.label, patch.slide), []).append(patch)
    for group in groups.values():
        places = np.array([(patch.l0_x, patch.l0_y) for patch in group])
        axis = int(np.argmax(np.ptp(places, axis=0)))
        order = np.argsort(places[:, axis], kind="stable")
        kept = len(group) - round(HELD_BACK * len(group))
        training += [group[place] for place in order[:kept]]
        by_place += [group[place] for place in order[kept:]]
    return TissueSplit(training, by_slide, by_place)


class TissueSampler:
    """Batches for training; batch `index` is a pure function of the seed. Every class is drawn equally often."""

    def __init__(self, patches: Sequence[TissuePatch], batch: int, mix_chance: float, seed: int):
        self.by_class = [[patch for patch in patches if patch.label == label] for label in range(len(CODES))]
        self.present = [label for label, group in enumerate(self.by_class) if group]
        self.size, self.mix_chance, self.seed = batch, mix_chance, seed

    def batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 N×224×224×3 and the shares of the classes float32 N×classes."""
        rng = np.random.default_rng([self.seed, index])
        samples = [self._sample(rng) for _ in range(self.size)]
        return np.stack([rgb for rgb, _ in samples]), np.stack([shares for _, shares in samples])

    def _sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A patch; by chance with a part of another one beside it, as at the border of two tissues."""
        rgb, label = self.varied(rng)
        shares = np.eye(len(CODES), dtype=np.float32)[label]
        if rng.random() < self.mix_chance:
            other, other_label = self.varied(rng)
            rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
            angle = rng.uniform(0, 2 * np.pi)
            beyond = np.cos(angle) * columns + np.sin(angle) * rows > rng.uniform(-60, 60)
            share = float(beyond[48:-48, 48:-48].mean())
            rgb = np.where(beyond[..., None], other, rgb)
            shares = (1 - share) * shares + share * np.eye(len(CODES), dtype=np.float32)[other_label]
        return nuclei_stain.degrade(nuclei_stain.change_light(rgb, rng), rng), shares

    def plain(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A patch as it is and its class; every class equally often."""
        label = int(self.present[int(rng.integers(len(self.present)))])
        group = self.by_class[label]
        return group[int(rng.integers(len(group)))].rgb, label

    def varied(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A patch in another pose, size and stain: what class it is must not be told by its slide's colours."""
        rgb, label = self.plain(rng)
        rgb = resized(rgb, float(np.exp(rng.uniform(-0.3, 0.4))), rng)
        rgb = change_stain(rgb, np.exp(rng.uniform(-0.8, 0.7, 3)), rng.uniform(-0.04, 0.06, 3))
        if rng.random() < 0.5:
            rgb = _other_laboratory(rgb, rng)
        return dihedral(rgb, int(rng.integers(8))), label


def resized(rgb: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """A random 224-px square of a patch scaled by `factor`; one that got too small is continued by its mirror image."""
    side = round(SIDE * factor)
    rgb = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    missing = max(0, SIDE - side)
    if missing:
        before = missing // 2
        after = missing - before
        rgb = cv2.copyMakeBorder(rgb, before, after, before, after, cv2.BORDER_REFLECT_101)
    y, x = rng.integers(0, rgb.shape[0] - SIDE + 1, 2)
    return rgb[y : y + SIDE, x : x + SIDE]


def _other_laboratory(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Optical densities mixed among the colours by a random matrix near the identity, rows summing to one."""
    matrix = np.eye(3, dtype=np.float32) + rng.normal(0, 0.22, (3, 3)).astype(np.float32)
    matrix = np.clip(matrix, 0, None)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return nuclei_stain.to_pixels(nuclei_stain.to_density(rgb) @ matrix.T)
