"""How well `train.cerberus` does on held-out pictures while it trains: objects by their overlap, types, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from train.cerberus_data import CerberusData
from train.script import Run, as_rgb
from wsi_ml.data.instance_targets import relabelled
from wsi_ml.data.task_augment import cut_square
from wsi_ml.data.task_batches import PATCH, middle
from wsi_ml.data.task_pictures import POINTS, TYPE, TaskPicture, instance_task
from wsi_ml.inference.cerberus_objects import find_objects_of
from wsi_ml.inference.point_objects import find_points
from wsi_ml.metrics.label_maps import centre_scores, centres, detection, mean_scores, overlap_dice
from wsi_ml.models.cerberus import Cerberus

COLOURS = np.array([[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0]], np.uint8)
"""Of objects, by their number, in pictures; told apart by people who see few colours."""


@torch.inference_mode()
def tell(model: Cerberus, rgb: np.ndarray, task: str, run: Run) -> np.ndarray:
    """Probabilities float32 C×H×W of a dense task, or C of the patch class, for one picture uint8 H×W×3."""
    with run.autocast():
        told = model(as_rgb(torch.from_numpy(rgb[None]).to(run.device)), [task])
    return told[task].float().softmax(1)[0].cpu().numpy()


def look(
    model: Cerberus, data: CerberusData, tasks: Sequence[str], side: int, run: Run
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Means over the held-out pictures of each task that is learned, and one picture: pixels, truth, told."""
    values: dict[str, Any] = {}
    shown = None
    for task in tasks:
        if task == PATCH:
            values |= _look_at_patches(model, data, run)
        elif task.endswith(POINTS):
            values |= _look_at_points(model, task, data.pictures[task], side, data.source.settings.point_radius, run)
        elif task.endswith(TYPE):
            values |= _look_at_types(model, task, data.pictures[instance_task(task)], side, run)
        else:
            own, picture = _look_at_instances(model, task, data.pictures[task], side, run)
            values |= own
            shown = picture if shown is None else shown
    return values, shown


def _look_at_instances(
    model: Cerberus, task: str, pictures: Sequence[TaskPicture], side: int, run: Run
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Panoptic quality and Dice."""
    rows, shown = [], None
    rng = np.random.default_rng(0)
    for picture in pictures:
        rgb, truth = cut_square((picture.rgb, picture.labels), side, rng, vary=False)
        truth = relabelled(truth)
        told = find_objects_of(task, tell(model, rgb, task, run)[1:])
        found = detection(truth, told)
        rows.append({"pq": found.pq, "dq": found.dq, "sq": found.sq, "dice": overlap_dice(truth, told)})
        shown = np.concatenate([rgb, coloured(truth), coloured(told)], axis=1)
    return {f"{name}/{task}": value for name, value in mean_scores(rows).items()}, shown


def _look_at_types(
    model: Cerberus, task: str, pictures: Sequence[TaskPicture], side: int, run: Run
) -> dict[str, Any]:  # fmt: skip
    """Mean over the types of the share of their pixels that are told right."""
    rng, right, all_of = np.random.default_rng(0), np.zeros(256), np.zeros(256)
    for picture in pictures:
        if picture.types is not None:
            rgb, types = cut_square((picture.rgb, picture.types), side, rng, vary=False)
            told = tell(model, rgb, task, run)[1:].argmax(0) + 1
            all_of += np.bincount(types.ravel(), minlength=256)
            right += np.bincount(types[types == told], minlength=256)
    known = np.flatnonzero(all_of[1:]) + 1
    return {f"pixel_recall/{task}": round(float((right[known] / all_of[known]).mean()), 4)} if len(known) else {}


def _look_at_points(
    model: Cerberus, task: str, pictures: Sequence[TaskPicture], side: int, radius: float, run: Run
) -> dict[str, Any]:  # fmt: skip
    """F1 of the places told, counted over all pictures."""
    rng, found = np.random.default_rng(0), []
    for picture in pictures:
        rgb, truth = cut_square((picture.rgb, picture.labels), side, rng, vary=False)
        found.append((centres(relabelled(truth)), find_points(tell(model, rgb, task, run)[1], radius)))
    f1 = centre_scores(found)["f1"]
    return {} if f1 is None else {f"f1/{task}": round(f1, 4)}


def _look_at_patches(model: Cerberus, data: CerberusData, run: Run) -> dict[str, Any]:
    """Balanced accuracy of the classes that are held out."""
    side = data.source.settings.patch_side
    labels = np.array([patch.label for patch in data.patches], np.int64)
    told = np.array([tell(model, middle(patch.rgb, side), PATCH, run).argmax() for patch in data.patches], np.int64)
    recalls = [float(np.mean(told[labels == label] == label)) for label in np.unique(labels)]
    return {"balanced_accuracy": round(float(np.mean(recalls)), 4)} if recalls else {}


def coloured(labels: np.ndarray) -> np.ndarray:
    """A label map as a picture uint8 H×W×3."""
    return COLOURS[np.where(labels > 0, labels % (len(COLOURS) - 1) + 1, 0)]
