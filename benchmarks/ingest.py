"""Ingestion against libvips doing the same job on the same file, each as a whole process, in turns.

    python -m benchmarks.ingest [--repeats 3] [--big 40000x30000] [--write]
    python -m benchmarks.ingest --no-real --big 100000x100000 --repeats 1 --only Ocular --append

libvips: `tiffload(page=0, sequential)`, `shrink(2, 2)`, `tiffsave(tile 512, jpeg, pyramid, bigtiff)`. It subsamples
colour only below Q 90, so it runs twice: at Q 95 with 4:4:4, which loses about as little as our encoding does, and at
Q 89, its best with 4:2:0, where it is fastest. It writes no checksums, verifies nothing and flushes nothing to disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from wsi_ml.slides.card import PYRAMID_FILE
from wsi_ml.slides.codec import encode_jpeg
from wsi_ml.slides.library import Library

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
RESULT = Path(__file__).parent / "results" / "ingest.md"
OURS = "import sys; from wsi_ml.slides.ingest import ingest; ingest(sys.argv[1], sys.argv[2], dct=sys.argv[3] == 'dct')"
VIPS = """
import sys, pyvips
image = pyvips.Image.tiffload(sys.argv[1], page=0, access="sequential")
image.shrink(2, 2).tiffsave(sys.argv[2], tile=True, pyramid=True, tile_width=512, tile_height=512, compression="jpeg",
                            Q=int(sys.argv[3]), bigtiff=True)
"""


@dataclass(frozen=True)
class Run:
    """One measured process tree."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    stored_bytes: int


def tree_rss_mb(pid: int) -> float:
    """Resident memory of a process and its descendants, MB."""
    total, queue = 0, [pid]
    while queue:
        each = queue.pop()
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
            for task in Path(f"/proc/{each}/task").iterdir():
                queue += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(command: list[str]) -> tuple[float, float, float]:
    """(wall s, CPU s, peak MB) of a command and everything it starts."""
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=ROOT)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{command[2][:40]} failed with {process.returncode}")
            return wall, usage.ru_utime + usage.ru_stime, peak
        peak = max(peak, tree_rss_mb(process.pid))
        time.sleep(0.02)


def run_ours(source: Path, folder: Path, way: str) -> Run:
    figures = measure([sys.executable, "-c", OURS, str(source), str(folder / "library"), way])
    library = Library(folder / "library")
    stored = library.version_folder(library.slides()[0].current) / PYRAMID_FILE
    return Run(*figures, stored.stat().st_size)


def run_vips(source: Path, folder: Path, quality: str) -> Run:
    figures = measure([sys.executable, "-c", VIPS, str(source), str(folder / "out.tif"), quality])
    return Run(*figures, (folder / "out.tif").stat().st_size)


BASE = "libvips Q 89 (4:2:0)"
PEERS = {
    "Ocular": (run_ours, "dct"),
    "Ocular without DCT scaling": (run_ours, "box2"),
    "libvips Q 95 (4:4:4)": (run_vips, "95"),
    BASE: (run_vips, "89"),
}


def write_big(path: Path, width: int, height: int) -> None:
    """A large Aperio-style scan at ×40 whose JPEG tiles are cut from a real slide, in seeded order."""
    with tifffile.TiffFile(DATA / "wsi-atlas-dev" / "metaplasia-HE-x40.svs") as file:
        rgb = file.pages.first.asarray()[2048:8192, 2048:8192]
    corners = [(x, y) for y in range(0, 6144, 256) for x in range(0, 6144, 256)]
    tiles = [encode_jpeg(rgb[y : y + 256, x : x + 256], 85) for x, y in corners]
    order = np.random.default_rng(0).integers(0, len(tiles), -(-width // 256) * -(-height // 256))
    tifffile.imwrite(
        path,
        (tiles[number] for number in order),
        shape=(height, width, 3),
        dtype=np.uint8,
        photometric="ycbcr",
        subsampling=(2, 2),
        tile=(256, 256),
        compression="jpeg",
        bigtiff=True,
        metadata=None,
        software=False,
        description=f"Aperio Image Library v12\r\n{width}x{height} (256x256) Q=85|AppMag = 40|MPP = 0.25",
    )


def best(runs: list[Run]) -> Run:
    """The run with the least wall time: the others were disturbed."""
    return min(runs, key=lambda run: run.wall_s)


def rows_for(source: Path, peers: list[str], repeats: int, scratch: Path) -> list[str]:
    """Table rows of every program on one scan."""
    runs: dict[str, list[Run]] = {name: [] for name in peers}
    for _ in range(repeats):
        for name in peers:
            run, argument = PEERS[name]
            folder = Path(tempfile.mkdtemp(dir=scratch))
            runs[name].append(run(source, folder, argument))
            shutil.rmtree(folder)
    with tifffile.TiffFile(source) as file:
        page = file.pages.first
        size, bytes_ = f"{page.imagewidth} × {page.imagelength}", source.stat().st_size
        level_bytes = sum(page.databytecounts)
    rows = []
    for name, several in runs.items():
        run = best(several)
        ratio = f"{run.wall_s / best(runs[BASE]).wall_s:.2f}" if BASE in runs else "–"
        print(json.dumps({"file": source.name, "peer": name, **vars(run)}), flush=True)
        rows.append(
            f"| {source.stem} {size} | {name} | {run.wall_s:.2f} | {ratio} | {run.cpu_s:.2f} "
            f"| {level_bytes / 1e6 / run.wall_s:.0f} | {run.peak_mb:.0f} | {run.stored_bytes / 1e6:.1f} "
            f"| {run.stored_bytes / bytes_:.0%} |"
        )
    return rows


HEADER = """# Ingestion

`python -m benchmarks.ingest --write`: best of {repeats} runs each, in turns, whole processes (start of Python,
hashing, checksums, verification and flush to disk included for Ocular), {cores} cores, {load}.
“MB/s” is JPEG bytes of the scan's level 0 per second of wall time; “peak” is resident memory of the whole process tree;
“of source” compares the stored pyramid with the scan file (its own smaller levels included).

| scan | program | wall s | ÷ libvips 4:2:0 | CPU s | MB/s | peak MB | stored MB | of source |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--big", default="40000x30000", help="size of the synthetic scan, 0x0 for none")
    parser.add_argument("--only", choices=list(PEERS), help="run one program only")
    parser.add_argument("--no-real", action="store_true", help="leave out the real scans")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--append", action="store_true", help=f"add the rows to {RESULT.name}")
    options = parser.parse_args()
    width, height = (int(side) for side in options.big.split("x"))
    peers = [options.only] if options.only else list(PEERS)
    with tempfile.TemporaryDirectory() as scratch:
        sources = [] if options.no_real else sorted((DATA / "wsi-atlas-dev").glob("*x40.svs"))
        if width:
            write_big(Path(scratch) / "synthetic.svs", width, height)
            sources.append(Path(scratch) / "synthetic.svs")
        rows = [row for source in sources for row in rows_for(source, peers, options.repeats, Path(scratch))]
    load = f"load average {os.getloadavg()[1]:.1f} (above {os.cpu_count()} others work too: read the ratios)"
    text = HEADER.format(repeats=options.repeats, cores=os.cpu_count(), load=load) + "\n".join(rows) + "\n"
    print(text)
    if options.write:
        RESULT.write_text(text)
    elif options.append:
        RESULT.write_text(RESULT.read_text() + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
