"""The bytes of an annotation file: plain, packed with gzip, or the one annotation file in a zip as QuPath writes it."""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from wsi_ml.errors import AnnotationFileError

BYTE_LIMIT = 256 << 20
"""Bytes of one annotation file, unpacked."""
DIRECTORY_LIMIT = 1 << 20
"""Bytes of a zip's directory; Python keeps about ten times as much of it in memory."""
_END = b"PK\x05\x06"
_END_BYTES = 22
_COMMENT_LIMIT = 0xFFFF
_ZIPPED = (".geojson", ".json", ".xml")


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked when it is gzip or zip.

    Raises AnnotationFileError over `BYTE_LIMIT` or when it is unreadable.
    """
    try:
        with path.open("rb") as file:
            text = _unpacked(file, file.read(4))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        # zipfile raises RuntimeError for an encrypted member, NotImplementedError for an unknown packing.
        reason = getattr(error, "strerror", None) or "it is damaged, cut short or encrypted"
        raise AnnotationFileError(f"The annotation file “{path.name}” cannot be read: {reason}.") from None
    if len(text) > BYTE_LIMIT:
        raise AnnotationFileError(f"The annotation file is larger than {BYTE_LIMIT >> 20} MiB; split it into several.")
    return text


def _unpacked(file: IO[bytes], start: bytes) -> bytes:
    file.seek(0)
    if start[:2] == b"\x1f\x8b":
        with gzip.open(file) as unpacked:
            return unpacked.read(BYTE_LIMIT + 1)
    if start == b"PK\x03\x04":
        _check_directory(file)
        with zipfile.ZipFile(file) as archive, archive.open(_member(archive)) as unpacked:
            return unpacked.read(BYTE_LIMIT + 1)
    return file.read(BYTE_LIMIT + 1)


def _check_directory(file: IO[bytes]) -> None:
    """Refuse an archive whose directory is beyond `DIRECTORY_LIMIT`, before zipfile reads it whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _COMMENT_LIMIT))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise zipfile.BadZipFile
    if struct.unpack_from("<I", tail, at + 12)[0] > DIRECTORY_LIMIT or b"PK\x06\x07" in tail[max(0, at - 20) : at]:
        raise AnnotationFileError("The zip holds too many files; zip exactly one annotation file.")
    file.seek(0)


def _member(archive: zipfile.ZipFile) -> str:
    """Name of the one annotation file in an archive; it is only read, never written anywhere."""
    names = [
        name for name in archive.namelist() if PurePosixPath(name).suffix.lower() in _ZIPPED and "__MACOSX" not in name
    ]
    if len(names) != 1:
        raise AnnotationFileError(
            f"The zip holds {len(names)} annotation files (.geojson, .json, .xml); zip exactly one."
        )
    return names[0]
