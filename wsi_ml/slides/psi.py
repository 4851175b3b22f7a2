"""Reader of `.psi` slides (psimage, PATH-DT-MSU): an HDF5 file whose data sets are encoded tiles.

Layers are named 1, 2, 4, 8 … by their downsample; a layer's size is that of layer 1 divided and rounded down; tiles at
the right and lower edge are cropped. The C library under h5py parses the file, so a file of unknown origin is opened
only in the confined child of an ingestion (sandbox.py), or at the caller's own risk.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import simplejpeg

from wsi_ml.errors import IngestError, OutsideError
from wsi_ml.geometry import Region, Size, ceil_div, clip
from wsi_ml.slides.codec import decode_jpeg
from wsi_ml.slides.header import HeaderLimits, check_claim
from wsi_ml.slides.pyramid import TilePixels
from wsi_ml.slides.tiff_header import shown_name

CODECS = ("JPEG", "WEBP")
PREVIEWS = ("S", "M", "L")
POWER_MPP = 10.0
"""µm/px × magnification: 0.25 at ×40, 0.5 at ×20. The file states no µm/px of its own."""
MAGNIFICATIONS = (1.0, 200.0)
"""What can be meant by a magnification; 0 and anything else says it is unknown."""
SPARE_TILE_BYTES = 1 << 16
MAX_PREVIEW_BYTES = 1 << 26
LIMITS = HeaderLimits()


@dataclass(frozen=True)
class PsiFacts:
    """What the file's attributes say."""

    size: Size
    """Width and height of layer 1."""
    magnification: float | None
    """None where the file says 0 or nothing."""
    codec: str
    """`JPEG` or `WEBP`."""
    quality: int
    tile_side: int
    tile_count: int | None
    """Tiles of all layers, as stated."""

    @property
    def mpp(self) -> float | None:
        """µm/px of layer 1 by the rule 10 / magnification, None where that is unknown."""
        return None if self.magnification is None else POWER_MPP / self.magnification


def layer_size(size: Size, layer: int) -> Size:
    """Size of a layer of a slide of `size`: divided by the layer's number, rounded down."""
    return Size(size.width // layer, size.height // layer)


def psi_layers(size: Size, tile_side: int) -> list[int]:
    """Layers a whole file has: 1, 2, 4 … up to the first that one tile holds."""
    layers = [1]
    while max(layer_size(size, layers[-1])) > tile_side and min(layer_size(size, 2 * layers[-1])) > 0:
        layers.append(2 * layers[-1])
    return layers


class PsiFile:
    """An open `.psi` file; a context manager, safe for several threads of the process that opened it.

    Raises IngestError where the file is no `.psi`, is damaged, or claims what no slide has.
    """

    def __init__(self, path: Path | str, limits: HeaderLimits = LIMITS):
        self.path = Path(path)
        self.name = shown_name(self.path)
        try:
            self._file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise self.fault("it is no HDF5 file, is damaged or was cut short") from error
        self._closer = weakref.finalize(self, self._file.close)
        self.facts = self._read_facts(limits)
        self.layers = self._read_layers()
        """Layers in the file, the largest picture first; layer 1 always, without gaps."""

    def __enter__(self) -> PsiFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._closer()

    def fault(self, what: str) -> IngestError:
        """The error for something wrong with this file."""
        return IngestError(f"“{self.name}” cannot be read as a .psi slide: {what}; get the file again.")

    # -- layout ----------------------------------------------------------------------------------------------------

    def size(self, layer: int) -> Size:
        """Size of one layer; raises OutsideError for a layer the file has not."""
        if layer not in self.layers:
            raise OutsideError(
                f"“{self.name}” has no layer {layer}; it has the layers {', '.join(map(str, self.layers))}."
            )
        return layer_size(self.facts.size, layer)

    def tile_counts(self, layer: int) -> Size:
        """Columns and rows of tiles of one layer."""
        size, side = self.size(layer), self.facts.tile_side
        return Size(ceil_div(size.width, side), ceil_div(size.height, side))

    def tile_region(self, layer: int, t_col: int, t_row: int) -> Region:
        """Pixels of one tile in its layer's plane, cropped at the edge; raises OutsideError for an address outside."""
        size, side = self.size(layer), self.facts.tile_side
        x, y = t_col * side, t_row * side
        if not (0 <= x < size.width and 0 <= y < size.height):
            raise OutsideError(f"Tile {t_col}_{t_row} lies outside layer {layer} of {size.width} × {size.height} px.")
        return Region(x, y, min(side, size.width - x), min(side, size.height - y))

    # -- pixels ----------------------------------------------------------------------------------------------------

    def tile_bytes(self, layer: int, t_col: int, t_row: int) -> bytes:
        """One tile as it is encoded in the file; raises OutsideError, and IngestError where it is missing."""
        self.tile_region(layer, t_col, t_row)
        name = f"tiles/{layer}/{layer}_{t_row}_{t_col}"
        # A picture of noise takes hardly more bytes encoded than plain; what takes more is no tile.
        return self._vector(name, 3 * self.facts.tile_side**2 + SPARE_TILE_BYTES)

    def tile(self, layer: int, t_col: int, t_row: int) -> np.ndarray:
        """RGB uint8 of one tile, cropped at the edge; raises like `tile_bytes`."""
        region = self.tile_region(layer, t_col, t_row)
        data = self.tile_bytes(layer, t_col, t_row)
        try:
            return _decode(data, self.facts.codec, region.height, region.width)
        except (ValueError, RuntimeError) as error:  # what the decoders raise for damaged bytes and other sizes
            raise self.fault(f"tile column {t_col}, row {t_row} of layer {layer} is damaged") from error

    def region(self, layer: int, region: Region, tile: TilePixels | None = None) -> np.ndarray:
        """RGB uint8 of a region in the plane of `layer`; it must lie inside (OutsideError); raises like `tile`.

        `tile` replaces the reading of tiles, so a caller can keep decoded ones.
        """
        size, side = self.size(layer), self.facts.tile_side
        if clip(region, size) != region:
            raise OutsideError(f"The region {tuple(region)} is not inside layer {layer} of “{self.name}”.")
        result = np.empty((region.height, region.width, 3), np.uint8)
        for t_row in range(region.y // side, ceil_div(region.y_end, side)):
            for t_col in range(region.x // side, ceil_div(region.x_end, side)):
                pixels = (tile or self.tile)(layer, t_col, t_row)
                x, y = t_col * side - region.x, t_row * side - region.y
                part = pixels[max(0, -y) : region.height - y, max(0, -x) : region.width - x]
                top, left = max(0, y), max(0, x)
                result[top : top + part.shape[0], left : left + part.shape[1]] = part
        return result

    def preview_bytes(self, which: str) -> bytes | None:
        """The JPEG of the preview `S`, `M` or `L` as it lies in the file, None where there is none."""
        if which not in PREVIEWS:
            raise OutsideError(f"There is no preview {which!r}; there are {', '.join(PREVIEWS)}.")
        name = f"previews/{which}"
        return None if self._object(name) is None else self._vector(name, MAX_PREVIEW_BYTES)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _vector(self, name: str, most: int) -> bytes:
        """The bytes of one data set; raises IngestError where it is missing, no byte vector, or kept elsewhere."""
        place = self._object(name)
        if place is None:
            raise self.fault(f"“{name}” is missing")
        if not isinstance(place, h5py.Dataset) or place.dtype != np.uint8 or place.ndim != 1 or place.external:
            raise self.fault(f"“{name}” is not a vector of bytes kept in the file")
        if place.is_virtual or not 0 < place.shape[0] <= most:
            raise self.fault(f"“{name}” claims {place.shape[0]} bytes, {most} are allowed")
        try:
            return place[()].tobytes()
        except OSError as error:
            raise self.fault(f"“{name}” cannot be read") from error

    def _object(self, name: str) -> Any:
        """The group or data set at a path, None where there is none; links, which may lead elsewhere, are none."""
        place: Any = self._file
        for part in name.split("/"):
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
            if not isinstance(link, h5py.HardLink):
                return None
            try:
                place = place[part]
            except (KeyError, OSError) as error:
                raise self.fault(f"“{name}” cannot be read") from error
        return place

    def _read_facts(self, limits: HeaderLimits) -> PsiFacts:
        size = Size(self._whole("width"), self._whole("height"))
        tile_side = self._whole("psi_tile_size")
        if min(size) < 1:
            raise self.fault(f"it claims a picture of {size.width} × {size.height} px")
        check_claim(f"“{self.name}”", size, limits)
        low, high = limits.tile_sides
        if not low <= tile_side <= high:
            raise self.fault(f"it claims tiles of {tile_side} px; {low} to {high} are allowed")
        codec = self._file.attrs.get("psi_codec", b"")
        codec = (codec.decode("ascii", "replace") if isinstance(codec, bytes) else str(codec)).upper()[:20]
        codec = "JPEG" if codec == "JPG" else codec
        if codec not in CODECS:
            raise self.fault(f"its tiles are coded as {codec!r}, not as {' or '.join(CODECS)}")
        number = self._number("magnification")
        believed = number is not None and MAGNIFICATIONS[0] <= number <= MAGNIFICATIONS[1]
        count = self._number("psi_num_tiles")
        return PsiFacts(
            size,
            number if believed else None,
            codec,
            int(self._number("psi_quality") or 0),
            tile_side,
            None if count is None else int(count),
        )

    def _number(self, name: str) -> float | None:
        """A finite number among the file's attributes, None where there is none."""
        value = self._file.attrs.get(name)
        if not isinstance(value, (int, float, np.integer, np.floating)) or not math.isfinite(value):
            return None
        return float(value)

    def _whole(self, name: str) -> int:
        value = self._number(name)
        if value is None or value != int(value):
            raise self.fault(f"its attribute “{name}” is missing or no whole number")
        return int(value)

    def _read_layers(self) -> list[int]:
        """Layers in the file; raises IngestError where layer 1 is missing or a layer has another number of tiles."""
        found = []
        for layer in psi_layers(self.facts.size, self.facts.tile_side):
            group = self._object(f"tiles/{layer}")
            if not isinstance(group, h5py.Group):
                break
            size, side = layer_size(self.facts.size, layer), self.facts.tile_side
            wanted = ceil_div(size.width, side) * ceil_div(size.height, side)
            if len(group) != wanted:
                raise self.fault(f"layer {layer} has {len(group)} tiles, a picture of its size has {wanted}")
            found.append(layer)
        if not found:
            raise self.fault("it holds no tiles of layer 1, the full picture")
        return found


def _decode(data: bytes, codec: str, height: int, width: int) -> np.ndarray:
    """RGB uint8 of an encoded tile; the size is compared before memory is given to pixels. Raises ValueError."""
    if codec == "WEBP":
        # RuntimeError for damaged bytes, ValueError for another size than that of `out`.
        return imagecodecs.webp_decode(data, hasalpha=False, out=np.empty((height, width, 3), np.uint8))
    found_height, found_width, _, _ = simplejpeg.decode_jpeg_header(data)
    if (found_height, found_width) != (height, width):
        raise ValueError(f"the tile is {found_width} × {found_height} px, not {width} × {height}")
    return decode_jpeg(data)
