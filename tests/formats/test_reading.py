"""Which format a file is of, and what is refused whatever its format."""

import contextlib
import gzip
import io
import re
import tracemalloc
import zipfile

import orjson
import pytest

from tests.conftest import PROJECT_ROOT
from tests.formats.outlines import (
    SQUARE,
    annotation,
    asap,
    collection,
    feature,
    imagescope,
    layer,
    read,
    refused,
    region,
)
from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats import files, xmltext
from wsi_ml.formats.files import read_bytes
from wsi_ml.formats.reading import READERS, open_annotations
from wsi_ml.formats.writing import WRITERS

OPEN = SQUARE[:-1]
SAMPLES = {
    "GeoJSON (QuPath)": collection(feature([SQUARE])),
    "ASAP XML": asap(annotation(OPEN)),
    "Aperio ImageScope XML": imagescope(layer(region(OPEN))),
    "NCRF JSON": orjson.dumps({"negative": [{"vertices": OPEN}]}),
    "COCO JSON": orjson.dumps(
        {
            "annotations": [{"category_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]]}],
            "images": [{}],
            "categories": [{"id": 1, "name": "a"}],
        }
    ),
    "Darwin JSON": orjson.dumps({"annotations": [{"bounding_box": {"x": 1, "y": 1, "w": 1, "h": 1}}], "item": {}}),
    "PATH-DT-MSU JSON": orjson.dumps([{"vertices": SQUARE, "class": "AT"}]),
}


@pytest.mark.parametrize("title", SAMPLES)
def test_a_format_is_told_by_its_content(title, tmp_path):
    text = SAMPLES[title]
    assert open_annotations(text).reader.title == title
    assert open_annotations(b"\xef\xbb\xbf \n".rstrip(b"\n ") + text).reader.title == title
    found, report = read(text)
    assert len(found) == 1 and report.format == title
    liar = tmp_path / "slide.svs"
    liar.write_bytes(gzip.compress(text))
    assert read_bytes(liar) == text


def test_every_format_has_a_sample():
    assert [reader.title for reader in READERS] == list(SAMPLES)


def test_the_documents_name_every_format():
    text = (PROJECT_ROOT / "docs" / "formats.md").read_text("utf-8")
    table = text.split("\n\n")[2]
    assert all(f"`{name}`" in table for name in WRITERS)
    assert all(reader.title.split()[0].strip("()") in table for reader in READERS)
    assert table.count("| yes") == len(READERS)


@pytest.mark.parametrize(
    "text",
    [b"{}", b"null", b"1", b'"features"', b'{"annotations": []}', b'{"images": []}', b"[1]", b'[{"a": 1}]', b"<svg/>"],
)
def test_what_is_not_known_is_refused_with_a_list_of_what_is(text):
    sentence = refused(text)
    assert "no known annotation format" in sentence
    assert all(reader.title in sentence for reader in READERS)


def test_an_empty_array_is_geojson_without_features():
    assert read(b"[]")[0] == []


DOCTYPES = [
    '<!DOCTYPE a [<!ENTITY x "y">]>',
    '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]>',
    '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd">',
    '<!DOCTYPE a PUBLIC "x" "file:///etc/passwd">',
    "<!DOCTYPE a>",
    '<!DOCTYPE a [<!NOTATION n SYSTEM "x"><!ENTITY x SYSTEM "y" NDATA n>]>',
]


@pytest.mark.parametrize("doctype", DOCTYPES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_documents_that_declare_anything_are_refused(doctype, encoding):
    body = SAMPLES["ASAP XML"].decode().split("\n", 1)[1]
    assert "declares a DTD or entities" in refused((doctype + body).encode(encoding))


def test_a_thousand_million_laughs_are_not_heard():
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<!DOCTYPE a [<!ENTITY l0 "lol">{entities}]><ASAP_Annotations>&l9;</ASAP_Annotations>'
    tracemalloc.start()
    assert "declares a DTD or entities" in refused(text.encode())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"<ASAP_Annotations>&nbsp;</ASAP_Annotations>", "undefined entity"),
        (b"<ASAP_Annotations><a></ASAP_Annotations>", "mismatched tag"),
        (b"<ASAP_Annotations>", "no element found"),
        (b"<ASAP_Annotations/><ASAP_Annotations/>", "junk after"),
        (b"<ASAP_Annotations>\0</ASAP_Annotations>", "not well-formed"),
        (b"<ASAP_Annotations>\xff</ASAP_Annotations>", "not well-formed"),
        (b'<ASAP_Annotations a="1" a="2"/>', "duplicate attribute"),
        (b'<?xml version="1.0" encoding="utf-7"?><ASAP_Annotations/>', "Save it as UTF-8"),
        (b'<?xml version="1.0" encoding="nonsense"?><ASAP_Annotations/>', "UTF-8|unknown encoding"),
        (b"<ASAP_Annotations>" + b"<a>" * 40, "deeper than 32"),
        (b'<ASAP_Annotations xmlns="urn:x"/>', "no known annotation format"),
        (b"<a:ASAP_Annotations/>", "unbound prefix"),
    ],
)
def test_broken_xml_is_refused(text, words):
    with pytest.raises(AnnotationFileError, match=words):
        read(text)


@pytest.mark.parametrize("filler", [b"<!--%s-->", b"<![CDATA[%s]]>", b'<a b="%s"/>', b"%s", b"<?x %s?>"])
def test_a_long_stretch_without_an_element_is_refused(filler, monkeypatch):
    monkeypatch.setattr(xmltext, "CHUNK", 1000)
    text = SAMPLES["ASAP XML"].replace(b"</Annotations>", filler % (b" " * 3000) + b"</Annotations>")
    assert "without an element" in refused(text)


def test_chunks_never_change_what_is_read(monkeypatch):
    text = asap(*[annotation([(n, 0), (n + 1, 0), (n, 1)], Name=f"é {n}") for n in range(40)])
    whole, _ = read(text)
    for size in (3, 64, 200):
        monkeypatch.setattr(xmltext, "CHUNK", max(size, 130))
        found, _ = read(text)
        assert [(each.name, each.geometry.wkb) for each in found] == [(each.name, each.geometry.wkb) for each in whole]


def test_xinclude_is_an_element_like_any_other():
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>'
    _, report = read(asap(annotation(OPEN), groups=include))
    assert any("include" in what for what in report.losses)


def test_limits_of_count_and_length(monkeypatch):
    monkeypatch.setattr(xmltext, "FEATURE_LIMIT", 2)
    assert "more than 2 items" in refused(asap(*[annotation(OPEN)] * 4))
    assert "more than 2 items" in refused(imagescope(layer(*[region(OPEN)] * 4)))
    monkeypatch.setattr(xmltext, "ELEMENT_LIMIT", 2)
    assert "more than 2 elements" in refused(asap())
    monkeypatch.setattr(xmltext, "ELEMENT_LIMIT", 1000)
    monkeypatch.setattr(xmltext, "POINT_LIMIT", 3)
    assert "Feature 0 (counted from 0): it has more than 3 points" in refused(asap(annotation(OPEN)))


def test_an_id_used_twice_is_refused_in_every_format():
    box = {"bounding_box": {"x": 1, "y": 1, "w": 1, "h": 1}, "id": "C5badd12-d986-4fd7-8926-74d209f672c3"}
    twice = orjson.dumps({"annotations": [box, {**box, "id": box["id"].lower()}], "item": {}})
    assert refused(twice).startswith("Feature 1 (counted from 0): its id c5badd12")


ODD = [None, True, -1, 1e300, 2**63, "", "NaN", [], {}, [[]], [{}], {"x": 1}, "a" * 300, "\0", [[1, 2], [3, "4"]]]


def positions(value, path=()):
    """The path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from positions(inner, (*path, key))


@pytest.mark.parametrize("title", [title for title, text in SAMPLES.items() if text[:1] in b"[{"])
def test_a_value_of_the_wrong_kind_anywhere_is_refused_or_counted(title):
    sample = orjson.loads(SAMPLES[title])
    answers = set()
    for path in positions(sample):
        for odd in ODD:
            for repair in (False, True):
                value = orjson.loads(SAMPLES[title])
                holder = value
                for key in path[:-1]:
                    holder = holder[key]
                holder[path[-1]] = odd
                try:
                    found, _ = read(orjson.dumps(value), repair)
                except AnnotationFileError:
                    answers.add("refused")
                else:
                    answers.add("read")
                    assert all(each.geometry.is_valid and each.geometry.area > 0 for each in found)
    assert answers == {"refused", "read"}


@pytest.mark.parametrize("title", ["ASAP XML", "Aperio ImageScope XML"])
def test_xml_with_anything_missing_or_odd_is_refused_or_counted(title):
    text = SAMPLES[title].decode()
    values = list(re.finditer(r'(\w+)="([^"]*)"', text))
    answers = set()
    for found in values:
        for odd in (
            "",
            f'{found[1]}=""',
            *(f'{found[1]}="{value}"' for value in ("-1", "NaN", "1e300", "9" * 400, "é;&lt;")),
        ):
            changed = (text[: found.start()] + odd + text[found.end() :]).encode()
            for repair in (False, True):
                try:
                    read(changed, repair)
                except AnnotationFileError:
                    answers.add("refused")
                else:
                    answers.add("read")
    for tag in re.finditer(r"<(?!\?)[^>]*>", text):
        with contextlib.suppress(AnnotationFileError):
            read((text[: tag.start()] + text[tag.end() :]).encode())
        with contextlib.suppress(AnnotationFileError):
            read((text[: tag.end()] + tag[0] + text[tag.end() :]).encode())
    assert answers == {"refused", "read"}


def zipped(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def test_the_one_annotation_file_in_a_zip_is_read(tmp_path):
    path = tmp_path / "x.zip"
    text = SAMPLES["GeoJSON (QuPath)"]
    path.write_bytes(zipped(**{"slide.geojson": text, "__MACOSX/._slide.geojson": b"x", "read.me": b"x"}))
    assert read_bytes(path) == text
    for members, words in (
        ({"read.me": b"x"}, "holds 0 annotation files"),
        ({"a.json": text, "b.geojson": text}, "holds 2 annotation files"),
        ({f"{n}.txt": b"" for n in range(20_000)}, "holds too many files"),
    ):
        path.write_bytes(zipped(**members))
        with pytest.raises(AnnotationFileError, match=words):
            read_bytes(path)
    whole = zipped(**{"a.json": text * 20})
    for broken in (whole[:-30], whole[:60] + bytes(20) + whole[80:], b"PK\x03\x04"):
        path.write_bytes(broken)
        with pytest.raises(AnnotationFileError, match="damaged, cut short"):
            read_bytes(path)


def test_a_bomb_in_a_zip_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BYTE_LIMIT", 1 << 20)
    path = tmp_path / "bomb.zip"
    path.write_bytes(zipped(**{"a.json": b" " * (8 << 20)}))
    with pytest.raises(AnnotationFileError, match="larger than 1 MiB"):
        read_bytes(path)
