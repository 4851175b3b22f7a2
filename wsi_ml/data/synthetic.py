"""A synthetic H&E scene at ×40 whose truth is known exactly: outlines first, pixels drawn from them.

The scene is a strip of glandular mucosa: glands with lumina in loose stroma above, denser stroma and fat below, white
background around. It is made for tests and for the demo: nobody's tissue, and not a model of any disease.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely

from wsi_ml.geometry import Size

MPP = 0.25
"""µm per pixel of the scene, which is its base plane."""
DEFAULT_SIZE = Size(8192, 6144)
COARSE = 16
"""Pixels per cell of the smooth fields."""
BACKGROUND, STROMA, GLAND, LUMEN, ADIPOSE = range(5)
TISSUES = ("Background", "Stroma", "Gland", "Lumen", "Adipose")
EPITHELIAL, STROMAL, LYMPHOCYTE = range(3)
NUCLEI = ("Epithelial nucleus", "Stromal nucleus", "Lymphocyte")
CORNERS = 24
"""Corners of a nucleus's outline."""
GLAND_SPACING = 455.0
FAT_CELL = 250.0
"""Mean spacing of fat cells in pixels, 62 µm."""


@dataclass(frozen=True)
class Blobs:
    """n star-shaped blobs: outline = centre + frame · (radii at even angles), in base-plane pixels."""

    base_centres: np.ndarray
    """n × 2."""
    frames: np.ndarray
    """n × 2 × 2: columns are the long and the short half-axis."""
    radii: np.ndarray
    """n × CORNERS, around 1."""
    kinds: np.ndarray
    """n, index into `NUCLEI`."""
    strengths: np.ndarray
    """n, how dark."""

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, chosen: np.ndarray) -> Blobs:
        """The blobs of a mask or of indices."""
        return Blobs(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def outlines(self) -> np.ndarray:
        """Outlines as an array of n polygons."""
        angles = np.arange(CORNERS) * (2 * np.pi / CORNERS)
        local = self.radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], -1)
        base = self.base_centres[:, None] + np.einsum("nij,nkj->nki", self.frames, local)
        return shapely.polygons(np.concatenate([base, base[:, :1]], axis=1).round(2))


@dataclass(frozen=True)
class Scene:
    """What is on the slide; all coordinates in base-plane pixels."""

    size: Size
    seed: int
    tissue: shapely.Geometry
    adipose: shapely.Geometry
    glands: np.ndarray
    """Outlines of glands without their lumina, polygons."""
    lumina: np.ndarray
    """One lumen for each gland."""
    nuclei: Blobs
    vacuoles: Blobs
    """Mucus in goblet cells: pale, no truth class."""
    directions: np.ndarray
    """Coarse field of fibres: cos 2θ and sin 2θ, rows × columns × 2."""
    smooth: np.ndarray
    """Coarse smooth noise of about unit variance, rows × columns × 4."""

    def tissues(self) -> list[tuple[str, shapely.Geometry]]:
        """(class, outline) of every tissue region; together they cover the slide once."""
        slide = shapely.box(0, 0, *self.size)
        filled = shapely.union_all(self.glands)
        stroma = self.tissue.difference(self.adipose).difference(filled)
        regions = [(BACKGROUND, slide.difference(self.tissue)), (STROMA, stroma), (ADIPOSE, self.adipose)]
        rings = shapely.difference(self.glands, self.lumina)
        regions += [(GLAND, ring) for ring in rings] + [(LUMEN, lumen) for lumen in self.lumina]
        return [(TISSUES[code], region) for code, region in regions if not region.is_empty]


def make_scene(size: Size = DEFAULT_SIZE, seed: int = 40) -> Scene:
    """Lay out a scene; the same size and seed give the same outlines and pixels. The smallest side is 512 px."""
    rng = np.random.default_rng(seed)
    smooth = _smooth_noise(rng, size)
    tissue = _tissue_outline(rng, size)
    adipose = shapely.intersection(tissue, _fat_band(rng, size)) if size.height >= 3000 else shapely.Polygon()
    glands, lumina = _place_glands(rng, size, tissue, adipose)
    directions = _fibre_directions(size, glands, smooth)
    epithelial, vacuoles = _line_glands(rng, glands, lumina)
    loose = tissue.difference(adipose.buffer(4)).difference(shapely.union_all(glands).buffer(3))
    stromal = _scatter_stroma(rng, size, loose, adipose, directions)
    nuclei = _without_overlaps(_join([epithelial, _scatter_lymphocytes(rng, size, loose), stromal]), gap=1.6)
    return Scene(size, seed, tissue, adipose, glands, lumina, nuclei, vacuoles, directions, smooth)


def sample(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of a coarse field at base-plane points n × 2, nearest cell."""
    columns = np.clip((points[:, 0] / COARSE).astype(int), 0, field.shape[1] - 1)
    rows = np.clip((points[:, 1] / COARSE).astype(int), 0, field.shape[0] - 1)
    return field[rows, columns]


def fat_walls(base_x: np.ndarray, base_y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(distance from the wall between the two nearest fat cells, direction across it) for points given by arrays.

    A jittered grid of cell centres (Worley noise); the distance is half of F2 - F1 and so 0 on the wall.
    """
    base_x, base_y = np.broadcast_arrays(base_x, base_y)
    base_x, base_y = base_x + 20 * np.sin(base_y / 83 + 1), base_y + 20 * np.sin(base_x / 71 + 2)
    column, row = np.floor(base_x / FAT_CELL).astype(np.int64), np.floor(base_y / FAT_CELL).astype(np.int64)
    first = np.full(base_x.shape, np.inf, np.float32)
    second, across = first.copy(), np.zeros_like(first)
    for d_row in (-1, 0, 1):
        for d_column in (-1, 0, 1):
            jitter_x, jitter_y = _hash01(column + d_column, row + d_row, seed)
            dx = (column + d_column + 0.12 + 0.76 * jitter_x) * FAT_CELL - base_x
            dy = (row + d_row + 0.12 + 0.76 * jitter_y) * FAT_CELL - base_y
            distance, angle = np.hypot(dx, dy).astype(np.float32), np.arctan2(dy, dx).astype(np.float32)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            across, first = np.where(nearer, angle, across), np.where(nearer, distance, first)
    return (second - first) / 2, across


def _hash01(column: np.ndarray, row: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers in [0, 1) for each cell of a grid, the same wherever and whenever they are asked for."""
    mixed = (column * 73856093) ^ (row * 19349663) ^ (seed * 83492791)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177 & 0x7FFFFFFF
    return (mixed & 0x7FFF) / 32768.0, ((mixed >> 15) & 0x7FFF) / 32768.0


# -- outlines ------------------------------------------------------------------------------------------------------


def _smooth_noise(rng: np.random.Generator, size: Size) -> np.ndarray:
    rows, columns = size.height // COARSE + 2, size.width // COARSE + 2
    fields = [
        cv2.GaussianBlur(rng.standard_normal((rows, columns)).astype(np.float32), (0, 0), sigma)
        for sigma in (14.0, 6.0, 6.0, 3.0)
    ]
    return np.stack([field / max(float(field.std()), 1e-6) for field in fields], -1)


def _wave(rng: np.random.Generator, at: np.ndarray, terms: int) -> np.ndarray:
    """A smooth periodic curve over [0, 1) of about unit height."""
    orders = np.arange(1, terms + 1)
    heights, phases = rng.standard_normal(terms) / orders, rng.uniform(0, 2 * np.pi, terms)
    return (heights * np.sin(2 * np.pi * at[:, None] * orders + phases)).sum(axis=1)


def _tissue_outline(rng: np.random.Generator, size: Size) -> shapely.Geometry:
    """A rounded strip that leaves a wavy margin of background all round."""
    at = np.linspace(0, 1, 720, endpoint=False)
    angle = 2 * np.pi * at
    rounded = (np.abs(np.cos(angle)) ** 3.2 + np.abs(np.sin(angle)) ** 3.2) ** (-1 / 3.2)
    reach = rounded * (0.462 - 0.012 * np.abs(_wave(rng, at, 6)) + 0.0035 * _wave(rng, at, 60))
    centre = np.array(size) / 2
    points = centre + np.stack([np.cos(angle), np.sin(angle)], -1) * reach[:, None] * np.array(size)
    return shapely.make_valid(shapely.Polygon(points.round(2)))


def _fat_band(rng: np.random.Generator, size: Size) -> shapely.Geometry:
    at = np.linspace(0, 1, 480)
    height = size.height * (0.755 + 0.035 * _wave(rng, at * 0.8, 5) + 0.006 * _wave(rng, at * 5, 12))
    edge = np.stack([at * size.width, height], -1).round(2)
    return shapely.Polygon([*edge, (size.width, size.height), (0, size.height)])


def _closed_curve(rng: np.random.Generator, corners: int, wobble: float) -> np.ndarray:
    """Radii around 1 at even angles, gently irregular."""
    at = np.linspace(0, 1, corners, endpoint=False)
    return 1 + wobble * np.clip(_wave(rng, at, 5), -2.2, 2.2)


def _ring(centre: np.ndarray, frame: np.ndarray, radii: np.ndarray) -> np.ndarray:
    angles = np.arange(len(radii)) * (2 * np.pi / len(radii))
    return centre + (radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)) @ frame.T


def _frame(angle: float, long: float, short: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * long, -s * short], [s * long, c * short]])


def _place_glands(
    rng: np.random.Generator, size: Size, tissue: shapely.Geometry, adipose: shapely.Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Glands on a jittered hexagonal grid in the upper two thirds, each with its lumen; none touch."""
    below = 0.66 * size.height if not adipose.is_empty else size.height
    room = tissue.buffer(-28).difference(adipose.buffer(150))
    glands, lumina = [], []
    for row in range(int(below / (GLAND_SPACING * 0.87)) + 2):
        for column in range(int(size.width / GLAND_SPACING) + 2):
            jitter = rng.uniform(-0.17, 0.17, 2) * GLAND_SPACING
            centre = np.array([(column + row % 2 / 2) * GLAND_SPACING, row * GLAND_SPACING * 0.87]) + jitter
            long = rng.uniform(150, 205)
            frame = _frame(rng.uniform(0, np.pi), long, long * rng.uniform(0.78, 1))
            filled = shapely.Polygon(_ring(centre, frame, _closed_curve(rng, 96, 0.062)).round(2))
            inner_frame = frame @ _frame(0.0, rng.uniform(0.34, 0.5), rng.uniform(0.2, 0.46))
            hollow = shapely.Polygon(_ring(centre, inner_frame, _closed_curve(rng, 64, 0.12)).round(2))
            kept = rng.random() > 0.07 and centre[1] < below
            if kept and room.contains(filled) and filled.buffer(-60).contains(hollow) and hollow.is_valid:
                glands.append(filled)
                lumina.append(hollow)
    outer, inner = np.array(glands, dtype=object), np.array(lumina, dtype=object)
    keep = _apart(outer, 14.0)
    return outer[keep], inner[keep]


def _apart(shapes: np.ndarray, gap: float) -> np.ndarray:
    """Mask of shapes to keep so that none is nearer than `gap` to an earlier kept one."""
    keep = np.ones(len(shapes), bool)
    if len(shapes):
        later, earlier = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=gap)
        for one, two in sorted(zip(later.tolist(), earlier.tolist(), strict=True)):
            if two < one and keep[two]:
                keep[one] = False
    return keep


def _fibre_directions(size: Size, glands: np.ndarray, smooth: np.ndarray) -> np.ndarray:
    """Fibres run round the glands near them, and wander elsewhere."""
    rows, columns = smooth.shape[:2]
    wander = 1.1 * smooth[..., 0] + 0.35 * smooth[..., 1]
    wandering = np.stack([np.cos(2 * wander), np.sin(2 * wander)], -1)
    if not len(glands):
        return wandering
    free = np.full((rows, columns), 255, np.uint8)
    corners = [(shapely.get_coordinates(gland) / COARSE).astype(np.int32) for gland in glands]
    cv2.fillPoly(free, corners, 0)
    distance = cv2.GaussianBlur(cv2.distanceTransform(free, cv2.DIST_L2, 5), (0, 0), 1.5)
    slope_y, slope_x = np.gradient(distance)
    along = np.arctan2(slope_y, slope_x) + np.pi / 2
    weight = np.exp(-distance / 7.0)[..., None]
    around = np.stack([np.cos(2 * along), np.sin(2 * along)], -1)
    return (weight * around + (1 - weight) * wandering).astype(np.float32)


# -- nuclei --------------------------------------------------------------------------------------------------------


def _blobs(
    rng: np.random.Generator, centres: np.ndarray, angles: np.ndarray, long: np.ndarray, short: np.ndarray,
    kind: int, wobble: float, strength: tuple[float, float],
) -> Blobs:  # fmt: skip
    count = len(centres)
    c, s = np.cos(angles), np.sin(angles)
    frames = np.stack([np.stack([c * long, -s * short], -1), np.stack([s * long, c * short], -1)], 1)
    at = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    radii = np.ones((count, CORNERS))
    for order in (2, 3, 4):
        phases = rng.uniform(0, 2 * np.pi, (count, 1))
        radii += wobble / order * rng.standard_normal((count, 1)).clip(-2, 2) * np.sin(order * at + phases)
    return Blobs(centres, frames, radii, np.full(count, kind), rng.uniform(*strength, count))


def _join(parts: list[Blobs]) -> Blobs:
    return Blobs(*(np.concatenate([getattr(p, name) for p in parts]) for name in Blobs.__dataclass_fields__))


def _without_overlaps(blobs: Blobs, gap: float) -> Blobs:
    return blobs[_apart(blobs.outlines(), gap)]


def _inside(blobs: Blobs, region: shapely.Geometry) -> Blobs:
    """The blobs whose outlines lie wholly in a region."""
    shapely.prepare(region)
    return blobs[shapely.contains_properly(region, blobs.outlines())]


def _line_glands(rng: np.random.Generator, glands: np.ndarray, lumina: np.ndarray) -> tuple[Blobs, Blobs]:
    """Columnar nuclei at the base of each gland's cells, a looser second row, and mucus towards the lumen."""
    nuclei, vacuoles = [], []
    for gland, lumen in zip(glands, lumina, strict=True):
        wall = shapely.difference(gland.buffer(-5), lumen.buffer(9))
        for depth, spacing, chance in ((31, 23.0, 0.99), (72, 27.0, 0.5)):
            points, inward = _along(rng, gland, depth, spacing)
            chosen = rng.random(len(points)) < chance
            points, inward = points[chosen], inward[chosen]
            angles = inward + rng.normal(0, 0.10, len(points))
            long, short = rng.uniform(16.5, 24, len(points)), rng.uniform(7.8, 11.2, len(points))
            nuclei.append(_inside(_blobs(rng, points, angles, long, short, EPITHELIAL, 0.08, (0.68, 1.12)), wall))
        points, inward = _along(rng, gland, 84, 44.0)
        long, short = rng.uniform(15, 23, (2, len(points)))
        mucus = _blobs(rng, points, inward, long, short, EPITHELIAL, 0.05, (0.5, 1.0))
        vacuoles.append(_inside(mucus[rng.random(len(points)) < 0.6], wall))
    empty = _blobs(rng, np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.zeros(0), EPITHELIAL, 0, (0, 1))
    return _join([empty, *nuclei]), _without_overlaps(_join([empty, *vacuoles]), 3)


def _along(
    rng: np.random.Generator, gland: shapely.Polygon, depth: float, spacing: float
) -> tuple[np.ndarray, np.ndarray]:
    """(points at a depth under a gland's edge, jittered; direction inward) at even spacing."""
    line = gland.buffer(-depth).boundary
    if line.is_empty or line.geom_type != "LineString":
        return np.zeros((0, 2)), np.zeros(0)
    count = int(line.length / spacing)
    at = (np.arange(count) + rng.uniform(-0.07, 0.07, count)) * (line.length / count)
    points = shapely.get_coordinates(shapely.line_interpolate_point(line, at % line.length))
    ahead = shapely.get_coordinates(shapely.line_interpolate_point(line, (at + 4) % line.length))
    tangent = np.arctan2(*(ahead - points).T[::-1])
    inward = tangent + np.pi / 2
    shift = rng.normal(0, 3.5, count)
    return points + shift[:, None] * np.stack([np.cos(inward), np.sin(inward)], -1), inward


def _scatter_stroma(
    rng: np.random.Generator, size: Size, loose: shapely.Geometry, adipose: shapely.Geometry, directions: np.ndarray
) -> Blobs:
    """Spindle nuclei along the fibres, a few plump ones, and flat nuclei in the walls between fat cells."""
    count = size.width * size.height // 3400
    centres = rng.uniform(0, 1, (count, 2)) * size
    doubled = sample(directions, centres)
    angles = np.arctan2(doubled[:, 1], doubled[:, 0]) / 2 + rng.normal(0, 0.16, count)
    plump = rng.random(count) < 0.25
    long = np.where(plump, rng.uniform(14, 19, count), rng.uniform(20, 33, count))
    short = np.where(plump, rng.uniform(8, 11, count), rng.uniform(4.6, 7.0, count))
    spindle = _inside(_blobs(rng, centres, angles, long, short, STROMAL, 0.08, (0.75, 1.2)), loose)
    walls = rng.uniform(0, 1, (size.width * size.height // 600, 2)) * size
    distance, across = fat_walls(walls[:, 0], walls[:, 1], 7)
    on_wall = (distance < 1.6) & (rng.random(len(walls)) < 0.1)
    walls, across = walls[on_wall], across[on_wall]
    long, short = rng.uniform(13, 20, len(walls)), rng.uniform(3.8, 5.2, len(walls))
    fat = _blobs(rng, walls, across + np.pi / 2, long, short, STROMAL, 0.05, (0.9, 1.2))
    return _join([spindle, _inside(fat, adipose.buffer(-10))])


def _scatter_lymphocytes(rng: np.random.Generator, size: Size, loose: shapely.Geometry) -> Blobs:
    """Round dark nuclei: some everywhere, most in a few dense clusters."""
    area = size.width * size.height
    centres = [rng.uniform(0, 1, (area // 24000, 2)) * size]
    for _ in range(max(1, area // 2_500_000)):
        spread = rng.uniform(60, 150)
        centres.append(rng.uniform(0.1, 0.9, 2) * size + rng.normal(0, spread, (int(spread * 1.9), 2)))
    points = np.concatenate(centres)
    radius = rng.uniform(11, 14.5, len(points))
    round_ = radius * rng.uniform(0.86, 1, len(points))
    angles = rng.uniform(0, np.pi, len(points))
    return _inside(_blobs(rng, points, angles, radius, round_, LYMPHOCYTE, 0.035, (1.15, 1.5)), loose)
