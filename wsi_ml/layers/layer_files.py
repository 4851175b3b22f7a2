"""The folder of features files: one file a layer, renamed into place whole, open files kept at hand."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from wsi_ml.errors import DamagedError
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.slides.library import STAGING_FOLDER, sync_folder
from wsi_ml.slides.staging import held

LAYERS_FOLDER = "layers"
SUFFIX = ".features"
OPEN_FILES = 64


class LayerFiles:
    """Features files of a library; safe for several threads and processes."""

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / LAYERS_FOLDER
        self._open: OrderedDict[str, FeaturesFile] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, layer_id: str) -> Path:
        """Where the features file of a layer lies, whether or not it exists."""
        return self.folder / f"{layer_id}{SUFFIX}"

    def ids(self) -> set[str]:
        """Ids of the layers that have a file here."""
        return {path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}")}

    def strangers(self) -> list[str]:
        """Names in the folder that are no features files."""
        return sorted(path.name for path in self.folder.glob("*") if path.suffix != SUFFIX or path.name[0] == ".")

    def open(self, layer_id: str, check: str | None = None) -> FeaturesFile:
        """The file of a layer, opened once; raises DamagedError when it is not whole or not the one of this `check`."""
        with self._lock:
            file = self._open.get(layer_id)
            if file is None:
                file = FeaturesFile(self.path(layer_id))
                if check is not None and file.checksum != check:
                    raise DamagedError(f"The features file {file.path.name} is not the one that was published.")
                self._open[layer_id] = file
                while len(self._open) > OPEN_FILES:
                    self._open.popitem(last=False)
            self._open.move_to_end(layer_id)
            return file

    def adopt(self, staged: Path, layer_id: str) -> None:
        """Rename a finished file into place, durably or not at all; `staged` is on the library's file system."""
        self.folder.mkdir(mode=0o750, exist_ok=True)
        staged.rename(self.path(layer_id))
        try:
            sync_folder(self.folder)
        except OSError:
            self.give_back(layer_id, staged)
            raise

    def give_back(self, layer_id: str, staged: Path) -> None:
        """Undo `adopt`."""
        self.path(layer_id).rename(staged)

    def remove(self, layer_id: str) -> None:
        """Remove the file of a layer, if there is one."""
        with self._lock:
            self._open.pop(layer_id, None)
        with contextlib.suppress(FileNotFoundError):
            self.path(layer_id).unlink()
            sync_folder(self.folder)

    @contextlib.contextmanager
    def staged(self, layer_id: str, ready: Callable[[], bool] = lambda: False) -> Iterator[Path | None]:
        """A path to write a layer's file at, gone afterwards unless renamed; one process at a time for one layer.

        Waits while another process holds it, and gives None as soon as `ready()`.
        """
        staging = self.root / STAGING_FOLDER
        staging.mkdir(mode=0o750, exist_ok=True)
        while not ready():
            with held(staging, f"layer-{layer_id}") as folder:
                if folder is not None:
                    yield folder / f"{layer_id}{SUFFIX}"
                    return
            time.sleep(0.05)
        yield None
