"""Masks to polygons: rate, exactness, validity and memory: `python -m benchmarks.polygons`.

Touching drawn nuclei against OpenCV's contours (the usual way) in the same run; a map of regions against simplifying
polygon by polygon; and memory for whole-slide maps of growing size. No model, no slide.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import shapely

from benchmarks.common import table, write_result
from wsi_ml.data.nuclei import label_outlines, targets
from wsi_ml.data.synthetic import make_scene
from wsi_ml.geometry import Size
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.inference.polygons import class_polygons, label_polygons, simplify_coverage
from wsi_ml.inference.vectorise import vectorise
from wsi_ml.inference.watershed import InstanceSettings, find_objects

SPACING = 14.5
"""Pixels between neighbouring nuclei, which touch: a dense lymphoid field at ×20."""
TILE = 2048
Row = dict[str, object]


def packed_nuclei(side: int, seed: int) -> np.ndarray:
    """Label map int32 of touching ellipses with half-axes of 4 to 9 pixels, the later over the earlier."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    per_side = int(side / SPACING)
    for number in range(per_side**2):
        place = np.array([number % per_side, number // per_side]) + 0.5 + rng.uniform(-0.25, 0.25, 2)
        axes = int(16 * rng.uniform(5.5, 9)), int(16 * rng.uniform(4, 7))
        centre = [int(16 * SPACING * at) for at in place]
        cv2.ellipse(labels, centre, axes, rng.uniform(0, 180), 0, 360, number + 1, -1, shift=4)
    return labels


def opencv_polygons(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The peer: findContours in each label's box, half a pixel added, simplified by half a pixel; holes are lost."""
    rows, columns = np.nonzero(labels)
    owners = labels[rows, columns]
    count = int(owners.max()) + 1
    low, high = np.full((count, 2), labels.size), np.zeros((count, 2), np.int64)
    np.minimum.at(low, owners, np.stack([columns, rows], -1))
    np.maximum.at(high, owners, np.stack([columns, rows], -1))
    numbers, rings = [], []
    for number in np.unique(owners):
        (left, top), (right, bottom) = low[number], high[number] + 1
        mask = (labels[top:bottom, left:right] == number).view(np.uint8)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(int(left), int(top)))
        ring = max(found, key=len)[:, 0]
        if len(ring) > 2:
            numbers.append(number)
            rings.append(ring)
    indices = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    polygons = shapely.polygons(shapely.linearrings(np.concatenate(rings) + 0.5, indices=indices))
    return np.array(numbers), shapely.simplify(shapely.buffer(polygons, 0.5, join_style="mitre"), 0.5)


def nuclei_rows(fields: list[np.ndarray], rounds: int) -> list[Row]:
    """Rates and exactness of each way over the same fields, taken in turn, best of `rounds`."""
    ways = {
        "own, exact": lambda labels: label_polygons(labels),
        "own, smooth (default)": lambda labels: label_polygons(labels, 0.5),
        "OpenCV contours per box + simplify": opencv_polygons,
    }
    spans: dict[tuple[str, int], float] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            for threads in (1, 2):
                begin = time.perf_counter()
                with ThreadPoolExecutor(threads) as pool:
                    list(pool.map(way, fields))
                span = time.perf_counter() - begin
                spans[name, threads] = min(span, spans.get((name, threads), span))
    count = sum(len(np.unique(labels)) - 1 for labels in fields)
    rows = []
    for name, way in ways.items():
        facts = exactness(fields[0], *way(fields[0]))
        rates = {f"nuclei/s, {n} thread{'s' * (n > 1)}": f"{count / spans[name, n]:,.0f}" for n in (1, 2)}
        rows.append({"way": name, **rates, **facts})
    return rows


def exactness(labels: np.ndarray, numbers: np.ndarray, polygons: np.ndarray) -> Row:
    """Validity, area and distance from the exact borders."""
    exact_numbers, exact = label_polygons(labels)
    exact = exact[np.searchsorted(exact_numbers, numbers)]
    pixels = np.bincount(labels.ravel())[numbers]
    valid = shapely.is_valid(polygons)
    some = np.flatnonzero(valid)[:2000]
    distance = shapely.hausdorff_distance(shapely.boundary(exact[some]), shapely.boundary(polygons[some]), densify=0.1)
    return {
        "valid": f"{100 * valid.mean():.2f} %",
        "area / pixels": f"{shapely.area(polygons).sum() / pixels.sum():.4f}",
        "area = pixels": f"{100 * (shapely.area(polygons) == pixels).mean():.1f} %",
        "Hausdorff max, px": f"{distance.max():.3f}",
        "points": f"{shapely.get_num_coordinates(polygons).mean():.1f}",
    }


def truth_rows() -> list[Row]:
    """How near each outline is to the one that the pixels were made from: nuclei of a drawn scene at ×20."""
    scene = make_scene(Size(4096, 3072))
    outlines = shapely.transform(scene.nuclei.outlines(), lambda base: base / 2)
    labels = label_outlines(outlines, Size(2048, 1536))
    numbers, exact = label_polygons(labels)
    truth = outlines[numbers - 1]
    rows = []
    for name, polygons in {
        "exact": exact,
        "smooth (default)": label_polygons(labels, 0.5)[1],
        "exact, then shapely.simplify 0.5 px": shapely.simplify(exact, 0.5),
    }.items():
        shared = shapely.area(shapely.intersection(truth, polygons))
        iou = shared / (shapely.area(truth) + shapely.area(polygons) - shared)
        area = shapely.area(polygons).sum() / shapely.area(truth).sum()
        points = shapely.get_num_coordinates(polygons).mean()
        rows.append(
            {"outline": name, "mean IoU": f"{iou.mean():.4f}", "area": f"{area:.4f}", "points": f"{points:.1f}"}
        )
    return rows


def flood_row(labels: np.ndarray) -> Row:
    """The way from probabilities to objects, on blurred targets of a field."""
    told = [cv2.GaussianBlur(each.astype(np.float32), (0, 0), 0.8) for each in targets(labels)[0]]
    interior, boundary = ((each * 255).round().astype(np.uint8) for each in told)
    begin = time.perf_counter()
    found = find_objects(interior, boundary, InstanceSettings(), (0, 0)).labels
    span = time.perf_counter() - begin
    return {
        "field": f"{labels.shape[1]}² px",
        "objects": found.max(),
        "s": f"{span:.2f}",
        "objects/s": f"{found.max() / span:,.0f}",
    }


def class_field(side: int, classes: int = 5, seed: int = 1) -> np.ndarray:
    """Classes 1 to `classes` in regions of some tens of pixels with frayed borders; the field repeats seamlessly."""
    rng = np.random.default_rng(seed)
    coarse, fine = rng.standard_normal((2, classes, side, side)).astype(np.float32)

    def smooth(field: np.ndarray, sigma: float) -> np.ndarray:
        tiled = np.pad(field, 64, mode="wrap")
        blurred = cv2.GaussianBlur(tiled, (0, 0), sigma)[64:-64, 64:-64]
        return blurred / blurred.std()

    both = [smooth(one, 14) + 0.25 * smooth(other, 2) for one, other in zip(coarse, fine, strict=True)]
    return np.stack(both).argmax(axis=0).astype(np.uint8) + 1


def coverage_rows(side: int) -> list[Row]:
    """Simplification by one pixel: of the coverage, and polygon by polygon."""
    exact = class_polygons(class_field(side))[1]
    rows = []
    for name, simplify in {
        "exact": lambda polygons: polygons,
        "coverage, 1 px (default)": lambda polygons: simplify_coverage(polygons, 1.0),
        "polygon by polygon, 1 px": lambda polygons: shapely.simplify(polygons, 1.0),
    }.items():
        begin = time.perf_counter()
        polygons = simplify(exact)
        span = time.perf_counter() - begin
        union = shapely.area(shapely.union_all(polygons))
        rows.append(
            {
                "way": name,
                "regions": len(polygons),
                "points": f"{shapely.get_num_coordinates(polygons).sum():,}",
                "s": f"{span:.2f}",
                "gaps, px²": f"{side**2 - union:.1f}",
                "overlaps, px²": f"{shapely.area(polygons).sum() - union:.1f}",
            }
        )
    return rows


class RepeatedMaps:
    """A map of any size that repeats one field, made when asked for, as a predictor's maps are read from disk."""

    stride = 4

    def __init__(self, side: int, field: np.ndarray):
        self.size = Size(side, side)
        self.field = field
        self.channels = int(field.max())

    def region(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        """Probability 0.8 for the class of each pixel."""
        rows, columns = (np.arange(at, at + span) % len(self.field) for at, span in ((map_y, height), (map_x, width)))
        classes = self.field[np.ix_(rows, columns)]
        return np.stack([np.where(classes == number + 1, 204, 10) for number in range(self.channels)]).astype(np.uint8)

    def covered(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        """Everything is."""
        return np.ones((height, width), bool)


def peak_mb() -> float:
    """Most memory this process has held, of its own: getrusage counts what the parent held at the fork as well."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024


def draw_map(side: int, field: np.ndarray) -> tuple[int, float, float]:
    """(features, seconds, MB that memory rose) of drawing one dense map; run in a process of its own."""
    names = tuple(PredictorClass(f"Class {number}") for number in range(1, 6))
    card = PredictorCard(
        "bench", "dense", names, tuple(each.name for each in names), 0.5, (0.4, 0.6), 512, 0, 4, "0" * 64
    )  # fmt: skip
    before = peak_mb()
    begin = time.perf_counter()
    maps = RepeatedMaps(side, field)
    count = sum(len(batch) for batch in vectorise(maps, card, {}, Size(side * 8, side * 8)))
    return count, time.perf_counter() - begin, peak_mb() - before


def memory_rows(sides: list[int]) -> list[Row]:
    """Whole maps of growing size, each in a fresh process."""
    rows, field = [], class_field(1024)
    for side in sides:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            count, seconds, risen = pool.apply(draw_map, (side, field))
        rows.append(
            {
                "map": f"{side}² px ({side**2 * 5 / 1e6:,.0f} MB of probabilities)",
                "features": f"{count:,}",
                "s": f"{seconds:.1f}",
                "memory, MB": f"{risen:.0f}",
            }
        )
    return rows


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fields", type=int, default=4, help="fields of 2048² pixels with about 19,900 nuclei each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--maps", type=int, nargs="*", default=[2048, 4096, 8192])
    chosen = parser.parse_args()
    fields = [packed_nuclei(TILE, seed) for seed in range(chosen.fields)]
    body = "## Nuclei\n\n" + table(nuclei_rows(fields, chosen.rounds))
    body += "\n\nAgainst the true outlines of a drawn scene:\n\n" + table(truth_rows())
    body += "\n\nFrom interior and boundary to objects:\n\n" + table([flood_row(fields[0])])
    body += "\n\n## Regions\n\n" + table(coverage_rows(512)) + "\n\n## Whole maps, five dense classes\n\n"
    body += table(memory_rows(chosen.maps))
    write_result("polygons", "Masks to polygons", "python -m benchmarks.polygons", body)


if __name__ == "__main__":
    main()
