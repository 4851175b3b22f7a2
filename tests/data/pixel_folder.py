"""A folder of small drawn pictures with masks and a table: bright discs on dark, the disc's pixels are class 1."""

import csv

import numpy as np
from PIL import Image


def disc(side, rng, there=True):
    """(picture, mask) of one disc, or of none."""
    rows, columns = np.mgrid[:side, :side]
    middle, radius = rng.uniform(side * 0.3, side * 0.7, 2), side * rng.uniform(0.15, 0.3)
    mask = ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2) & there
    rgb = np.where(mask[..., None], (200, 120, 160), (90, 60, 120)) + rng.integers(-20, 21, (side, side, 3))
    return rgb.astype(np.uint8), mask.astype(np.uint8)


def write_folder(folder, count=12, side=16, masked=None):
    """`count` pictures, every third without a disc; `masked` of them (all by default) have a mask; parts in a table."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(3)
    with (folder / "pictures.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "slide", "part"])
        for number in range(count):
            rgb, mask = disc(side, rng, number % 3 > 0)
            part = ("training", "training", "training", "validation", "test")[number % 5]
            Image.fromarray(rgb).save(folder / "images" / f"{number:02d}.png")
            if masked is None or number < masked:
                Image.fromarray(mask).save(folder / "masks" / f"{number:02d}.png")
            writer.writerow([f"{number:02d}.png", ("Other", "Target")[number % 3 > 0], f"slide-{number}", part])
    return folder
