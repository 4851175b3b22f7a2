"""One interface for reading regions of a slide: of the library, of a `.psi`, or of a vendor file.

A slide of the library was written by Ocular and is safe to read. A vendor file or a `.psi` is parsed by C libraries in
this very process: open only files you trust, or ingest them, which does it in a confined child.

Readers may be handed to other processes, forked or spawned: each opens the file anew, since a file position shared
between processes gives wrong pixels.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import cachetools
import numpy as np

from wsi_ml.errors import IngestError, OutsideError
from wsi_ml.geometry import Region, Size, clip
from wsi_ml.slides.header import sniff
from wsi_ml.slides.library import Library
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.slides.source_files import check_file

if TYPE_CHECKING:
    from wsi_ml.slides.psi import PsiFile
    from wsi_ml.slides.scan import Scan

MEMORY_BYTES = 64 << 20
"""Decoded tiles that one reader keeps in one process: patches of one place share them."""


class SlideLevel(NamedTuple):
    """One level: its size and by how much it is smaller than the slide's largest."""

    size: Size
    downsample: float


class LibrarySlide(NamedTuple):
    """Address of a slide in a library; the current version when none is given."""

    root: Path | str
    slide_id: str
    version: str | None = None


class SlideReader(Protocol):
    """A slide that regions can be read from; a context manager, safe for several threads."""

    name: str
    size: Size
    """Of level 0: the stored plane of a slide of the library, the scan of a file."""
    mpp: float | None
    """µm/px of level 0, None where nobody knows."""
    levels: tuple[SlideLevel, ...]
    """Largest first."""

    def region(self, level: int, region: Region) -> np.ndarray:
        """RGB uint8 height×width×3 of a region in the plane of `level`; it must lie inside (OutsideError)."""
        ...

    def close(self) -> None:
        """Let the file go; reading again opens it anew."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_slide(slide: Path | str | LibrarySlide) -> SlideReader:
    """A reader for a slide of the library or, at the caller's own risk, for a vendor file or `.psi`.

    Raises UnknownSlideError and the like for a slide that is not in the library, IngestError for a file that is not
    there or cannot be read as a slide.
    """
    if isinstance(slide, LibrarySlide):
        return StoredReader(slide)
    path = Path(slide)
    check_file(path)
    return PsiReader(path) if sniff(path) == "psi" else VendorReader(path)


class _Reader(ABC):
    """What all readers share: the handle of this process, opened when first needed, and the checks of a region."""

    name: str
    size: Size
    mpp: float | None
    levels: tuple[SlideLevel, ...]

    def __init__(self) -> None:
        self._opened: Any = None
        self._start_anew()

    @abstractmethod
    def _open(self) -> Any:
        """The file, opened for this process."""

    def _handle(self) -> Any:
        """The open file of the process that asks."""
        if self._process != os.getpid():
            self._start_anew()
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _start_anew(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._opened = None
        self._tiles: cachetools.LRUCache[tuple[int, int, int], np.ndarray] = cachetools.LRUCache(
            MEMORY_BYTES, lambda pixels: pixels.nbytes
        )

    def __getstate__(self) -> dict[str, Any]:
        own = {"_process", "_opened", "_lock", "_tiles"}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_anew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go; reading again opens it anew."""
        if self._process == os.getpid():
            self._start_anew()

    def _check(self, level: int, region: Region) -> None:
        if not 0 <= level < len(self.levels):
            raise OutsideError(f"“{self.name}” has no level {level}: levels are 0 to {len(self.levels) - 1}.")
        if clip(region, self.levels[level].size) != region:
            raise OutsideError(f"The region {tuple(region)} is not inside level {level} of “{self.name}”.")

    def _remembered(self, read: Callable[[int, int, int], np.ndarray]) -> Callable[[int, int, int], np.ndarray]:
        """`read` of a tile by way of this reader's memory; nobody may write into what it gives."""

        def tile(level: int, t_col: int, t_row: int) -> np.ndarray:
            key = (level, t_col, t_row)
            with self._lock:
                pixels = self._tiles.get(key)
            if pixels is None:
                pixels = read(level, t_col, t_row)
                if pixels.nbytes <= self._tiles.maxsize:
                    with self._lock:
                        self._tiles[key] = pixels
            return pixels

        return tile


class StoredReader(_Reader):
    """A slide of the library: level 0 is the stored plane (×20)."""

    def __init__(self, slide: LibrarySlide):
        super().__init__()
        library = Library(slide.root)
        found = library.slide(slide.slide_id)
        self.version = slide.version or found.current
        self.slide_id = found.id
        self.folder = library.folder(found.id, self.version)
        self.name = found.name
        card = self._handle().card
        self.size, self.mpp = card.stored_size, card.stored_mpp
        self.base_size: Size = card.base_size
        """Size of the plane that layers are kept in: twice the stored one."""
        self.levels = tuple(SlideLevel(size, float(1 << level)) for level, size in enumerate(card.levels))

    def _open(self) -> Pyramid:
        return Pyramid(self.folder)

    def region(self, level: int, region: Region) -> np.ndarray:
        """RGB uint8 of a region of one stored level; raises OutsideError, DamagedError."""
        self._check(level, region)
        pyramid: Pyramid = self._handle()
        return pyramid.region(region, level, self._remembered(pyramid.tile_pixels))


class PsiReader(_Reader):
    """A `.psi`: level n is its layer 2^n."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.name = path.stem
        file: PsiFile = self._handle()
        self.size, self.mpp = file.facts.size, file.facts.mpp
        self.levels = tuple(SlideLevel(file.size(layer), float(layer)) for layer in file.layers)

    def _open(self) -> PsiFile:
        from wsi_ml.slides.psi import PsiFile  # what serves tiles needs no HDF5

        return PsiFile(self.path)

    def region(self, level: int, region: Region) -> np.ndarray:
        """RGB uint8 of a region of one layer; raises OutsideError, and IngestError where tiles are damaged."""
        self._check(level, region)
        file: PsiFile = self._handle()
        return file.region(file.layers[level], region, self._remembered(file.tile))


class VendorReader(_Reader):
    """A vendor file through OpenSlide: level 0 is the whole scan, untrimmed, in its own colours."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.name = path.stem
        facts = self._handle().facts()
        self.size, self.mpp = facts.l0_size, facts.mpp
        rows = zip(facts.level_sizes, facts.level_downsamples, strict=True)
        self.levels = tuple(SlideLevel(size, downsample) for size, downsample in rows)

    def _open(self) -> Scan:
        try:
            from wsi_ml.slides.scan import Scan  # only who opens a vendor file needs OpenSlide
        except ImportError as error:
            raise IngestError(f"“{self.name}” cannot be read: {error}; install openslide-bin.") from error
        return Scan(self.path)

    def region(self, level: int, region: Region) -> np.ndarray:
        """RGB uint8 of a region of one vendor level; raises OutsideError, and IngestError where it is damaged."""
        self._check(level, region)
        scan: Scan = self._handle()
        return scan.read(level, region)
