"""Writer of `.psi` slides, as psimage writes them: for exchange with programs that read nothing else, and for tests."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image

from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.library import sync_folder
from wsi_ml.slides.psi import CODECS, PREVIEWS, layer_size, psi_layers

TILE_SIDE = 512
PREVIEW_SIDES = (256, 512, 1024)
PREVIEW_QUALITY = 90
ReadRegion = Callable[[Region], np.ndarray]


def write_psi(
    path: Path | str,
    size: Size,
    read: ReadRegion,
    *,
    magnification: float = 0.0,
    codec: str = "WEBP",
    quality: int = 90,
    tile_side: int = TILE_SIDE,
) -> Path:
    """Write a slide of `size` as `.psi`; `read` gives RGB uint8 of regions of its full plane.

    Each layer is the one above halved by the store's kernel, an odd last row or column left out as the format wants
    it. Holds one row of tiles of each layer in memory. `magnification` 0 says unknown. The file appears whole or not
    at all. Raises BadRequestError for a codec other than JPEG or WEBP, or a picture without pixels.
    """
    path = Path(path)
    if codec not in CODECS:
        raise BadRequestError(f"A .psi file cannot be written with the codec {codec!r}; give {' or '.join(CODECS)}.")
    if min(size) < 1:
        raise BadRequestError(f"A picture of {size.width} × {size.height} px cannot be written.")
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(staged, "w", libver="earliest") as file:
            _fill(file, size, read, codec, quality, tile_side)
            file.attrs.update(
                width=size.width,
                height=size.height,
                magnification=float(magnification),
                psi_codec=codec,
                psi_quality=quality,
                psi_tile_size=tile_side,
            )
        with staged.open("rb+") as written:
            os.fsync(written.fileno())
        staged.rename(path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def _fill(file: h5py.File, size: Size, read: ReadRegion, codec: str, quality: int, tile_side: int) -> None:
    """All data sets of the file, row of tiles by row of tiles."""
    layers = [_Layer(file, layer, size, codec, quality, tile_side) for layer in psi_layers(size, tile_side)]
    for y in range(0, size.height, tile_side):
        rows = read(Region(0, y, size.width, min(tile_side, size.height - y)))
        last = y + tile_side >= size.height
        for layer in layers:
            rows = layer.take(rows, last)
            if not len(rows) and not last:
                break
    file.attrs["psi_num_tiles"] = sum(layer.count for layer in layers)
    file.create_dataset("meta_info", data=np.bytes_(b"{}"))
    for name, side in zip(PREVIEWS, PREVIEW_SIDES, strict=True):
        picture = layers[-1].written
        scale = min(1.0, side / max(picture.shape[:2]))
        shape = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        small = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
        file.create_dataset(f"previews/{name}", data=_encoded(small, "JPEG", PREVIEW_QUALITY))


class _Layer:
    """One layer being written: pixel rows come in, full rows of tiles go to the file."""

    def __init__(self, file: h5py.File, layer: int, size: Size, codec: str, quality: int, tile_side: int):
        self.file, self.layer = file, layer
        self.size = layer_size(size, layer)
        self.codec, self.quality, self.tile_side = codec, quality, tile_side
        self.pending = np.empty((0, self.size.width, 3), np.uint8)
        self.written = self.pending
        """The last row of tiles: of the smallest layer, all of it."""
        self.t_row, self.count = 0, 0

    def take(self, rows: np.ndarray, last: bool) -> np.ndarray:
        """Add pixel rows; returns the rows of half the size that are now settled, for the next layer."""
        self.pending = np.concatenate([self.pending, rows]) if len(self.pending) else rows
        settled = []
        while len(self.pending) >= self.tile_side or (last and len(self.pending)):
            band, self.pending = self.pending[: self.tile_side], self.pending[self.tile_side :]
            self._write(band)
            even = band[: len(band) // 2 * 2, : self.size.width // 2 * 2]
            settled.append(halve_pixels(even) if even.size else even[:, ::2])
        return np.concatenate(settled) if settled else np.empty((0, self.size.width // 2, 3), np.uint8)

    def _write(self, band: np.ndarray) -> None:
        for t_col, x in enumerate(range(0, self.size.width, self.tile_side)):
            data = _encoded(band[:, x : x + self.tile_side], self.codec, self.quality)
            self.file.create_dataset(f"tiles/{self.layer}/{self.layer}_{self.t_row}_{t_col}", data=data)
            self.count += 1
        self.written = band
        self.t_row += 1


def _encoded(rgb: np.ndarray, codec: str, quality: int) -> np.ndarray:
    """An encoded picture as a vector of bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, codec, quality=quality)
    return np.frombuffer(buffer.getvalue(), np.uint8)
