"""Sources of drawn patches that the training tests learn from, in place of slides."""

import csv

import numpy as np
from PIL import Image

from wsi_ml.data.batches import make_batch
from wsi_ml.slides.kernel import halve_pixels

CLASSES = ("blue", "red")


def drawn_picture(side, rng, label):
    """A ×40 picture of smooth blobs and sharp edges whose colour tells its class."""
    rows, columns = np.mgrid[:side, :side] / side
    waves = sum(
        np.sin(
            2 * np.pi * (rng.uniform(1, side / 5) * rows * np.cos(a) + rng.uniform(1, side / 5) * columns * np.sin(a))
        )
        for a in rng.uniform(0, np.pi, 3)
    )
    edges = ((rows * rng.uniform(2, 6) + columns * rng.uniform(2, 6)) % 1.0 > 0.5) * 60.0
    grey = 120 + 18 * waves + edges
    tint = np.array([[0.6, 0.8, 1.1], [1.1, 0.8, 0.6]])[label]
    return np.clip(grey[..., None] * tint, 0, 255).round().astype(np.uint8)


class DrawnPatches:
    """Endless or finite patches of drawn pictures with both classes; `bases` and `labelled` say what rows have."""

    def __init__(self, batch=4, side=16, seed=0, classes=CLASSES, bases=True, labelled=True, length=5):
        self.size, self.side, self.seed, self.classes = batch, side, seed, classes if labelled else ()
        self.bases, self.labelled, self.length = bases, labelled, length

    def rows(self, index):
        for row in range(self.size):
            rng = np.random.default_rng([self.seed, index * self.size + row])
            label = int(rng.integers(len(CLASSES)))
            yield drawn_picture(2 * self.side, rng, label), label

    def batch(self, index):
        rows = list(self.rows(index))
        return make_batch(
            [halve_pixels(base) for base, _ in rows],
            [base if self.bases else None for base, _ in rows],
            [label if self.labelled else -1 for _, label in rows],
        )

    def slides_of(self, index):
        return tuple("drawn" for _ in range(self.size))

    def __len__(self):
        return self.length


def write_tiles(folder, slides, side=320):
    """A ×40 tile set of drawn pictures, one a slide, as `wsi_ml.data.pairs` reads it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(9)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "repo"])
        for number, slide in enumerate(slides):
            Image.fromarray(drawn_picture(side, rng, number % 2)).save(folder / f"{slide}.png")
            writer.writerow([f"{slide}.png", f"atlas/{slide}"])
