"""Pictures that know one task of paper C: instances of nuclei, glands or lumina, and the type of each pixel's instance.

Tasks come from independent sets: hand-outlined nuclei (DSB 2018; MoNuSeg for research only) and drawn scenes, whose
truth is exact. A task is trained on what knows it; nothing is assumed of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import shapely

from wsi_ml.data.nuclei import (
    HAND_SET,
    PART_SIDE,
    SCENE_SIDE,
    NucleiPicture,
    label_outlines,
    read_hand_set,
    read_picture,
)
from wsi_ml.data.synthetic import NUCLEI, Scene, make_scene
from wsi_ml.data.synthetic_pixels import Painter
from wsi_ml.data.task_augment import cut_square, vary_pixels
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.kernel import halve_pixels

INSTANCE_TASKS = ("gland", "lumen", "nuclei")
"""Instances that a set may know, in the order of the network's decoders."""
TYPE = "_type"
"""Ends the name of the task that tells the types of another's instances: `nuclei_type`."""
POINTS = "_points"
"""Ends the name of the task that tells only where another's instances are, by small discs: `nuclei_points`."""
RESEARCH_SET = "monuseg-train-nc"
"""CC BY-NC-SA 4.0: weights trained on it carry that licence and are never shipped as default."""
RESEARCH_VALIDATION = ("TCGA-21-5786-01Z-00-DX1", "TCGA-A7-A13E-01Z-00-DX1")
RESEARCH_TEST = (
    "TCGA-50-5931-01Z-00-DX1", "TCGA-AR-A1AS-01Z-00-DX1", "TCGA-B0-5711-01Z-00-DX1", "TCGA-G9-6362-01Z-00-DX1",
)  # fmt: skip
"""One picture of lung, breast, kidney and prostate each; every picture is of another patient."""
DIAMETER = 14.0
"""Stored pixels (7 µm at 0.5 µm/px) to which pictures of unknown scale are brought by their truth."""
DRAWN_TYPES: Mapping[str, tuple[str, ...]] = {"nuclei": NUCLEI}
"""Types of the drawn scenes by task; type 0 is the background."""


class Square(NamedTuple):
    """A square of a picture, as a row of a batch shows it."""

    rgb: np.ndarray
    """uint8 S×S×3."""
    labels: np.ndarray
    """int32 S×S; mirroring at the edge may have split an instance, whose parts keep its number."""
    types: np.ndarray
    """uint8 S×S, 0 where types are not known."""


@dataclass(frozen=True)
class TaskPicture:
    """A picture at 0.5 µm and the instances of one task."""

    name: str
    rgb: np.ndarray
    """uint8 H×W×3."""
    labels: np.ndarray
    """int32 H×W: 0 outside, another number for each instance."""
    types: np.ndarray | None = None
    """uint8 H×W: type of each pixel's instance from 1, 0 outside; None where types are not known."""
    weight: float = 1.0
    """How often it is drawn, against the others of its task, by samplers that draw by chance."""

    def __post_init__(self) -> None:
        beside = (self.labels,) if self.types is None else (self.labels, self.types)
        for each in beside:
            if each.shape != self.rgb.shape[:2]:
                raise BadRequestError(
                    f"The picture {self.name} is {self.rgb.shape[1]} × {self.rgb.shape[0]} px and its label map "
                    f"{each.shape[-1]} × {each.shape[0]}; they must be of one size."
                )

    def square(self, side: int, rng: np.random.Generator, vary: bool = True) -> Square:
        """A square of `side` px: from anywhere, turned and recoloured, or the middle as it is."""
        types = np.zeros(self.labels.shape, np.uint8) if self.types is None else self.types
        rgb, labels, types = cut_square((self.rgb, self.labels, types), side, rng, vary)
        return Square(vary_pixels(rgb, rng) if vary else rgb, labels, types)


def instance_task(task: str) -> str:
    """The task whose rows a task is learnt from: `nuclei` of `nuclei` and of `nuclei_type`."""
    return task.removesuffix(TYPE)


def base_task(task: str) -> str:
    """The task whose instances a task is about: `nuclei` of `nuclei_type` and of `nuclei_points` too."""
    return task.removesuffix(TYPE).removesuffix(POINTS)


def of_types(picture: TaskPicture, kinds: Sequence[int]) -> TaskPicture:
    """The picture with those instances alone whose type is one of `kinds`; BadRequestError where no type is known."""
    if picture.types is None:
        raise BadRequestError(f"The picture {picture.name} tells no types.")
    return replace(picture, labels=np.where(np.isin(picture.types, kinds), picture.labels, 0).astype(np.int32))


def hand_pictures(data_root: Path, held_out: Sequence[str]) -> tuple[list[TaskPicture], list[TaskPicture]]:
    """(pictures of DSB 2018 to train on, those named in `held_out`), nuclei brought to DIAMETER.

    Raises FileNotFoundError when the set is not there, BadRequestError for a name that it does not hold.
    """
    found = read_hand_set(data_root)
    unknown = sorted(set(held_out) - set(found))
    if unknown:
        raise BadRequestError(f"{HAND_SET} holds no picture {unknown[0]}.")
    scaled = {name: at_diameter(picture) for name, picture in found.items() if picture.count()}
    training = [picture for name, picture in scaled.items() if name not in held_out]
    return training, [picture for name, picture in scaled.items() if name in held_out]


def research_pictures(data_root: Path) -> list[TaskPicture]:
    """The 13 pictures of MoNuSeg's training part with instances, ×40 halved to ×20; for research only."""
    folder = data_root / RESEARCH_SET
    files = sorted((folder / "instances").glob("*.png"))
    if not files:
        raise FileNotFoundError(f"{data_root} holds no {RESEARCH_SET}.")
    pictures = []
    for file in files:
        found = read_picture(folder / "images" / f"{file.stem}.jpg", file.parent)
        half = halve_pixels(found.rgb)
        labels = _resized(found.labels, (half.shape[1], half.shape[0]))
        pictures.append(TaskPicture(found.name, half, labels))
    return pictures


def at_diameter(picture: NucleiPicture, diameter: float = DIAMETER) -> TaskPicture:
    """The picture scaled so that its nuclei have this median diameter."""
    factor = diameter / picture.diameter()
    height, width = picture.labels.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return TaskPicture(
        picture.name, cv2.resize(picture.rgb, size, interpolation=method), _resized(picture.labels, size)
    )


def _resized(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)


def drawn_pictures(
    seed: int, parts: int, tasks: Sequence[str], base_side: int = PART_SIDE, scene_side: int = SCENE_SIDE
) -> dict[str, list[TaskPicture]]:
    """By task, `parts` parts of the scene of a seed, `base_side`/2 stored pixels each; the truth is exact.

    The middle parts come first. A gland holds its lumen, as pathologists outline it. Nuclei have types, DRAWN_TYPES.
    """
    scene = make_scene(Size(scene_side, scene_side), seed)
    painter = Painter(scene)
    per_row = scene_side // base_side
    middle = (per_row - 1) / 2
    order = sorted(range(per_row**2), key=lambda n: (abs(n // per_row - middle) + abs(n % per_row - middle), n))
    found: dict[str, list[TaskPicture]] = {task: [] for task in tasks}
    for place in order[:parts]:
        region = Region(place % per_row * base_side, place // per_row * base_side, base_side, base_side)
        rgb = halve_pixels(painter.paint(region))
        for task in tasks:
            labels, types = _drawn_truth(scene, region, task)
            found[task].append(TaskPicture(f"scene-{seed}-{place}", rgb, labels, types))
    return found


def _drawn_truth(scene: Scene, base_region: Region, task: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Label map of a base-plane region at half its resolution and, for nuclei, the types of its pixels."""
    if task not in INSTANCE_TASKS:
        raise BadRequestError(f"Drawn scenes know {', '.join(INSTANCE_TASKS)}, not {task!r}.")
    outlines = {"gland": scene.glands, "lumen": scene.lumina}.get(task)
    outlines = scene.nuclei.outlines() if outlines is None else outlines
    box = shapely.box(base_region.x, base_region.y, base_region.x_end, base_region.y_end)
    near = np.flatnonzero(shapely.intersects(outlines, box)) if len(outlines) else np.zeros(0, int)
    corner = np.array([base_region.x, base_region.y])
    stored = shapely.transform(outlines[near], lambda points: (points - corner) / 2) if len(near) else outlines[near]
    labels = label_outlines(stored, Size(base_region.width // 2, base_region.height // 2))
    if task != "nuclei":
        return labels, None
    kinds = np.concatenate([[0], scene.nuclei.kinds[near] + 1]).astype(np.uint8)
    return labels, kinds[labels]
