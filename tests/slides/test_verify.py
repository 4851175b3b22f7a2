"""Verification finds every changed bit of a stored version."""

from __future__ import annotations

import numpy as np
import pytest

from tests.slides.make_slides import picture, write_svs
from wsi_ml.errors import UnknownSlideError
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.library import Library
from wsi_ml.slides.verify import verify, version_of


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    slide = write_svs(folder / "slide.svs", picture(2100, 1300), label=picture(40, 30))
    ingest(slide, folder / "library")
    return Library(folder / "library")


@pytest.fixture
def folder(library):
    return library.version_folder(library.slides()[0].current)


def test_a_sound_library_has_no_faults(library):
    report = verify(library)
    assert (report.ok, report.faults, report.versions, report.tiles) == (True, [], 1, 6 + 2 + 1)
    assert report.bytes > 100_000
    assert verify(library, library.slides()[0].id).ok


def test_an_unknown_slide_is_named(library):
    with pytest.raises(UnknownSlideError):
        verify(library, "nosuchslide1")


def test_every_flipped_bit_is_found(library, folder):
    random = np.random.default_rng(3)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == [
        "SHA256SUMS", "card.json", "label.png", "pyramid.tif", "thumbnail.jpg", "thumbnail.png", "tiles.idx",
    ]  # fmt: skip
    for path in files:
        data = path.read_bytes()
        for spot in {0, len(data) - 1, *random.integers(0, len(data), 12).tolist()}:
            changed = bytearray(data)
            changed[spot] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            assert not verify(library).ok, f"byte {spot} of {path.name}"
        path.write_bytes(data)
    assert verify(library).ok


def test_a_changed_tile_is_named(library, folder):
    path = folder / "pyramid.tif"
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    faults = verify(library).faults
    path.write_bytes(data)
    assert any("pyramid.tif does not match its checksum" in fault for fault in faults)
    assert any("Stored tile 0_0 of level 0 does not match" in fault for fault in faults)


@pytest.mark.parametrize("name", ["card.json", "tiles.idx", "pyramid.tif", "thumbnail.jpg", "SHA256SUMS"])
def test_a_missing_file_is_found(library, folder, name):
    aside = folder.parent.parent / "aside"
    (folder / name).rename(aside)
    assert not verify(library).ok
    aside.rename(folder / name)
    assert verify(library).ok


def test_a_tile_consistently_replaced_shows_in_the_version(library):
    card = library.card(library.slides()[0].id)
    records, sizes = bytes(28 * 9), (card.stored_size, card.base_size)
    assert version_of(records, *sizes, card.stored_mpp, 512, card.source.sha256) != card.version
    versions = {version_of(records, *sizes, mpp, 512, source) for mpp in (0.51, 0.52) for source in ("aa", "bb")}
    assert len(versions) == 4
