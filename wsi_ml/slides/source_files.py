"""The file or files a slide is made of, and their hash."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsi_ml.errors import IngestError
from wsi_ml.slides.tiff_header import shown_name

CHUNK_BYTES = 1 << 22
DICOM_HEAD_BYTES = 1 << 16
SERIES_UID = b"\x20\x00\x0e\x00"
MIRAX_PART = re.compile(r"^(?:FILE_\d+|INDEXFILE)\s*=\s*(.+?)\s*$", re.MULTILINE)
VMS_PART = re.compile(r"^(?:ImageFile[^=]*|MapFile|OptimisationFile)=(.+?)\s*$", re.MULTILINE)


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


def check_file(path: Path) -> None:
    """Raise IngestError when there is no readable, non-empty regular file at `path` (a link to one is fine)."""
    name = shown_name(path)
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise IngestError(f"There is no file “{name}”.") from error
    except PermissionError as error:
        raise IngestError(f"“{name}” cannot be reached: permission denied on one of its folders.") from error
    if stat.S_ISDIR(facts.st_mode):
        raise IngestError(f"“{name}” is a folder; give the slide's file inside it.")
    if not stat.S_ISREG(facts.st_mode):
        raise IngestError(f"“{name}” is not a regular file.")
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise IngestError(f"“{name}” cannot be read: permission denied; give this user the right to read it.")
    if facts.st_size == 0:
        raise IngestError(f"“{name}” is empty (0 bytes); copy it again from the scanner.")


def source_files(path: Path, container: str) -> SourceFiles:
    """The files of the slide at `path` in its `container` (see header.sniff).

    DICOM: every file of the same series in the folder. MIRAX and VMS: the files their index names. Everything else is
    one file. Raises IngestError with the name of a part that is missing.
    """
    parts = {"dicom": _dicom_parts, "mirax": _mirax_parts, "vms": _vms_parts}.get(container, lambda path: [])(path)
    files = [path] if not parts else sorted({path, *parts}, key=lambda each: each.name)
    for each in files:
        if not each.is_file():
            raise IngestError(f"“{shown_name(path)}” is not whole: its part “{shown_name(each)}” is missing.")
    return SourceFiles(path, files, sum(each.stat().st_size for each in files))


def _dicom_parts(path: Path) -> list[Path]:
    series = dicom_series(path)
    if not series:
        return []
    return [each for each in path.parent.iterdir() if each.is_file() and dicom_series(each) == series]


def dicom_series(path: Path) -> bytes | None:
    """Series Instance UID of a DICOM file, None for any other file; found in its first 64 kB unparsed."""
    try:
        with path.open("rb") as file:
            head = file.read(DICOM_HEAD_BYTES)
    except OSError:
        return None
    at = head.find(SERIES_UID + b"UI", 132)
    if head[128:132] != b"DICM" or at < 0:
        return None
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length].rstrip(b"\0 ")


def _mirax_parts(path: Path) -> list[Path]:
    folder = path.parent / path.stem
    names = MIRAX_PART.findall((folder / "Slidedat.ini").read_text("utf-8-sig", "replace"))
    return [folder / "Slidedat.ini", *(folder / Path(name).name for name in names)]


def _vms_parts(path: Path) -> list[Path]:
    names = VMS_PART.findall(path.read_text("utf-8", "replace")[: 1 << 20])
    return [path.parent / Path(name).name for name in names]
