"""Batches of training pictures of nuclei at the stored resolution: scaled, stained anew, cluttered, compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsi_ml.data import nuclei_stain
from wsi_ml.data.augment import change_stain, dihedral
from wsi_ml.data.nuclei import DrawnPart, NucleiPicture, targets

KERATIN, EMPTY_KERATIN = 0.07, 0.7
"""Share of drawn grounds that are keratin, behind nuclei and where there are none."""
PINK_GREEN = 0.6
"""Density of green above which a picture's ground is taken as stained with eosin."""


@dataclass(frozen=True)
class NucleiBatchConfig:
    """What a batch is made of."""

    batch: int = 8
    """Pictures in one batch."""
    side: int = 160
    """Side of a picture in stored pixels."""
    drawn_chance: float = 0.3
    """Chance of a drawn scene in place of a hand-outlined picture."""
    empty_chance: float = 0.14
    """Chance of drawn tissue without any nucleus."""
    diameter_low: float = 7.5
    """Smallest and largest median diameter of nuclei, in stored pixels, to which a hand-outlined picture is scaled;
    3.8 and 12 µm at 0.5 µm per pixel, which covers slides of 0.35 to 0.65 too."""
    diameter_high: float = 24.0
    restain_chance: float = 0.85
    """Chance that a picture of one dye is laid over drawn tissue; else only its colours are changed."""
    shrink_chance: float = 0.25
    """Chance that empty rings are drawn round some nuclei."""
    red_chance: float = 0.25
    """Chance of a cluster of drawn red cells."""
    dirt_chance: float = 0.2
    """Chance of drawn specks of ink or pigment."""


@dataclass(frozen=True)
class NucleiBatch:
    """Pictures and what is to be learnt of them."""

    rgb: np.ndarray
    """uint8 N×S×S×3."""
    maps: np.ndarray
    """uint8 N×2×S×S: interior and rim."""
    touching: np.ndarray
    """bool N×S×S: within reach of two nuclei."""


class NucleiSampler:
    """Batches for training; batch `index` is a pure function of the seed: a resumed run sees the same."""

    def __init__(self, hand: Sequence[NucleiPicture], drawn: Sequence[DrawnPart], config: NucleiBatchConfig, seed: int):
        self.hand = [picture for picture in hand if picture.count()]
        self.drawn = list(drawn)
        self.config = config
        self.seed = seed
        self.dyes = [nuclei_stain.measure_dye(picture.rgb, picture.labels > 0) for picture in self.hand]
        self.diameters = [picture.diameter() for picture in self.hand]
        self.pink = [_is_pink(dye) for dye in self.dyes]
        # The square root: crowded pictures teach more, but sparse ones show other tissue. Few are pink: more of them.
        weights = np.sqrt([picture.count() for picture in self.hand]) * np.where(self.pink, 4.0, 1.0)
        self.chances = weights / weights.sum()

    def batch(self, index: int) -> NucleiBatch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, index])
        samples = [self.sample(rng) for _ in range(self.config.batch)]
        maps, touching = zip(*(targets(labels) for _, labels in samples), strict=True)
        return NucleiBatch(np.stack([rgb for rgb, _ in samples]), np.stack(maps), np.stack(touching))

    def sample(self, rng: np.random.Generator, number: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """One picture and its labels, as the store would hold it.

        A hand-outlined one is that of `number`, or drawn by the chances.
        """
        chance = rng.random()
        if self.drawn and chance < self.config.drawn_chance:
            rgb, labels = self._from_drawn(rng)
        elif chance > 1.0 - self.config.empty_chance:
            rgb, labels = (
                nuclei_stain.to_pixels(self._ground(rng, EMPTY_KERATIN)),
                np.zeros((self._wide,) * 2, np.int32),
            )
        else:
            drawn = int(rng.choice(len(self.hand), p=self.chances)) if number is None else number
            rgb, labels = self._from_hand(drawn, rng)
        density = nuclei_stain.to_density(rgb)
        free = cv2.GaussianBlur((labels == 0).astype(np.float32), (0, 0), 0.8)
        if rng.random() < self.config.red_chance:
            nuclei_stain.add_red_cells(density, free, rng)
        if rng.random() < self.config.dirt_chance:
            nuclei_stain.add_dirt(density, free, rng)
        rgb = nuclei_stain.degrade(nuclei_stain.change_light(nuclei_stain.to_pixels(density), rng), rng)
        # Cut after the compression, anywhere in its blocks.
        y, x = rng.integers(0, nuclei_stain.JPEG_PHASE, 2)
        side = self.config.side
        return rgb[y : y + side, x : x + side], labels[y : y + side, x : x + side]

    @property
    def _wide(self) -> int:
        """Side of a picture before it is cut."""
        return self.config.side + nuclei_stain.JPEG_PHASE

    def _from_hand(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A hand-outlined picture, its nuclei at a random size."""
        low, high = np.log(self.config.diameter_low), np.log(self.config.diameter_high)
        factor = np.exp(rng.uniform(low, high)) / self.diameters[number]
        rgb, labels = cut_scaled(self.hand[number], factor, self._wide, rng)
        if self.pink[number] or rng.random() > self.config.restain_chance:
            return _changed_stain(rgb, rng), labels
        dye, ground = self.dyes[number].amount(rgb), self._ground(rng, KERATIN)
        if rng.random() < self.config.shrink_chance:
            nuclei_stain.shrink_away(ground, labels > 0, rng)
        return nuclei_stain.to_pixels(nuclei_stain.stain(dye, ground, rng)), labels

    def _from_drawn(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Part of a drawn scene, at half its size to a third larger."""
        part = self.drawn[int(rng.integers(len(self.drawn)))]
        rgb, labels = cut_scaled(part.picture, float(np.exp(rng.uniform(-0.7, 0.3))), self._wide, rng)
        return _changed_stain(rgb, rng), labels

    def _ground(self, rng: np.random.Generator, keratin: float) -> np.ndarray:
        """Density of tissue without nuclei: of a drawn scene, or drawn for the purpose."""
        wide = self._wide
        if not self.drawn or rng.random() < 0.55:
            return nuclei_stain.draw_ground(rng, (wide, wide), keratin)
        part = self.drawn[int(rng.integers(len(self.drawn)))]
        bare = NucleiPicture(part.picture.name, part.bare, part.picture.labels)
        rgb, _ = cut_scaled(bare, float(np.exp(rng.uniform(-0.3, 0.5))), wide, rng)
        return nuclei_stain.to_density(_changed_stain(rgb, rng))


def cut_scaled(
    picture: NucleiPicture, factor: float, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random square of a picture scaled by `factor` (up to a sixth more or less in one direction), in a random pose.

    A picture that is too small is continued by its mirror image.
    """
    height, width = picture.labels.shape
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    scale_x, scale_y = factor * stretch, factor / stretch
    take_x, take_y = (min(limit, int(side / scale) + 2) for limit, scale in ((width, scale_x), (height, scale_y)))
    x, y = int(rng.integers(width - take_x + 1)), int(rng.integers(height - take_y + 1))
    rgb, labels = picture.rgb[y : y + take_y, x : x + take_x], picture.labels[y : y + take_y, x : x + take_x]
    size = (max(1, round(take_x * scale_x)), max(1, round(take_y * scale_y)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    rgb, labels = cv2.resize(rgb, size, interpolation=method), resize_labels(labels, size)
    missing = (max(0, side - size[1]), max(0, side - size[0]))
    if any(missing):
        edges = (missing[0] // 2, missing[0] - missing[0] // 2, missing[1] // 2, missing[1] - missing[1] // 2)
        rgb = cv2.copyMakeBorder(rgb, *edges, cv2.BORDER_REFLECT_101)
        labels = cv2.copyMakeBorder(labels, *edges, cv2.BORDER_REFLECT_101)
    pose = int(rng.integers(8))
    rgb, labels = dihedral(rgb[:side, :side], pose), dihedral(labels[:side, :side], pose)
    return np.ascontiguousarray(rgb), np.ascontiguousarray(labels)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Label map int32 at another size (width, height), nearest pixel centre."""
    return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)


def _changed_stain(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gains = np.exp(rng.uniform(-0.6, 0.5, 3))
    return change_stain(rgb, gains, rng.uniform(-0.06, 0.06, 3))


def _is_pink(dye: nuclei_stain.Dye) -> bool:
    """Whether the ground is stained with eosin."""
    return bool(dye.ground[1] > PINK_GREEN)
