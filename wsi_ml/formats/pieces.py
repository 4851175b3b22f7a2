"""Cut a JSON document into its features, so that each is parsed alone, strictly, and memory stays flat.

A parsed document needs about nine times its bytes; the bytes themselves and one feature at a time need one. Brackets
are found in numpy, a block at a time; orjson then parses each piece, and with it refuses NaN, Infinity, 1e999 and lone
surrogates. What orjson lets pass (the last of two equal keys wins) is refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from wsi_ml.errors import AnnotationFileError

BLOCK_BYTES = 4 << 20
DEPTH_LIMIT = 64
"""Deepest nesting of a whole document; QuPath's own files stay below 12."""
FEATURE_LIMIT = 2_000_000
PIECE_LIMIT = 32 << 20
"""Bytes of one feature, about 1.5 million corners."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"(\s*+:)?', re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_FEATURES_KEY = re.compile(rb'"features"\s*:\s*$')
_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class Pieces:
    """A document cut up: `frame` is it with the list of features emptied, `spans` the byte ranges of the features."""

    text: bytes
    frame: bytes
    spans: list[tuple[int, int]]

    def features(self) -> Iterator[Any]:
        """Each feature parsed, in order; raises AnnotationFileError that names the feature."""
        for index, (start, end) in enumerate(self.spans):
            yield parse(self.text[start:end], f"Feature {index} (counted from 0)")


def cut(text: bytes) -> Pieces:
    """Cut a FeatureCollection or a bare array of features; any other document becomes a frame without spans.

    Raises AnnotationFileError for brackets that do not match, nesting deeper than `DEPTH_LIMIT`, or anything between
    two features but a comma.
    """
    list_depth = 1 if text.lstrip(_SPACE)[:1] == b"[" else 2
    opened, closed = _brackets(text, list_depth)
    list_opens = [at for at, depth in opened if depth == list_depth and text[at] == ord("[")]
    if list_depth == 2:
        list_opens = [at for at in list_opens if _FEATURES_KEY.search(text, max(0, at - 80), at)]
    if not list_opens:
        return Pieces(text, text, [])
    list_open = list_opens[0]
    list_close = next((at for at, depth in closed if at > list_open and depth == list_depth - 1), len(text))
    starts = [at for at, depth in opened if depth == list_depth + 1 and list_open < at < list_close]
    ends = [at + 1 for at, depth in closed if depth == list_depth and list_open < at < list_close]
    spans = list(zip(starts, ends, strict=True))
    _check_between(text, list_open, list_close, spans)
    return Pieces(text, text[: list_open + 1] + text[list_close:], spans)


def parse(text: bytes, what: str) -> Any:
    """One JSON value; raises AnnotationFileError (beginning with `what`) where it is not strict JSON, or too long."""
    if len(text) > PIECE_LIMIT:
        raise AnnotationFileError(f"{what} is longer than {PIECE_LIMIT >> 20} MiB; simplify its outline or split it.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise AnnotationFileError(f"{what} is not valid JSON: {error}.") from None
    if _key_count(value) != sum(1 for match in _STRING.finditer(text) if match[1]):
        json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, what))
    return value


def _brackets(text: bytes, list_depth: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(position, depth after it) of the opening and of the closing brackets near the list of features."""
    opened: list[tuple[int, int]] = []
    closed: list[tuple[int, int]] = []
    inside, depth = 0, 0
    for start, block in _blocks(text):
        data = np.frombuffer(block, np.uint8)
        in_string = (np.cumsum(data == ord('"'), dtype=np.int64) + inside) & 1
        kind = data | 0x20  # [ and { become {, ] and } become }
        at = np.flatnonzero(((kind == ord("{")) | (kind == ord("}"))) & (in_string == 0))
        steps = np.where(kind[at] == ord("{"), 1, -1)
        depths = depth + np.cumsum(steps)
        if len(depths):
            if depths.max() > DEPTH_LIMIT:
                raise AnnotationFileError(f"The file nests brackets deeper than {DEPTH_LIMIT}: it is not GeoJSON.")
            depth = int(depths[-1])
        inside = int(in_string[-1])
        for found, chosen in (
            (opened, (steps > 0) & ((depths == list_depth) | (depths == list_depth + 1))),
            (closed, (steps < 0) & ((depths == list_depth) | (depths == list_depth - 1))),
        ):
            if len(found) + np.count_nonzero(chosen) > 2 * FEATURE_LIMIT:
                raise AnnotationFileError(f"The file holds more than {FEATURE_LIMIT:,} items; split it.")
            found += zip((start + at[chosen]).tolist(), depths[chosen].tolist(), strict=True)
    if depth != 0 or inside:
        raise AnnotationFileError("The file is not valid JSON: its brackets or quotes do not match (is it cut short?).")
    return opened, closed


def _blocks(text: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, block) with escapes blanked out; no block ends inside an escape."""
    start = 0
    while start < len(text):
        end = min(start + BLOCK_BYTES, len(text))
        while end < len(text) and text[end - 1] == ord("\\"):
            end += 1
        block = text[start:end]
        yield start, _ESCAPE.sub(b"__", block) if b"\\" in block else block
        start = end


def _check_between(text: bytes, list_open: int, list_close: int, spans: list[tuple[int, int]]) -> None:
    edges = [(list_open, list_open + 1), *spans, (list_close, list_close + 1)]
    for index, ((_, end), (start, _)) in enumerate(pairwise(edges)):
        wanted = b"," if 0 < index < len(spans) else b""
        if text[end:start].strip(_SPACE) != wanted:
            found = text[end:start].strip(_SPACE)[:20].decode("utf-8", "replace")
            raise AnnotationFileError(f"The list of features is not valid JSON before feature {index}: “{found}”.")


def _key_count(value: Any) -> int:
    if isinstance(value, dict):
        # Coordinates hold no keys; where they do, the count differs and the slow check decides.
        return len(value) + sum(_key_count(inner) for key, inner in value.items() if key != "coordinates")
    if isinstance(value, list):
        return sum(map(_key_count, value))
    return 0


def _unique(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise AnnotationFileError(f"{what} has the key “{twice}” twice; keep one of them.")
    return found
