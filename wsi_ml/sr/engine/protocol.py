"""What clients and the engine say to each other: frames over a Unix socket.

A frame is two u32 (little-endian: header length, body length), a JSON header and a body. One connection carries any
number of requests at a time; `id` is chosen by the client and ties answer to request.

    client → engine   {"op": "tile", "id", "deadline_s", …TileKey}   {"op": "again", …TileKey}
                      {"op": "cancel", "id"}                         {"op": "stats", "id"}
    engine → client   {"id", "source", "fallback"} + tile bytes      {"id", "stats"}          {"id", "error", "message"}

A closed connection cancels its requests. Requests name tiles and models, never files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

from wsi_ml import errors
from wsi_ml.errors import BadRequestError, EngineUnavailableError, OcularError, QueueFullError
from wsi_ml.slides.codec import MEDIA_TYPES
from wsi_ml.slides.library import RUN_FOLDER
from wsi_ml.sr.synthesis import TileKey

LENGTHS = struct.Struct("<II")
HEADER_LIMIT = 64 << 10
BODY_LIMIT = 64 << 20
SOCKET_FILE = "engine.sock"
LOCK_FILE = "engine.lock"
SOCKET_PATH_LIMIT = 100
"""Longest socket path in bytes: the kernel's field has 108 on Linux and 104 elsewhere, the closing zero included."""

VERSION = re.compile(r"[0-9a-f]{16}", re.ASCII)
UPSCALER = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
QUALITIES = range(1, 101)


def socket_path(library_root: Path) -> Path:
    """Where the engine of a library listens.

    `LIBRARY/run/engine.sock`, or, where that is too long for a socket address, a path made of the library's hash in a
    folder of this user's own in the system's temporary folder.
    """
    path = Path(library_root).resolve() / RUN_FOLDER / SOCKET_FILE
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"ocular-{os.getuid()}" / f"{name}.sock"


def make_socket_folder(path: Path) -> None:
    """Make the socket's folder, closed to other users; raises EngineUnavailableError when it is somebody else's."""
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or folder.is_symlink():
        raise EngineUnavailableError("The folder for the engine's socket belongs to another user.")


def frame(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return LENGTHS.pack(len(encoded), len(body)) + encoded + body


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next frame; raises EngineUnavailableError when the other side is gone or talks nonsense."""
    try:
        header_length, body_length = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
        if header_length > HEADER_LIMIT or body_length > BODY_LIMIT:
            raise EngineUnavailableError("The engine connection carried an oversized frame.")
        header = json.loads(await reader.readexactly(header_length))
        body = await reader.readexactly(body_length) if body_length else b""
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise EngineUnavailableError("The engine connection was lost.") from error
    if not isinstance(header, dict):
        raise EngineUnavailableError("The engine connection carried no message.")
    return header, body


def key_fields(key: TileKey) -> dict[str, Any]:
    """A key as JSON values (`dataclasses.asdict` would cost ten times as much)."""
    return dict(vars(key))


def parse_key(header: dict[str, Any]) -> TileKey:
    """Key of a tile request; raises BadRequestError for anything outside the closed forms."""
    fits = (
        _matches(VERSION, header.get("version"))
        and _matches(UPSCALER, header.get("upscaler"))
        and _matches(SHA256, header.get("sha256"))
        and isinstance(header.get("extension"), str)
        and header["extension"] in MEDIA_TYPES
        and all(type(header.get(name)) is int and 0 <= header[name] < 1 << 31 for name in ("t_col", "t_row"))
        and type(header.get("quality")) is int
        and header["quality"] in QUALITIES
    )
    if not fits:
        raise BadRequestError("The engine was asked for something that is no tile.")
    return TileKey(**{name: header[name] for name in TileKey.__dataclass_fields__})


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def error_fields(error: OcularError) -> dict[str, Any]:
    """A named error as JSON values."""
    fields: dict[str, Any] = {"error": error.code, "message": str(error)}
    if isinstance(error, QueueFullError):
        fields["retry_after_s"] = error.retry_after_s
    return fields


def error_of(header: dict[str, Any]) -> OcularError:
    """The named error that a message carries; an unknown code becomes EngineUnavailableError."""
    message = str(header.get("message", ""))
    if header["error"] == QueueFullError.code:
        return QueueFullError(message, int(header.get("retry_after_s", 1)))
    return ERRORS.get(header["error"], EngineUnavailableError)(message)


ERRORS: dict[str, type[OcularError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OcularError)
}
