"""Truth against prediction: seconds to measure two layers once, milliseconds a new threshold, against plain shapely.

The peer holds both layers in memory and, at each threshold, does what one writes first: a tree of the truths, the
intersections of the predictions that pass, one pass over the pairs.

Run: python -m benchmarks.compare [--count 1000000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import shapely

from benchmarks.common import table, write_result
from wsi_ml.geometry import Size
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.compare import Comparison, Selection
from wsi_ml.layers.comparing import LayerOutlines, measure
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.features_writer import FeaturesWriter

CLASSES = ("epithelial", "lymphocyte", "stromal")
CORNERS = 16
THRESHOLDS = (0.25, 0.5, 0.75)
BATCH = 20_000
PEER_LIMIT = 100_000
"""Objects beyond which the peer is not asked; it needs all geometries in memory."""


def nuclei(count: int, seed: int, side: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`count` round outlines on a jittered grid; the same seed with a shift gives nearly the same outlines."""
    rng = np.random.default_rng(seed)
    columns = int(np.ceil(np.sqrt(count)))
    step = side / (columns + 1)
    at = np.arange(count)
    centres = np.stack([(at % columns + 1) * step, (at // columns + 1) * step], axis=1)
    centres += rng.uniform(-0.2, 0.2, centres.shape) * step + shift
    radii = rng.uniform(0.25, 0.45, count) * min(step, 60)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    rings = centres[:, None] + radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Sixteenths and ten-thousandths, as a features file keeps them, so that the peer sees the same.
    return (
        shapely.polygons(np.round(rings * 16) / 16),
        rng.integers(0, len(CLASSES), count),
        rng.integers(0, 10_001, count) / 10_000,
    )


def write(path: Path, count: int, side: int, shift: float, scored: bool) -> FeaturesFile:
    """A features file of nuclei."""
    geometry, classes, scores = nuclei(count, 40, side, shift)
    with FeaturesWriter(path, CLASSES, Size(side + 100, side + 100)) as writer:
        for start in range(0, count, BATCH):
            part = slice(start, start + BATCH)
            values = scores[part] if scored else np.full(len(scores[part]), np.nan)
            writer.add(FeatureBatch(geometry[part], classes[part].astype(np.uint16), values.astype(np.float32)))
        writer.finish()
    return FeaturesFile(path)


def plain(truth: np.ndarray, classes: np.ndarray, prediction: np.ndarray, predicted: np.ndarray) -> int:
    """Matches the plain way."""
    near, mine = shapely.STRtree(prediction).query(truth, predicate="intersects")
    shared = shapely.area(shapely.intersection(truth[near], prediction[mine]))
    iou = shared / (shapely.area(truth[near]) + shapely.area(prediction[mine]) - shared)
    return int(((iou > 0.5) & (classes[near] == predicted[mine])).sum())


def peer(count: int, side: int) -> tuple[float, list[int]]:
    """(seconds a threshold, matches at each)."""
    truth, classes, _ = nuclei(count, 40, side, 0.0)
    prediction, predicted, scores = nuclei(count, 40, side, 3.0)
    began = time.perf_counter()
    found = [plain(truth, classes, prediction[scores >= t], predicted[scores >= t]) for t in THRESHOLDS]
    return (time.perf_counter() - began) / len(THRESHOLDS), found


def question(compared: Comparison) -> tuple[float, list[int]]:
    """(median seconds a threshold, matches at each)."""
    seconds, found = [], []
    for threshold in THRESHOLDS:
        began = time.perf_counter()
        found.append(compared.scores(Selection(threshold))["overall"]["tp"])
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)), found


def main() -> None:
    """Measure and write benchmarks/results/compare.md."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1_000_000)
    most = options.parse_args().count
    rows: list[dict[str, object]] = []
    for count in sorted({min(10_000, most), min(PEER_LIMIT, most), most}):
        side = int(100 * np.sqrt(count))
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            files = [
                write(Path(folder) / name, count, side, shift, scored)
                for name, shift, scored in (("t", 0.0, False), ("p", 3.0, True))
            ]
            written = time.perf_counter() - began
            began = time.perf_counter()
            sides = [LayerOutlines(each, CLASSES, "match") for each in files]
            compared = measure(*sides, "match", CLASSES)
            measured = time.perf_counter() - began
        asked, found = question(compared)
        began = time.perf_counter()
        compared.curve()
        curve = time.perf_counter() - began
        row: dict[str, object] = {
            "objects a layer": f"{count:,}",
            "both files written s": round(written, 1),
            "measured once s": round(measured, 1),
            "a threshold ms": round(asked * 1000, 1),
            "curve of 101 ms": round(curve * 1000),
            "peak RSS MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "peer, a threshold ms": "–",
            "peer ÷ ours": "–",
        }
        if count <= PEER_LIMIT:
            plainly, expected = peer(count, side)
            if found != expected:
                raise SystemExit(f"ours matches {found}, the peer {expected}")
            row["peer, a threshold ms"], row["peer ÷ ours"] = round(plainly * 1000), round(plainly / asked)
        rows.append(row)
    body = f"{table(rows)}\n\nPeak RSS is the process's so far, the peer and the making of the outlines included."
    write_result("compare", "Two layers compared", "python -m benchmarks.compare", body)


if __name__ == "__main__":
    main()
