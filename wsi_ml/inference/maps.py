"""Stitched maps: what a predictor told of all windows, read as one picture of which the windows cannot be seen."""

from __future__ import annotations

import threading
from typing import Protocol

import cachetools
import numpy as np

from wsi_ml.geometry import Region, Size, ceil_div
from wsi_ml.inference.grid import Grid

CACHE_BYTES = 64 << 20


class Maps(Protocol):
    """Model output over a slide in the map plane (stored plane ÷ stride)."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        ...

    @property
    def stride(self) -> int:
        """Stored pixels per map pixel."""
        ...

    @property
    def size(self) -> Size:
        """Size of the whole slide in map pixels."""
        ...

    def region(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        """uint8 channels × height × width: probability · 255; zeros where nothing was computed."""
        ...

    def covered(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        """Bool height × width: True where a window was computed and the region was asked for."""
        ...


class WindowMaps(Protocol):
    """Maps of a grid's windows, by their numbers."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a window's map."""
        ...

    def window(self, number: int) -> np.ndarray:
        """Map of one window, uint8."""
        ...


class HeldMaps:
    """`WindowMaps` in memory: n × channels × rows × columns."""

    def __init__(self, maps: np.ndarray):
        self.maps = maps
        self.shape: tuple[int, int, int] = maps.shape[1:]

    def window(self, number: int) -> np.ndarray:
        """See `WindowMaps`."""
        return self.maps[number]


class StitchedMaps:
    """See `Maps`: the results of a grid's windows, read in bounded memory; threads may share it.

    Where windows overlap a map pixel is the mean of all that tell it, rounded half up.
    """

    def __init__(self, grid: Grid, windows: WindowMaps, window_stride: int, cache_bytes: int = CACHE_BYTES):
        self.grid = grid
        self.channels = windows.shape[0]
        self.stride = grid.stride
        self.size = grid.map_size
        self._windows = windows
        self._repeat = window_stride // grid.stride
        """Map pixels of the stitched map on a side for one of a window's own map."""
        self._side = grid.core // grid.stride
        self._step = grid.step // grid.stride
        self._kept: cachetools.LRUCache[int, np.ndarray] = cachetools.LRUCache(cache_bytes, lambda each: each.nbytes)
        self._lock = threading.Lock()

    def region(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        """See `Maps`."""
        asked = Region(map_x, map_y, width, height)
        sums = np.zeros((self.channels, height, width), np.uint8 if self._step == self._side else np.uint16)
        for number, place in self._meeting(asked):
            target, source = _overlap(place, asked)
            sums[:, target[0], target[1]] += self._window(number)[:, source[0], source[1]]
        if self._step != self._side:
            tellers = np.maximum(self._tellers(asked), 1)
            sums = ((sums + tellers // 2) // tellers).astype(np.uint8)
        return sums * self._asked_for(asked)

    def covered(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        """See `Maps`."""
        asked = Region(map_x, map_y, width, height)
        return (self._tellers(asked) > 0) & self._asked_for(asked)

    def _tellers(self, asked: Region) -> np.ndarray:
        """uint16 height × width: how many windows tell each map pixel."""
        tellers = np.zeros((asked.height, asked.width), np.uint16)
        for _, place in self._meeting(asked):
            rows, columns = _overlap(place, asked)[0]
            tellers[rows, columns] += 1
        return tellers

    def _meeting(self, asked: Region) -> list[tuple[int, Region]]:
        """(number, place in the map plane) of the computed windows that meet a region."""
        reach = self._side - self._step
        rows = range(max(0, (asked.y - reach) // self._step), min(self._rows, ceil_div(asked.y_end, self._step)))
        columns = range(max(0, (asked.x - reach) // self._step), min(self._columns, ceil_div(asked.x_end, self._step)))
        places = ((row, column, int(self.grid.numbers[row, column])) for row in rows for column in columns)
        return [
            (number, Region(column * self._step, row * self._step, self._side, self._side))
            for row, column, number in places
            if number >= 0
        ]

    @property
    def _rows(self) -> int:
        return self.grid.numbers.shape[0]

    @property
    def _columns(self) -> int:
        return self.grid.numbers.shape[1]

    def _asked_for(self, asked: Region) -> np.ndarray:
        """Bool height × width: True inside the region that the prediction was asked for, and inside the slide."""
        inside = np.zeros((asked.height, asked.width), bool)
        rows, columns = _overlap(self.grid.map_region, asked)[0]
        inside[rows, columns] = True
        return inside

    def _window(self, number: int) -> np.ndarray:
        """Map of one window in pixels of the stitched map, channels × side × side."""
        with self._lock:
            kept = self._kept.get(number)
        if kept is None:
            kept = self._windows.window(number)
            if self._repeat > 1:
                kept = kept.repeat(self._repeat, 1).repeat(self._repeat, 2)
            if kept.nbytes <= self._kept.maxsize:
                with self._lock:
                    self._kept[number] = kept
        return kept


def _overlap(place: Region, asked: Region) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a place and a region meet: (rows, columns) in the region, (rows, columns) in the place."""
    x, y = max(place.x, asked.x), max(place.y, asked.y)
    x_end, y_end = max(x, min(place.x_end, asked.x_end)), max(y, min(place.y_end, asked.y_end))
    target = (slice(y - asked.y, y_end - asked.y), slice(x - asked.x, x_end - asked.x))
    return target, (slice(y - place.y, y_end - place.y), slice(x - place.x, x_end - place.x))
