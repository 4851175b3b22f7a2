"""A library of drawn slides with exact truth, for paper D without any data: tissue classes as polygons of a layer.

    python -m train.draw_slides --library runs/drawn-library --slides 6 --width 6144 --height 4608

Glands can stand for tumour and stroma for normal tissue; it is nobody's tissue, and no model of any disease.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from wsi_ml.data.synthetic import make_scene
from wsi_ml.data.synthetic_slide import write_slide, write_truth
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.geometry import Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.library import Library

LAYER = "Exact truth: tissues"
"""As in the demo library."""
LEAST_SIDE = 512


def draw_library(root: Path, slides: int, size: Size, seed: int) -> list[str]:
    """Names of the slides `drawn-<seed>`, `drawn-<seed + 1>`, …, each drawn unless the library has it already."""
    if slides < 1 or min(size) < LEAST_SIDE:
        raise BadRequestError(f"At least one slide, of {LEAST_SIDE} px a side or more, can be drawn.")
    root.mkdir(parents=True, exist_ok=True)
    there = {slide.name for slide in Library(root).slides()} if any(root.iterdir()) else set()
    names = [f"drawn-{number}" for number in range(seed, seed + slides)]
    for number, name in enumerate(tqdm(names, desc="slides", disable=None)):
        if name in there:
            continue
        scene = make_scene(size, seed + number)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.svs"
            write_slide(scene, path)
            tissues, _ = write_truth(scene, Path(folder))
            found = ingest(path, root, name=name)
            import_layer(root, found.slide_id, tissues, name=LAYER)
    return names


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
    options = parser.parse_args(argv)
    try:
        draw_library(options.library, options.slides, Size(options.width, options.height), options.seed)
    except OcularError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
