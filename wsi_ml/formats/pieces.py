"""Cut a JSON document into its items (features, annotations …): each is parsed alone, strictly, and memory stays flat.

A parsed document needs about nine times its bytes; the bytes themselves and one feature at a time need one. Brackets
are found in numpy, a block at a time; orjson then parses each piece, and with it refuses NaN, Infinity, 1e999 and lone
surrogates. What orjson lets pass (the last of two equal keys wins) is refused here.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections import Counter
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
_LIST_KEY = re.compile(rb'"(features|annotations|objects|positive|negative)"\s*:\s*$')
_NUMBERS = {"coordinates", "vertices", "points", "segmentation"}
_SPACE = b" \t\r\n"

Span = tuple[int, int]
Bracket = tuple[int, int]


@dataclass(frozen=True)
class Pieces:
    """A document cut up: `frame` is it with its lists of items emptied, `lists` the byte ranges of each list's items.

    The name of a list is its key, or "" where the document is itself a list.
    """

    text: bytes
    frame: bytes
    lists: dict[str, list[Span]]

    def items(self, name: str, what: str = "Feature") -> Iterator[Any]:
        """Each item of a list parsed, in order; raises AnnotationFileError that names the item."""
        for index, (start, end) in enumerate(self.lists.get(name, ())):
            yield parse(self.text[start:end], f"{what} {index} (counted from 0)")


def cut(text: bytes) -> Pieces:
    """Cut a document at the list that it is, or at the lists under the keys where formats keep their items.

    Where there are `features`, only they are cut. A document without such a list is a frame alone. Raises
    AnnotationFileError for brackets that do not match, nesting deeper than `DEPTH_LIMIT`, or anything between two items
    but a comma.
    """
    bare = text.lstrip(_SPACE)[:1] == b"["
    depth = 1 if bare else 2
    opened, closed = _brackets(text, depth)
    starts = [at for at, level in opened if level == depth + 1]
    ends = [at + 1 for at, level in closed if level == depth]
    closings = [at for at, level in closed if level == depth - 1]
    lists: dict[str, list[Span]] = {}
    kept: list[tuple[str, Span]] = []
    for at, level in opened:
        if level != depth or text[at] != ord("["):
            continue
        key = None if bare else _LIST_KEY.search(text, max(0, at - 80), at)
        if not bare and key is None:
            continue
        name = "" if key is None else key[1].decode()
        close = closings[bisect(closings, at)]
        spans = list(zip(starts[bisect(starts, at) : bisect(starts, close)],
                         ends[bisect(ends, at) : bisect(ends, close)], strict=True))  # fmt: skip
        if spans or not text[at + 1 : close].strip(_SPACE):
            _check_between(text, name, (at, close), spans)
            lists[name] = spans
            kept.append((name, (at + 1, close)))
    if "features" in lists:
        lists = {"features": lists["features"]}
    return Pieces(text, _without(text, [span for name, span in kept if name in lists]), lists)


def _without(text: bytes, spans: list[Span]) -> bytes:
    """The text less some ranges, given in order."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return b"".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


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


def _brackets(text: bytes, list_depth: int) -> tuple[list[Bracket], list[Bracket]]:
    """(position, depth after it) of the opening and of the closing brackets near the list of items."""
    opened: list[Bracket] = []
    closed: list[Bracket] = []
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
                raise AnnotationFileError(
                    f"The file nests brackets deeper than {DEPTH_LIMIT}; no annotation file does."
                )
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


def _check_between(text: bytes, name: str, inside: Span, spans: list[Span]) -> None:
    edges = [(inside[0], inside[0] + 1), *spans, (inside[1], inside[1] + 1)]
    for index, ((_, end), (start, _)) in enumerate(pairwise(edges)):
        wanted = b"," if 0 < index < len(spans) else b""
        if text[end:start].strip(_SPACE) != wanted:
            found = text[end:start].strip(_SPACE)[:20].decode("utf-8", "replace")
            what = f"The list “{name}”" if name else "The file’s list"
            raise AnnotationFileError(f"{what} is not valid JSON before item {index}: “{found}”.")


def _key_count(value: Any) -> int:
    if isinstance(value, dict):
        # Coordinates hold no keys; where they do, the count differs and the slow check decides.
        return len(value) + sum(_key_count(inner) for key, inner in value.items() if key not in _NUMBERS)
    if isinstance(value, list):
        return sum(map(_key_count, value))
    return 0


def _unique(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise AnnotationFileError(f"{what} has the key “{twice}” twice; keep one of them.")
    return found
