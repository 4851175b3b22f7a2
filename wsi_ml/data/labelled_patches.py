"""Patches of annotated regions, class by class, as paper A draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

from wsi_ml.data.batches import PatchBatch, batches_an_epoch, make_batch
from wsi_ml.data.patch_augment import AugmentationSettings
from wsi_ml.data.patch_reader import AnnotatedSlide
from wsi_ml.data.regions import patches_in, random_places, region_weights
from wsi_ml.errors import BadRequestError, RegionTooSmallError

RUN = 10
"""Patches drawn from a region, one after the other, before another class and region are drawn."""
INTERSECTION = 0.7
"""Share of a training patch that must lie in its region."""
COEFFICIENT = 0.3
"""How far a region's chance goes with its area (see regions.region_weights)."""
REGION_TRIES = 20


class ClassRegion(NamedTuple):
    """One region of a class: which slide, and its outline in stored pixels."""

    slide: int
    outline: shapely.Polygon


class LabelledPatches:
    """Endless: a class by its chance, a region of it by weight, ten random patches of it; and again.

    `classes` () stands for all there are, in alphabetical order; `class_chances` () for all alike. Regions too small
    for a patch are left out and named in `left_out`. Patch n depends on the seed and n alone. An epoch is the regions'
    area in patches, ΣA / side², at most `length` batches. Raises BadRequestError for a class without a region,
    RegionTooSmallError for one whose regions hold no patch.
    """

    def __init__(
        self, slides: Sequence[AnnotatedSlide], batch: int, side: int, seed: int, *, classes: tuple[str, ...] = (),
        class_chances: tuple[float, ...] = (), coefficient: float = COEFFICIENT, intersection: float = INTERSECTION,
        augmentation: AugmentationSettings | None = None, length: int | None = None,
    ):  # fmt: skip
        self.slides, self.size, self.side, self.seed = slides, batch, side, seed
        self.intersection, self.augmentation = intersection, augmentation
        self.classes = checked_classes(slides, classes)
        self.chances = checked_chances(self.classes, class_chances)
        self.left_out: list[str] = []
        self.regions = [self._regions(name) for name in self.classes]
        self.weights = [
            region_weights([region.outline.area for region in regions], coefficient) for regions in self.regions
        ]
        outlines = [region.outline for regions in self.regions for region in regions]
        self.length = batches_an_epoch(patches_in(outlines, side), batch, length)

    def batch(self, index: int) -> PatchBatch:
        """Batch `index`; every row has a class, and a ×40 picture where its slide has."""
        stored: list[np.ndarray] = []
        base: list[np.ndarray | None] = []
        labels: list[int] = []
        for number in range(index * self.size, (index + 1) * self.size):
            if not stored or number % RUN == 0:
                label, slide, places = self._run(number // RUN)
            rng = np.random.default_rng([self.seed, 1, number])
            x, y = places[number % RUN]
            read = self.slides[slide].pixels.read(x, y, self.side)
            small, large = read.finished(self.augmentation, rng)
            stored.append(small)
            base.append(large)
            labels.append(label)
        return make_batch(stored, base, labels)

    def __len__(self) -> int:
        return self.length

    def _run(self, run: int) -> tuple[int, int, list[tuple[int, int]]]:
        """(label, slide, ten places) of a run."""
        rng = np.random.default_rng([self.seed, 0, run])
        label = int(rng.choice(len(self.classes), p=self.chances))
        for _ in range(REGION_TRIES):
            region = self.regions[label][int(rng.choice(len(self.regions[label]), p=self.weights[label]))]
            try:
                return label, region.slide, self._places(region, RUN, rng, self.classes[label])
            except RegionTooSmallError as error:
                fault = error  # a winding region of enough area may hold hardly a patch; another one may do
        raise fault

    def _places(
        self, region: ClassRegion, count: int, rng: np.random.Generator, name: str
    ) -> list[tuple[int, int]]:  # fmt: skip
        pixels = self.slides[region.slide].pixels
        what = f"region of {name} on “{pixels.name}”"
        return random_places(region.outline, pixels.size, self.side, count, rng, self.intersection, what)

    def _regions(self, name: str) -> list[ClassRegion]:
        """Regions of a class that have the area; raises RegionTooSmallError where none of them holds a patch."""
        found: list[ClassRegion] = []
        fault: RegionTooSmallError | None = None
        for number, slide in enumerate(self.slides):
            for outline in slide.regions.get(name, ()):
                region = ClassRegion(number, outline)
                try:
                    # The first is drawn from in earnest, so that a training does not stop for it hours later.
                    count = 0 if found else 1
                    self._places(region, count, np.random.default_rng([self.seed, 2]), name)
                except RegionTooSmallError as error:
                    fault = error
                    self.left_out.append(str(error))
                else:
                    found.append(region)
        if not found and fault is not None:
            raise fault
        return found


def checked_classes(slides: Sequence[AnnotatedSlide], classes: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The classes to train on, alphabetical where none are given; raises BadRequestError for one without a region."""
    found = sorted({name for slide in slides for name, regions in slide.regions.items() if regions})
    if not found:
        raise BadRequestError("The annotations hold no region of any class.")
    missing = [name for name in classes if name not in found]
    if missing:
        raise BadRequestError(
            f"There is no region of the class {', '.join(missing)} on these slides; there are {', '.join(found)}."
        )
    if len(set(classes)) != len(classes):
        raise BadRequestError("A class is named twice.")
    return classes or tuple(found)


def checked_chances(classes: tuple[str, ...], chances: tuple[float, ...] = ()) -> np.ndarray:
    """Chances of the classes, summing to 1; all alike where none are given; raises BadRequestError."""
    if not chances:
        return np.full(len(classes), 1.0 / len(classes))
    values = np.asarray(chances, float)
    if len(values) != len(classes) or not (values >= 0).all() or not 0 < values.sum() < np.inf:
        raise BadRequestError(
            f"class_chances gives {len(values)} values for the {len(classes)} classes {', '.join(classes)}; give one "
            "for each, none negative."
        )
    return values / values.sum()
