"""Measure a run of `train.cerberus` on pictures and patches that it has not seen; results.json and a table.

    python -m train.evaluate_cerberus --run runs/cerberus --output docs/results/cerberus

Pictures go through the store's JPEG. They are told in windows whose middle is kept, as on whole slides. Scores of
objects are means over pictures, matched above IoU 0.5; those of types are given both as means (mPQ) and pooled (mPQ+).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from train import loop, script
from train.evaluate_nuclei import CLUSTERS, MONUSEG, SCENE_PARTS, SCENE_SEED, agreement
from train.script import Run, as_rgb
from train.watching import averaged
from wsi_ml.data import tissue
from wsi_ml.data.task_batches import PATCH, middle
from wsi_ml.data.task_pictures import (
    DRAWN_TYPES,
    INSTANCE_TASKS,
    TYPE,
    TaskPicture,
    drawn_pictures,
    hand_pictures,
    instance_task,
    research_pictures,
)
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.inference.cerberus_objects import find_objects_of, lumina_within, majority_types
from wsi_ml.metrics.classification import classification_report
from wsi_ml.metrics.label_maps import (
    centres,
    mean_panoptic,
    mean_scores,
    pooled_panoptic,
    type_scores,
    typed_detections,
)
from wsi_ml.metrics.precision_recall import average_precision
from wsi_ml.models.cerberus import Cerberus, CerberusConfig
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg

SIDE, CORE = 448, 144
"""Side of a window and of its middle that is kept (paper C's program)."""
PATCH_SIDE = 144
RESULTS_FILE, REPORT_FILE = "results.json", "README.md"
NAMES = ("dice", "aji", "pq", "dq", "sq")


@dataclass(frozen=True)
class Teller:
    """A trained network and how pictures are cut for it."""

    model: Cerberus
    run: Run
    side: int = SIDE
    core: int = CORE

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
    model = Cerberus(CerberusConfig(**script.read_network(folder)))
    run = Run(folder, loop.Ranks(0, 1, 0), device, loop.pick_bf16("auto", device) and device.type == "cuda")
    _, _, tensors = loop.read_state(folder)
    averaged(model, loop.part(tensors, "average"), run)
    return Teller(model, run, side, core)


def stored(rgb: np.ndarray) -> np.ndarray:
    """The picture after the store's JPEG."""
    return decode_jpeg(encode_jpeg(rgb))


def held_out_sets(data_root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, str, str, list[TaskPicture]]]:
    """(task, set, kind of truth, pictures) for each instance task; research pictures where they are there."""
    if "nuclei" in tasks:
        for name, names in CLUSTERS.items():
            yield "nuclei", f"dsb2018 test: {name}", "by hand", hand_pictures(data_root, names)[1]
        if (data_root / MONUSEG).is_dir():
            yield "nuclei", "MoNuSeg 2018 training", "by hand, CC BY-NC-SA", research_pictures(data_root)
    for task, pictures in drawn_pictures(SCENE_SEED, SCENE_PARTS, tasks).items():
        shown = [picture for picture in pictures if picture.labels.any()]
        yield task, "drawn scene", "exact", shown


def measure_instances(teller: Teller, task: str, pictures: Sequence[TaskPicture]) -> dict[str, Any]:
    """Means over pictures, SQ over those with a match (None without any).

    Lumina count within the glands that are told, where the network tells glands.
    """
    tasks = [task, *(["gland"] if task == "lumen" and "gland" in teller.model.config.tasks else [])]
    rows = []
    for picture in tqdm(pictures, desc=task, unit="picture", leave=False):
        maps = teller.maps(stored(picture.rgb), tasks)
        told = find_objects_of(task, maps[task][1:])
        if len(tasks) > 1:
            told = lumina_within(told, find_objects_of("gland", maps["gland"][1:]))
        rows.append(agreement(picture.labels, told))
    values: dict[str, Any] = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in NAMES}
    matched = [row["sq"] for row in rows if row["dq"] > 0]
    return values | {"sq": round(float(np.mean(matched)), 4) if matched else None}


def measure_types(teller: Teller, task: str, pictures: Sequence[TaskPicture]) -> dict[str, Any]:
    """mPQ, mPQ+ and F of each type; objects are those the instance task tells, with the majority of their pixels."""
    base, detections, matched = instance_task(task), [], []
    names = DRAWN_TYPES[base]
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
        used = [np.unique(labels)[1:] if labels.any() else np.zeros(0, int) for labels in (picture.labels, told)]
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
    split = tissue.split_patches(tissue.read_tissue_set(data_root), tissue.TEST_SLIDES)
    rows = []
    for name, patches in (("by slide", split.by_slide), ("by place", split.by_place)):
        if patches:
            shares = np.concatenate([teller.shares(middle(stored(patch.rgb), PATCH_SIDE)[None]) for patch in patches])
            labels = np.array([patch.label for patch in patches])
            facts = {"task": PATCH, "set": f"tissue-weak {name}", "truth": "weak", "rows": len(patches)}
            found = [average_precision(shares[:, label], labels == label) for label in np.unique(labels)]
            scores = classification_report(shares, labels, tuple(tissue.CLASSES.values()))
            rows.append({**facts, "map": float(np.mean(found)), **scores})
    return rows


def evaluate(teller: Teller, data_root: Path) -> list[dict[str, Any]]:
    """Every set of every task that the network has."""
    told = teller.model.config.tasks
    tasks = [task for task in INSTANCE_TASKS if task in told]
    rows: list[dict[str, Any]] = []
    for task, name, truth, pictures in held_out_sets(data_root, tasks):
        objects = sum(len(np.unique(picture.labels)) - 1 for picture in pictures)
        facts = {"set": name, "truth": truth, "rows": len(pictures), "objects": objects}
        rows.append({"task": task, **facts, **measure_instances(teller, task, pictures)})
        if f"{task}{TYPE}" in told and any(picture.types is not None for picture in pictures):
            rows.append({"task": f"{task}{TYPE}", **facts, **measure_types(teller, f"{task}{TYPE}", pictures)})
    return rows + (measure_patches(teller, data_root) if teller.model.patch is not None else [])


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


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate_cerberus", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of train.cerberus")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder for results.json and README.md")
    parser.add_argument("--side", type=int, default=SIDE, help="side of a window")
    parser.add_argument("--core", type=int, default=CORE, help="side of the middle of a window that is kept")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = parser.parse_args(argv)
    try:
        teller = open_teller(args.run, loop.pick_device(args.device, 0), args.side, args.core)
        rows = evaluate(teller, args.data)
    except (OcularError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    args.output.mkdir(parents=True, exist_ok=True)
    loop.write_atomic(args.output / REPORT_FILE, report(args.run.name, rows).encode())
    facts = {"run": args.run.name, "hardware": loop.hardware(teller.run.device), "rows": rows}
    loop.write_atomic(args.output / RESULTS_FILE, (json.dumps(facts, indent=2) + "\n").encode())
    sys.stdout.write(report(args.run.name, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
