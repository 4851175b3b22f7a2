"""A grid of windows through a predictor: readers decode ahead, callers compute, one writer keeps what is finished.

At most `ahead` batches exist at a time, read, computed or waiting to be written, so memory does not grow with the
slide, and the predictor finds its next batch ready.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError

import numpy as np

from wsi_ml.errors import ModelOutputError, PredictionCancelledError
from wsi_ml.geometry import Region, clip
from wsi_ml.inference.grid import Grid
from wsi_ml.inference.predictor import Placed, Predictor, Shared
from wsi_ml.inference.window_file import WindowFile
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.sr.synthesis import DecodedTiles

DECODED_BYTES = 64 << 20
"""Decoded tiles kept for the windows beside: a strip needs about three columns of nine tiles."""
POLL_S = 0.2
"""How often a caller that waits looks whether it was cancelled."""
SYNC_S = 1.0
"""Finished batches reach the disk for good at least this often, and at the end."""
MAX_READERS = 4

Progress = Callable[[int, int, str], None]
Cancelled = Callable[[], bool]


def refuse_cancelled(cancelled: Cancelled) -> None:
    """Raise PredictionCancelledError when cancelled."""
    if cancelled():
        raise PredictionCancelledError("The prediction was cancelled; started again it goes on from here.")


def callers_of(predictor: Predictor, batches: int) -> int:
    """How many threads call a predictor at once."""
    return max(1, predictor.callers(batches)) if isinstance(predictor, Shared) else 1


class WindowReader:
    """Reads the windows of a grid from a stored pyramid, beyond the slide by repeating its edge; threads may share it.

    Raises DamagedError for a damaged tile.
    """

    def __init__(self, pyramid: Pyramid, grid: Grid):
        self._pyramid = pyramid
        self._grid = grid
        self._tile_pixels = DecodedTiles(DECODED_BYTES).reader(pyramid)

    def place(self, number: int) -> Region:
        """Where one window lies in the stored plane, halo included; it may reach beyond it."""
        return self._grid.stored_window(number)

    def window(self, number: int) -> np.ndarray:
        """RGB uint8 side × side × 3 of one window, halo included."""
        stored_window, size = self._grid.stored_window(number), self._grid.stored_size
        part = clip(stored_window, size)
        pixels = self._pyramid.region(part, tile_pixels=self._tile_pixels)
        if part == stored_window:
            return pixels
        before = (part.y - stored_window.y, part.x - stored_window.x)
        after = (stored_window.y_end - part.y_end, stored_window.x_end - part.x_end)
        return np.pad(pixels, ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")

    def batch(self, numbers: range) -> np.ndarray:
        """Some windows, n × side × side × 3."""
        if len(numbers) == 1:
            return self.window(numbers.start)[None]
        side = self._grid.core + 2 * self._grid.halo
        batch = np.empty((len(numbers), side, side, 3), np.uint8)
        for place, number in enumerate(numbers):
            batch[place] = self.window(number)
        return batch


def compute_windows(
    pyramid: Pyramid,
    predictor: Predictor,
    grid: Grid,
    windows: WindowFile,
    *,
    progress: Progress = lambda done, total, unit: None,
    cancelled: Cancelled = lambda: False,
) -> None:
    """Run a predictor over all windows that are not finished, and keep each batch as soon as it is there.

    `progress` is told (windows finished, windows in all, "windows"). Raises PredictionCancelledError within a batch,
    ModelOutputError and what the predictor raises, DamagedError, DiskFullError; what is finished stays.
    """
    reader = WindowReader(pyramid, grid)
    missing = [number for number in range(windows.batches) if number not in windows.finished]
    begin, active_s, synced = time.monotonic(), windows.active_s, time.monotonic()
    progress(windows.finished_windows, windows.count, "windows")
    try:
        # Closed however the loop ends: an error here must not leave callers running on.
        with contextlib.closing(_computed(reader, predictor, windows, missing, cancelled)) as computed:
            for number, maps in computed:
                _check_output(predictor, maps, (len(windows.batch_windows(number)), *windows.shape))
                windows.write(number, maps, active_s + time.monotonic() - begin)
                if time.monotonic() - synced > SYNC_S:
                    windows.sync()
                    synced = time.monotonic()
                progress(windows.finished_windows, windows.count, "windows")
    finally:
        windows.sync()


def _computed(
    reader: WindowReader, predictor: Predictor, windows: WindowFile, missing: list[int], cancelled: Cancelled
) -> Generator[tuple[int, np.ndarray], None, None]:
    """(batch, its maps) in the order of `missing`; ends its threads however it is left."""
    callers = callers_of(predictor, windows.batches)
    readers = min(MAX_READERS, max(1, len(os.sched_getaffinity(0)) // 2))
    ahead = 2 * callers + readers
    flying: deque[tuple[int, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(readers, "read") as read_pool, ThreadPoolExecutor(callers, "predict") as predict_pool:
        try:
            for number in missing:
                refuse_cancelled(cancelled)
                read = read_pool.submit(reader.batch, windows.batch_windows(number))
                places = [reader.place(window) for window in windows.batch_windows(number)]
                flying.append((number, predict_pool.submit(_predict, predictor, read, places)))
                if len(flying) >= ahead:
                    yield _landed(flying, cancelled)
            while flying:
                yield _landed(flying, cancelled)
        finally:
            for _, future in flying:
                future.cancel()
            # A batch that runs cannot be stopped; one that waits must not start.
            read_pool.shutdown(wait=False, cancel_futures=True)


def _predict(predictor: Predictor, read: Future[np.ndarray], stored_windows: list[Region]) -> np.ndarray:
    windows = read.result()
    return predictor.at(windows, stored_windows) if isinstance(predictor, Placed) else predictor(windows)


def _landed(
    flying: deque[tuple[int, Future[np.ndarray]]], cancelled: Cancelled
) -> tuple[int, np.ndarray]:  # fmt: skip
    """The oldest batch, when it is there."""
    number, future = flying[0]
    while True:
        refuse_cancelled(cancelled)
        with contextlib.suppress(NotYetError):
            maps = future.result(timeout=POLL_S)
            flying.popleft()
            return number, maps


def _check_output(predictor: Predictor, maps: np.ndarray, expected: tuple[int, ...]) -> None:
    if maps.shape != expected or maps.dtype != np.uint8:
        raise ModelOutputError(
            f"The model {predictor.card.name} gave {maps.dtype} of shape {maps.shape} in place of uint8 {expected}."
        )
