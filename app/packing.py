"""Packing of answers as the client takes them: zstd, gzip or neither."""

from __future__ import annotations

import gzip

import imagecodecs
from flask import Response, request

PACKED_BYTES = 16 << 10
"""Answers smaller than this are not worth packing."""


def chosen_packing() -> str | None:
    """`zstd` where the client names it and likes it no less than gzip, else `gzip` where it takes that, else None."""
    accepted = request.accept_encodings
    named = {name.lower() for name, _ in accepted}
    gzip_quality = accepted.quality("gzip")
    if "zstd" in named and accepted.quality("zstd") >= max(gzip_quality, 0.001):
        return "zstd"
    return "gzip" if gzip_quality > 0 else None


def set_packed(response: Response, body: bytes, packing: str | None) -> None:
    """Set the body of an answer, packed when it is large enough to gain by it."""
    if packing is not None and len(body) >= PACKED_BYTES:
        zstd = packing == "zstd"
        body = bytes(imagecodecs.zstd_encode(body, level=3)) if zstd else gzip.compress(body, 1, mtime=0)
        response.headers["Content-Encoding"] = packing
    response.set_data(body)
