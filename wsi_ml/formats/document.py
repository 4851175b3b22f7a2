"""An annotation file opened: JSON cut into its items, or XML with the name of its root; nothing is interpreted yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.pieces import Pieces, cut, parse
from wsi_ml.formats.xmltext import root_of

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_XML_STARTS = (b"<", b"\xff\xfe<", b"\xfe\xff\0<", b"<\0", b"\0<")


@dataclass(frozen=True)
class JsonDocument:
    """A JSON file: `frame` is it with its lists of items emptied, parsed; the items come from `pieces`."""

    pieces: Pieces
    frame: Any

    def items(self, name: str) -> Iterator[Any]:
        """Each item of the list under a key ("" for a file that is a list), parsed one at a time; none where it is not.

        Raises AnnotationFileError for a key that holds no list, and for an item that is not strict JSON.
        """
        kept = self.frame if isinstance(self.frame, list) else self.frame.get(name, [])
        if not isinstance(kept, list):
            raise AnnotationFileError(f"“{name}” of the file is not a list. Write [] where there is none.")
        yield from kept
        yield from self.pieces.items(name)


@dataclass(frozen=True)
class XmlDocument:
    """An XML file and the name of its root element."""

    text: bytes
    root: str


def open_document(text: bytes) -> JsonDocument | XmlDocument:
    """The document of a file's bytes; raises AnnotationFileError for what is neither strict JSON nor plain XML."""
    if text.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_XML_STARTS):
        return XmlDocument(text, root_of(text))
    if text.startswith(_UTF16) or b"\0" in text[:4]:
        raise AnnotationFileError("The annotation file is not UTF-8 text; save it as UTF-8.")
    pieces = cut(text.removeprefix(b"\xef\xbb\xbf"))
    return JsonDocument(pieces, parse(pieces.frame, "The file"))
