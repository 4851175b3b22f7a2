"""Whole-slide inference beside the model's own speed: `python -m benchmarks.inference`.

The engine (decode, halo, batches, stitching to disk with its journal) runs over a slide; the same model runs on windows
that lie in memory already, called by as many threads. Rounds of both alternate, so that a busy neighbour hurts both
alike. Without a GPU the two share the cores, so every cycle of decoding is one that the model lacks.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED, table, write_result
from benchmarks.drawn_nuclei import add_slide
from wsi_ml.geometry import Region, Size
from wsi_ml.inference.grid import Grid, batch_size, make_grid
from wsi_ml.inference.predictor import Predictor, Shared, available_predictors, open_predictor
from wsi_ml.inference.slide import WindowReader, callers_of, compute_windows
from wsi_ml.inference.tissue import everything
from wsi_ml.inference.window_file import WindowFile
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.library import Library
from wsi_ml.slides.pyramid import Pyramid

REAL = SHARED / "wsi-atlas-dev" / "metaplasia-HE-x40.svs"
MODELS = ("nuclei-fast", "tissue-fast")
KEPT_WINDOWS = 16
Row = dict[str, object]


def slide(folder: Path, drawn: Size | None) -> tuple[Pyramid, str]:
    """A slide in a library of its own, and what it is: a real one where it is at hand, else a drawn one."""
    library = Library.create(folder / "library")
    if drawn is None and REAL.is_file():
        return library.pyramid(ingest(REAL, library.root).slide_id), f"a real scan ({REAL.name})"
    slide_id, _ = add_slide(library, "drawn", drawn or Size(16384, 12288))
    return library.pyramid(slide_id), "a drawn slide"


def part_of(grid: Grid, count: int) -> Grid:
    """The first windows of a grid."""
    return dataclasses.replace(grid, windows=grid.windows[:count])


def engine_s(pyramid: Pyramid, predictor: Predictor, grid: Grid, batch: int, folder: Path) -> float:
    """Seconds of the engine for all windows of a grid, results on disk."""
    side = predictor.card.map_side
    shape = (len(predictor.card.channels), side, side)
    begin = time.perf_counter()
    with WindowFile(folder, {}, len(grid), batch, shape) as windows:
        compute_windows(pyramid, predictor, grid, windows)
    return time.perf_counter() - begin


def memory_s(predictor: Predictor, batches: list[np.ndarray], count: int) -> float:
    """Seconds of the model alone for as many batches, read from memory in turn."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(callers_of(predictor, count)) as pool:
        for _ in pool.map(predictor, itertools.islice(itertools.cycle(batches), count)):
            pass
    return time.perf_counter() - begin


def measured(pyramid: Pyramid, name: str, windows: int, rounds: int, scratch: Path) -> Row:
    """One model: the best of the alternating rounds."""
    predictor = open_predictor(name)
    card = predictor.card
    whole = Region(0, 0, *pyramid.card.stored_size)
    grid = part_of(make_grid(card, pyramid.card.stored_size, whole, everything(pyramid)), windows)
    numbers = predictor.numbers if isinstance(predictor, Shared) else "cpu"
    batch = batch_size(card, numbers)
    reader = WindowReader(pyramid, grid)
    kept = [reader.batch(range(at, at + batch)) for at in range(0, min(KEPT_WINDOWS, len(grid) - batch + 1), batch)]
    count = -(-len(grid) // batch)
    memory_s(predictor, kept, 2 * callers_of(predictor, count))
    spans = []
    for number in range(rounds):
        engine = engine_s(pyramid, predictor, grid, batch, scratch / f"{name}-{number}")
        # The last batch of the grid may be short; what is compared is windows a second.
        alone = memory_s(predictor, kept, count) * len(grid) / (count * batch)
        spans.append((engine, alone))
    engine, alone = (min(column) for column in zip(*spans, strict=True))
    ratios = sorted(alone / engine for engine, alone in spans)
    return {
        "model": name, "on": numbers, "callers": callers_of(predictor, count), "batch": batch,
        "windows": len(grid), "side px": card.side,
        "engine windows/s": f"{len(grid) / engine:.2f}",
        "engine Mpx/s": f"{len(grid) * card.core**2 / engine / 1e6:.2f}",
        "model alone windows/s": f"{len(grid) / alone:.2f}", "engine ÷ model": f"{ratios[len(ratios) // 2]:.3f}",
        "lowest, highest": f"{ratios[0]:.3f}, {ratios[-1]:.3f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="names")
    parser.add_argument("--windows", type=int, default=160, help="windows of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drawn", nargs=2, type=int, metavar=("W", "H"), help="a drawn slide of this ×40 size")
    parser.add_argument("--print", action="store_true", help="only print: keep no result")
    args = parser.parse_args()
    known = {card.name for card in available_predictors()}
    with tempfile.TemporaryDirectory() as scratch:
        pyramid, what = slide(Path(scratch), Size(*args.drawn) if args.drawn else None)
        names = [name for name in args.models if name in known]
        rows = [measured(pyramid, name, args.windows, args.rounds, Path(scratch)) for name in names]
    size = pyramid.card.stored_size
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    body = "\n\n".join([
        f"Windows of {what}, {size.width} × {size.height} stored px. *engine*: stored tiles decoded, windows with "
        "halo, batches through the model, results with checksums on disk. *model alone*: the same calls on windows in "
        "memory. Speeds: best of the rounds; the ratio is the median of the rounds (goal ≥ 0.9). Mpx: stored pixels "
        "told.",
        table(rows),
        f"Peak memory of the process, torch included: {peak_mb:.0f} MB.",
    ])  # fmt: skip
    if args.print:
        print(body)
    else:
        write_result("inference", "Whole-slide inference", "python -m benchmarks.inference", body)


if __name__ == "__main__":
    main()
