"""Stored tiles per second against openslide-python's example Deep Zoom server and against a bare Flask route.

Run: python -m benchmarks.tile_server
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from benchmarks.common import SHARED, free_port, ocular_server, process, table, write_result, wrk
from wsi_ml.geometry import DeepZoom
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.library import Library

SLIDE = SHARED / "wsi-atlas-dev" / "duodenum-adenoma-HE-x40.svs"
CONNECTIONS = (1, 6, 100)
SECONDS = 5
BARE = """
import sys
from pathlib import Path
from flask import Flask, Response
tile = Path({path!r}).read_bytes()
app = Flask("bare")
@app.route("/tile")
def bare(): return Response(tile, mimetype="image/jpeg")
"""


def interior(deep_zoom: DeepZoom, z_level: int) -> list[tuple[int, int]]:
    """Addresses of whole tiles of a level, shuffled the same way every time."""
    counts = deep_zoom.tile_counts(z_level)
    addresses = [(col, row) for col in range(counts.width - 1) for row in range(counts.height - 1)]
    random.Random(1).shuffle(addresses)
    return addresses[:200]


def peer_folder(scratch: Path) -> Path:
    """openslide-python's example server out of its source archive, fetched from the package index."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "openslide-python",
        "-d",
        str(scratch),
    ]
    subprocess.run([*command, "--no-build-isolation"], check=True, capture_output=True)
    with tarfile.open(next(scratch.glob("openslide_python-*.tar.gz"))) as archive:
        archive.extractall(scratch, filter="data")
    return next(scratch.glob("openslide_python-*/examples/deepzoom"))


def measure(rows: list[dict[str, object]], name: str, level: str, base: str, paths: list[str]) -> None:
    """Add a row for each number of connections."""
    wrk(base, paths, 6, 1)
    for connections in CONNECTIONS:
        load = wrk(base, paths, connections, SECONDS)
        if load.errors:
            raise SystemExit(f"{name}: {load.errors} answers were errors; the figures would be false")
        rows.append(
            {
                "server": name,
                "level": level,
                "connections": connections,
                "req/s": round(load.rate),
                "p50 ms": round(load.p50_ms, 2),
                "p99 ms": round(load.p99_ms, 2),
            }
        )


def main() -> None:
    """Measure and write benchmarks/results/tile_server.md."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        library = Library.create(scratch / "library")
        result = ingest(SLIDE, library.root)
        pyramid = library.pyramid(result.slide_id)
        deep_zoom, prefix = DeepZoom(pyramid.card.stored_size), f"/dzi/{result.slide_id}/{result.version}/stored_files"
        levels = {"native": deep_zoom.top, "half": deep_zoom.top - 1}
        with ocular_server(library.root) as url:
            for level, z in levels.items():
                measure(rows, "Ocular", level, url, [f"{prefix}/{z}/{c}_{r}.jpg" for c, r in interior(deep_zoom, z)])
        port, slide = free_port(), scratch / "peer" / "slide.tif"
        slide.parent.mkdir()
        shutil.copyfile(pyramid.folder / "pyramid.tif", slide)  # it refuses links that leave its folder
        peer = peer_folder(scratch)
        for side, overlap in ((254, 1), (512, 0)):
            command = [
                sys.executable,
                "deepzoom_multiserver.py",
                "-l",
                "127.0.0.1",
                "-p",
                str(port),
                "-s",
                str(side),
                "-e",
                str(overlap),
                str(slide.parent),
            ]
            with process(command, f"http://127.0.0.1:{port}/", cwd=peer):
                for level, z in levels.items():
                    addresses = interior(DeepZoom(pyramid.card.stored_size, side), z)
                    paths = [f"/slide.tif_files/{z}/{c}_{r}.jpeg" for c, r in addresses]
                    measure(rows, f"openslide-python example, {side} px", level, f"http://127.0.0.1:{port}", paths)
        sizes = sorted((pyramid.tile_record(0, c, r)[1], c, r) for c, r in interior(deep_zoom, deep_zoom.top))
        tile = scratch / "tile.jpg"
        tile.write_bytes(pyramid.tile_bytes(0, *sizes[len(sizes) // 2][1:]))
        (scratch / "bare.py").write_text(BARE.format(path=str(tile)))
        command = [
            sys.executable,
            "-m",
            "granian",
            "--interface",
            "wsgi",
            "--workers",
            "2",
            "--blocking-threads",
            "8",
            "--port",
            str(port),
            "bare:app",
        ]
        with process(command, f"http://127.0.0.1:{port}/tile", cwd=scratch):
            measure(
                rows,
                f"bare Flask route, {tile.stat().st_size // 1000} kB, granian",
                "-",
                f"http://127.0.0.1:{port}",
                ["/tile"],
            )
    write_result(
        "tile_server",
        "Stored tiles per second",
        "python -m benchmarks.tile_server",
        table(rows) + "\n\n" + ratios(rows),
    )


def ratios(rows: list[dict[str, object]]) -> str:
    """The goals' ratios, from the table's own figures."""
    rate = {(row["server"], row["level"], row["connections"]): float(str(row["req/s"])) for row in rows}
    bare = next(str(row["server"]) for row in rows if str(row["server"]).startswith("bare"))
    lines = []
    for (server, level, connections), value in rate.items():
        if server == "Ocular":
            peers = [value / rate[(f"openslide-python example, {side} px", level, connections)] for side in (254, 512)]
            share = value / rate[(bare, "-", connections)]
            lines.append(
                {
                    "level": level,
                    "connections": connections,
                    "× example (254 px)": f"{peers[0]:.1f}",
                    "× example (512 px)": f"{peers[1]:.1f}",
                    "share of the bare route": f"{share:.0%}",
                }
            )
    return table(lines)


if __name__ == "__main__":
    main()
