"""Pairs of stored (×20) and scanned (×40) pixels for super-resolution, made by the product's own kernel and codec."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openslide
from PIL import Image

from wsi_ml.data.augment import AugmentConfig, augment
from wsi_ml.slides.codec import STORE_STEPS, STORE_STEPS_SUBSAMPLING, decode_jpeg, encode_jpeg, encode_steps
from wsi_ml.slides.kernel import halve_pixels

TILE_SIDE = 512
TILE_SETS = ("sr-x40-dev", "sr-x40-dev2")
SCANS = {
    "metaplasia": "wsi-atlas-dev/metaplasia-HE-x40.svs",
    "duodenum-tubular-adenoma": "wsi-atlas-dev/duodenum-adenoma-HE-x40.svs",
}
TISSUE_SATURATION = 20


@dataclass(frozen=True)
class Compression:
    """JPEG of the stored pixels; the defaults are the store's."""

    steps: tuple[int, int] | None = STORE_STEPS
    """Equal quantisation steps of luma and chroma; None for the tables of Annex K at `quality`."""
    quality: int = 0
    """1…100, where there are no steps; 0 for pixels that were never compressed."""
    subsampling: str = STORE_STEPS_SUBSAMPLING

    @property
    def text(self) -> str:
        """In words: `steps 5/7 4:4:4`, `q90 4:2:0`, `not compressed`."""
        chroma = ":".join(self.subsampling)
        if self.steps:
            return f"steps {self.steps[0]}/{self.steps[1]} {chroma}"
        return f"q{self.quality} {chroma}" if self.quality else "not compressed"


UNCOMPRESSED = Compression(steps=None)


def compress(rgb: np.ndarray, compression: Compression = Compression()) -> bytes:
    """The JPEG of a picture, RGB uint8 H×W×3; the compression must be one."""
    if compression.steps:
        return encode_steps(rgb, compression.steps, compression.subsampling)
    return encode_jpeg(rgb, compression.quality, compression.subsampling)


def store_pixels(base_rgb: np.ndarray, compression: Compression = Compression()) -> np.ndarray:
    """What the store keeps of a ×40 picture: kernel `box2`, then JPEG; uint8 2H×2W×3 → H×W×3."""
    stored = halve_pixels(base_rgb)
    return stored if compression == UNCOMPRESSED else decode_jpeg(compress(stored, compression))


def tile_files(data_root: Path) -> dict[str, list[Path]]:
    """Files of the ×40 tile sets under `data_root`, by slide (last part of the source repository's name)."""
    slides: dict[str, list[Path]] = {}
    for folder in TILE_SETS:
        index = data_root / folder / "index.csv"
        if not index.is_file():
            continue
        with index.open(newline="") as lines:
            for row in csv.DictReader(lines):
                slides.setdefault(row["repo"].split("/")[-1], []).append(index.parent / row["file"])
    return {slide: sorted(files) for slide, files in sorted(slides.items())}


def read_tiles(files: Sequence[Path]) -> list[np.ndarray]:
    """RGB uint8 pixels of tile files."""
    return [_read_rgb(file) for file in files]


def _read_rgb(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def slide_pairs(
    data_root: Path,
    slide: str,
    count: int | None = None,
    compression: Compression = Compression(),
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(stored, scanned) pixels of the first `count` tiles (all by default) of one slide of the tile sets."""
    return [(store_pixels(base, compression), base) for base in read_tiles(tile_files(data_root)[slide][:count])]


def cut_tiles(scan: Path, count: int, seed: int) -> list[np.ndarray]:
    """Up to `count` tissue tiles of 512 px from the ×40 level of a scan, at seeded random places."""
    rng = np.random.default_rng(seed)
    tiles: list[np.ndarray] = []
    with openslide.OpenSlide(scan) as slide:
        l0_width, l0_height = slide.dimensions
        for _ in range(4 * count):
            if len(tiles) == count:
                break
            l0_place = (int(rng.integers(l0_width - TILE_SIDE)), int(rng.integers(l0_height - TILE_SIDE)))
            rgb = np.asarray(slide.read_region(l0_place, 0, (TILE_SIDE, TILE_SIDE)).convert("RGB"))
            saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
            if np.mean(saturation > TISSUE_SATURATION) > 0.6:
                tiles.append(rgb)
    return tiles


def load_slides(data_root: Path, without: Sequence[str], scan_tiles: int, seed: int) -> dict[str, list[np.ndarray]]:
    """×40 tiles by slide, except the slides named in `without`; whole scans add `scan_tiles` tiles each.

    Raises FileNotFoundError when `data_root` holds none of the sets, ValueError when `without` names an unknown slide.
    """
    files = tile_files(data_root)
    if not files:
        raise FileNotFoundError(f"{data_root} holds none of the tile sets {', '.join(TILE_SETS)}.")
    unknown = sorted(set(without) - set(files))
    if unknown:
        raise ValueError(f"The split names slides that are not in the data: {', '.join(unknown)}.")
    slides = {slide: read_tiles(paths) for slide, paths in files.items() if slide not in without}
    for slide, scan in SCANS.items():
        if slide in slides and scan_tiles and (data_root / scan).is_file():
            slides[slide] = slides[slide] + cut_tiles(data_root / scan, scan_tiles, seed)
    return slides


@dataclass(frozen=True)
class PatchConfig:
    """Size of a batch of training pairs."""

    batch: int = 16
    """Patches in one batch of one rank; a multiple of `per_tile`."""
    per_tile: int = 4
    """Patches cut from one augmented tile: making the tile costs more than cutting it."""
    side: int = 64
    """Side of a patch in stored pixels; the ×40 patch has twice the side."""
    store_chance: float = 0.4
    """Chance that a tile is compressed exactly as the store does it."""
    raw_chance: float = 0.2
    """Chance that it is not compressed."""
    steps_chance: float = 0.2
    """Chance of other equal steps, 2 to `steps_high`; else a quality of Annex K from `quality_low` to 98."""
    steps_high: int = 16
    quality_low: int = 85


class PairSampler:
    """Batches of training pairs; batch `index` is a pure function of the seed: a resumed run sees the same."""

    def __init__(
        self, slides: dict[str, list[np.ndarray]], patches: PatchConfig, augmentation: AugmentConfig, seed: int
    ):
        self.slides = [slides[name] for name in sorted(slides)]
        # A slide with four times the tiles is drawn twice as often: variety counts, and so does every slide.
        weights = np.sqrt([len(tiles) for tiles in self.slides])
        self.chances = weights / weights.sum()
        self.patches = patches
        self.augmentation = augmentation
        self.seed = seed

    def batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Stored patches N×S×S×3 and the scanned patches N×2S×2S×3 they were made of, uint8."""
        rng = np.random.default_rng([self.seed, index])
        stored, base = [], []
        for _ in range(self.patches.batch // self.patches.per_tile):
            for stored_patch, base_patch in self._tile_patches(rng):
                stored.append(stored_patch)
                base.append(base_patch)
        return np.stack(stored), np.stack(base)

    def _compression(self, rng: np.random.Generator) -> Compression:
        """The store's JPEG most often; others too, for slides whose stored pixels have another history."""
        patches, chance = self.patches, rng.random()
        if chance < patches.store_chance:
            return Compression()
        if chance < patches.store_chance + patches.raw_chance:
            return UNCOMPRESSED
        if chance < patches.store_chance + patches.raw_chance + patches.steps_chance:
            # Evenly on the scale of bytes, not of steps.
            luma = 2.0 * (patches.steps_high / 2.0) ** rng.random()
            chroma = luma * rng.uniform(1.0, 1.7)
            return Compression((round(luma), round(chroma)), 0, "420" if rng.random() < 0.3 else "444")
        quality = int(rng.integers(patches.quality_low, 99))
        return Compression(None, quality, "444" if rng.random() < 0.3 else "420")

    def _tile_patches(self, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """Patches of one augmented tile; the whole tile goes through the JPEG, as a stored tile does, then is cut."""
        tiles = self.slides[int(rng.choice(len(self.slides), p=self.chances))]
        base_tile = augment(tiles[int(rng.integers(len(tiles)))], self.augmentation, rng)
        stored_tile = store_pixels(base_tile, self._compression(rng))
        side, pairs = self.patches.side, []
        for _ in range(self.patches.per_tile):
            y, x = (int(rng.integers(limit - side + 1)) for limit in stored_tile.shape[:2])
            pairs.append((stored_tile[y : y + side, x : x + side],
                          base_tile[2 * y : 2 * (y + side), 2 * x : 2 * (x + side)]))  # fmt: skip
        return pairs
