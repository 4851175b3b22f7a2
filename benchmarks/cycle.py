"""What cycle error and estimate say of true error, and what pulling pixels to consistency does.

    python -m benchmarks.cycle

Held-out slides of the ×40 tile sets, whose scan is the truth. Beside the cycle error stands a plain measure that needs
no synthesis at all, the detail of the stored pixels: a warning worth having must know more than that. Trust maps are
made of an estimate from that detail (`wsi_ml/sr/calibration.py`); here it is held against the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np

from benchmarks.common import SHARED, table, write_result
from wsi_ml.data.pairs import UNCOMPRESSED, Compression, read_tiles, store_pixels, tile_files
from wsi_ml.metrics.image import psnr, ssim
from wsi_ml.metrics.rank import rank_correlation
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.sr import available_upscalers, open_upscaler
from wsi_ml.sr.calibration import Calibration, calibration_of, detail_cells
from wsi_ml.sr.consistency import pulled
from wsi_ml.sr.cycle import CELL, cycle_cells, cycle_error
from wsi_ml.sr.reliability import JudgedCells, held_up, joined, judge, reliability
from wsi_ml.sr.trust import CONTRADICTS_BAND, LITTLE, SOME, cycle_bands, estimated_bands, unknown_bands

SLIDES = ("BS12", "lung-squamous-cell-carcinoma", "ectopic-pancreas")
STORES = "the store's"
HISTORIES = {STORES: Compression(), "not compressed": UNCOMPRESSED}
BOUNDS = ((1, False), (2, False), (4, False), (255, False), (2, True), (255, True))
FINE_LIMITS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
FAULTS = ("none", "shifted by 1 px", "sharpened twice", "detail of another place", "2 × 2 pixels mirrored")
ESTIMATE_WORDS = (
    "Mean |SR − scan| of a cell, estimated from its detail by the calibration in the model's card, which was fitted on "
    "other slides with the store's JPEG. Off: mean |estimate − truth| of a cell; contradicts: cells whose cycle error "
    "is beyond its limit; all in grey levels."
)
Picture = tuple[np.ndarray, np.ndarray]
"""(stored pixels, scan)."""
Row = dict[str, object]


def pictures(tiles: int, compression: Compression) -> Iterator[tuple[str, list[Picture]]]:
    files = tile_files(SHARED)
    for slide in SLIDES:
        yield slide, [(store_pixels(base, compression), base) for base in read_tiles(files[slide][:tiles])]


def judged(model: str, tiles: int, compression: Compression) -> dict[str, JudgedCells]:
    """The cells of each held-out slide."""
    upscale = open_upscaler(model)
    return {slide: judge(upscale, pairs) for slide, pairs in pictures(tiles, compression)}


def calibration_for(model: str) -> Calibration | None:
    """The calibration in a model's card."""
    card = open_upscaler(model).card
    return calibration_of(card.trust, card.sha256)


Judged = dict[tuple[str, str], dict[str, JudgedCells]]
"""Cells by slide, by (history, model)."""


def cycle_rows(found: Judged) -> list[Row]:
    """Cycle error of each model and slide, and how it ranks cells beside their true error."""
    rows: list[Row] = []
    for (history, model), slides in found.items():
        for slide, cells in slides.items():
            rows.append({
                "stored JPEG": history, "slide": slide, "method": model, "cells": len(cells.true),
                "cycle error": f"{cells.cycle_mean.mean():.2f}",
                "cell p99": f"{np.quantile(cells.cycle_mean, 0.99):.2f}",
                "largest pixel p99": f"{np.quantile(cells.cycle_most, 0.99):.0f}",
                "true error": f"{cells.true.mean():.2f}",
                "ρ cycle": f"{rank_correlation(cells.cycle_mean, cells.true):.2f}",
                "ρ largest pixel": f"{rank_correlation(cells.cycle_most, cells.true):.2f}",
                "ρ detail": f"{rank_correlation(cells.detail, cells.true):.2f}",
            })  # fmt: skip
    return rows


def order(correlation: float | None) -> str:
    """A rank correlation for people; – where the cells have no order."""
    return "–" if correlation is None else f"{correlation:.2f}"


def estimate_rows(found: Judged) -> list[Row]:
    """How the estimated difference of each calibrated model holds on each slide, and on all of them."""
    rows: list[Row] = []
    for (history, model), slides in found.items():
        calibration = calibration_for(model)
        if calibration is None:
            continue
        for slide, cells in {**slides, "all": joined(slides.values())}.items():
            held = held_up(calibration, cells)
            contradicts = estimated_bands(calibration(cells.detail), cells.cycle)[0] == CONTRADICTS_BAND
            rows.append({
                "stored JPEG": history, "slide": slide, "method": model, "cells": held["cells"],
                "true": f"{held['true']:.2f}", "estimated": f"{held['estimated']:.2f}", "off": f"{held['off']:.2f}",
                "ρ estimate": order(held["correlation"]), "ρ cycle": order(held["cycle_correlation"]),
                "contradicts": f"{contradicts.mean():.2%}",
            })  # fmt: skip
    return rows


def reliability_rows(found: Judged) -> list[Row]:
    """Estimate against truth by bands of the trust map, then by half grey levels, on the store's pixels."""
    rows: list[Row] = []
    for (history, model), slides in found.items():
        calibration = calibration_for(model)
        if calibration is None or history != STORES:
            continue
        cells = joined(slides.values())
        for words, limits in (("band", (LITTLE, SOME)), ("finer", FINE_LIMITS)):
            for row in reliability(calibration, cells, limits):
                to = "" if row["to"] is None else f" to {row['to']:g}"
                rows.append({
                    "method": model, "ranges": words, "estimated": f"above {row['above']:g}{to}",
                    "cells": row["cells"], "mean estimate": f"{row['estimated']:.2f}",
                    "mean true": f"{row['true']:.2f}", "true p5 to p95": f"{row['p5']:.2f} to {row['p95']:.2f}",
                })  # fmt: skip
    return rows


def noise_rows(tiles: int) -> list[Row]:
    """How far the store's JPEG puts stored pixels from the kernel's own: what no cycle error can be held against."""
    rows: list[Row] = []
    for slide, pairs in pictures(tiles, Compression()):
        off = np.concatenate([cv2.absdiff(stored, halve_pixels(base)).ravel() for stored, base in pairs])
        quantiles = np.quantile(off, (0.99, 0.999, 0.9999))
        rows.append({
            "slide": slide, "mean": f"{off.mean():.2f}", "p99": f"{quantiles[0]:.0f}", "p99.9": f"{quantiles[1]:.0f}",
            "p99.99": f"{quantiles[2]:.0f}",
        })  # fmt: skip
    return rows


def consistency_rows(models: list[str], tiles: int) -> list[Row]:
    """PSNR and SSIM after pulling, less those before, mean of the slides' tiles."""
    rows: list[Row] = []
    for history, compression in HISTORIES.items():
        pairs = [pair for _, each in pictures(tiles, compression) for pair in each]
        for model in models:
            upscale = open_upscaler(model)
            made = [upscale(stored) for stored, _ in pairs]
            rows += [_pulled_row(history, model, pairs, made, most, smooth) for most, smooth in BOUNDS]
    return rows


def _pulled_row(history: str, model: str, pairs: list[Picture], made: list[np.ndarray], most: int, smooth: bool) -> Row:
    gains = []
    for (stored, base), picture in zip(pairs, made, strict=True):
        moved = pulled(stored, picture, most, smooth=smooth)
        gains.append((psnr(moved, base) - psnr(picture, base), ssim(moved, base) - ssim(picture, base),
                      cycle_error(stored, moved)))  # fmt: skip
    psnr_gain, ssim_gain, cycle = np.mean(gains, axis=0)
    return {
        "stored JPEG": history, "method": model, "bound k": "none" if most == 255 else most,
        "up": "bicubic" if smooth else "repeated", "PSNR dB": f"{psnr_gain:+.2f}", "SSIM": f"{ssim_gain:+.4f}",
        "cycle error after": f"{cycle:.2f}",
    }  # fmt: skip


def spoiled(made: np.ndarray, fault: str) -> np.ndarray:
    """Synthesised pixels with a fault that a scan would show."""
    if fault == "shifted by 1 px":
        return np.roll(made, (1, 1), axis=(0, 1))
    if fault == "2 × 2 pixels mirrored":
        # The means of all 2 × 2 pixels stay as they are: what box2 cannot see, cycle error cannot.
        return made.reshape(made.shape[0], -1, 2, 3)[:, :, ::-1].reshape(made.shape)
    smooth = cv2.GaussianBlur(made, (0, 0), 1.5)
    if fault == "sharpened twice":
        return cv2.addWeighted(made, 2.0, smooth, -1.0, 0)
    if fault == "detail of another place":
        detail = made.astype(np.int16) - smooth
        return np.clip(smooth + np.rot90(detail, 2), 0, 255).astype(np.uint8)
    return made


def fault_rows(model: str, tiles: int) -> list[Row]:
    """What the bands of a trust map say of pixels that were spoiled on purpose."""
    upscale, calibration, rows = open_upscaler(model), calibration_for(model), []
    bands = unknown_bands(calibration is not None)
    pairs = [pair for _, each in pictures(tiles, Compression()) for pair in each]
    for fault in FAULTS:
        counts, errors, true = np.zeros(len(bands), np.int64), [], []
        for stored, base in pairs:
            made = spoiled(upscale(stored), fault)
            cells = cycle_cells(stored, made)
            found = estimated_bands(calibration(detail_cells(stored)), cells) if calibration else cycle_bands(cells)
            counts += np.bincount(found[0].ravel(), minlength=len(counts))
            errors.append(cells.mean.mean())
            true.append(cv2.absdiff(made, base).mean())
        shares = {band.name: f"{count / counts.sum():.1%}" for band, count in zip(bands, counts, strict=True)}
        rows.append({
            "fault": fault, "true error": f"{np.mean(true):.2f}", "cycle error": f"{np.mean(errors):.2f}", **shares,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shipped = [card.name for card in available_upscalers()]
    parser.add_argument("--models", nargs="+", default=shipped, help=f"upscalers (default: {' '.join(shipped)})")
    parser.add_argument("--tiles", type=int, default=40, help="tiles per held-out slide")
    parser.add_argument("--dry-run", action="store_true", help="print the tables and write nothing")
    args = parser.parse_args()
    few = min(12, args.tiles)
    network = next((model for model in args.models if model != "bicubic"), args.models[0])
    weights = ", ".join(f"`{name}` {open_upscaler(name).card.sha256[:12]}" for name in args.models)
    found = {(history, model): judged(model, args.tiles, compression)
             for history, compression in HISTORIES.items() for model in args.models}  # fmt: skip
    estimates = estimate_rows(found)
    body = "\n\n".join([
        f"Held-out slides, {args.tiles} tiles of 512 px each; weights: {weights}. Cycle error: mean absolute "
        "difference of the halved picture (kernel box2) and the stored pixels; true error: of the picture and the "
        f"scan; both in grey levels of 255, in cells of {CELL} × {CELL} stored pixels. ρ is Spearman's rank "
        "correlation over cells of a value with their true error: 1 would make it a perfect warning, 0 a useless one.",
        "## Cycle error and detail", "Detail: mean absolute Laplacian of the stored pixels.", table(cycle_rows(found)),
        "## The estimated difference of trust maps",
        *([ESTIMATE_WORDS, table(estimates), "### Estimate against truth (the store's JPEG, all slides together)",
           table(reliability_rows(found))] if estimates else ["No upscaler here is calibrated."]),
        "## What the store's JPEG alone does to a stored pixel (grey levels)", table(noise_rows(args.tiles)),
        f"## The data-consistency step, gain over the picture as made ({few} tiles per slide)",
        "y += up(x − box2(y)), each change bounded to ±k grey levels.",
        table(consistency_rows(args.models, few)),
        f"## What the bands say of {network} with faults put in ({few} tiles per slide)",
        table(fault_rows(network, few)),
    ])  # fmt: skip
    if args.dry_run:
        print(body)
    else:
        write_result("cycle", "Cycle error, consistency and trust", "python -m benchmarks.cycle", body)


if __name__ == "__main__":
    main()
