"""Stage of patients (CAMELYON17) from the heatmaps of their slides: features, a random forest, the challenge's kappa.

    python -m train.pn_stage --heatmaps runs/d-joint/heat --stages stages.csv --output docs/results/pn-stage

`--stages` is the challenge's table: slides (`patient_000_node_0.tif,negative`) and patients (`patient_000.zip,pN0`).
The score is of cross-validation in five folds of patients, as paper D has it. `--method rule` takes the
largest extent of the largest region in place of the forest. The forest needs scikit-learn: `pip install -e .[stage]`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train import loop
from wsi_ml.data.heatmaps import ENDING, Heatmap, axes_of, heatmap_features, likely_cells, read_heatmap
from wsi_ml.data.patch_slides import patient_of
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.metrics.staging import NODES, PATIENT_SUFFIX, challenge_kappa, node_of, stage_of

try:
    from sklearn.cluster import DBSCAN
    from sklearn.ensemble import RandomForestClassifier
except ImportError:  # an extra: only this script needs it
    DBSCAN = RandomForestClassifier = None

REACH, LEAST = 3.0, 20
"""DBSCAN: patches nearer than so many cells are neighbours; with so many (itself too) one starts a cluster."""
FOLDS = 5
TREES = 300
METHODS = ("forest", "rule")


def clusters_of(cells: np.ndarray, reach: float = REACH, least: int = LEAST) -> np.ndarray:
    """Cluster of each likely patch, −1 for those in none, int64 N."""
    if DBSCAN is None:
        raise BadRequestError("Stages need scikit-learn, which is not installed: pip install -e .[stage]")
    if not len(cells):
        return np.empty(0, np.int64)
    return DBSCAN(eps=reach, min_samples=least).fit_predict(cells.astype(np.float64)).astype(np.int64)


def features_of(heat: Heatmap) -> np.ndarray:
    """The 21 numbers of a slide."""
    likely = likely_cells(heat)
    cells = heat.cells[likely]
    return heatmap_features(cells, heat.probability[likely], clusters_of(cells))


def rule_of(heat: Heatmap) -> str:
    """Class of a slide by the major axis of its largest cluster; clusters too small for DBSCAN's rule do not count."""
    likely = likely_cells(heat)
    cells = heat.cells[likely]
    cluster = clusters_of(cells)
    if not (cluster >= 0).any():
        return "negative"
    numbers, counts = np.unique(cluster[cluster >= 0], return_counts=True)
    return node_of(axes_of(cells[cluster == numbers[counts.argmax()]])[0] * heat.cell_mm)


def told_by_forest(heats: Sequence[Heatmap], truth: Mapping[str, str], folds: int, seed: int) -> dict[str, str]:
    """Class of each slide by a forest that saw no slide of its patient; slides without truth by all that have one.

    Raises BadRequestError where fewer patients than folds have slides of known class.
    """
    features = {heat.name: features_of(heat) for heat in heats}
    known = [name for name in features if name in truth]
    patients = sorted({patient_of(name) for name in known})
    if len(patients) < folds or folds < 2:
        raise BadRequestError(
            f"{len(patients)} patients with slides of known class are too few for {folds} folds (two at least)."
        )
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    fold_of = {patients[place]: number % folds for number, place in enumerate(shuffled.tolist())}
    told: dict[str, str] = {}
    for fold in range(folds + 1):
        seen = [name for name in known if fold_of[patient_of(name)] != fold]
        asked = [name for name in features if fold_of.get(patient_of(name), folds) == fold]
        if not asked:
            continue
        forest = RandomForestClassifier(TREES, random_state=seed, class_weight="balanced")
        forest.fit(np.stack([features[name] for name in seen]), [truth[name] for name in seen])
        told |= dict(zip(asked, forest.predict(np.stack([features[name] for name in asked])).tolist(), strict=True))
    return told


def stages_of(nodes: Mapping[str, str]) -> dict[str, str]:
    """Stage of each patient, as the challenge names them (`patient_000.zip`), from the classes of the slides."""
    patients: dict[str, list[str]] = {}
    for name, node in sorted(nodes.items()):
        patients.setdefault(patient_of(name), []).append(node)
    return {patient + PATIENT_SUFFIX: stage_of(classes) for patient, classes in patients.items()}


def read_stages(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(class of slides by name without ending, stage of patients) of the challenge's table.

    Raises BadRequestError for a table that cannot be read or has an unknown class of a slide.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [(row[0].strip(), row[1].strip()) for row in csv.reader(lines) if len(row) >= 2]
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"The table {path.name} cannot be read: {type(error).__name__}.") from error
    patients = {name: stage for name, stage in rows if name.lower().endswith(PATIENT_SUFFIX)}
    slides = {Path(name).stem: word.lower() for name, word in rows if Path(name).suffix.lower() in (".tif", ".tiff")}
    wrong = sorted(word for word in slides.values() if word not in NODES)
    if wrong or not slides:
        raise BadRequestError(
            f"The table {path.name} has {f'the class {wrong[0]!r}' if wrong else 'no slides'}; slides are "
            f"{', '.join(NODES)}, a row each: patient_000_node_0.tif,negative."
        )
    return slides, patients


def read_heatmaps(folder: Path) -> list[Heatmap]:
    """All heatmaps of a folder by name; raises BadRequestError for none."""
    heats = [read_heatmap(path) for path in sorted(folder.glob(f"*{ENDING}"))]
    if not heats:
        raise BadRequestError(
            f"“{folder.name}” holds no heatmaps; make them with train.evaluate_multistage --heatmaps."
        )
    return heats


def report(heats: Sequence[Heatmap], table: Path, method: str, folds: int, seed: int) -> dict[str, Any]:
    """Classes of slides, stages of patients and, where the truth is known, accuracy and kappa, as JSON values."""
    nodes_truth, patients_truth = read_stages(table)
    if method == "rule":
        nodes = {heat.name: rule_of(heat) for heat in heats}
    else:
        nodes = told_by_forest(heats, nodes_truth, folds, seed)
    stages = stages_of(nodes)
    judged = {name: stage for name, stage in patients_truth.items() if name in stages}
    right = [nodes[name] == nodes_truth[name] for name in nodes if name in nodes_truth]
    return {
        "method": method,
        "folds": folds if method == "forest" else None,
        "seed": seed,
        "slides": nodes,
        "patients": stages,
        "slides_judged": len(right),
        "slide_accuracy": float(np.mean(right)) if right else None,
        "patients_judged": len(judged),
        "kappa": challenge_kappa(judged, stages) if judged else None,
    }


def write_report(found: Mapping[str, Any], folder: Path) -> None:
    """`results.json`, and `stages.csv` as the challenge wants it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["patient", "stage"])
    for patient, stage in found["patients"].items():
        writer.writerow([patient, stage])
        mine = [name for name in sorted(found["slides"]) if patient_of(name) + PATIENT_SUFFIX == patient]
        writer.writerows([f"{name}.tif", found["slides"][name]] for name in mine)
    # NaN (kappa of a single stage) is no JSON.
    plain = {**found, "kappa": None if found["kappa"] != found["kappa"] else found["kappa"]}
    loop.write_atomic(folder / "stages.csv", lines.getvalue().encode())
    loop.write_atomic(folder / "results.json", (json.dumps(plain, indent=2) + "\n").encode())


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when the files are written, 2 with one sentence for what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m train.pn_stage", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--heatmaps", type=Path, required=True, help="folder of heatmaps (train.evaluate_multistage)")
    parser.add_argument("--stages", type=Path, required=True, help="the challenge's table of slides and patients")
    parser.add_argument("--output", type=Path, required=True, help="folder for results.json and stages.csv")
    parser.add_argument("--method", choices=METHODS, default="forest", help="forest (default) or rule")
    parser.add_argument("--folds", type=int, default=FOLDS, help="folds of patients (forest)")
    parser.add_argument("--seed", type=int, default=80, help="seed of folds and forest")
    options = parser.parse_args(argv)
    try:
        heats = read_heatmaps(options.heatmaps)
        write_report(report(heats, options.stages, options.method, options.folds, options.seed), options.output)
    except OcularError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
