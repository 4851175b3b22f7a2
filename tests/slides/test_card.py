"""Cards: this format, the one before it, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.versions import add_slide
from wsi_ml.errors import LibraryError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.card import CARD_FILE, CARD_FORMAT, card_from_json
from wsi_ml.slides.library import Library


@pytest.fixture
def facts(tmp_path):
    library = Library.create(tmp_path / "library")
    slide_id, _, _ = add_slide(library, "a", Size(700, 600))
    return library.card(slide_id).to_json()


def test_a_card_says_how_its_tiles_are_encoded_and_comes_back_as_it_was(facts):
    card = card_from_json(json.loads(json.dumps(facts)))
    assert card.encoding == "JPEG steps 5/7 4:4:4"
    assert card.format == CARD_FORMAT == 2
    assert card.to_json() == facts


def as_format_1(facts):
    old = {name: fact for name, fact in facts.items() if name != "encoding"}
    return old | {"format": 1, "jpeg_quality": 95, "jpeg_subsampling": "420"}


def test_a_card_of_format_1_is_read_as_this_format(facts):
    card = card_from_json(as_format_1(facts))
    assert (card.encoding, card.format) == ("JPEG quality 95 4:2:0", CARD_FORMAT)
    assert card.to_json() == facts | {"encoding": "JPEG quality 95 4:2:0"}


def test_a_version_written_before_goes_on_working(tmp_path):
    library = Library.create(tmp_path / "library")
    slide_id, version, stored = add_slide(library, "a", Size(700, 600))
    file = library.version_folder(version) / CARD_FILE
    file.write_text(json.dumps(as_format_1(json.loads(file.read_text()))))
    pyramid = Library(library.root).pyramid(slide_id)
    assert pyramid.card.encoding == "JPEG quality 95 4:2:0"
    assert abs(pyramid.region(Region(0, 0, 350, 300)).astype(int) - stored).max() <= 8


@pytest.mark.parametrize("number", [0, 3, None, "1"])
def test_another_format_is_refused(facts, number):
    with pytest.raises(LibraryError, match=r"has format .*; this Ocular reads formats 1 to 2"):
        card_from_json(facts | {"format": number})


def test_a_damaged_card_of_format_1_is_refused(facts):
    old = as_format_1(facts)
    del old["jpeg_quality"]
    with pytest.raises(LibraryError, match="damaged: 'jpeg_quality'"):
        card_from_json(old)
