"""Polygons made by code: stars, rings with holes, several parts, far-reaching ones, all on the grid of sixteenths."""

from __future__ import annotations

import numpy as np
import shapely

from wsi_ml.layers.batch import FeatureBatch


def star(rng, x, y, radius, points=16):
    """A valid polygon around (x, y), corners on sixteenths of a pixel."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    reach = radius * rng.uniform(0.6, 1.0, points)
    corners = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)
    return shapely.Polygon(np.rint(corners * 16) / 16)


def ring(rng, x, y, radius):
    """A star with a star-shaped hole."""
    outer, inner = star(rng, x, y, radius), star(rng, x, y, radius * 0.5)
    return shapely.Polygon(outer.exterior, [inner.exterior])


def mixed(rng, size, count):
    """Nuclei, rings, far-reaching outlines with holes and features of two parts, all over a plane of `size`."""
    width, height = size
    shapes = []
    for number in range(count):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        kind = number % 8
        if kind < 5:
            shapes.append(star(rng, x, y, rng.uniform(4, 30)))
        elif kind == 5:
            shapes.append(ring(rng, x, y, rng.uniform(20, 90)))
        elif kind == 6:
            shapes.append(ring(rng, x, y, rng.uniform(200, 0.3 * min(size))))
        else:
            shapes.append(shapely.MultiPolygon([star(rng, x, y, 20), ring(rng, x + 300, y + 40, 100)]))
    clipped = [shapely.intersection(shape, shapely.box(0, 0, width, height)) for shape in shapes]
    # A clipped corner may lie off the grid: keep what stays on it, move the rest inside.
    return np.array(
        [
            s if c.equals(s) else shapely.box(5, 5, 40 + n % 7, 50)
            for n, (s, c) in enumerate(zip(shapes, clipped, strict=True))
        ],
        dtype=object,
    )


def batch_of(geometries, class_numbers=None, scores=None):
    """A batch of one class without scores unless said otherwise."""
    geometries = np.array(geometries, dtype=object)
    classes = np.zeros(len(geometries), np.uint16) if class_numbers is None else np.asarray(class_numbers, np.uint16)
    values = np.full(len(geometries), np.nan) if scores is None else np.asarray(scores)
    return FeatureBatch(geometries, classes, values.astype(np.float32))


def mixed_batch(seed=0, size=(5000, 3000), count=400, classes=3):
    """A batch of mixed shapes with classes and scores, one in nine without a score."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, count)
    scores[::9] = np.nan
    scores[1:3] = (0.0, 1.0)
    return batch_of(mixed(rng, size, count), rng.integers(0, classes, count), scores)
