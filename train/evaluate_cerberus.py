"""Measure a run of `train.cerberus` on pictures and patches that it has not seen; results.json and a table.

    python -m train.evaluate_cerberus --run runs/cerberus --output runs/cerberus/scores

Pictures go through the store's JPEG. They are told in windows whose middle is kept, as on whole slides. Scores of
objects are means over pictures, matched above IoU 0.5; those of types are given both as means (mPQ) and pooled (mPQ+);
points count over all pictures, matched one to one within 6 px. Pictures beside the table show truth and what was told.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from train import loop, script
from train.cerberus_config import PRESETS, Config
from train.cerberus_data import type_names_of
from train.cerberus_held_out import HeldOut, held_out_sets, read_run, with_points
from train.evaluate_nuclei import agreement
from train.run_facts import journal_facts
from train.script import Run, as_rgb
from train.watching import averaged
from wsi_ml.data import tissue
from wsi_ml.data.task_batches import PATCH, middle
from wsi_ml.data.task_pictures import INSTANCE_TASKS, POINTS, TYPE, TaskPicture, base_task, instance_task
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.inference.cerberus_objects import find_objects_of, lumina_within, majority_types
from wsi_ml.inference.point_objects import find_points
from wsi_ml.metrics.classification import classification_report
from wsi_ml.metrics.label_maps import (
    centre_scores,
    centres,
    mean_panoptic,
    mean_scores,
    pooled_panoptic,
    type_scores,
    typed_detections,
)
from wsi_ml.metrics.precision_recall import average_precision
from wsi_ml.models import parameter_count
from wsi_ml.models.cerberus import Cerberus, CerberusConfig
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg

SIDE, CORE = 448, 144
"""Side of a window and of its middle that is kept (paper C's program)."""
RESULTS_FILE, REPORT_FILE, RESULTS_FORMAT = "results.json", "README.md", 1
NAMES = ("dice", "aji", "pq", "dq", "sq")
SHOWN_SIDE = 224
"""Side of the part of a picture that is shown."""
TRUTH_COLOUR, TOLD_COLOUR = (0, 90, 255), (255, 120, 0)
"""Blue and orange, told apart by people who see few colours."""
SHOWN_QUALITY = 82


@dataclass(frozen=True)
class Teller:
    """A trained network and how pictures are cut for it."""

    model: Cerberus
    run: Run
    side: int = SIDE
    core: int = CORE
    config: Config = field(default_factory=Config)
    """Keys of the run: side of its patches, discs of its points, sets."""
    held_out: tuple[str, ...] = ()
    """Pictures and slides that the run has not seen."""

    def maps(self, rgb: np.ndarray, tasks: Sequence[str]) -> dict[str, np.ndarray]:
        """Probabilities float32 C×H×W of dense tasks for a picture uint8 H×W×3, continued by its mirror image."""
        height, width = rgb.shape[:2]
        rows, columns = (-(-length // self.core) for length in (height, width))
        halo = (self.side - self.core) // 2
        edges = (halo, rows * self.core - height + halo, halo, columns * self.core - width + halo)
        wide = cv2.copyMakeBorder(rgb, *edges, cv2.BORDER_REFLECT)
        found: dict[str, np.ndarray] = {}
        for y in range(0, rows * self.core, self.core):
            for x in range(0, columns * self.core, self.core):
                told = self._window(wide[y : y + self.side, x : x + self.side], tasks)
                for task, each in told.items():
                    whole = (len(each), rows * self.core, columns * self.core)
                    into = found.setdefault(task, np.zeros(whole, np.float32))
                    kept = slice(halo, halo + self.core)
                    into[:, y : y + self.core, x : x + self.core] = each[:, kept, kept]
        return {task: each[:, :height, :width] for task, each in found.items()}

    @torch.inference_mode()
    def _window(self, rgb: np.ndarray, tasks: Sequence[str]) -> dict[str, np.ndarray]:
        with self.run.autocast():
            told = self.model(as_rgb(torch.from_numpy(rgb[None].copy()).to(self.run.device)), tasks)
        return {task: logits.float().softmax(1)[0].cpu().numpy() for task, logits in told.items()}

    @torch.inference_mode()
    def shares(self, rgb: np.ndarray) -> np.ndarray:
        """Shares of the classes for patches uint8 N×H×W×3."""
        with self.run.autocast():
            told = self.model(as_rgb(torch.from_numpy(rgb).to(self.run.device)), [PATCH])
        return told[PATCH].float().softmax(1).cpu().numpy()


def open_teller(folder: Path, device: torch.device, side: int = SIDE, core: int = CORE) -> Teller:
    """The averaged network of a run; raises ModelUnavailableError when the folder holds none."""
    if not 0 < core <= side or side % 16 or (side - core) % 2:
        raise BadRequestError(f"A window of {side} px cannot keep its middle {core} px; 448 and 144 are usual.")
    config, held_out, _ = read_run(folder)
    model = Cerberus(CerberusConfig(**script.read_network(folder)))
    run = Run(folder, loop.Ranks(0, 1, 0), device, loop.pick_bf16("auto", device) and device.type == "cuda")
    _, _, tensors = loop.read_state(folder)
    averaged(model, loop.part(tensors, "average"), run)
    return Teller(model, run, side, core, config, held_out)


def stored(rgb: np.ndarray) -> np.ndarray:
    """The picture after the store's JPEG."""
    return decode_jpeg(encode_jpeg(rgb))


def told_objects(teller: Teller, task: str, rgb: np.ndarray) -> np.ndarray:
    """Label map of a task's objects in a picture; lumina lie in glands, where the network tells those."""
    tasks = [task, *(["gland"] if task == "lumen" and "gland" in teller.model.config.tasks else [])]
    maps = teller.maps(stored(rgb), tasks)
    told = find_objects_of(task, maps[task][1:])
    return told if len(tasks) == 1 else lumina_within(told, find_objects_of("gland", maps["gland"][1:]))


def measure_points(teller: Teller, task: str, pictures: Sequence[TaskPicture]) -> dict[str, Any]:
    """Precision, recall and F1 of places, counted over all pictures."""
    radius = teller.config.point_radius
    found = [
        (centres(picture.labels), find_points(teller.maps(stored(picture.rgb), [task])[task][1], radius))
        for picture in tqdm(pictures, desc=task, unit="picture", leave=False)
    ]
    return mean_scores([centre_scores(found)])


def measure_instances(teller: Teller, task: str, pictures: Sequence[TaskPicture]) -> dict[str, Any]:
    """Means over pictures, SQ over those with a match (None without any)."""
    shown = tqdm(pictures, desc=task, unit="picture", leave=False)
    rows = [agreement(picture.labels, told_objects(teller, task, picture.rgb)) for picture in shown]
    values: dict[str, Any] = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in NAMES}
    matched = [row["sq"] for row in rows if row["dq"] > 0]
    return values | {"sq": round(float(np.mean(matched)), 4) if matched else None}


def measure_types(teller: Teller, task: str, pictures: Sequence[TaskPicture]) -> dict[str, Any]:
    """mPQ, mPQ+ and F of each type; objects are those the instance task tells, with the majority of their pixels."""
    base, detections, matched = instance_task(task), [], []
    names = type_names_of(teller.config, task)
    for picture in pictures:
        if picture.types is None:
            continue
        maps = teller.maps(stored(picture.rgb), [base, task])
        told = find_objects_of(base, maps[base][1:])
        types = [
            _types_of(labels, pixels)
            for labels, pixels in ((picture.labels, picture.types), (told, maps[task].argmax(0).astype(np.uint8)))
        ]
        detections.append(typed_detections(picture.labels, types[0], told, types[1], len(names)))
        used = [np.unique(labels[labels > 0]) for labels in (picture.labels, told)]
        matched.append(
            (centres(picture.labels), types[0][used[0]], centres(told), types[1][used[1]])
        )  # fmt: skip
    scores = type_scores(matched, len(names))
    values = {"mpq": mean_panoptic(detections), "mpq_plus": pooled_panoptic(detections), "f1": scores.detection}
    values |= {f"f1/{name}": each for name, each in zip(names, scores.types, strict=True)}
    return mean_scores([values])


def _types_of(labels: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Type of each object by its number; 0 for numbers not used."""
    types = np.zeros(int(labels.max()) + 1, np.int64)
    for number, (kind, _) in majority_types(labels, pixels).items():
        types[number] = kind
    return types


def measure_patches(teller: Teller, data_root: Path) -> list[dict[str, Any]]:
    """Weak classes of patches of another slide and of other places; `map` is the mean of the classes' precisions."""
    every = tissue.read_tissue_set(data_root)
    held_out = tuple({patch.slide for patch in every} & set(teller.held_out)) or tissue.TEST_SLIDES
    split = tissue.split_patches(every, held_out)
    side = teller.config.patch_side or PRESETS[teller.config.preset].patch_side
    rows = []
    for name, patches in (("by slide", split.by_slide), ("by place", split.by_place)):
        if patches:
            shares = np.concatenate([teller.shares(middle(stored(patch.rgb), side)[None]) for patch in patches])
            labels = np.array([patch.label for patch in patches])
            facts = {"task": PATCH, "set": f"tissue-weak {name}", "truth": "weak", "rows": len(patches)}
            found = [average_precision(shares[:, label], labels == label) for label in np.unique(labels)]
            scores = classification_report(shares, labels, tuple(tissue.CLASSES.values()))
            rows.append({**facts, "map": float(np.mean(found)), **scores})
    return rows


def evaluate(
    teller: Teller, data_root: Path, only: Sequence[str] = (), show: Callable[[str, np.ndarray], None] | None = None
) -> list[dict[str, Any]]:
    """Every set of every task that the network has, or of those named; `show` gets a picture of each row."""
    has = [task for task in teller.model.tasks if not only or task in only]
    bases = [task for task in INSTANCE_TASKS if any(base_task(each) == task for each in has)]
    rows: list[dict[str, Any]] = []
    for found in held_out_sets(teller.config, teller.held_out, data_root, bases) if bases else ():
        for task in has:
            row = _row_of(teller, task, found)
            if row is not None:
                rows.append(row)
                if show is not None and task == found.task:
                    show(f"{task} {found.name}", side_by_side(teller, found))
    return rows + (measure_patches(teller, data_root) if PATCH in has else [])


def _row_of(teller: Teller, task: str, found: HeldOut) -> dict[str, Any] | None:
    """The scores of a task on a set; None where the set does not know it."""
    measure: Callable[[Teller, str, Sequence[TaskPicture]], dict[str, Any]] = measure_instances
    pictures: Sequence[TaskPicture] = found.pictures
    if task.endswith(POINTS):
        points = with_points(found, teller.config, task)
        if points is None:
            return None
        pictures, measure = points.pictures, measure_points
    elif task.endswith(TYPE):
        if instance_task(task) != found.task or all(picture.types is None for picture in pictures):
            return None
        measure = measure_types
    elif task != found.task:
        return None
    objects = sum(len(np.unique(picture.labels[picture.labels > 0])) for picture in pictures)
    facts = {"set": found.name, "truth": found.truth, "rows": len(pictures), "objects": objects}
    return {"task": task, **facts, **measure(teller, task, pictures)}


def side_by_side(teller: Teller, found: HeldOut) -> np.ndarray:
    """The middle of a set's first picture with the outlines of truth (left) and of what was told (right)."""
    picture = found.pictures[0]
    told = told_objects(teller, found.task, picture.rgb)
    both = ((picture.labels, TRUTH_COLOUR), (told, TOLD_COLOUR))
    cut = [_middle_part(outlined(picture.rgb, labels, colour)) for labels, colour in both]
    return np.concatenate([cut[0], np.full((len(cut[0]), 4, 3), 255, np.uint8), cut[1]], axis=1)


def outlined(rgb: np.ndarray, labels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The picture with the outermost pixels of every object in a colour."""
    wide = labels.astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    edge = (cv2.dilate(wide, kernel) != cv2.erode(wide, kernel)) & (labels > 0)
    shown = rgb.copy()
    shown[edge] = colour
    return shown


def _middle_part(rgb: np.ndarray) -> np.ndarray:
    top, left = (max(0, length - SHOWN_SIDE) // 2 for length in rgb.shape[:2])
    return rgb[top : top + SHOWN_SIDE, left : left + SHOWN_SIDE]


def report(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown tables."""
    lines = [f"# {name}", "", "| task | set | truth | pictures | objects | " + " | ".join(NAMES) + " |"]
    lines.append("| --- " * (5 + len(NAMES)) + "|")
    others = []
    for row in rows:
        head = f"| {row['task']} | {row['set']} | {row['truth']} | {row['rows']} |"
        if "pq" in row:
            scores = ["–" if row[key] is None else f"{row[key]:.3f}" for key in NAMES]
            lines.append(f"{head} {row['objects']} | " + " | ".join(scores) + " |")
        else:
            shown = {key: value for key, value in row.items() if isinstance(value, float)}
            others.append(f"{head} " + ", ".join(f"{key} {value:.3f}" for key, value in shown.items()) + " |")
    if others:
        lines += ["", "| task | set | truth | rows | scores |", "| --- | --- | --- | --- | --- |", *others]
    return "\n".join(lines) + "\n"


def facts_of_run(teller: Teller) -> dict[str, Any]:
    """What the tables say of a run beside its scores."""
    config, folder = teller.config, teller.run.folder
    network = json.loads((folder / script.NETWORK_FILE).read_text(encoding="utf-8"))
    steps, _, _ = loop.read_state(folder)
    dense = [task for task in config.tasks if task != PATCH]
    return {
        "format": RESULTS_FORMAT, "run": folder.name, "row": network["row"], "seed": config.seed, "steps": steps,
        "tasks": list(config.tasks), "sampler": config.sampler, "target": config.target, "batch": config.batch,
        "side": config.side, "patch_side": config.patch_side, "width": teller.model.config.width,
        "blocks": list(teller.model.config.blocks), "parameters": parameter_count(teller.model),
        "start_run": Path(config.start_run).name, "sets": {task: list(config.sets_of(task)) for task in dense},
        "scenes": config.scenes, "scene_parts": config.scene_parts, **journal_facts(folder),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate_cerberus", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of train.cerberus")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder for results.json and README.md")
    parser.add_argument("--side", type=int, default=SIDE, help="side of a window")
    parser.add_argument("--core", type=int, default=CORE, help="side of the middle of a window that is kept")
    parser.add_argument("--tasks", nargs="+", default=[], help="tasks to measure; none named: all the network has")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads for the network")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    def show(name: str, rgb: np.ndarray) -> None:
        (args.output / "pictures").mkdir(parents=True, exist_ok=True)
        file = args.output / "pictures" / f"{'-'.join(re.findall('[a-z0-9]+', name.lower()))}.jpg"
        Image.fromarray(rgb).save(file, quality=SHOWN_QUALITY)

    try:
        teller = open_teller(args.run, loop.pick_device(args.device, 0), args.side, args.core)
        unknown = [task for task in args.tasks if task not in teller.model.tasks]
        if unknown:
            raise BadRequestError(f"The run has no task {unknown[0]!r}; it has {', '.join(teller.model.tasks)}.")
        rows = evaluate(teller, args.data, args.tasks, show)
    except (OcularError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    args.output.mkdir(parents=True, exist_ok=True)
    loop.write_atomic(args.output / REPORT_FILE, report(args.run.name, rows).encode())
    facts = {**facts_of_run(teller), "window": [args.side, args.core], "rows": rows}
    loop.write_atomic(args.output / RESULTS_FILE, (json.dumps(facts, indent=2) + "\n").encode())
    sys.stdout.write(report(args.run.name, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
