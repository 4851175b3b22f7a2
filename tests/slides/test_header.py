"""Vetting of headers: lies, loops and bombs never reach OpenSlide."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from tests.slides.make_slides import patch_tag, picture, write_generic, write_svs
from wsi_ml.errors import IngestError
from wsi_ml.slides.header import HeaderLimits, sniff, vet

LIARS = {
    "html": (b"<!DOCTYPE html><html></html>", "a web page"),
    "spaced html": (b"\n\n  <html>", "a web page"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "a PNG"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(64), "a JPEG"),
    "pdf": (b"%PDF-1.7", "a PDF"),
    "zip": (b"PK\x03\x04" + bytes(64), "a ZIP"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "a gzip"),
    "exe": (b"MZ" + bytes(64), "a Windows program"),
    "elf": (b"\x7fELF" + bytes(64), "a Linux program"),
    "jp2": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000"),
    "script": (b"#!/bin/sh\n", "a script"),
    "noise": (b"IJrE" + bytes(64), "in no format"),
    "one byte": (b"I", "in no format"),
}


@pytest.fixture
def slide(tmp_path):
    return write_svs(tmp_path / "slide.svs", picture(600, 500), levels=2)


def tiff(*directories: bytes, link: int = 8) -> bytes:
    return struct.pack("<2sHI", b"II", 42, link) + b"".join(directories)


def directory(tags: dict[int, int], following: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


@pytest.mark.parametrize("name", LIARS)
def test_other_files_are_named_for_what_they_are(tmp_path, name):
    path = tmp_path / "liar.svs"
    path.write_bytes(LIARS[name][0])
    with pytest.raises(IngestError, match=rf"“liar\.svs” is not a whole-slide image: it is {LIARS[name][1]}"):
        vet(path)


def test_containers_are_told_by_content(tmp_path, slide):
    assert sniff(slide.rename(tmp_path / "slide.txt")) == "tiff"
    for name, data, container in (
        ("a", bytes(128) + b"DICM" + bytes(9), "dicom"),
        ("b", b"[Virtual Microscope Specimen]\n", "vms"),
        ("c", b"ZISRAWFILE" + bytes(9), "czi"),
        ("d", b"SQLite format 3\0", "sakura"),
        ("e.mrxs", b"\xff\xd8\xff\xe0", "mirax"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        if container == "mirax":
            (tmp_path / "e").mkdir()
            (tmp_path / "e" / "Slidedat.ini").write_text("[GENERAL]\n")
        assert vet(path) == container


def test_honest_slides_pass(tmp_path, slide):
    assert vet(slide) == "tiff"
    assert vet(write_generic(tmp_path / "g.tif", picture(1, 700), tile=16)) == "tiff"


@pytest.mark.parametrize("side", [1 << 30, 1 << 20, 65536, 16384, 4112, 17, 8, 0])
def test_tile_sides_out_of_bounds_are_refused(slide, side):
    patch_tag(slide, 322, side)
    with pytest.raises(IngestError, match=f"tiles of {side} × 256 px"):
        vet(slide)


@pytest.mark.parametrize("side", [300_001, 1 << 31, (1 << 32) - 1])
def test_sizes_out_of_bounds_are_refused(slide, side):
    patch_tag(slide, 256, side)
    with pytest.raises(IngestError, match=f"claims {side} × 500 px"):
        vet(slide)


def test_too_many_pixels_and_none_at_all_are_refused(slide):
    with pytest.raises(IngestError, match="gigapixels allowed"):
        vet(slide, HeaderLimits(pixels=100))
    patch_tag(slide, 257, 0)
    with pytest.raises(IngestError, match="has no pixels"):
        vet(slide)


def test_loops_are_refused(tmp_path):
    path = tmp_path / "loop.tif"
    size = {256: 10, 257: 10}
    one = directory(size, 8 + 30)
    path.write_bytes(tiff(one, directory(size, 8)))
    assert len(one) == 30
    with pytest.raises(IngestError, match="form a loop"):
        vet(path)


def test_too_many_directories_are_refused(tmp_path):
    path = tmp_path / "many.tif"
    size = {256: 10, 257: 10}
    path.write_bytes(tiff(*(directory(size, 8 + 30 * (i + 1)) for i in range(2000)), directory(size, 0)))
    with pytest.raises(IngestError, match="more than 256 directories"):
        vet(path)


def test_offsets_beyond_the_end_are_refused(tmp_path):
    path = tmp_path / "far.tif"
    path.write_bytes(tiff(link=1 << 31))
    with pytest.raises(IngestError, match="beyond its end"):
        vet(path)


def test_a_truncated_slide_names_the_first_missing_tile(slide):
    data = slide.read_bytes()
    patch_tag(slide, 324, len(data) - 100)
    with pytest.raises(IngestError, match=r"“slide\.svs” is truncated: tile column 0, row 0 of image 0"):
        vet(slide)


def test_every_cut_is_refused_or_harmless(tmp_path, slide):
    data = slide.read_bytes()
    path = tmp_path / "cut.svs"
    for cut in np.linspace(1, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:cut])
        with pytest.raises(IngestError):
            vet(path)


def test_flipped_headers_give_no_other_error(tmp_path, slide):
    data, random = slide.read_bytes(), np.random.default_rng(1)
    path = tmp_path / "flipped.svs"
    table = struct.unpack_from("<I", data, 4)[0]
    spots = [*range(4, 8), *range(table, table + 200)]
    refused = 0
    for spot in spots:
        changed = bytearray(data)
        changed[spot] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            vet(path)
        except IngestError:
            refused += 1
    assert 20 < refused < len(spots)


def test_huge_claims_cost_no_memory(tmp_path):
    path = tmp_path / "claims.tif"
    entries = {256: (4, 1, 200_000), 257: (4, 1, 200_000), 322: (4, 1, 256), 323: (4, 1, 256)}
    entries |= {324: (16, 3_000_000, 4096), 325: (16, 3_000_000, 4096)}
    table = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(entries.items()))
    path.write_bytes(tiff(struct.pack("<H", len(entries)) + table + bytes(4)))
    with path.open("r+b") as file:
        file.truncate(4096 + 24_000_000)
    tracemalloc.start()
    assert vet(path) == "tiff"
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
