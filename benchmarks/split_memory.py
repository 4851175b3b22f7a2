"""Memory and time of end-to-end learning against the number of patches: `python -m benchmarks.split_memory --write`.

Back-propagation in chunks (`split_backward`) beside one whole pass through the same networks, in paper D's sizes. Each
measurement is a process of its own, as the highest mark of memory never falls. Patches are drawn from their number when
they are wanted, as a slide's are read; the whole pass has to hold them all.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import ROOT, table, write_result
from wsi_ml.data.patch_grid import NOLABEL
from wsi_ml.models import build
from wsi_ml.models.feature_unet import feature_map
from wsi_ml.models.split_learning import split_backward

WAYS = ("split", "whole")
MEGA = 1 << 20


def patches(numbers: range, crop: int, device: torch.device) -> Tensor:
    """Pictures of noise, N×3×crop×crop, the same for the same numbers."""
    drawn = [torch.rand(3, crop, crop, generator=torch.Generator().manual_seed(number)) for number in numbers]
    return torch.stack(drawn).to(device)


def loss_on_map(unet: nn.Module, count: int, side: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Loss of the features of all patches, which fill a map of side×side cells row by row."""
    kept = torch.arange(min(count, side * side), device=device)
    rows, columns = kept // side, kept % side
    labels = torch.full((1, side, side), NOLABEL, device=device)
    labels[0, rows, columns] = kept % 2

    def loss_of(features: Tensor) -> Tensor:
        placed = feature_map(features, kept, rows, columns, side)
        return functional.cross_entropy(unet(placed[None]), labels, ignore_index=NOLABEL)

    return loss_of


def gradients_of(
    way: str, count: int, options: argparse.Namespace, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, float]:  # fmt: skip
    """(all gradients, seconds) of one update; the networks begin from the same numbers each time.

    On a CPU the seconds are the processor's, so that other work on the machine does not count.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    torch.manual_seed(0)
    extractor = build("takahama-extractor", classes=0).eval().to(device, dtype)
    unet = build("takahama-unet", base=options.base).to(device, dtype)
    loss_of = loss_on_map(unet, count, options.map, device)
    began = clock()
    if way == "whole":
        loss_of(extractor(patches(range(count), options.crop, device).to(dtype))).backward()
    else:
        chunks = [range(start, min(start + options.chunk, count)) for start in range(0, count, options.chunk)]

        def extract(numbers: range) -> Tensor:
            return extractor(patches(numbers, options.crop, device).to(dtype))

        split_backward(extract, chunks, loss_of)
    found = torch.cat([each.grad.flatten() for model in (extractor, unet) for each in model.parameters()])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return found, clock() - began


def peak(device: torch.device) -> float:
    """Highest mark of memory so far in MiB: of the accelerator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGA
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(way: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in this process; memory is what comes on top of a single patch's update."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    gradients_of("split", 1, options, device)
    before = peak(device)
    _, seconds = gradients_of(way, count, options, device)
    return {"way": way, "patches": count, "seconds": seconds, "mib": peak(device) - before, "before": before}


def in_a_process(way: str, count: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """The measurement by a fresh process; None where it found no memory."""
    passed = [f"--{name}={getattr(options, name)}" for name in ("crop", "chunk", "map", "base", "threads", "device")]
    command = [sys.executable, "-m", "benchmarks.split_memory", "--one", way, str(count), *passed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout)
    if done.returncode == -9 or "OutOfMemory" in done.stderr or "allocate" in done.stderr:
        return None
    raise SystemExit(done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024], help="patches")
    parser.add_argument("--whole", type=int, default=256, help="most patches of a whole pass")
    parser.add_argument("--crop", type=int, default=224, help="side of a patch")
    parser.add_argument("--chunk", type=int, default=32, help="patches at once")
    parser.add_argument("--map", type=int, default=32, help="side of the map in patches")
    parser.add_argument("--base", type=int, default=64, help="channels of the U-Net's first level")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "PATCHES"), help="one measurement, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options)))
        return
    rows = []
    for count in options.counts:
        row: dict[str, object] = {"patches": count}
        for way in WAYS:
            found = in_a_process(way, count, options) if way == "split" or count <= options.whole else None
            row |= {
                f"{way}, MiB": f"{found['mib']:,.0f}" if found else "–",
                f"{way}, s": f"{found['seconds']:.1f}" if found else "–",
            }
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    torch.set_num_threads(options.threads)
    few, device = 2 * options.chunk + 1, torch.device(options.device)
    split, whole = (gradients_of(way, few, options, device)[0] for way in WAYS)
    exact = [gradients_of(way, few, options, device, torch.float64)[0] for way in WAYS]
    difference, exact_difference = (float((a - b).norm() / b.norm()) for a, b in ((split, whole), exact))
    rounding = float((whole - exact[1]).norm() / exact[1].norm())
    text = (
        f"GoogLeNet with 16 features and a U-Net of base {options.base} on a map of {options.map} × {options.map}; "
        f"patches of {options.crop} px, chunks of {options.chunk}, float32, {options.device}, {options.threads} "
        "threads. Memory is what an update takes on top of that of one patch; seconds on a CPU are the processor's. "
        "“–”: not tried, or no memory for it.\n\n"
        + table(rows)
        + f"\n\nGradients of {few} patches in three chunks, split against whole: relative difference {difference:.1e} "
        f"in float32 and {exact_difference:.1e} in float64; whole passes in both are {rounding:.1e} apart."
    )
    if options.write:
        command = f"python -m benchmarks.split_memory {shlex.join(sys.argv[1:])}"
        write_result("split_memory", "End-to-end learning in chunks", command, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
