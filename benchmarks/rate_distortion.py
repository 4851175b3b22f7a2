"""Bytes at equal quality: the ×20 store with super-resolution against ×40 as JPEG, WebP, AVIF and JPEG XL.

    python -m benchmarks.rate_distortion [--tiles 20] [--models sr-fast]

On the ×40 tiles of three slides that no network was trained on. Four tiles make one picture of 1024 px, so that the
store's side of it is one whole stored tile of 512 px and every coder writes tiles of the size it would write.

Scanners write JPEG, and the tiles lie on its grid of 8 × 8 px: whoever codes ×40 in blocks finds there what the scanner
had rounded away. So all is measured a second time, on fewer tiles, cut 4 px off that grid.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks import rate_report
from benchmarks.common import SHARED
from benchmarks.rate_report import DEFAULT_SERIES, MEASURES, Measured, Point, Series
from wsi_ml.data.pairs import read_tiles, tile_files
from wsi_ml.metrics.gradient import gmsd
from wsi_ml.metrics.image import psnr, ssim
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg, encode_steps
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.sr import available_upscalers, open_upscaler

SLIDES = ("BS12", "lung-squamous-cell-carcinoma", "ectopic-pancreas")
TILE = 512
TILES_A_PICTURE = 4
OFF_GRID = 4
"""Pixels cut off at left and top, and three times as many at the other sides: 496 px are left, whole blocks of 16."""
STEPS_444 = ((3, 4), (4, 6), (5, 7), (6, 9), (8, 11), (11, 15), (16, 22))
STEPS_420 = ((3, 3), (4, 4), (5, 5), (7, 7), (10, 10))
STORE_QUALITIES = (80, 85, 90, 95, 97)
AVIF_QUALITIES = (45, 55, 63, 70, 77, 84)
BELOW = 4 / 3
"""All levels below one together, by the geometric row 1 + 1/4 + 1/16 + …"""
Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes], np.ndarray]


@dataclass(frozen=True)
class Coder:
    """One setting of an image format."""

    label: str
    encode: Encode
    decode: Decode


def pillow(name: str, **options: object) -> Coder:
    """A format of Pillow with its options; the label is the quality."""

    def encode(rgb: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, name, **options)
        return buffer.getvalue()

    return Coder(f"q{options['quality']}", encode, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def jpeg_xl(distance: float) -> Coder:
    """JPEG XL at a Butteraugli distance, effort 7 (the default of its authors' encoder)."""
    return Coder(
        f"distance {distance:g}",
        lambda rgb: imagecodecs.jpegxl_encode(rgb, distance=distance, effort=7),
        imagecodecs.jpegxl_decode,
    )


def steps(luma: int, chroma: int, subsampling: str) -> Coder:
    """The store's way of encoding at other steps."""
    return Coder(f"steps {luma}/{chroma}", lambda rgb: encode_steps(rgb, (luma, chroma), subsampling), decode_jpeg)


def annex_k(quality: int) -> Coder:
    """JPEG with the tables of Annex K and 4:2:0, as libjpeg-turbo writes it."""
    return Coder(f"q{quality}", lambda rgb: encode_jpeg(rgb, quality, "420"), decode_jpeg)


STORES: dict[str, list[Coder]] = {
    "steps 4:4:4": [steps(*pair, "444") for pair in STEPS_444],
    "steps 4:2:0": [steps(*pair, "420") for pair in STEPS_420],
    "Annex K 4:2:0": [annex_k(quality) for quality in STORE_QUALITIES],
}
PEERS: dict[str, list[Coder]] = {
    "JPEG": [
        pillow("JPEG", quality=quality, subsampling=2, optimize=True) for quality in (30, 40, 50, 60, 70, 80, 86, 90)
    ],
    "WebP": [pillow("WEBP", quality=quality, method=6) for quality in (30, 45, 60, 75, 85, 90, 94)],
    "AVIF 4:2:0": [pillow("AVIF", quality=quality, speed=6, subsampling="4:2:0") for quality in AVIF_QUALITIES],
    "AVIF 4:4:4": [pillow("AVIF", quality=quality, speed=6, subsampling="4:4:4") for quality in AVIF_QUALITIES],
    "JPEG XL": [jpeg_xl(distance) for distance in (5, 3.5, 2.5, 1.8, 1.2, 0.8)],
}  # fmt: skip


def pictures(slide: str, tiles: int, crop: int = 0) -> Iterator[np.ndarray]:
    """Square pictures, each of four tiles, of which `crop` pixels are cut off at left and top."""
    part = slice(crop, TILE - 3 * crop)
    files = tile_files(SHARED)[slide][: tiles // TILES_A_PICTURE * TILES_A_PICTURE]
    for start in range(0, len(files), TILES_A_PICTURE):
        a, b, c, d = (tile[part, part] for tile in read_tiles(files[start : start + TILES_A_PICTURE]))
        yield np.vstack([np.hstack([a, b]), np.hstack([c, d])])


def cut(rgb: np.ndarray, side: int) -> list[np.ndarray]:
    """Tiles of a picture, row by row, contiguous."""
    rows, columns = range(0, rgb.shape[0], side), range(0, rgb.shape[1], side)
    return [np.ascontiguousarray(rgb[y : y + side, x : x + side]) for y in rows for x in columns]


def below_bytes(encode: Encode, top: np.ndarray) -> float:
    """Bytes of all levels below `top`: two are encoded, the rest is the geometric row."""
    half = halve_pixels(top)
    return sum(len(encode(tile)) for tile in cut(half, TILE)) + BELOW * len(encode(halve_pixels(half)))


def quality_of(made: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> np.ndarray:
    """Mean PSNR, SSIM and −GMSD of tiles."""
    rows = [(psnr(ours, base), ssim(ours, base), -gmsd(ours, base)) for ours, base in zip(made, truth, strict=True)]
    return np.mean(rows, axis=0)


class Sums:
    """Points of one slide, summed over its pictures."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[np.ndarray]] = {}

    def add(self, name: tuple[str, str], base: np.ndarray, top: float, below: float, quality: np.ndarray) -> None:
        """Count one ×40 picture under (series, label): bytes of the top level and below, mean quality of its tiles."""
        kilopixels = base.shape[0] * base.shape[1] / 1e3
        row = np.array([top / kilopixels, (top + below) / kilopixels, *quality])
        self.rows.setdefault(name, []).append(row)

    def points(self, series: str) -> list[Point]:
        """Means over the pictures, a point for each setting of the series."""
        found = []
        for (name, label), rows in self.rows.items():
            if name == series:
                top, whole, *quality = np.mean(rows, axis=0).tolist()
                found.append(Point(label, top, whole, dict(zip(MEASURES, quality, strict=True))))
        return found


def measure_stores(sums: Sums, picture: np.ndarray, upscalers: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Every store encoding of one picture with every upscaler; bicubic on the default series only."""
    side, stored = picture.shape[0] // 2, halve_pixels(picture)
    truth = cut(picture, side)
    for store, coders in STORES.items():
        for coder in coders:
            data = coder.encode(stored)
            below = below_bytes(coder.encode, stored)
            parts = cut(coder.decode(data), side // 2)
            for name, upscale in upscalers.items():
                if name != "bicubic" or store == DEFAULT_SERIES:
                    made = [upscale(part) for part in parts]
                    series = (f"{store} + {name}", coder.label)
                    sums.add(series, picture, len(data), below, quality_of(made, truth))


def measure_peers(sums: Sums, picture: np.ndarray) -> None:
    """Every ×40 format at every setting of one picture."""
    truth = cut(picture, picture.shape[0] // 2)
    for name, coders in PEERS.items():
        for coder in coders:
            data = [coder.encode(tile) for tile in truth]
            below = below_bytes(coder.encode, picture)
            made = [coder.decode(each) for each in data]
            sums.add((name, coder.label), picture, sum(map(len, data)), below, quality_of(made, truth))


def measured(tiles: int, models: Sequence[str], crop: int = 0) -> tuple[list[Series], list[Series]]:
    """Series of the store with each upscaler, and of the ×40 formats; points by slide."""
    upscalers = {name: open_upscaler(name) for name in (*models, "bicubic")}
    by_slide: dict[str, Sums] = {slide: Sums() for slide in SLIDES}
    for slide, sums in by_slide.items():
        for picture in tqdm(list(pictures(slide, tiles, crop)), desc=slide, unit="picture"):
            measure_stores(sums, picture, upscalers)
            measure_peers(sums, picture)
    names = list(dict.fromkeys(series for sums in by_slide.values() for series, _ in sums.rows))
    every = [Series(name, {slide: sums.points(name) for slide, sums in by_slide.items()}) for name in names]
    return [each for each in every if each.name not in PEERS], [each for each in every if each.name in PEERS]


def fitted_share(tiles: int) -> float:
    """Bytes of the store's tiles with fitted Huffman codes over bytes as ingestion writes them."""
    stored = [halve_pixels(picture) for slide in SLIDES for picture in pictures(slide, tiles)]
    fitted = sum(len(encode_steps(plane, optimize=True)) for plane in stored)
    return fitted / sum(len(encode_steps(plane)) for plane in stored)


def main() -> None:
    """Measure, print and keep the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=20, help="×40 tiles a slide, a multiple of 4")
    networks = [card.name for card in available_upscalers() if card.kind == "sr"]
    parser.add_argument("--models", nargs="+", default=networks, help="upscalers to measure beside bicubic")
    parser.add_argument("--print", action="store_true", help="print the table and write nothing")
    args = parser.parse_args()
    if args.tiles < TILES_A_PICTURE:
        parser.error("--tiles must be at least 4")
    few = min(args.tiles, 8)
    on_grid = Measured(*measured(args.tiles, args.models), args.tiles)
    off_grid = Measured(*measured(few, args.models, OFF_GRID), few)
    body = rate_report.report(on_grid, off_grid, args.models, fitted_share(few))
    rate_report.write(body, on_grid, args.models, only_print=args.print)


if __name__ == "__main__":
    main()
