"""The file or files a slide is made of, and their hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsi_ml.errors import IngestError

CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class SourceFiles:
    """A slide on disk: the file the user named, and all files that belong to it in name order."""

    path: Path
    files: list[Path]
    bytes: int

    def sha256(self, advance: Callable[[int, int], None]) -> str:
        """SHA-256 over the files one after the other, hex; `advance(done, total)` counts bytes."""
        digest, done = hashlib.sha256(), 0
        for path in self.files:
            with path.open("rb", buffering=0) as file:
                while data := file.read(CHUNK_BYTES):
                    digest.update(data)
                    done += len(data)
                    advance(done, self.bytes)
        return digest.hexdigest()


def source_files(path: Path) -> SourceFiles:
    """The files of the slide at `path`; raises IngestError when there is no readable, non-empty file there."""
    if not path.exists():
        raise IngestError(f"There is no file “{path.name}”.")
    if path.is_dir():
        raise IngestError(f"“{path.name}” is a folder; give the slide's file inside it.")
    if not path.is_file():
        raise IngestError(f"“{path.name}” is not a regular file.")
    if not os.access(path, os.R_OK):
        raise IngestError(f"“{path.name}” cannot be read: permission denied; give this user the right to read it.")
    if path.stat().st_size == 0:
        raise IngestError(f"“{path.name}” is empty (0 bytes); copy it again from the scanner.")
    files = [path]
    return SourceFiles(path, files, sum(each.stat().st_size for each in files))
