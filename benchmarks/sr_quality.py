"""How much better than interpolation sr-fast is, on slides it never saw: `python -m benchmarks.sr_quality`.

The held-out slides were named before any score was looked at; the checkpoint was chosen on two other slides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import tifffile

from benchmarks.common import SHARED, table, write_result
from wsi_ml.data.pairs import UNCOMPRESSED, Compression, read_tiles, slide_pairs, store_pixels, tile_files
from wsi_ml.metrics.image import psnr, ssim
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.scores import Scores, lanczos, score

SCANNERS = {"BS12": "AT2", "lung-squamous-cell-carcinoma": "GT450 DX", "ectopic-pancreas": "GT450 DX"}
FOREIGN = {"OS-1-detail.ome.tif": "H&E, Hamamatsu, 0.227 µm/px", "OS-2-ndpi.ome.tif": "Ki67, Hamamatsu, 0.227 µm/px"}
STORE = Compression().text
SCAN_QUALITY = 90
HISTORIES = {
    UNCOMPRESSED.text: UNCOMPRESSED,
    **{each.text: each for each in (Compression((3, 4)), Compression((4, 6)))},
    f"{STORE} (the store)": Compression(),
    **{each.text: each for each in (Compression((8, 11)), Compression((12, 17)))},
    **{each.text: each for each in (Compression(None, 95, "420"), Compression(None, 90, "420"))},
}
MPP_STEPS = (0.40, 0.45, 0.50, 0.56, 0.62, 0.70)
Pairs = list[tuple[np.ndarray, np.ndarray]]
Row = dict[str, object]


def number(value: float, places: int) -> str:
    return f"{value:.{places}f}"


def methods(model: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    return {"bicubic": open_upscaler("bicubic"), "Lanczos": lanczos, model: open_upscaler(model)}


def compared(name: str, pairs: Pairs, model: str) -> list[Row]:
    """One row per method; the gain is over bicubic of the same stored pixels."""
    results: dict[str, Scores] = {method: score(call, pairs) for method, call in methods(model).items()}
    plain, rows = results["bicubic"], []
    for method, scores in results.items():
        gain = f"{scores.psnr - plain.psnr:+.2f} / {scores.ssim - plain.ssim:+.4f}"
        rows.append({
            "slide": name, "pictures": scores.pictures, "method": method, "PSNR dB": number(scores.psnr, 2),
            "SSIM": number(scores.ssim, 4), "Y-PSNR dB": number(scores.psnr_luma, 2),
            "SSIM Gaussian": number(scores.ssim_gaussian, 4), "gain PSNR / SSIM": "" if method == "bicubic" else gain,
        })  # fmt: skip
    return rows


def foreign_pairs(file: Path) -> Pairs:
    """One pair of a whole OME-TIFF picture, cut to even sides."""
    base = tifffile.imread(file)
    base = np.ascontiguousarray(base[: base.shape[0] // 2 * 2, : base.shape[1] // 2 * 2])
    return [(store_pixels(base), base)]


def gain(model: str, pairs: Pairs) -> str:
    """Mean gain over bicubic, "PSNR dB / SSIM"."""
    network, bicubic = open_upscaler(model), open_upscaler("bicubic")
    rows = []
    for stored, base in pairs:
        made, plain = network(stored), bicubic(stored)
        rows.append((psnr(made, base) - psnr(plain, base), ssim(made, base) - ssim(plain, base)))
    psnr_gain, ssim_gain = np.mean(rows, axis=0)
    return f"{psnr_gain:+.2f} / {ssim_gain:+.4f}"


def history_rows(model: str, tiles: int) -> list[Row]:
    """Gain over bicubic on the held-out slides for stored pixels of other JPEG settings."""
    rows: list[Row] = []
    for name, compression in HISTORIES.items():
        row: Row = {"stored pixels": name}
        for slide in SCANNERS:
            row[slide] = gain(model, slide_pairs(SHARED, slide, tiles, compression))
        rows.append(row)
    return rows


def resampled(base: np.ndarray, factor: float) -> np.ndarray:
    """The ×40 picture at another µm/px (factor > 1: coarser), even sides."""
    side = int(base.shape[0] / factor) // 2 * 2
    return cv2.resize(base, (side, side), interpolation=cv2.INTER_AREA if factor > 1 else cv2.INTER_LANCZOS4)


def mpp_rows(model: str, tiles: int) -> list[Row]:
    """Gain over bicubic when the same tissue is stored at other µm/px (the ×40 picture resampled first)."""
    rows: list[Row] = []
    for mpp in MPP_STEPS:
        row: Row = {"stored µm/px": number(mpp, 2)}
        for slide, scanner in SCANNERS.items():
            native = 0.505 if scanner == "AT2" else 0.526
            bases = [resampled(base, mpp / native) for _, base in slide_pairs(SHARED, slide, tiles)]
            row[slide] = gain(model, [(store_pixels(base), base) for base in bases])
        rows.append(row)
    return rows


def dct_rows(model: str, tiles: int) -> list[Row]:
    """What SR loses when the scan's JPEG tile is decoded at half size by DCT scaling in place of decode + kernel."""
    upscaler, rows = open_upscaler(model), []
    for slide in SCANNERS:
        losses, differences = [], []
        for base in read_tiles(tile_files(SHARED)[slide][:tiles]):
            scan_jpeg = encode_jpeg(base, SCAN_QUALITY)
            full = decode_jpeg(scan_jpeg)
            by_kernel = halve_pixels(full)
            half = {"min_height": base.shape[0] // 2, "min_width": base.shape[1] // 2}
            by_dct = simplejpeg.decode_jpeg(scan_jpeg, "RGB", min_factor=2, **half)
            results = [psnr(upscaler(decode_jpeg(encode_jpeg(stored))), full) for stored in (by_kernel, by_dct)]
            losses.append((*results, results[0] - results[1]))
            differences.append(psnr(by_dct, by_kernel))
        kernel, dct, loss = np.mean(losses, axis=0)
        rows.append({
            "slide": slide, "tiles": len(losses), "SR from box2 dB": number(kernel, 2),
            "SR from DCT dB": number(dct, 2), "loss dB": number(loss, 3),
            "DCT against box2 dB": number(float(np.mean(differences)), 1),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sr-fast", help="name, or path of a card")
    parser.add_argument("--tiles", type=int, default=40, help="tiles per held-out slide in the first table")
    parser.add_argument("--only-dct", action="store_true", help="print the table of the DCT path and write nothing")
    args = parser.parse_args()
    few = min(12, args.tiles)
    if args.only_dct:
        print(table(dct_rows(args.model, few)))
        return
    card = open_upscaler(args.model).card
    held_out: list[Row] = []
    for slide, scanner in SCANNERS.items():
        held_out += compared(f"{slide} ({scanner})", slide_pairs(SHARED, slide, args.tiles), args.model)
    foreign: list[Row] = []
    for file, words in FOREIGN.items():
        foreign += compared(words, foreign_pairs(SHARED / "wsi-small" / file), args.model)
    body = "\n\n".join([
        f"Model `{card.name}`, weights {card.sha256[:12]}, {card.parameters:,} parameters. PSNR over RGB, no border "
        "cut; SSIM with a 7×7 uniform window (scikit-image's default), *SSIM Gaussian* as BasicSR. Stored pixels: "
        f"kernel box2, then JPEG {STORE}, as ingestion writes them. bicubic is OpenCV's, Lanczos is Pillow's.",
        "## Slides held out (not trained on, not used to choose the checkpoint)", table(held_out),
        "## A scanner not trained on",
        "The Ki67 picture decided one thing: colour augmentation was widened at the end, after an early score on it.",
        table(foreign),
        f"## Other JPEG of the stored pixels: gain over bicubic, PSNR dB / SSIM ({few} tiles per slide)",
        "The JPEG of the store bounds what any network can win back.",
        table(history_rows(args.model, few)),
        f"## Other µm/px: gain over bicubic ({few} tiles per slide, ×40 picture resampled first)",
        f"The card allows {card.mpp_range[0]:.2f}–{card.mpp_range[1]:.2f} µm per stored pixel.",
        table(mpp_rows(args.model, few)),
        f"## Half-size decoding by DCT scaling in place of decode + box2 ({few} tiles per slide)",
        f"Scan JPEG q{SCAN_QUALITY} 4:2:0; PSNR against the scan decoded whole; a negative loss is a gain.",
        table(dct_rows(args.model, few)),
    ])  # fmt: skip
    write_result("sr_quality", "Super-resolution quality", "python -m benchmarks.sr_quality", body)


if __name__ == "__main__":
    main()
