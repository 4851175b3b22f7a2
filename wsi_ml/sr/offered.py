"""The upscalers at hand, kept in step with the folders that hold them: a new model needs no restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.sr.upscaler import WEIGHTS_FOLDER, UpscalerCard, available_upscalers, bicubic_card

log = logging.getLogger("ocular")
SUFFIXES = (".json", ".safetensors")


class OfferedUpscalers:
    """Gives the cards of all upscalers; reads them again when a file of a folder has changed. Threads may share it.

    A damaged shipped card costs the networks, never the viewing of stored slides: then bicubic alone is offered, and
    `complain` is told why, once.
    """

    def __init__(
        self, folders: Iterable[Path], shipped: Path = WEIGHTS_FOLDER, complain: Callable[[str], None] = log.error
    ):
        self._folders = tuple(folders)
        self._complain = complain
        self._shipped = shipped
        self._seen: object = None
        self._cards: list[UpscalerCard] = []
        self._lock = threading.Lock()

    def __call__(self) -> list[UpscalerCard]:
        """The cards now; the same list object as before while nothing has changed."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                # Looked at before reading: what changes meanwhile is read again the next time.
                self._seen, self._cards = seen, self._read()
            return self._cards

    def _look(self) -> list[tuple[str, int, int, int]]:
        """Name, inode, time of change and size of every file that matters."""
        found = []
        for folder in (self._shipped, *self._folders):
            try:
                entries = sorted(folder.iterdir())
                facts = [(each, each.stat()) for each in entries if each.suffix in SUFFIXES]
            except OSError:
                continue  # a folder that nobody has made yet, or a file that goes at this moment: looked at again soon
            found += [(str(each), stat.st_ino, stat.st_mtime_ns, stat.st_size) for each, stat in facts]
        return found

    def _read(self) -> list[UpscalerCard]:
        try:
            return available_upscalers(self._folders, self._shipped)
        except ModelUnavailableError as error:
            self._complain(str(error))
            return [bicubic_card()]
