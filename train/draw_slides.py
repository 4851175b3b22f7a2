"""A library of drawn slides with exact truth, for paper D without any data: tissue classes as polygons of a layer.

    python -m train.draw_slides --library runs/drawn-library --slides 6 --width 6144 --height 4608

    python -m train.draw_slides --library runs/lesion-library --kind lesions --slides 24 --width 4096 --height 4096

Glands can stand for tumour and stroma for normal tissue; it is nobody's tissue, and no model of any disease. Slides
with lesions are those on which a patch alone does not tell its class (`wsi_ml/data/lesion_slide.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from wsi_ml.data.lesion_slide import DECEIVING, make_lesions, write_lesions
from wsi_ml.data.synthetic import make_scene
from wsi_ml.data.synthetic_slide import write_slide, write_truth
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.geometry import Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.library import Library

LAYER = "Exact truth: tissues"
"""As in the demo library."""
LESION_LAYER = "Exact truth: lesions"
KINDS = ("mucosa", "lesions")
LEAST_SIDE = 512


def draw_library(
    root: Path, slides: int, size: Size, seed: int, kind: str = KINDS[0], deceiving: float = DECEIVING
) -> list[str]:
    """Names of the slides `drawn-<seed>`, `drawn-<seed + 1>`, … (`lesions-…`), each drawn unless it is there already.

    `size` is that at ×40; `deceiving` is the share of squares that look like the other class, for lesions.
    """
    if slides < 1 or min(size) < LEAST_SIDE:
        raise BadRequestError(f"At least one slide, of {LEAST_SIDE} px a side or more, can be drawn.")
    root.mkdir(parents=True, exist_ok=True)
    there = {slide.name for slide in Library(root).slides()} if any(root.iterdir()) else set()
    names = [f"{'drawn' if kind == KINDS[0] else kind}-{number}" for number in range(seed, seed + slides)]
    for number, name in enumerate(tqdm(names, desc="slides", disable=None)):
        if name in there:
            continue
        with tempfile.TemporaryDirectory() as folder:
            draw = _mucosa if kind == KINDS[0] else _lesions
            path, truth, layer = draw(Path(folder) / name, size, seed + number, deceiving)
            found = ingest(path, root, name=name)
            import_layer(root, found.slide_id, truth, name=layer)
    return names


def _mucosa(path: Path, size: Size, seed: int, deceiving: float) -> tuple[Path, Path, str]:
    """Slide, outlines and layer's name of a strip of mucosa."""
    scene, slide = make_scene(size, seed), path.with_suffix(".svs")
    write_slide(scene, slide)
    return slide, write_truth(scene, path.parent)[0], LAYER


def _lesions(path: Path, size: Size, seed: int, deceiving: float) -> tuple[Path, Path, str]:
    """The same of tissue with lesions, which is drawn at ×20."""
    slide = path.with_suffix(".psi")
    truth = write_lesions(make_lesions(Size(size.width // 2, size.height // 2), seed), slide, deceiving)
    return slide, truth, LESION_LAYER


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence for sizes that cannot be drawn or a folder that is no library."""
    parser = argparse.ArgumentParser(
        prog="python -m train.draw_slides", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--library", type=Path, required=True, help="library that the slides go into; made if missing")
    parser.add_argument("--slides", type=int, default=6, help="how many")
    parser.add_argument("--width", type=int, default=6144, help="pixels at x40")
    parser.add_argument("--height", type=int, default=4608, help="pixels at x40")
    parser.add_argument("--seed", type=int, default=100, help="seed of the first slide; the next ones follow")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="mucosa, or tissue with lesions")
    parser.add_argument("--deceiving", type=float, default=DECEIVING, help="lesions: share of squares that deceive")
    options = parser.parse_args(argv)
    size = Size(options.width, options.height)
    try:
        draw_library(options.library, options.slides, size, options.seed, options.kind, options.deceiving)
    except OcularError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
