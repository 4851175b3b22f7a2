"""Pictures of dark discs on pale ground, for tests of paper C's tasks: instances and types known exactly."""

import numpy as np

from wsi_ml.data.task_pictures import TaskPicture
from wsi_ml.data.tissue import TissuePatch

COLOURS = {"nuclei": (90, 40, 140), "gland": (200, 90, 120), "lumen": (250, 245, 250)}
TYPED = ((90, 40, 140), (30, 120, 60))


def circles_picture(task, seed=0, side=64, typed=False, count=4):
    """Discs of a radius of its own in places of a jittered grid; of two types, by colour, where `typed`."""
    rng = np.random.default_rng([seed, len(task)])
    labels, types = np.zeros((side, side), np.int32), np.zeros((side, side), np.uint8)
    rgb = np.full((side, side, 3), 225.0)
    rows, columns = np.mgrid[:side, :side]
    per_row = int(np.ceil(np.sqrt(count)))
    cell = side / per_row
    for number in range(count):
        row, column = (np.array(divmod(number, per_row)) + 0.5) * cell + rng.uniform(-2, 2, 2)
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= (cell * rng.uniform(0.26, 0.36)) ** 2
        kind = int(rng.integers(2)) if typed else 0
        labels[inside], types[inside] = number + 1, kind + 1
        rgb[inside] = TYPED[kind] if typed else COLOURS[task]
    rgb += rng.normal(0, 4, rgb.shape)
    pixels = np.clip(rgb, 0, 255).astype(np.uint8)
    return TaskPicture(f"{task}-{seed}", pixels, labels, types if typed else None)


def flat_patches(count=6, classes=3, side=48):
    """Patches of one colour by class."""
    rng = np.random.default_rng(1)
    patches = []
    for number in range(count):
        colour = np.array([(200, 80, 80), (80, 200, 80), (80, 80, 200)][number % classes % 3])
        rgb = np.clip(colour + rng.normal(0, 5, (side, side, 3)), 0, 255).astype(np.uint8)
        patches.append(TissuePatch(rgb, number % classes, "drawn", 0, 0))
    return patches
