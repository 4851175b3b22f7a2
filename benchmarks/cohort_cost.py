"""What paper C's cohort costs, 599 slides with 377 million nuclei: `python -m benchmarks.cohort_cost`.

The paper gives neither area nor hours. The area follows from its number of nuclei and a density; operations from the
network's shapes; hours from what machines are said to do, from a window timed here (`--time`) or from a throughput
(`--measured`).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.common import table, write_result
from train.loop import count_flops
from wsi_ml.models.cerberus import Cerberus, CerberusConfig

SLIDES, NUCLEI, GLANDS, LUMINA = 599, 377_000_000, 900_000, 2_100_000
"""The paper's abstract."""
MPP = 0.5
DENSITY = 6_091.0
"""Nuclei per mm²: 4,949 outlined by hand in 13 pictures of 1000 × 1000 px at 0.25 µm (MoNuSeg, seven organs)."""
TASKS = {"lumen": 3, "gland": 3, "nuclei": 3, "nuclei_type": 7, "gland_type": 3}
"""Output channels of the six heads that the authors ship, with the nine classes of patches."""
PATCH_CLASSES = 9


class Window(NamedTuple):
    """How slides are cut for the network."""

    name: str
    side: int
    core: int
    """Side of the middle that is kept."""
    whole: bool
    """Decoders compute the rest too, as the authors' program does."""


WINDOWS = (Window("448 → 144 (paper)", 448, 144, True), Window("832 → 512 (Ocular)", 832, 512, False))
MACHINES: Mapping[str, tuple[float, float]] = {
    "V100, fp32": (15.7, 0.5),
    "V100, fp16": (125.0, 0.3),
    "H200, bf16": (790.0, 0.3),
}
"""Peak TFLOP/s and the share of it that is assumed; assumptions, none measured."""
FEATURE_BYTES = 88
"""Of a nucleus in a layer: a million of 16 corners take 88 MB (benchmarks/overlay_store.py)."""


@dataclass(frozen=True)
class Cohort:
    """What is to be told."""

    slides: int = SLIDES
    nuclei: int = NUCLEI
    density: float = DENSITY
    """Nuclei per mm² of tissue."""

    @property
    def area_mm2(self) -> float:
        """Tissue in mm²."""
        return self.nuclei / self.density

    def windows(self, core: int, mpp: float = MPP) -> int:
        """Windows whose kept middles of `core` px cover the tissue once; edges of the tissue are not counted."""
        return math.ceil(self.area_mm2 / (core * mpp / 1000) ** 2)


def window_flops(window: Window, width: int = 64, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> int:
    """Floating-point operations (two a multiply-add) of all heads of the network on one window, counted on shapes."""
    with torch.device("meta"):
        model = Cerberus(CerberusConfig(TASKS, PATCH_CLASSES, width, blocks)).eval()
    picture = torch.empty(1, 3, window.side, window.side, device="meta")
    return count_flops(partial(model, picture, None, halo_of(window)))


def halo_of(window: Window) -> int:
    """Pixels at each side that the decoders leave out."""
    return 0 if window.whole else (window.side - window.core) // 2


def hours(windows: int, flops: int, tflops: float, share: float) -> float:
    """Hours of one machine at a share of its peak."""
    return windows * flops / (tflops * 1e12 * share) / 3600


def window_seconds(window: Window, threads: int) -> float:
    """Seconds that the full network, random weights, takes for one window here, fp32 on the CPU: the best of three.

    Processor time over the threads, so that other work on the machine does not count.
    """
    torch.set_num_threads(threads)
    model = Cerberus(CerberusConfig(TASKS, PATCH_CLASSES)).eval()
    picture, best = torch.rand(1, 3, window.side, window.side), math.inf
    with torch.inference_mode():
        for _ in range(3):
            start = time.process_time()
            model(picture, None, halo_of(window))
            best = min(best, (time.process_time() - start) / threads)
    return best


def timed_rows(threads: int) -> dict[str, float]:
    """Tissue in mm² a second by the full network alone, for each way to cut."""
    rows = {}
    for window in WINDOWS:
        seconds = window_seconds(window, threads)
        words = f"full network, {window.name}, CPU, {threads} thread{'s' * (threads > 1)}, fp32"
        rows[f"{words}, {seconds:.1f} s a window"] = (window.core * MPP / 1000) ** 2 / seconds
    return rows


def hours_measured(cohort: Cohort, mm2_per_s: float) -> float:
    """Hours of one machine that tells so much tissue a second, reading, objects and writing included."""
    return cohort.area_mm2 / mm2_per_s / 3600


def in_digits(value: float) -> str:
    """Hours: whole from ten on."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def machines_for(total_hours: float, within_hours: float) -> int:
    """Machines that end within so many hours; slides are independent, so they share them evenly."""
    return max(1, math.ceil(total_hours / within_hours))


def body(cohort: Cohort, measured: Mapping[str, float]) -> str:
    """Area, operations and hours, with what each rests on."""
    per_slide = cohort.area_mm2 / cohort.slides
    lines: list[dict[str, object]] = []
    cuts = []
    for window in WINDOWS:
        flops, windows = window_flops(window), cohort.windows(window.core)
        cuts.append(f"{window.name} px: {flops / 1e9:,.0f} GFLOP a window, {windows / 1e6:,.1f} million windows")
        for name, (tflops, share) in MACHINES.items():
            told = hours(windows, flops, tflops, share)
            lines.append({
                "machine": name, "window": window.name, "peak TFLOP/s": f"{tflops:g}", "share": f"{share:.0%}",
                "hours of one": in_digits(told), "machines for a week": f"{machines_for(told, 168):,}",
                "machines for a day": f"{machines_for(told, 24):,}",
            })  # fmt: skip
    ours = [
        {"measured": name, "mm²/s": f"{speed:.3g}", "hours of one": in_digits(told := hours_measured(cohort, speed)),
         "machines for a week": f"{machines_for(told, 168):,}", "machines for a day": f"{machines_for(told, 24):,}"}
        for name, speed in measured.items()
    ]  # fmt: skip
    return "\n\n".join(part for part in (
        f"Cohort: {cohort.slides} slides, {cohort.nuclei / 1e6:,.0f} million nuclei. Area: **assumed** from "
        f"a density of {cohort.density:,.0f} nuclei/mm² ({DENSITY:,.0f} are outlined by hand in MoNuSeg's pictures): "
        f"{cohort.area_mm2:,.0f} mm² of tissue, {per_slide:,.0f} mm² a slide. Half the density is twice the area, "
        "windows and hours.",
        f"The full network (six outputs and nine classes of patches), {'; '.join(cuts)}.",
        "## Hours from operations",
        "Peak rates are the makers', shares of them assumed; reading, objects and writing come on top.",
        table(lines),
        "## Hours from what was measured" if ours else "",
        "Rows of the full network are its windows alone; others are of the network and the conditions that they name."
        if ours else "",
        table(ours) if ours else "",
        "## What it leaves",
        f"About {cohort.nuclei * FEATURE_BYTES / 1e9:,.0f} GB of layers at {FEATURE_BYTES} bytes a nucleus, and beside "
        f"them {GLANDS / 1e6:.1f} million glands and {LUMINA / 1e6:.1f} million lumina.",
    ) if part)  # fmt: skip


def read_measured(told: list[str]) -> dict[str, float]:
    """`name=mm2_per_s` texts; raises SystemExit for another form."""
    found = {}
    for text in told:
        name, equals, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not found[name] > 0:
            raise SystemExit(f"--measured takes name=mm²/s above 0, not {text!r}.")
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=SLIDES, help="slides")
    parser.add_argument("--nuclei", type=int, default=NUCLEI, help="nuclei in all of them")
    parser.add_argument("--density", type=float, default=DENSITY, help="nuclei per mm² of tissue")
    parser.add_argument("--measured", action="append", default=[], metavar="NAME=MM2_PER_S", help="a throughput")
    parser.add_argument("--time", type=int, default=0, metavar="THREADS", help="time the full network here")
    args = parser.parse_args(argv)
    if min(args.slides, args.nuclei, args.density) <= 0:
        parser.error("slides, nuclei and density are above 0")
    cohort, measured = Cohort(args.slides, args.nuclei, args.density), read_measured(args.measured)
    text = body(cohort, (timed_rows(args.time) if args.time else {}) | measured)
    write_result("cohort_cost", "What paper C's cohort costs", "python -m benchmarks.cohort_cost", text)


if __name__ == "__main__":
    main()
