"""The library: rows and folders agree whatever happens, versions are immutable, removals are seen."""

import sqlite3

import pytest

from tests.versions import add_slide, smooth_picture, stage_version
from wsi_ml.errors import IngestError, LibraryError, RemovedError, UnknownSlideError, UnknownVersionError
from wsi_ml.geometry import Size
from wsi_ml.slides.library import DATABASE_FILE, Library, LibraryWatch

SIZE = Size(1100, 700)


@pytest.fixture
def library(tmp_path):
    library = Library.create(tmp_path / "library")
    yield library
    assert library.check() == []


def test_a_slide_leads_to_its_newest_version_and_older_ones_still_answer(library):
    slide_id, first, _ = add_slide(library, "liver", SIZE, seed=1)
    same_id, second, _ = add_slide(library, "liver", SIZE, seed=2, slide_id=slide_id)
    assert same_id == slide_id and first != second
    assert library.slide(slide_id).current == second
    assert library.versions(slide_id) == [first, second]
    assert library.card(slide_id, first).version == first
    assert library.pyramid(slide_id).card.version == second


def test_a_name_that_is_taken_is_refused_and_the_staged_files_stay_with_the_caller(library):
    add_slide(library, "liver", SIZE, seed=1)
    with pytest.raises(IngestError, match="already in the library"):
        add_slide(library, "liver", SIZE, seed=2)
    assert [slide.name for slide in library.slides()] == ["liver"]


def test_removal_is_told_apart_from_never_there(library):
    slide_id, version, _ = add_slide(library, "liver", SIZE)
    library.remove(slide_id)
    assert library.slides() == []
    with pytest.raises(RemovedError):
        library.folder(slide_id, version)
    with pytest.raises(RemovedError):
        library.slide(slide_id)
    with pytest.raises(UnknownSlideError):
        library.slide("nosuchslide0")
    assert list((library.root / "slides").iterdir()) == []


def test_an_unknown_version_of_a_known_slide_is_named_so(library):
    slide_id, _, _ = add_slide(library, "liver", SIZE)
    with pytest.raises(UnknownVersionError):
        library.folder(slide_id, "0" * 16)


def test_a_slide_can_come_back_after_its_removal(library):
    slide_id, version, _ = add_slide(library, "liver", SIZE)
    library.remove(slide_id)
    again, same_version, _ = add_slide(library, "liver", SIZE)
    assert same_version == version and again != slide_id
    assert library.pyramid(again).card.version == version


def test_two_slides_of_equal_content_keep_their_files_when_one_goes(library):
    first, version, _ = add_slide(library, "a", SIZE)
    second, same_version, _ = add_slide(library, "b", SIZE)
    assert version == same_version
    library.remove(first)
    assert library.pyramid(second).card.version == version


def test_an_older_version_can_be_removed_alone_but_not_the_current_one(library):
    slide_id, first, _ = add_slide(library, "liver", SIZE, seed=1)
    add_slide(library, "liver", SIZE, seed=2, slide_id=slide_id)
    library.remove(slide_id, first)
    with pytest.raises(RemovedError):
        library.folder(slide_id, first)
    with pytest.raises(LibraryError, match="current version"):
        library.remove(slide_id, library.slide(slide_id).current)


def test_check_names_a_folder_without_a_row_and_the_next_add_adopts_it(library):
    stored = smooth_picture(Size(550, 350))
    card = stage_version(library.root / "slides" / "orphan", stored, SIZE)
    (library.root / "slides" / "orphan").rename(library.version_folder(card.version))
    assert library.check() == [f"Folder {card.version} has files but no row."]
    slide_id, version, _ = add_slide(library, "liver", SIZE)
    assert version == card.version and library.card(slide_id).version == version


def test_a_watch_sees_what_another_connection_commits(library):
    watch = LibraryWatch(library)
    assert not watch.changed()
    add_slide(library, "liver", SIZE)
    assert watch.changed()
    assert not watch.changed()


def test_a_folder_without_a_library_is_refused(tmp_path, library):
    with pytest.raises(LibraryError, match="no library"):
        Library(tmp_path / "elsewhere")


def test_a_library_of_another_format_is_refused(tmp_path, library):
    other = Library.create(tmp_path / "newer")
    with sqlite3.connect(other.root / DATABASE_FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LibraryError, match="format 99"):
        Library(other.root)


def test_a_damaged_database_is_a_named_error(tmp_path, library):
    other = Library.create(tmp_path / "damaged")
    del other
    (tmp_path / "damaged" / DATABASE_FILE).write_bytes(b"not a database" * 1000)
    with pytest.raises(LibraryError):
        Library(tmp_path / "damaged")
