"""A layer of many nuclei out to every format and in again: seconds of a core, bytes, memory over the bare process's.

Each row is a process of its own. The peer for writing makes the whole GeoJSON with the standard library; the peers for
reading parse the whole file, with the standard library and shapely, without any check.

Run: python -m benchmarks.exchange [--count 1000000] [--read 100000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import shapely
import shapely.geometry

from benchmarks import drawn_nuclei
from benchmarks.common import ROOT, table, write_result
from wsi_ml.formats.files import read_bytes
from wsi_ml.formats.reading import read_features
from wsi_ml.formats.writing import WRITERS
from wsi_ml.geometry import Size
from wsi_ml.layers.exporting import Export, export_layer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

SLIDE = "drawn"
PEERS = ("json", "ElementTree")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="nuclei of the layer that is written")
    parser.add_argument("--read", type=int, default=100_000, help="nuclei of the files that are read")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(*options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        written = [row("write", name, make_library(root / "many", options.count), "-") for name in formats()]
        small = make_library(root / "few", options.read)
        for name in ("geojson", "asap", "imagescope", "coco", "msu"):
            row("write", name, small, str(root / name))
        read = [row("read", name, root, str(root / name)) for name in ("geojson", "asap", "imagescope", "coco", "msu")]
        read += [row("read", "json", root, str(root / "geojson")), row("read", "ElementTree", root, str(root / "asap"))]
        written.append(row("write", "json", small, "-"))
    body = (
        f"Layer of {options.count:,} nuclei of {drawn_nuclei.POINTS} corners, streamed (the last row, the standard "
        f"library's json of {options.read:,}, is held whole):\n\n{table(written)}\n\n"
        f"Files of {options.read:,} nuclei, read and checked (the last two rows, json and ElementTree with shapely, "
        f"check nothing):\n\n{table(read)}"
    )
    write_result("exchange", "Layers out and in again", f"python -m benchmarks.exchange --count {options.count}", body)


def formats() -> list[str]:
    """Formats whose writer works here."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        return [name for name in WRITERS if name != "geoparquet"]
    return list(WRITERS)


def make_library(root: Path, count: int) -> Path:
    """A library with one layer of `count` nuclei, made once."""
    if not root.exists():
        library = Library.create(root)
        size = Size(*[drawn_nuclei.side_for(count)] * 2)
        slide_id, version = drawn_nuclei.add_slide(library, SLIDE, size)
        drawn_nuclei.publish(root, slide_id, version, size, count, "nuclei")
    return root


def row(task: str, name: str, root: Path, target: str) -> dict[str, object]:
    """One task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.exchange", "--child", task, name, str(root), target]
    facts = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    return {
        "format": name,
        "features": f"{facts['features']:,}",
        "MB": f"{facts['bytes'] / 1e6:,.0f}",
        "CPU s": f"{facts['seconds']:.1f}",
        "features a CPU s": f"{facts['features'] / facts['seconds']:,.0f}",
        "memory, MB": f"{facts['memory'] / 1e6:.0f}",
    }


def run_child(task: str, name: str, root: str, target: str) -> None:
    """Do one task and print its facts."""
    bare = peak_bytes()
    began = time.process_time()
    done: Callable[[], tuple[int, int]]
    if task == "write":
        done = (lambda: write_plainly(Path(root))) if name in PEERS else (lambda: write(Path(root), name, target))
    else:
        done = (lambda: read_plainly(name, Path(target))) if name in PEERS else (lambda: read(Path(target)))
    features, size = done()
    seconds = time.process_time() - began
    facts = {"features": features, "bytes": size, "seconds": seconds, "memory": peak_bytes() - bare}
    print(json.dumps(facts))


def write(root: Path, name: str, target: str) -> tuple[int, int]:
    """(features, bytes) of an export, to a file or to nowhere."""
    export = export_of(root, name)
    size = 0
    with Path("/dev/null" if target == "-" else target).open("wb") as file:
        for chunk in export.chunks:
            size += file.write(chunk)
    return export.report.kept, size


def export_of(root: Path, name: str) -> Export:
    """An export of the library's only layer."""
    (slide,) = Library(root).slides()
    (layer,) = LayerStore(root).layers(slide.id)
    return export_layer(root, slide.id, layer.id, name)


def write_plainly(root: Path) -> tuple[int, int]:
    """(features, bytes) the plain way: all in memory."""
    (slide,) = Library(root).slides()
    store = LayerStore(root)
    (layer,) = store.layers(slide.id)
    features = [
        {
            "type": "Feature",
            "id": each.uuid,
            "geometry": shapely.geometry.mapping(each.geometry),
            "properties": {"objectType": each.object_type, "classification": {"name": each.class_name}},
        }
        for each in store.all_features(layer.id)
    ]
    return len(features), len(json.dumps({"type": "FeatureCollection", "features": features}))


def read(path: Path) -> tuple[int, int]:
    """(features, bytes) of a file read and checked as an import does."""
    text = read_bytes(path)
    _, features = read_features(text)
    return sum(1 for _ in features), len(text)


def read_plainly(name: str, path: Path) -> tuple[int, int]:
    """(features, bytes) the plain way: parsed whole, unchecked."""
    text = path.read_bytes()
    if name == "json":
        shapes = [shapely.geometry.shape(each["geometry"]) for each in json.loads(text)["features"]]
    else:
        root = ElementTree.fromstring(text)
        shapes = [
            shapely.Polygon([(float(c.get("X")), float(c.get("Y"))) for c in each.iter("Coordinate")])
            for each in root.iter("Annotation")
        ]
    return len(shapes), len(text)


def peak_bytes() -> int:
    """Most memory this process has ever held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    main()
