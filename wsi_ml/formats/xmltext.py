"""XML read as a stream by defusedxml: no DTD, no entities, nothing fetched, bounded depth and length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import quoteattr

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.pieces import FEATURE_LIMIT
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer

DEPTH_LIMIT = 32
"""Deepest nesting; ASAP's files have 5, ImageScope's 7."""
CHUNK = 1 << 20
"""Bytes handed to the parser at once, and the longest stretch without an element. expat looks at an unfinished tag,
comment or text again from its start with every chunk, so its cost would grow with the square of the length."""
ELEMENT_LIMIT = 10_000_000
"""Elements of one file; 256 MiB of coordinates are at most half as many."""
POINT_LIMIT = 1_500_000
"""Points of one outline."""
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")


class Elements:
    """Receives the elements of a document in order; a subclass handles those it knows in `element` and `leave`."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Called by the parser for an opening tag."""
        self.path.append(tag)
        self.count += 1
        if len(self.path) > DEPTH_LIMIT:
            raise AnnotationFileError(f"The file nests elements deeper than {DEPTH_LIMIT}; no format does.")
        self.element(tag, attributes)

    def end(self, tag: str) -> None:
        """Called by the parser for a closing tag."""
        self.leave(tag)
        self.path.pop()
        self.count += 1

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins; `path` ends with it."""

    def leave(self, tag: str) -> None:
        """An element ends; `path` still ends with it."""


def walk(text: bytes, elements: Elements) -> Iterator[None]:
    """Hand a document to `elements`, pausing after each chunk so that the caller takes what has been gathered.

    Raises AnnotationFileError for anything that is not well-formed, and for a DTD, an entity or a long tag.
    """
    parser = DefusedXMLParser(target=object(), forbid_dtd=True)
    # Straight from expat: the layer of Python between, which makes trees, takes two thirds of the time. The handlers
    # that refuse are set on expat as well, and without a DTD expat itself refuses every entity but XML's own five.
    parser.parser.StartElementHandler, parser.parser.EndElementHandler = elements.start, elements.end
    parser.parser.ordered_attributes, parser.parser.DefaultHandlerExpand = False, None
    try:
        for start in range(0, len(text), CHUNK):
            count = elements.count
            parser.feed(text[start : start + CHUNK])
            if elements.count == count and start + CHUNK < len(text):
                raise AnnotationFileError(f"The XML has {CHUNK >> 20} MiB without an element. Shorten its texts.")
            if elements.count > 2 * ELEMENT_LIMIT:
                raise AnnotationFileError(f"The XML has more than {ELEMENT_LIMIT:,} elements; split the file.")
            yield
        parser.parser.Parse(b"", True)
    except DefusedXmlException:
        raise AnnotationFileError(
            "The XML declares a DTD or entities; no annotation file needs them. Remove them."
        ) from None
    except (ParseError, ExpatError) as error:
        raise AnnotationFileError(f"The file is not valid XML: {error}.") from None
    except (LookupError, ValueError) as error:  # an unknown encoding is a LookupError, a multi-byte one a ValueError
        raise AnnotationFileError(f"The XML cannot be read: {error}. Save it as UTF-8.") from None
    yield


def root_of(text: bytes) -> str:
    """Name of the root element; raises AnnotationFileError as `walk` does."""
    found = _Root()
    for _ in walk(text[:CHUNK], found):
        if found.name:
            return found.name
    return found.name


class _Root(Elements):
    name = ""

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        self.name = self.name or tag


def number_of(text: str | None, what: str, place: Place, repairer: Repairer) -> float:
    """A finite number; a decimal comma is a fault, since it could as well part thousands."""
    if text is not None and _NUMBER.fullmatch(text.strip()):
        value = float(text)
        if abs(value) != float("inf"):
            return value
    if text is not None and _COMMA.fullmatch(text.strip()):
        repairer.fault(
            place,
            f'{what}="{text}" has a comma, where XML has a point',
            f'Write {what}="{text.replace(",", ".")}" if the comma is a decimal one',
            "decimal comma read as a point",
        )
        return float(text.replace(",", "."))
    found = "is missing" if text is None else f'="{text[:40]}" is not a number'
    raise AnnotationFileError(f"{place}: {what}{' ' if text is None else ''}{found}. Correct it.")


class Points:
    """The points of one outline, gathered one by one."""

    def __init__(self, place: Place, repairer: Repairer) -> None:
        self.place, self._repairer = place, repairer
        self._values: list[float] = []

    def add(self, x: str | None, y: str | None) -> None:
        """One point from its attributes; raises AnnotationFileError for what is not a number, or too many."""
        if len(self._values) >= 2 * POINT_LIMIT:
            raise AnnotationFileError(
                f"{self.place}: it has more than {POINT_LIMIT:,} points; simplify it or split it."
            )
        place = self.place
        self._values += (number_of(x, "X", place, self._repairer), number_of(y, "Y", place, self._repairer))

    def array(self) -> np.ndarray:
        """All points, n × 2."""
        return np.array(self._values, np.float64).reshape(-1, 2)


def check_count(number: int) -> None:
    """Raise AnnotationFileError when a file holds more features than are taken."""
    if number > FEATURE_LIMIT:
        raise AnnotationFileError(f"The file holds more than {FEATURE_LIMIT:,} items; split it.")


def quoted(text: str, report: LossReport, number: int | None = None) -> str:
    """An attribute's value in quotes; characters that XML cannot hold become “�” and are noted as lost."""
    found = _NOT_XML.sub("\ufffd", text)
    if found != text:
        report.lose("character that XML cannot hold", number)
    return quoteattr(found, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
