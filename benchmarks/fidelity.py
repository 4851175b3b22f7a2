"""How faithful synthesised ×40 tiles are, and what a floor costs: `python -m benchmarks.fidelity`.

Two whole ×40 scans go through `ocular ingest` and the comparison with the scan as a user's do (floor 1, so the bytes of
every tile are known); tiles of the held-out slides go through the same store, network and encoding one by one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.common import SHARED, table, write_result
from wsi_ml.data.pairs import SCANS, TISSUE_SATURATION, slide_pairs
from wsi_ml.slides.codec import encode
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.kept import KEPT_ENCODING, encode_kept
from wsi_ml.slides.kept_writer import MEASURE
from wsi_ml.slides.library import Library
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.fidelity import DEFAULT_FLOOR, SERVED_TEXT, served_fidelity
from wsi_ml.sr.keeping import keep_tiles

HELD_OUT = ("BS12", "lung-squamous-cell-carcinoma", "ectopic-pancreas")
FLOORS = (0.90, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98)
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75)
LEAST_TISSUE = 0.2
PEER = "bicubic"
Row = dict[str, object]


class Compared(NamedTuple):
    """Tiles of one slide, all compared."""

    name: str
    fidelity: np.ndarray
    scan_bytes: np.ndarray
    """Bytes of each tile as it would be kept."""
    tissue: np.ndarray
    """True where at least LEAST_TISSUE of the tile is coloured."""
    stored_bytes: int
    """Bytes of the stored pyramid, 0 where tiles stand alone."""
    source_bytes: int


def is_tissue(rgb: np.ndarray) -> bool:
    saturation = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2HSV)[..., 1]
    return bool(np.mean(saturation > TISSUE_SATURATION) >= LEAST_TISSUE)


def compared_scan(slide: str, model: str, folder: Path) -> Compared:
    """A whole scan, ingested and compared by the product's own commands."""
    path = SHARED / SCANS[slide]
    result = ingest(path, folder)
    library = Library(folder)
    keep_tiles(path, library, result.slide_id, result.version, 1.0, upscaler=open_upscaler(model))
    tiles = library.kept_tiles(result.version)
    if tiles is None:
        raise RuntimeError("the comparison left nothing")
    grid, scan_bytes = tiles.fidelity, np.zeros(tiles.facts.tiles, np.int64)
    scan_bytes[tiles.records["number"]] = tiles.records["length"]
    rows, cols = grid.values.shape
    tissue = [is_tissue(tiles.tile_pixels(col, row)) if tiles.has(col, row) else False
              for row in range(rows) for col in range(cols)]  # fmt: skip
    fidelity = grid.values.astype(np.float64).ravel()
    return Compared(slide, fidelity, scan_bytes, np.array(tissue), result.card.pyramid_bytes, result.card.source.bytes)


def compared_tiles(slide: str, model: str, count: int | None) -> Compared:
    """Tiles of a held-out slide, each stored, enlarged and encoded alone."""
    upscaler = open_upscaler(model)
    fidelity, scan_bytes, tissue = [], [], []
    for stored, base in slide_pairs(SHARED, slide, count):
        fidelity.append(served_fidelity(encode(upscaler(stored), "jpg"), base))
        scan_bytes.append(len(encode_kept(base)))
        tissue.append(is_tissue(base))
    return Compared(slide, np.array(fidelity), np.array(scan_bytes), np.array(tissue), 0, 0)


def distribution_row(model: str, each: Compared) -> Row:
    values = each.fidelity[each.tissue]
    row: Row = {"slide": each.name, "model": model, "tissue tiles": f"{len(values)} of {len(each.fidelity)}"}
    for share in QUANTILES:
        name = {0.0: "least", 0.5: "median"}.get(share, f"{100 * share:g} %")
        row[name] = f"{np.quantile(values, share):.3f}" if len(values) else "–"
    return row


def floor_row(model: str, each: Compared) -> Row:
    """Share of all tiles kept at each floor, and megabytes of them."""
    row: Row = {"slide": each.name, "model": model, "all tiles MB": f"{each.scan_bytes.sum() / 1e6:.1f}"}
    for floor in FLOORS:
        kept = each.fidelity < floor
        row[f"{floor:g}"] = f"{kept.mean():.0%} / {each.scan_bytes[kept].sum() / 1e6:.1f}"
    return row


def total_row(model: str, each: Compared) -> Row:
    """What a faithful ×40 slide takes: pyramid and kept tiles, against the scan's file."""
    row: Row = {"slide": each.name, "model": model, "scan MB": f"{each.source_bytes / 1e6:.1f}",
                "stored ×20 MB": f"{each.stored_bytes / 1e6:.1f}"}  # fmt: skip
    for floor in FLOORS:
        bytes_ = each.stored_bytes + int(each.scan_bytes[each.fidelity < floor].sum())
        row[f"{floor:g}"] = f"{bytes_ / each.source_bytes:.0%}"
    return row


def main() -> None:
    """Print the tables; `--write` keeps them, smaller sizes are for trying it out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="*", default=["sr-fast"], help="networks, beside bicubic (default: sr-fast)")
    parser.add_argument("--tiles", type=int, help="tiles per held-out slide (default: all)")
    parser.add_argument("--scans", nargs="*", default=list(SCANS), help="whole scans (default: all)")
    parser.add_argument("--print-only", action="store_true", help="write no result file")
    args = parser.parse_args()
    scans: list[tuple[str, Compared]] = []
    tiles: list[tuple[str, Compared]] = []
    for model in [PEER, *args.model]:
        with tempfile.TemporaryDirectory() as folder:
            scans += [(model, compared_scan(slide, model, Path(folder))) for slide in args.scans]
        tiles += [(model, compared_tiles(slide, model, args.tiles)) for slide in HELD_OUT]
    body = report(scans, tiles)
    if args.print_only:
        print(body)
    else:
        write_result("fidelity", "Fidelity of synthesised tiles, and what a floor costs",
                     "python -m benchmarks.fidelity", body)  # fmt: skip


def report(scans: list[tuple[str, Compared]], tiles: list[tuple[str, Compared]]) -> str:
    """The tables and what they are about."""
    both = [*scans, *tiles]
    parts = [
        f"{MEASURE} of a tile of 512 px as it is served ({SERVED_TEXT}) against the scan's pixels. Kept tiles: "
        f"{KEPT_ENCODING}. Whole scans (networks were trained on tiles of both) went through `ocular ingest --floor`; "
        "tiles of the slides that no network was trained on (the last three) were compared one by one, without the "
        "neighbours a slide would give. The scans' own pixels were compressed several times, so their noise is partly "
        "that of JPEG.",
        "## Distribution over tiles with tissue",
        table([distribution_row(*each) for each in both]),
        "## Share of all tiles kept, and MB of them, by floor",
        table([floor_row(*each) for each in both]),
    ]
    if scans:
        parts += ["## Stored ×20 pyramid and kept tiles together, as a share of the scan's file, by floor",
                  table([total_row(*each) for each in scans])]  # fmt: skip
    return "\n\n".join([*parts, f"The recommended floor is {DEFAULT_FLOOR:g}; docs/faithful.md says why."])


if __name__ == "__main__":
    main()
