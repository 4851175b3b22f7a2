"""A million nuclei on one slide: writing, size, memory, viewport queries over HTTP, summary, export; two peers beside.

The peers answer in the process that asks, without HTTP: an SQLite table of WKB with an R*Tree, and one GeoJSON file
that is read whole.

Run: python -m benchmarks.overlay_store [--count 1000000]
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import orjson
import shapely

from benchmarks.common import ROOT, ocular_server, table, write_result
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.geojson import write_features
from wsi_ml.geometry import Size, halve, pyramid_sizes
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import NewLayer
from wsi_ml.layers.layer_files import SUFFIX
from wsi_ml.layers.palette import class_colors
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.card import CARD_FILE, Card, SourceFacts
from wsi_ml.slides.library import STAGING_FOLDER, Library

PLANE = Size(100_000, 100_000)
CLASSES = ("connective", "dead", "epithelial", "inflammatory", "neoplastic", "other")
COLORS = class_colors({}, CLASSES)
CLUSTER = 500
BATCH = 20_000
CORNERS = 16
SPACING = 34.0
VIEW = 2048
VIEWS = 200
SLOW_VIEWS = 3
SUMMARY_LEVEL = 5
SEED = 11


# -- nuclei ------------------------------------------------------------------------------------------------------------


def nuclei(count: int) -> Iterator[FeatureBatch]:
    """`count` polygons in clusters of touching neighbours, the same every time."""
    rng = np.random.default_rng(SEED)
    side = int(np.ceil(np.sqrt(CLUSTER)))
    lattice = np.stack(np.divmod(np.arange(CLUSTER), side), axis=1).astype(float)
    lattice[:, 1] += 0.5 * (lattice[:, 0] % 2)
    lattice *= SPACING * np.array([np.sqrt(3) / 2, 1])
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        corners = rng.uniform(100, PLANE.width - 1200, (-(-size // CLUSTER), 1, 2))
        centres = (corners + lattice).reshape(-1, 2)[:size] + rng.normal(0, 1.5, (size, 2))
        reach = SPACING / 2 * rng.uniform(0.75, 1.05, (size, CORNERS, 1))
        points = centres[:, None] + reach * circle
        rings = np.concatenate([points, points[:, :1]], axis=1)
        class_numbers = np.repeat(rng.integers(0, len(CLASSES), len(corners)), CLUSTER)[:size].astype(np.uint16)
        yield FeatureBatch(shapely.polygons(rings), class_numbers, rng.beta(8, 2, size).astype(np.float32))


def views(count: int) -> list[tuple[int, int, int, int]]:
    """Boxes of VIEW × VIEW around nuclei, so that none is empty."""
    rng = np.random.default_rng(SEED + 1)
    first = next(nuclei(min(count, BATCH)))
    chosen = rng.integers(0, len(first), VIEWS)
    centres = shapely.get_coordinates(shapely.centroid(first.geometries[chosen]))
    corners = np.clip(centres + rng.uniform(-700, 700, centres.shape) - VIEW / 2, 0, PLANE.width - VIEW).astype(int)
    return [(x, y, x + VIEW, y + VIEW) for x, y in corners.tolist()]


def features(count: int) -> Iterator[Feature]:
    """The same nuclei as features, for the peers that write GeoJSON."""
    number = 0
    for batch in nuclei(count):
        rows = zip(batch.geometries, batch.class_numbers.tolist(), batch.scores.tolist(), strict=True)
        for geometry, class_number, score in rows:
            uuid = f"00000000-0000-4000-8000-{number:012x}"
            number += 1
            yield Feature(geometry, uuid, CLASSES[class_number], object_type="detection", score=round(score, 4))


# -- Ocular ------------------------------------------------------------------------------------------------------------


def bare_slide(root: Path) -> tuple[str, str]:
    """A slide that has a card of the right size and no pixels; gives its id and version."""
    library, sizes = Library.create(root), pyramid_sizes(halve(PLANE))
    source = SourceFacts("0" * 64, 1, "none", PLANE, 0.25, False, 40.0, (0, 0), 0, 1)
    card = Card(
        version="0" * 16, stored_size=sizes[0], base_size=PLANE, stored_mpp=0.5, levels=sizes, encoding="none",
        kernel="box2", icc="none", source=source, pyramid_bytes=0, pyramid_sha256="0" * 64,
        ingest_key="0" * 64, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    folder = root / STAGING_FOLDER / "bare"
    folder.mkdir()
    (folder / CARD_FILE).write_text(json.dumps(card.to_json()))
    return library.add(folder, card, "bare"), card.version


def write_ocular(folder: Path, count: int) -> dict[str, object]:
    """Write and publish a layer."""
    slide_id, version = bare_slide(folder / "library")
    staged = folder / "library" / f"staged{SUFFIX}"
    started = time.perf_counter()
    with FeaturesWriter(staged, CLASSES, PLANE) as writer:
        for batch in nuclei(count):
            writer.add(batch)
        facts = writer.finish()
    new = NewLayer(slide_id, version, "nuclei", "prediction", {"kind": "instance"})
    store = LayerStore(folder / "library")
    layer = store.publish_file(new, staged, facts, {})
    seconds = time.perf_counter() - started
    entries = [level.entries for level in store.features_file(layer.id).summary_levels]
    return {
        "seconds": seconds,
        "bytes": store.files.path(layer.id).stat().st_size,
        "address": f"/api/slides/{slide_id}/layers/{layer.id}",
        "layer": layer.id,
        "blocks": len(store.features_file(layer.id).blocks),
        "entries": entries,
    }


def export_ocular(folder: Path, count: int) -> dict[str, object]:
    """The whole layer as GeoJSON, streamed."""
    store = LayerStore(folder / "library")
    (layer_id,) = store.layer_ids()
    started = time.perf_counter()
    with (folder / "export.geojson").open("wb") as file:
        file.writelines(write_features(store.all_features(layer_id), store.layer(layer_id).colors))
    return {"seconds": time.perf_counter() - started, "bytes": (folder / "export.geojson").stat().st_size}


class Client:
    """One kept connection to a server, as a browser has."""

    def __init__(self, url: str):
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def get(self, path: str, **headers: str) -> bytes:
        """Body of an answer, unpacked."""
        self._connection.request("GET", path, headers={"Accept-Encoding": "gzip", **headers})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}; the figures would be false")
        return gzip.decompress(body) if answer.getheader("Content-Encoding") == "gzip" else body


def query_ocular(library: Path, address: str, boxes: list[tuple[int, int, int, int]]) -> dict[str, object]:
    """Milliseconds of viewport and summary queries against a running server, answers unpacked but not parsed."""
    with ocular_server(library) as url:
        client = Client(url)
        blocks = orjson.loads(client.get(f"{address}/blocks"))["blocks"]
        edges = np.array([block["box"] for block in blocks])
        found = [0, 0]

        def as_geojson(box: tuple[int, int, int, int]) -> None:
            found[0] += client.get(f"{address}/features?bbox={','.join(map(str, box))}").count(b'"Feature"')

        def as_blocks(box: tuple[int, int, int, int]) -> None:
            x0, y0, x1, y1 = box
            meets = (edges[:, 0] <= x1) & (edges[:, 2] >= x0) & (edges[:, 1] <= y1) & (edges[:, 3] >= y0)
            for number in np.flatnonzero(meets).tolist():
                client.get(f"{address}/blocks/{number}")
                found[1] += 1

        summary = f"{address}/summary?level={SUMMARY_LEVEL}"
        return {
            "geojson": spread(as_geojson, boxes),
            "blocks": spread(as_blocks, boxes),
            "summary": spread(lambda _: client.get(summary, Accept="application/vnd.ocular.summary"), boxes[:40]),
            "listing": spread(lambda _: client.get(f"{address}/blocks"), boxes[:20]),
            "whole": spread(lambda _: client.get(f"{address}/features"), boxes[:SLOW_VIEWS]),
            "features a view": found[0] / len(boxes) / 1.0,
            "blocks a view": found[1] / len(boxes),
        }


# -- peers -------------------------------------------------------------------------------------------------------------


def write_sqlite(folder: Path, count: int) -> dict[str, object]:
    """A table of WKB and an R*Tree, one transaction."""
    path = folder / "peer.sqlite"
    started = time.perf_counter()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE f (id INTEGER PRIMARY KEY, class INTEGER, score REAL, area REAL, wkb BLOB)")
    connection.execute("CREATE VIRTUAL TABLE t USING rtree (id, x0, x1, y0, y1)")
    number = 0
    for batch in nuclei(count):
        ids = range(number, number + len(batch))
        number += len(batch)
        areas, boxes = shapely.area(batch.geometries).tolist(), shapely.bounds(batch.geometries)[:, [0, 2, 1, 3]]
        wkb = shapely.to_wkb(batch.geometries)
        rows = zip(ids, batch.class_numbers.tolist(), batch.scores.tolist(), areas, wkb, strict=True)
        connection.executemany("INSERT INTO f VALUES (?, ?, ?, ?, ?)", rows)
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", zip(ids, *boxes.T.tolist(), strict=True))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return {"seconds": time.perf_counter() - started, "bytes": path.stat().st_size}


SQL = """SELECT f.id, f.class, f.score, f.wkb FROM t CROSS JOIN f ON f.id = t.id
WHERE t.x1 >= ? AND t.y1 >= ? AND t.x0 <= ? AND t.y0 <= ? ORDER BY f.area DESC LIMIT 5000"""


def sqlite_features(rows: list[tuple[int, int, float, bytes]]) -> Iterator[Feature]:
    """Rows of the peer as features."""
    for (number, class_number, score, _), geometry in zip(rows, shapely.from_wkb([r[3] for r in rows]), strict=True):
        uuid = f"00000000-0000-4000-8000-{number:012x}"
        yield Feature(geometry, uuid, CLASSES[class_number], object_type="detection", score=round(score, 4))


def query_sqlite(folder: Path, count: int) -> dict[str, object]:
    """Viewports from the R*Tree to packed GeoJSON."""
    connection = sqlite3.connect(folder / "peer.sqlite")

    def ask(box: tuple[int, int, int, int]) -> None:
        rows = connection.execute(SQL, box).fetchall()
        gzip.decompress(gzip.compress(b"".join(write_features(sqlite_features(rows), COLORS)), 1))

    return {"geojson": spread(ask, views(count))}


def export_sqlite(folder: Path, count: int) -> dict[str, object]:
    """The whole table as GeoJSON, streamed."""
    connection = sqlite3.connect(folder / "peer.sqlite")
    started = time.perf_counter()

    def all_features() -> Iterator[Feature]:
        cursor = connection.execute("SELECT id, class, score, wkb FROM f ORDER BY id")
        while rows := cursor.fetchmany(4096):
            yield from sqlite_features(rows)

    with (folder / "peer-export.geojson").open("wb") as file:
        file.writelines(write_features(all_features(), COLORS))
    return {"seconds": time.perf_counter() - started}


def write_geojson(folder: Path, count: int) -> dict[str, object]:
    """One file."""
    path = folder / "peer.geojson"
    started = time.perf_counter()
    with path.open("wb") as file:
        file.writelines(write_features(features(count), COLORS))
    return {"seconds": time.perf_counter() - started, "bytes": path.stat().st_size}


def query_geojson(folder: Path, count: int) -> dict[str, object]:
    """A viewport for one who has only the file: read it, parse it, look through it."""

    def ask(box: tuple[int, int, int, int]) -> None:
        x0, y0, x1, y1 = box
        kept = []
        for feature in orjson.loads((folder / "peer.geojson").read_bytes())["features"]:
            ring = feature["geometry"]["coordinates"][0]
            xs, ys = [point[0] for point in ring], [point[1] for point in ring]
            if max(xs) >= x0 and min(xs) <= x1 and max(ys) >= y0 and min(ys) <= y1:
                kept.append(feature)
        orjson.dumps(kept)

    return {"geojson": spread(ask, views(count)[:SLOW_VIEWS])}


# -- measuring ---------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Path, int], dict[str, object]]] = {
    each.__name__: each
    for each in (
        write_ocular,
        export_ocular,
        write_sqlite,
        query_sqlite,
        export_sqlite,
        write_geojson,
        query_geojson,
    )
}


def spread(ask: Callable[[tuple[int, int, int, int]], object], boxes: list[tuple[int, int, int, int]]) -> list[float]:
    """p50 and p95 in ms; the first question is asked twice and counts once."""
    ask(boxes[0])
    milliseconds = []
    for box in boxes:
        started = time.perf_counter()
        ask(box)
        milliseconds.append((time.perf_counter() - started) * 1000)
    return [float(np.percentile(milliseconds, 50)), float(np.percentile(milliseconds, 95))]


def part(name: str, folder: Path, count: int) -> dict[str, object]:
    """Run one part in a process of its own; its figures with the process's peak memory."""
    print(f"--> {name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.overlay_store", "--part", name]
    command += ["--folder", str(folder), "--count", str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def pair(milliseconds: object) -> str:
    """p50 / p95."""
    p50, p95 = milliseconds  # type: ignore[misc]
    return f"{p50:.1f} / {p95:.1f}" if p95 < 1000 else f"{p50:,.0f} / {p95:,.0f}"


def row(name: str, written: dict, queried: dict, exported: dict | None) -> dict[str, object]:
    """One line of the table."""
    return {
        "store": name,
        "write s": f"{written['seconds']:.1f}",
        "MB": f"{written['bytes'] / 1e6:.0f}",
        "peak RSS MB, writing": f"{written['rss'] / 1e6:.0f}",
        "viewport as GeoJSON, ms p50 / p95": pair(queried["geojson"]),
        "as blocks, ms": pair(queried["blocks"]) if "blocks" in queried else "-",
        "summary, ms": pair(queried["summary"]) if "summary" in queried else "-",
        "export s": f"{exported['seconds']:.1f}" if exported else "-",
        "peak RSS MB, exporting": f"{exported['rss'] / 1e6:.0f}" if exported else "-",
    }


def measure(folder: Path, count: int) -> str:
    """The whole table with its notes."""
    ours = part("write_ocular", folder, count)
    asked = query_ocular(folder / "library", str(ours["address"]), views(count))
    rows = [row("Ocular features file, over HTTP", ours, asked, part("export_ocular", folder, count))]
    written, queried, exported = (part(f"{name}_sqlite", folder, count) for name in ("write", "query", "export"))
    rows.append(row("SQLite R*Tree and WKB, in process", written, queried, exported))
    rows.append(
        row(
            "one GeoJSON file, read whole",
            part("write_geojson", folder, count),
            part("query_geojson", folder, count),
            None,
        )
    )
    entries = ", ".join(f"{each:,}" for each in ours["entries"])  # type: ignore[attr-defined]
    return (
        f"{count:,} polygons of {CORNERS} corners on a plane of {PLANE.width:,} × {PLANE.height:,} px, {VIEWS} "
        f"viewports of {VIEW} × {VIEW} px with {asked['features a view']:.0f} features in "
        f"{asked['blocks a view']:.1f} blocks on average.\n\n{table(rows)}\n\n"
        f"The layer has {ours['blocks']} blocks; their list takes {pair(asked['listing'])} ms. The 5,000 largest "
        f"features of the whole slide take {pair(asked['whole'])} ms. The summary asked for is level {SUMMARY_LEVEL} "
        f"(cells of {128 << SUMMARY_LEVEL} px) of the whole slide in binary; its levels have {entries} entries. Of the "
        f"GeoJSON file {SLOW_VIEWS} viewports are asked, of the whole slide too."
    )


def main() -> None:
    """Measure and write benchmarks/results/overlay_store.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="polygons (default: 1,000,000)")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        found = PARTS[options.part](options.folder, options.count)
        found["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        body = measure(Path(folder), options.count)
    command = "python -m benchmarks.overlay_store"
    name = "overlay_store"
    if options.count != 1_000_000:
        command, name = f"{command} --count {options.count}", f"overlay_store_{options.count}"
    write_result(name, "A layer of nuclei: store and queries", command, body)


if __name__ == "__main__":
    main()
