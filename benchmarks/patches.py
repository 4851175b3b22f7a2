"""Patches a second for super-resolution training: `python -m benchmarks.patches` (`--print` to keep no result).

Pairs of 224 px at ×20 and 448 px at ×40, made by the store's kernel and JPEG, of the same places: by a plain loop that
opens the slide and reads one region after the other, and by the sources with and without workers. One run, one machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import openslide
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import SHARED, table, write_result
from wsi_ml.data.batch_dataset import batch_loader
from wsi_ml.data.batches import BatchSource
from wsi_ml.data.pairs import store_pixels
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.read_patch import BLOCK_SIDE, MARGIN
from wsi_ml.data.slide_patches import SlidePatches
from wsi_ml.geometry import Region, Size
from wsi_ml.models import build
from wsi_ml.slides import LibrarySlide, open_slide
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.psi_writer import write_psi

SCAN = SHARED / "wsi-atlas-dev" / "metaplasia-HE-x40.svs"
SIDE, BATCH = 224, 32
PSI_SIZE = Size(6144, 6144)
PSI_PLACE = (3072, 3072)
H200_TFLOPS = 989.0
"""Dense bf16 peak of an H200, from its data sheet."""
WANTED_USE = 0.45
BACKWARD = 3
"""Work of a training step over that of the forward pass: the gradients of inputs and of weights cost one each."""


class Measured(NamedTuple):
    """Patches a second by the clock, and CPU milliseconds a patch where all was done in this process."""

    rate: float
    cpu_ms: float | None


def pair_of(slide: openslide.OpenSlide, x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
    """A pair in the plainest way: read ×40 with room for whole JPEG blocks, reduce, compress, cut."""
    place, side = (2 * x - MARGIN, 2 * y - MARGIN), 2 * SIDE + 2 * MARGIN
    area = np.asarray(slide.read_region(place, 0, (side, side)).convert("RGB"))
    left, top = x % BLOCK_SIDE, y % BLOCK_SIDE
    stored = store_pixels(area[MARGIN - 2 * top :, MARGIN - 2 * left :])
    return stored[top : top + SIDE, left : left + SIDE], area[MARGIN:-MARGIN, MARGIN:-MARGIN]


def plain_loop(path: Path, places: list[tuple[str, int, int]], reopen: bool) -> Measured:
    """A plain loop over places of one slide."""
    begin, cpu = time.perf_counter(), time.process_time()
    slide = openslide.OpenSlide(path)
    for _, x, y in places:
        if reopen:
            slide.close()
            slide = openslide.OpenSlide(path)
        pair_of(slide, x, y)
    slide.close()
    cpu_ms = 1e3 * (time.process_time() - cpu) / len(places)
    return Measured(len(places) / (time.perf_counter() - begin), cpu_ms)


def same_pixels(path: Path, source: SlidePatches) -> bool:
    """True when the first batch of the source is what the plain loop reads."""
    batch = source.batch(0)
    with openslide.OpenSlide(path) as slide:
        for row, (_, x, y) in enumerate(source.places_of(0)):
            stored, base = pair_of(slide, x, y)
            if not (np.array_equal(base, batch.base[row]) and np.array_equal(stored, batch.stored[row])):
                return False
    return True


def source_loop(source: BatchSource, workers: int, batches: int) -> Measured:
    """A source once every worker has given its first batch."""
    settle = max(1, workers)
    begin, cpu = 0.0, 0.0
    for number, _ in enumerate(batch_loader(source, range(settle + batches), workers)):
        if number + 1 == settle:
            begin, cpu = time.perf_counter(), time.process_time()
    cpu_ms = None if workers else 1e3 * (time.process_time() - cpu) / (batches * BATCH)
    return Measured(batches * BATCH / (time.perf_counter() - begin), cpu_ms)


def sources(folder: Path) -> list[tuple[str, SlidePatches]]:
    """The same slide as a vendor file, a part of it as `.psi`, and ingested into a library (×20 only)."""
    scan = open_slide(SCAN)
    x, y = PSI_PLACE
    psi = write_psi(
        folder / "part.psi", PSI_SIZE, lambda r: scan.region(0, Region(x + r.x, y + r.y, r.width, r.height)),
        magnification=40, codec="WEBP", quality=90,
    )  # fmt: skip
    made = ingest(SCAN, folder / "library")
    readers = {
        "×40 .svs, pairs": PatchReader(open_slide(SCAN)),
        "×40 .psi (WebP), pairs": PatchReader(open_slide(psi)),
        "library, ×20 alone": PatchReader(open_slide(LibrarySlide(folder / "library", made.slide_id))),
    }
    return [(name, SlidePatches([reader], BATCH, SIDE, seed=1)) for name, reader in readers.items()]


def step_gflop() -> float:
    """Work of one patch in a training step of the full-size joint network, a multiply and an add counted as two."""
    with torch.device("meta"):
        model, picture = build("sr-joint"), torch.empty(1, 3, SIDE, SIDE)
        with FlopCounterMode(display=False) as counter:
            model(picture)
    return BACKWARD * counter.get_total_flops() / 1e9


def needed_text(cpu_ms: float) -> str:
    """What a large accelerator would need, computed."""
    gflop = step_gflop()
    needed = WANTED_USE * H200_TFLOPS * 1e3 / gflop
    return (
        f"Computed, not measured: a patch costs {gflop:.0f} GFLOP in a training step of the full-size `sr-joint` "
        f"(forward pass by torch's counter, times {BACKWARD}). An H200 (dense bf16 peak {H200_TFLOPS:.0f} TFLOP/s) "
        f"used to {100 * WANTED_USE:.0f} % takes {needed:.0f} patches a second. At {cpu_ms:.1f} ms of CPU time a pair "
        f"from the `.svs`, that is the work of {needed * cpu_ms / 1e3:.1f} cores like these: "
        f"{int(np.ceil(needed * cpu_ms / 1e3)) + 1} workers."
    )


WORDS = (
    f"Batches of {BATCH}, patches of {SIDE} px at ×20 with {2 * SIDE} px at ×40. The plain loop reads the very places "
    "and makes the very pixels of the source (compared before timing), but is told where tissue is: the source finds "
    "it, and reads again where it met glass. Files in the page cache; OpenCV and torch with one thread a process. CPU "
    "time is that of the process that does all the work; other programs on the machine touch it less than the clock."
)


def main() -> int:
    """Measure, print, and keep the result unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=24, help="batches of 32 a row")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="worker processes of the rows")
    parser.add_argument("--print", action="store_true", help="print only, keep no result")
    args = parser.parse_args()
    if not SCAN.is_file():
        print("This benchmark needs ../shared/data/wsi-atlas-dev.")
        return 0
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    own_ms = 0.0

    def add(slide: str, way: str, found: Measured, peer: Measured | None) -> Measured:
        rows.append(
            {
                "slide": slide,
                "way": way,
                "patches/s": f"{found.rate:.0f}",
                "against the plain loop": f"{found.rate / peer.rate:.2f} ×" if peer else "–",
                "CPU ms/patch": f"{found.cpu_ms:.1f}" if found.cpu_ms else "–",
            }
        )
        return found

    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources(Path(folder)):
            peer = None
            if "svs" in name:
                if not same_pixels(SCAN, source):
                    raise SystemExit("The source and the plain loop read different pixels.")
                places = [place for index in range(args.batches) for place in source.places_of(index)]
                peer = add(name, "plain loop: open, read, close", plain_loop(SCAN, places, True), None)
                add(name, "plain loop: opened once", plain_loop(SCAN, places, False), peer)
            for workers in args.workers:
                way = f"source, {workers} workers" if workers else "source, in the training's own process"
                found = add(name, way, source_loop(source, workers, args.batches), peer)
                own_ms = own_ms or found.cpu_ms or 0.0
    body = f"{table(rows)}\n\n{WORDS}\n\n{needed_text(own_ms)}"
    if args.print:
        print(body)
    else:
        write_result("patches", "Patches for training, a second", "python -m benchmarks.patches", body)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
