"""Pictures of nuclei in other stains: the dye of real nuclei is measured and laid over drawn tissue of any colour.

Most of the hand-outlined pictures show haematoxylin alone on a tinted ground. What a training picture shows of them is
the amount of dye in every pixel; the colour of the dye, the tissue around and the things that are mistaken for nuclei
(red cells, keratin, ink) are drawn anew every time. All amounts are optical densities −ln((grey + 1) / 256).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsi_ml.data.augment import DENSITY, change_sharpness
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg, encode_steps

HAEMATOXYLIN = np.array([0.62, 0.72, 0.32], np.float32)
EOSIN = np.array([0.13, 0.86, 0.46], np.float32)
RED_CELL = np.array([0.10, 0.95, 0.80], np.float32)
INK = np.array([1.25, 0.30, 0.38], np.float32)
PIGMENT = np.array([0.80, 0.90, 1.00], np.float32)
BROWN = np.array([0.35, 0.65, 0.95], np.float32)
"""Density per unit in red, green and blue; the first two as in the drawn scenes."""
JPEG_PHASE = 16
"""Stored pixels of a compression block with halved chroma: a crop may begin anywhere in one."""


def to_density(rgb: np.ndarray) -> np.ndarray:
    """Optical density float32 of uint8 pixels, same shape."""
    return DENSITY[rgb]


def to_pixels(density: np.ndarray) -> np.ndarray:
    """The inverse of `to_density`, rounded and clipped."""
    return np.clip(np.exp(-density) * 256.0 - 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Dye:
    """How to read the amount of nuclear dye from the pixels of one picture."""

    ground: np.ndarray
    """Density of the picture's tinted ground, 3 values."""
    direction: np.ndarray
    """Density of one unit of dye: that of the picture's median nucleus pixel less the ground, over its squared norm."""

    def amount(self, rgb: np.ndarray) -> np.ndarray:
        """Dye of uint8 pixels H×W×3, float32 H×W: 0 on the ground, 1 in the median nucleus pixel."""
        return np.maximum((to_density(rgb) - self.ground) @ self.direction, 0.0)


def measure_dye(rgb: np.ndarray, nuclei: np.ndarray) -> Dye:
    """The dye of a picture, by a mask of its nuclei; ground and nucleus are medians."""
    density = to_density(rgb)
    ground = np.median(density[~nuclei], axis=0)
    middle = np.median(density[nuclei], axis=0) - ground
    return Dye(ground.astype(np.float32), (middle / max(float(middle @ middle), 1e-3)).astype(np.float32))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise of about unit variance, float32; `cell` is the size of its spots in pixels."""
    rows, columns = (max(2, int(np.ceil(length / cell)) + 2) for length in shape)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC) * 1.3


def streaks(rng: np.random.Generator, shape: tuple[int, int], length: float, width: float) -> np.ndarray:
    """Wavy parallel streaks in a random direction, about unit variance, float32."""
    angle = rng.uniform(0, np.pi)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    bend = 0.6 * length * smooth_field(rng, shape, 40.0)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = np.cos(angle) * rows - np.sin(angle) * columns + 0.25 * bend
    side = int(np.hypot(*shape)) + 8
    noise = smooth_field(rng, (side, side), 2.0)
    x, y = np.mod(along / length * 2.0 + side, side - 1), np.mod(across / width * 2.0 + side, side - 1)
    return cv2.remap(noise, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)


def draw_ground(rng: np.random.Generator, shape: tuple[int, int], keratin: float) -> np.ndarray:
    """Density H×W×3 of drawn tissue without nuclei: cytoplasm, collagen, nothing or, by that chance, keratin."""
    if rng.random() < keratin:
        return draw_keratin(rng, shape)
    kind = rng.random()
    if kind < 0.08:
        return np.zeros((*shape, 3), np.float32)
    pink = rng.uniform(0.1, 0.9) * np.clip(1 + 0.25 * smooth_field(rng, shape, rng.uniform(8, 60)), 0.1, None)
    pink *= np.clip(1 + rng.uniform(0, 0.45) * streaks(rng, shape, rng.uniform(20, 60), rng.uniform(2, 7)), 0.05, None)
    blue: np.ndarray = np.zeros(shape, np.float32)
    if kind < 0.55:  # cytoplasm that takes up both dyes, from basophilic to squamous
        blue = rng.uniform(0.05, 0.6) * np.clip(1 + 0.25 * smooth_field(rng, shape, 25), 0.1, None)
    ground = mix(rng, blue, pink)
    if rng.random() < 0.35:  # clefts and vacuoles
        open_ = np.clip((np.abs(streaks(rng, shape, 30, 9)) - rng.uniform(0.7, 1.8)) * 3, 0, 1)
        ground *= 1 - 0.95 * open_[..., None]
    return ground


def mix(rng: np.random.Generator, blue: np.ndarray, pink: np.ndarray) -> np.ndarray:
    """Density H×W×3 of amounts of haematoxylin and eosin, with fine grain."""
    grain = 1 + 0.08 * rng.standard_normal(blue.shape).astype(np.float32)
    return (blue * grain)[..., None] * vary(rng, HAEMATOXYLIN) + (pink * grain)[..., None] * vary(rng, EOSIN)


def draw_keratin(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Density of what is as dark as nuclei and has none: packed layers, and flakes on glass with darker edges."""
    length, width = rng.uniform(40, 140), np.exp(rng.uniform(np.log(1.8), np.log(26)))
    layers = streaks(rng, shape, length, width)
    layers += rng.uniform(0, 0.8) * streaks(rng, shape, length / 2, width / 3)
    present = np.clip((layers + rng.uniform(-1.7, 1.5)) * rng.uniform(1.5, 6.0), 0, 1)
    edge = np.exp(-(((layers + rng.uniform(-0.6, 0.6)) / 0.15) ** 2)) * rng.uniform(0, 1.2)
    patch = np.clip(0.9 + 0.35 * smooth_field(rng, shape, 30), 0.2, None)
    fine = np.clip(1 + rng.uniform(0, 0.5) * streaks(rng, shape, 20, 2.5), 0.1, None)
    amount = present * patch * fine * (1 + edge)
    ground = mix(rng, rng.uniform(0.1, 1.1) * amount, rng.uniform(0.1, 1.1) * amount)
    if rng.random() < 0.3:
        ground += mix(rng, np.full(shape, rng.uniform(0, 0.4), np.float32), np.full(shape, rng.uniform(0.1, 0.7)))
    return ground.astype(np.float32)


def shrink_away(ground: np.ndarray, nuclei: np.ndarray, rng: np.random.Generator) -> None:
    """Draw the empty rings that shrinking leaves round some nuclei."""
    reach = int(rng.integers(1, 4))
    around = cv2.dilate(nuclei.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)).astype(np.float32)
    some = np.clip((smooth_field(rng, nuclei.shape, 14) - rng.uniform(-0.5, 1.0)) * 4, 0, 1)
    ground *= 1 - 0.95 * (cv2.GaussianBlur(around, (0, 0), 0.7) * some)[..., None]


def vary(rng: np.random.Generator, stain: np.ndarray) -> np.ndarray:
    """A stain of another laboratory: each colour's density changed by up to about a third, the sum kept."""
    changed = stain * np.exp(rng.normal(0, 0.16, 3).astype(np.float32))
    return changed * (stain.sum() / changed.sum())


def add_red_cells(density: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a cluster of red cells (7 µm discs, bright red, some with a pale middle) where there is no nucleus."""
    height, width = free.shape
    centre, spread = rng.uniform(0, 1, 2) * (width, height), rng.uniform(6, 50)
    layer = np.zeros(free.shape, np.float32)
    radius = rng.uniform(4.5, 8.0)
    pale = rng.uniform(0, 0.5) if rng.random() < 0.5 else 0.0
    for _ in range(int(rng.integers(2, 45))):
        x, y = centre + rng.normal(0, spread, 2)
        axes = (radius * rng.uniform(0.75, 1.15, 2) * 16).astype(int)
        place, turn = (int(x * 16), int(y * 16)), float(rng.uniform(0, 180))
        value = float(rng.uniform(0.7, 1.1))
        cv2.ellipse(layer, place, tuple(axes.tolist()), turn, 0, 360, value, -1, cv2.LINE_AA, 4)
        if pale:
            cv2.ellipse(layer, place, tuple((axes // 2).tolist()), turn, 0, 360, value * (1 - pale), -1, cv2.LINE_AA, 4)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.7) * free
    cover = np.clip(layer, 0, 1)[..., None]
    density *= 1 - 0.8 * cover
    density += (rng.uniform(0.5, 1.5) * layer)[..., None] * vary(rng, RED_CELL)


def add_dirt(density: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> None:
    """Draw ragged specks of ink, pigment or dust where there is no nucleus; ink gathers at edges of the tissue."""
    kind = int(rng.integers(5))
    colour = (INK, INK, INK, PIGMENT, BROWN)[kind]
    ragged = smooth_field(rng, free.shape, rng.uniform(2.5, 9.0)) + 1.2 * smooth_field(rng, free.shape, 40.0)
    amount = np.clip(ragged - rng.uniform(1.2, 3.0), 0, 1.2)
    if kind < 2:
        tissue = cv2.GaussianBlur(np.clip(density[..., 1] * 3, 0, 1), (0, 0), rng.uniform(1.0, 3.0))
        edge = 4 * tissue * (1 - tissue)
        amount = edge * np.clip(ragged + rng.uniform(-1.0, 1.0), 0, 1.2)
    density += (rng.uniform(0.4, 1.7) * amount * free)[..., None] * vary(rng, colour)


def stain(dye: np.ndarray, ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Density of nuclei with amounts of `dye` over `ground`, which they hide in part."""
    amount = np.power(dye, rng.uniform(0.75, 1.35)) * np.exp(rng.uniform(np.log(0.4), np.log(2.4)))
    hidden = np.clip(dye, 0, 1) * rng.uniform(0.2, 1.0)
    return ground * (1 - hidden[..., None]) + amount[..., None] * vary(rng, HAEMATOXYLIN)


def change_light(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another scanner: tint, contrast and brightness by a curve for each colour; uint8 in and out."""
    grey = np.arange(256, dtype=np.float32) / 255.0
    contrast = np.exp(rng.normal(0, 0.18))
    curves = []
    for _ in range(3):
        curve = grey ** (contrast * np.exp(rng.normal(0, 0.06))) * rng.uniform(0.9, 1.04)
        curves.append(np.clip(curve * 255.0 + 0.5, 0, 255).astype(np.uint8))
    return cv2.LUT(np.ascontiguousarray(rgb), np.stack(curves, -1)[None])


def degrade(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Focus, sharpening, noise and compression of a scan; uint8 in and out.

    Half of the pictures are compressed exactly as the store does it, the rest otherwise or not at all.
    """
    chance = rng.random()
    if chance < 0.3:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.3))
    elif chance < 0.65:
        rgb = change_sharpness(np.ascontiguousarray(rgb), rng.uniform(0.2, 2.5))
    if rng.random() < 0.3:
        noise = rng.standard_normal(rgb.shape).astype(np.float32) * rng.uniform(1, 6)
        rgb = np.clip(rgb + noise, 0, 255).astype(np.uint8)
    chance = rng.random()
    if chance < 0.5:
        return decode_jpeg(encode_steps(rgb))
    if chance < 0.85:
        return decode_jpeg(encode_jpeg(rgb, int(rng.integers(40, 95)), "420" if rng.random() < 0.7 else "444"))
    return np.ascontiguousarray(rgb)
