"""Drawn patients for `train.pn_stage`: five nodes each, with lesions of known extent, and the challenge's table.

    python -m train.draw_patients --library runs/patient-library --stages runs/patients.csv

Extents are those of the classes (none; up to 0.2 mm; up to 2 mm; above), on slides of drawn squares as those of
`train.draw_slides --kind lesions`. It shows that the chain from pixels to stages works, and nothing of any patient.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from train import loop
from train.draw_slides import LESION_LAYER
from wsi_ml.data.lesion_slide import DECEIVING, make_node, write_lesions
from wsi_ml.data.patch_slides import NODE
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.geometry import Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.metrics.staging import PATIENT_SUFFIX, stage_of
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.library import Library

STORED_PER_MM = 2000
"""Stored pixels a mm at ×20, 0.5 µm/px."""
CLASSES_OF = (
    ("negative",) * 5,
    ("itc", "itc", "negative", "negative", "negative"),
    ("micro", "itc", "negative", "negative", "negative"),
    ("macro", "micro", "negative", "itc", "negative"),
    ("macro", "micro", "micro", "micro", "negative"),
)
"""Nodes of a patient of each stage, pN0 to pN2."""


class Kind(NamedTuple):
    """How a node of a class is drawn."""

    size: Size
    """Stored pixels."""
    extents: tuple[float, float]
    """Length of the lesion in mm, from and to."""
    breadth: float
    """In mm, at most the length."""


KINDS = {
    "negative": Kind(Size(2048, 1024), (0.0, 0.0), 0.0),
    "itc": Kind(Size(2048, 1024), (0.16, 0.195), 0.195),
    "micro": Kind(Size(3072, 1536), (0.5, 1.1), 0.4),
    "macro": Kind(Size(5632, 1536), (2.25, 2.45), 0.4),
}


def draw_patients(root: Path, patients: int, seed: int, deceiving: float = DECEIVING) -> list[tuple[str, str]]:
    """Rows (slide or patient, class or stage) of the table; slides that the library has already are not drawn again.

    Raises BadRequestError for no patient.
    """
    if patients < 1:
        raise BadRequestError("At least one patient can be drawn.")
    root.mkdir(parents=True, exist_ok=True)
    there = {slide.name for slide in Library(root).slides()} if any(root.iterdir()) else set()
    rows = []
    for patient in tqdm(range(patients), desc="patients", disable=None):
        rng = np.random.default_rng([seed, patient])
        classes = rng.permutation(CLASSES_OF[patient % len(CLASSES_OF)]).tolist()
        name = f"patient_{patient:03d}"
        rows.append((name + PATIENT_SUFFIX, stage_of(classes)))
        for node, told in enumerate(classes):
            slide = f"{name}{NODE}{node}"
            rows.append((f"{slide}.tif", told))
            if slide not in there:
                _draw_node(root, slide, KINDS[told], 100 * seed + 5 * patient + node, rng, deceiving)
    return rows


def _draw_node(root: Path, name: str, kind: Kind, seed: int, rng: np.random.Generator, deceiving: float) -> None:
    extent = float(rng.uniform(*kind.extents))
    scene = make_node(kind.size, seed, extent * STORED_PER_MM, min(extent, kind.breadth) * STORED_PER_MM)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.psi"
        truth = write_lesions(scene, path, deceiving)
        import_layer(root, ingest(path, root, name=name).slide_id, truth, name=LESION_LAYER)


def table_bytes(rows: list[tuple[str, str]]) -> bytes:
    """The challenge's table of slides and patients."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([("patient", "stage"), *rows])
    return lines.getvalue().encode()


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence for a folder that is no library."""
    parser = argparse.ArgumentParser(
        prog="python -m train.draw_patients", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--library", type=Path, required=True, help="library that the slides go into; made if missing")
    parser.add_argument("--stages", type=Path, required=True, help="file for the table of slides and patients")
    parser.add_argument("--patients", type=int, default=10, help="how many; the five stages take turns")
    parser.add_argument("--seed", type=int, default=80)
    options = parser.parse_args(argv)
    try:
        rows = draw_patients(options.library, options.patients, options.seed)
    except OcularError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    loop.write_atomic(options.stages, table_bytes(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
