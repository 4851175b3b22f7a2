"""Pixels of a synthetic scene: stain amounts drawn from its outlines, then optical density, blur and noise.

Any region can be drawn alone and equals the same region of the whole: every texture is a function of base-plane
coordinates, and distances are looked up no further than the margin drawn around.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import shapely

from wsi_ml.data.synthetic import (
    ADIPOSE,
    BACKGROUND,
    COARSE,
    CORNERS,
    EPITHELIAL,
    GLAND,
    LUMEN,
    LYMPHOCYTE,
    STROMA,
    Blobs,
    Scene,
    fat_walls,
)  # fmt: skip
from wsi_ml.geometry import Region

MARGIN = 144
"""Pixels drawn around a region, more than any blob's radius."""
DEPTH_LIMIT = 140.0
"""Distances in a gland's wall are counted no further, so that they do not depend on the region drawn."""
TEXTURE_SIDE = 1024
FIBRE_ANGLES = np.arange(4) * np.pi / 4
HAEMATOXYLIN = np.array([0.62, 0.72, 0.32], np.float32)
EOSIN = np.array([0.13, 0.86, 0.46], np.float32)
"""Optical density (natural logarithm) per unit of stain in red, green and blue."""
WHITE = (246.0, 245.0, 247.0)
_SUBPIXEL_BITS = 6
Fields = tuple[np.ndarray, ...]
"""The scene's smooth fields at every pixel of a region, float32."""


@dataclass(frozen=True)
class Labels:
    """What each pixel of a region shows, by the pixel's centre; and how far out in its nucleus it lies."""

    tissue: np.ndarray
    """uint8, index into `synthetic.TISSUES`."""
    nucleus: np.ndarray
    """uint8, 1 + index into `synthetic.NUCLEI`, 0 where there is none."""
    reach: np.ndarray
    """float32: distance from the nucleus's centre over that of its outline; above 1 outside, 9 far outside."""
    strength: np.ndarray
    vacuole: np.ndarray
    """float32: the same as `reach` for goblet cells' mucus."""


class Painter:
    """Draws regions of one scene; safe in several threads."""

    def __init__(self, scene: Scene):
        self.scene = scene
        rng = np.random.default_rng(scene.seed + 1)
        self._fine = _texture(rng, 0.7, 0.7)
        self._chromatin = _texture(rng, 2.1, 2.1)
        self._medium = _texture(rng, 5.0, 5.0)
        self._fibres = cv2.merge([_texture(rng, 24.0, 1.9, angle) for angle in FIBRE_ANGLES])

    @cached_property
    def _regions(self) -> list[tuple[int, shapely.Geometry]]:
        """Filled outlines in order of painting."""
        scene = self.scene
        filled = [(STROMA, scene.tissue), (ADIPOSE, scene.adipose)]
        return [*filled, *((GLAND, each) for each in scene.glands), *((LUMEN, each) for each in scene.lumina)]

    @cached_property
    def _bounds(self) -> np.ndarray:
        return shapely.bounds([shape for _, shape in self._regions])

    def labels(self, region: Region) -> Labels:
        """Truth per pixel of a base-plane region."""
        shape = (region.height, region.width)
        tissue = np.full(shape, BACKGROUND, np.uint8)
        box = np.array([region.x, region.y, region.x_end, region.y_end])
        meets = (self._bounds[:, :2] < box[2:]).all(1) & (self._bounds[:, 2:] > box[:2]).all(1)
        for index in np.flatnonzero(meets):
            code, outline = self._regions[index]
            _fill(tissue, outline, code, region)
        reach, strength = np.full(shape, 9, np.float32), np.zeros(shape, np.float32)
        kind, vacuole = np.zeros(shape, np.uint8), np.full(shape, 9, np.float32)
        _stamp(self.scene.nuclei, region, reach, strength, kind)
        _stamp(self.scene.vacuoles, region, vacuole)
        return Labels(tissue, np.where(reach <= 1, kind, 0).astype(np.uint8), reach, strength, vacuole)

    def paint(self, region: Region) -> np.ndarray:
        """RGB uint8 pixels of a base-plane region."""
        grown = Region(region.x - MARGIN, region.y - MARGIN, region.width + 2 * MARGIN, region.height + 2 * MARGIN)
        labels = self.labels(grown)
        haematoxylin, eosin = self._stains(grown, labels)
        inner = slice(MARGIN - 8, 8 - MARGIN)
        haematoxylin, eosin = haematoxylin[inner, inner], eosin[inner, inner]
        pixels = np.empty((region.height, region.width, 3), np.uint8)
        for channel, offset in enumerate((0, 331, 677)):
            density = cv2.addWeighted(haematoxylin, -HAEMATOXYLIN[channel], eosin, -EOSIN[channel], 0)
            light = cv2.GaussianBlur(cv2.exp(density), (0, 0), 0.85)[8:-8, 8:-8] * WHITE[channel]
            light += 1.3 * self._window(self._fine, region, offset)
            pixels[..., channel] = np.clip(light + 0.5, 0, 255)
        return pixels

    # -- stains ----------------------------------------------------------------------------------------------------

    def _stains(self, region: Region, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        """(haematoxylin, eosin) per pixel, float32."""
        fields = _upsample(self.scene.smooth, region, COARSE)
        haematoxylin = np.full(labels.tissue.shape, 0.003, np.float32)
        eosin = np.full(labels.tissue.shape, 0.004, np.float32)
        medium = self._window(self._medium, region, 0)
        painters = ((STROMA, self._stroma), (ADIPOSE, self._fat), (GLAND, self._epithelium), (LUMEN, self._lumen))
        for code, painter in painters:
            here = labels.tissue == code
            if here.any():
                for stain, amount in zip((haematoxylin, eosin), painter(region, labels, fields, medium), strict=True):
                    np.copyto(stain, amount, where=here)
        self._nuclei(region, labels, haematoxylin, eosin)
        haematoxylin *= 1 + 0.05 * fields[1]
        eosin *= 1 + 0.06 * fields[2]
        return haematoxylin, eosin

    def _stroma(
        self, region: Region, labels: Labels, fields: Fields, medium: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Wavy collagen bundles along the scene's directions, with clefts between them; denser below the glands."""
        fibre = self._fibre(region, fields)
        rows = np.arange(region.y, region.y_end, dtype=np.float32)[:, None] / self.scene.size.height
        dense = np.clip((rows - 0.62) / 0.08, 0, 1) if not self.scene.adipose.is_empty else np.float32(0)
        ground = 0.36 + 0.16 * dense + 0.05 * fields[0]
        fine = self._window(self._chromatin, region, 433)
        cleft = np.clip(0.45 * fields[3] - fibre - 1.35 - 0.2 * dense, 0, 0.8) * 1.25
        eosin = np.maximum(ground * (1 + 0.21 * fibre + 0.10 * medium + 0.06 * fine), 0.05) * (1 - 0.85 * cleft)
        return (0.075 + 0.02 * medium + 0.02 * fibre) * (1 - 0.8 * cleft), eosin

    def _fibre(self, region: Region, fields: Fields) -> np.ndarray:
        """Fibre texture of unit variance: a blend of straight ones by direction, bent by the smooth fields."""
        bend = 9 * fields[3]
        columns = np.arange(region.width, dtype=np.float32) + np.float32(region.x % TEXTURE_SIDE)
        rows = np.arange(region.height, dtype=np.float32) + np.float32(region.y % TEXTURE_SIDE)
        x, y = 30 * fields[1] + bend + columns, 30 * fields[2] - bend + rows[:, None]
        parts = cv2.split(cv2.remap(self._fibres, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))
        cosine, sine = _upsample(self.scene.directions, region, COARSE)
        total, power = np.zeros(bend.shape, np.float32), np.full(bend.shape, 1e-6, np.float32)
        for part, angle in zip(parts, FIBRE_ANGLES, strict=True):
            agree = cosine * np.float32(np.cos(2 * angle)) + sine * np.float32(np.sin(2 * angle))
            weight = np.maximum(agree, 0)
            weight *= weight
            total += weight * part
            power += weight * weight
        return total / cv2.sqrt(power)

    def _epithelium(
        self, region: Region, labels: Labels, fields: Fields, medium: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cytoplasm: darker at the base, paler towards the lumen with a crisp border; mucus in goblet cells."""
        inside = ((labels.tissue == GLAND) | (labels.tissue == LUMEN)).astype(np.uint8)
        base = np.minimum(cv2.distanceTransform(inside, cv2.DIST_L2, 5), DEPTH_LIMIT)
        apex = cv2.distanceTransform((labels.tissue != LUMEN).astype(np.uint8), cv2.DIST_L2, 5)
        apex = np.minimum(apex, DEPTH_LIMIT)
        up = base / (base + apex + 1e-3)
        fine, streak = self._window(self._chromatin, region, 211), self._streaks(region, base)
        haematoxylin = 0.27 - 0.16 * up + 0.02 * medium + 0.03 * streak
        eosin = 0.40 - 0.10 * up + 0.04 * medium + 0.03 * fine + 0.045 * streak
        eosin += 0.17 * np.exp(-((apex / 3.2) ** 2)) + 0.14 * np.exp(-((base / 2.4) ** 2))
        mucus = np.clip((1.04 - labels.vacuole) / 0.12, 0, 1)
        haematoxylin += mucus * (0.10 + 0.02 * medium - haematoxylin)
        eosin += mucus * (0.09 + 0.02 * fine - eosin)
        return haematoxylin, eosin

    def _streaks(self, region: Region, base: np.ndarray) -> np.ndarray:
        """Texture that runs from the base of the cells to the lumen: looked up by angle and depth in each gland."""
        streak = np.zeros(base.shape, np.float32)
        for gland in self.scene.glands:
            x0, y0, x1, y1 = (int(edge) for edge in gland.bounds)
            columns = slice(max(x0 - region.x, 0), max(min(x1 + 1 - region.x, region.width), 0))
            rows = slice(max(y0 - region.y, 0), max(min(y1 + 1 - region.y, region.height), 0))
            depth = base[rows, columns]
            if not depth.size:
                continue
            centre = gland.centroid
            x = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(region.x + 0.5 - centre.x)
            y = np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(region.y + 0.5 - centre.y)
            turn = np.arctan2(y[:, None], x) * np.float32(TEXTURE_SIDE / (2 * np.pi)) + np.float32(TEXTURE_SIDE / 2)
            along = np.mod(0.2 * depth + np.float32(centre.x), TEXTURE_SIDE)
            texture = cv2.remap(self._chromatin, turn, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
            np.copyto(streak[rows, columns], texture, where=depth > 0)
        return streak

    def _lumen(
        self, region: Region, labels: Labels, fields: Fields, medium: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearly empty, with wisps of mucus."""
        wisp = np.clip(fields[3] - 0.3 + 0.3 * medium, 0, 1.5)
        return 0.01 + 0.035 * wisp, 0.012 + 0.03 * wisp

    def _fat(self, region: Region, labels: Labels, fields: Fields, medium: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Empty round cells with thin pink walls."""
        fat = (labels.tissue == ADIPOSE).astype(np.uint8)
        distance = np.minimum(self._wall_distance(region, fat), cv2.distanceTransform(fat, cv2.DIST_L2, 5))
        width = 3.1 + 0.5 * medium
        wall = cv2.exp(-((distance / width) ** 2))
        return 0.006 + 0.06 * wall, 0.012 + (0.42 + 0.06 * medium) * wall

    @staticmethod
    def _wall_distance(region: Region, fat: np.ndarray) -> np.ndarray:
        """Distance to the walls of fat cells where there is fat: found at every other pixel, which walls survive."""
        columns, rows = (np.flatnonzero(fat.any(axis)) for axis in (0, 1))
        x, y = region.x + int(columns[0]), region.y + int(rows[0])
        part = Region(x, y, int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
        grid_x = np.arange(x // 2, part.x_end // 2 + 2)[None, :] * 2.0 + 1
        grid_y = np.arange(y // 2, part.y_end // 2 + 2)[:, None] * 2.0 + 1
        coarse, _ = fat_walls(grid_x, grid_y, 7)
        distance = np.zeros(fat.shape, np.float32)
        inner = distance[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shifted = Region(x % 2, y % 2, part.width, part.height)
        inner[:] = _upsample(coarse.astype(np.float32)[..., None], shifted, 2)[0]
        return distance

    def _nuclei(self, region: Region, labels: Labels, haematoxylin: np.ndarray, eosin: np.ndarray) -> None:
        """Chromatin with a darker rim; round dark lymphocytes are clumpier, epithelial nuclei paler with nucleoli."""
        rows, columns = np.nonzero(labels.reach < 1.15)
        reach, strength = labels.reach[rows, columns], labels.strength[rows, columns]
        kind = self._kind(labels, rows, columns)
        chromatin = self._window(self._chromatin, region, 0)[rows, columns]
        fine = self._window(self._fine, region, 97)[rows, columns]
        clumps = np.where(kind == 1 + LYMPHOCYTE, 0.20, np.where(kind == 1 + EPITHELIAL, 0.15, 0.10))
        rim = np.exp(-(((reach - 0.90) / 0.10) ** 2))
        nucleolus = np.where(kind == 1 + EPITHELIAL, np.clip(chromatin - 1.75, 0, 0.6), 0)
        dark = 1.55 * strength * (0.74 + clumps * chromatin + 0.24 * rim + 0.6 * nucleolus + 0.03 * fine)
        cover = np.clip((1.075 - reach) / 0.15, 0, 1)
        haematoxylin[rows, columns] += cover * (np.maximum(dark, 0.35) - haematoxylin[rows, columns])
        eosin[rows, columns] += cover * (0.18 - eosin[rows, columns])

    @staticmethod
    def _kind(labels: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Kind of the nucleus at pixels, also just outside its outline (where the label is 0)."""
        return cv2.dilate(labels.nucleus, np.ones((5, 5), np.uint8))[rows, columns]

    # -- textures --------------------------------------------------------------------------------------------------

    def _window(self, texture: np.ndarray, region: Region, offset: int) -> np.ndarray:
        rows = (np.arange(region.y, region.y_end) + offset) % TEXTURE_SIDE
        columns = (np.arange(region.x, region.x_end) + 2 * offset) % TEXTURE_SIDE
        return np.take(np.take(texture, columns, axis=1), rows, axis=0)


def _texture(rng: np.random.Generator, long: float, short: float, angle: float = 0.0) -> np.ndarray:
    """Periodic Gaussian noise of unit variance, smoothed by `long` and `short` pixels along and across an angle."""
    f = np.fft.fftfreq(TEXTURE_SIDE)
    along = f[None, :] * np.cos(angle) + f[:, None] * np.sin(angle)
    across = -f[None, :] * np.sin(angle) + f[:, None] * np.cos(angle)
    gain = np.exp(-2 * np.pi**2 * ((along * long) ** 2 + (across * short) ** 2))
    gain[0, 0] = 0
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TEXTURE_SIDE, TEXTURE_SIDE))) * gain).real
    return (noise / noise.std()).astype(np.float32)


def _upsample(field: np.ndarray, region: Region, step: int) -> Fields:
    """Channels of a field that has one cell for each `step` pixels, at every pixel centre of a region, bilinear."""
    scale = 1 / step
    matrix = np.array([[scale, 0, (region.x + 0.5) * scale - 0.5], [0, scale, (region.y + 0.5) * scale - 0.5]])
    size, flags = (region.width, region.height), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return tuple(
        cv2.warpAffine(np.ascontiguousarray(channel), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for channel in np.moveaxis(field, -1, 0)
    )


def _fill(labels: np.ndarray, outline: shapely.Geometry, code: int, region: Region) -> None:
    """Fill an outline (holes are painted over by what lies in them) at sub-pixel accuracy."""
    for part in shapely.get_parts(outline):
        corners = shapely.get_coordinates(part.exterior) - (region.x + 0.5, region.y + 0.5)
        fixed = np.rint(corners * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(labels, [fixed], code, cv2.LINE_8, _SUBPIXEL_BITS)


def _stamp(
    blobs: Blobs, region: Region, reach: np.ndarray, strength: np.ndarray | None = None, kind: np.ndarray | None = None
) -> None:
    """Write the reach of every blob that meets the region, and its strength and kind + 1, where it is the nearest."""
    radius = np.abs(blobs.frames).sum(-1).max(-1) * blobs.radii.max(-1) * 1.2 + 2
    near = (
        (blobs.base_centres[:, 0] + radius > region.x)
        & (blobs.base_centres[:, 0] - radius < region.x_end)
        & (blobs.base_centres[:, 1] + radius > region.y)
        & (blobs.base_centres[:, 1] - radius < region.y_end)
    )
    order = np.flatnonzero(near)[np.argsort(radius[near], kind="stable")]
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        _stamp_batch(blobs[batch], int(np.ceil(radius[batch].max())), region, reach, strength, kind)


def _stamp_batch(
    blobs: Blobs, half: int, region: Region, reach: np.ndarray, strength: np.ndarray | None, kind: np.ndarray | None
) -> None:
    corner = np.floor(blobs.base_centres).astype(int) - half
    steps = np.arange(2 * half + 1) + 0.5
    dx = (corner[:, :1] + steps - blobs.base_centres[:, :1]).astype(np.float32)
    dy = (corner[:, 1:] + steps - blobs.base_centres[:, 1:]).astype(np.float32)
    patches = _reach(blobs, dx[:, None, :], dy[:, :, None])
    for index, (x, y) in enumerate(corner - (region.x, region.y)):
        rows = slice(max(y, 0), min(y + 2 * half + 1, region.height))
        columns = slice(max(x, 0), min(x + 2 * half + 1, region.width))
        patch = patches[index, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        nearest = patch < np.minimum(reach[rows, columns], 1.3)
        np.copyto(reach[rows, columns], patch, where=nearest)
        if strength is not None and kind is not None:
            np.copyto(strength[rows, columns], np.float32(blobs.strengths[index]), where=nearest)
            np.copyto(kind[rows, columns], np.uint8(1 + blobs.kinds[index]), where=nearest)


def _reach(blobs: Blobs, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Distance from the centre over the outline's distance in the same direction; exact for the straight edges."""
    inverse = np.linalg.inv(blobs.frames).astype(np.float32)
    u = inverse[:, 0, 0, None, None] * dx + inverse[:, 0, 1, None, None] * dy
    v = inverse[:, 1, 0, None, None] * dx + inverse[:, 1, 1, None, None] * dy
    sector = np.floor(np.arctan2(v, u) * (CORNERS / (2 * np.pi))).astype(np.intp) % CORNERS
    angles = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    x, y = blobs.radii * np.cos(angles), blobs.radii * np.sin(angles)
    edge_x, edge_y = np.roll(x, -1, 1) - x, np.roll(y, -1, 1) - y
    whole = x * edge_y - y * edge_x  # cross product of the corner and the edge, twice the sector's area
    number = np.arange(len(blobs))[:, None, None]
    slope_x, slope_y = (edge_y / whole).astype(np.float32), (edge_x / whole).astype(np.float32)
    return u * slope_x[number, sector] - v * slope_y[number, sector]
