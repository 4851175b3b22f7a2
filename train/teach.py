"""Labels of a teacher, the published epithelium segmenter of lavlab-shell: sets of pictures, or a layer of a slide.

    python -m train.teach --output runs/teacher-folder --data ../shared/data         # for papers B and C
    python -m train.teach --library LIBRARY --slide ID [--slide ID]                  # for paper D, and to look at

They are no truth. Whatever is trained or scored on them agrees with a model or does not; it is not right or wrong.
Needs ONNX Runtime: `pip install -e .[onnx]`, and the teacher's two files (MIT; pip download lavlab-shell==0.9.1).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from train.teach_layer import teach_slide
from train.teach_pictures import FACTS, FolderWriter, atlas_pictures
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.inference.teacher import open_teacher

TEACHER = Path("../shared/data/weights-shell-onnx/model_v1.onnx")
DATA = Path("../shared/data")
SIDE, SQUARES, PRESENT, SEED = 256, 200, 0.1, 80


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence for what is missing: the extra, the model, the data, a slide's µm/px."""
    options = _parser().parse_args(argv)
    try:
        if (options.output is None) == (options.library is None):
            raise BadRequestError("Say either --output FOLDER (a set of pictures) or --library LIBRARY --slide ID.")
        if options.library is not None and not options.slide:
            raise BadRequestError("Say which slides of the library are to be taught: --slide ID.")
        teacher = open_teacher(options.teacher, options.threads)
        if options.output is not None:
            with FolderWriter(options.output, options.present) as writer:
                taken = (options.side, options.squares, options.seed, options.without)
                slides = atlas_pictures(options.data, teacher, *taken)
                for pictures, staining in tqdm(slides, desc="slides", disable=None):
                    writer.add(pictures, staining)
            sys.stderr.write(f"{options.output.name}: see {FACTS} for what these labels are.\n")
        for slide_id in options.slide:
            layer = teach_slide(options.library, slide_id, teacher, _warn)
            sys.stderr.write(f"{slide_id}: layer {layer.id} “{layer.name}”, {layer.count} polygons\n")
    except (OcularError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.teach", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, default=TEACHER, help=f"ONNX file ({TEACHER})")
    parser.add_argument("--output", type=Path, help="folder to make: images, masks, glands, lumina, pictures.csv")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with sr-x40-dev, sr-x40-dev2, wsi-atlas-dev")
    parser.add_argument("--side", type=int, default=SIDE, help=f"pixels at x20 of the squares of scans ({SIDE})")
    parser.add_argument("--squares", type=int, default=SQUARES, help=f"squares of each scan at most ({SQUARES})")
    parser.add_argument(
        "--present", type=float, default=PRESENT, help=f"share of epithelium that makes the class 1 ({PRESENT})"
    )
    parser.add_argument("--without", action="append", default=[], help="slide to leave out; may be told several times")
    parser.add_argument("--seed", type=int, default=SEED, help="of the choice of squares")
    parser.add_argument("--library", type=Path, help="library whose slides get a layer")
    parser.add_argument("--slide", action="append", default=[], help="id of a slide; may be told several times")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


def _warn(sentence: str) -> None:
    sys.stderr.write(f"warning: {sentence}\n")


if __name__ == "__main__":
    sys.exit(main())
