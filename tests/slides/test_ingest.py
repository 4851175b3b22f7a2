"""Ingestion end to end: what comes out, what is refused, what is left after a death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.slides.make_slides import patch_tag, picture, swapped_profile, write_generic, write_svs
from wsi_ml.errors import DiskFullError, IngestError
from wsi_ml.geometry import Region
from wsi_ml.slides import ingest as ingest_module
from wsi_ml.slides.codec import decode_jpeg
from wsi_ml.slides.ingest import Progress, ingest
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.library import Library
from wsi_ml.slides.sandbox import Limits
from wsi_ml.slides.verify import verify


@pytest.fixture
def root(tmp_path):
    return tmp_path / "library"


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A ×40 slide with a label and vendor text."""
    path = tmp_path_factory.mktemp("slides") / "slide.svs"
    return write_svs(path, picture(3001, 2003), note="|Patient = CANARY-7", label=picture(90, 70, seed=5))


def nothing_left(root: Path) -> bool:
    """True when neither staging nor slides hold anything, and rows and folders agree."""
    library = Library(root)
    return not any(os.scandir(root / "staging")) and not any(os.scandir(root / "slides")) and library.check() == []


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


# -- what comes out ------------------------------------------------------------------------------------------------


def test_a_slide_becomes_a_version(slide, root):
    steps: list[Progress] = []
    result = ingest(slide, root, progress=steps.append)
    card = result.card
    assert (result.created, result.name, result.version) == (True, "slide", card.version)
    assert (card.stored_size, card.base_size, card.stored_mpp) == ((1501, 1002), (3001, 2003), 0.5)
    assert card.levels == [(1501, 1002), (751, 501), (376, 251)]
    assert (card.kernel, card.icc, card.encoding, card.associated) == (
        "box2+dct",
        "none",
        "JPEG steps 5/7 4:4:4",
        ["label", "thumbnail"],
    )
    assert (card.source.vendor, card.source.l0_size, card.source.objective_power) == ("aperio", (3001, 2003), 40)
    assert card.source.bytes == slide.stat().st_size
    library = Library(root)
    pyramid = library.pyramid(result.slide_id)
    stored = pyramid.region(Region(0, 0, 1501, 1002))
    assert mean_difference(stored, halve_pixels(picture(3001, 2003))) < 2.5
    assert verify(library).faults == []
    assert steps[0].phase == "check"
    assert steps[-1].phase == "done"
    converting = [step for step in steps if step.phase == "convert"]
    assert converting[0].message == "3001 × 2003 px at 0.25 µm/px → 1501 × 1002 px at 0.5 µm/px"
    assert converting[-1].done == converting[-1].total == 1501 * 1002
    assert not any(os.scandir(root / "staging"))


def test_guarded_files_are_private_and_no_vendor_text_or_path_leaks(slide, root):
    result = ingest(slide, root)
    folder = Library(root).version_folder(result.version)
    assert (folder / "private").stat().st_mode & 0o777 == 0o700
    assert (folder / "private" / "label.png").stat().st_mode & 0o777 == 0o600
    for path in [*folder.rglob("*"), *root.glob("library.sqlite*")]:
        if path.is_file():
            data = path.read_bytes()
            assert b"CANARY" not in data, path.name
            assert str(slide.parent).encode() not in data, path.name


def test_a_thumbnail_of_the_tissue_is_made(root, tmp_path):
    rgb = np.full((2400, 3200, 3), 243, np.uint8)
    rgb[1000:1800, 400:1200] = picture(800, 800)
    result = ingest(write_svs(tmp_path / "a.svs", rgb), root)
    data = (Library(root).version_folder(result.version) / "thumbnail.jpg").read_bytes()
    thumbnail = decode_jpeg(data)
    assert max(thumbnail.shape) <= 512
    assert 0.9 < thumbnail.shape[0] / thumbnail.shape[1] < 1.1
    assert thumbnail.mean() < 215


def test_a_profile_is_applied(root, tmp_path):
    rgb = np.full((1100, 1100, 3), (200, 60, 90), np.uint8)
    result = ingest(write_svs(tmp_path / "a.svs", rgb, profile=swapped_profile()), root)
    assert result.card.icc == "applied: perceptual"
    stored = Library(root).pyramid(result.slide_id).region(Region(0, 0, 500, 500))
    assert np.abs(stored.astype(int) - (90, 60, 200)).max() <= 5


@pytest.mark.parametrize(("width", "height", "mpp"), [(1, 1, 0.5), (1, 1, 0.25), (1, 700, 0.25), (700, 1, 0.5)])
def test_the_smallest_slides_work_end_to_end(root, tmp_path, width, height, mpp):
    rgb = np.full((height, width, 3), (180, 90, 140), np.uint8)
    path = write_generic(tmp_path / "tiny.tif", rgb, tile=16)
    result = ingest(path, root, mpp=mpp)
    half = 2 if mpp == 0.25 else 1
    assert result.card.stored_size == (-(-width // half), -(-height // half))
    assert result.card.base_size == ((width, height) if mpp == 0.25 else (2 * width, 2 * height))
    pixels = Library(root).pyramid(result.slide_id).region(Region(0, 0, *result.card.stored_size))
    assert np.abs(pixels.astype(int) - (180, 90, 140)).max() <= 3
    assert verify(Library(root)).faults == []


def test_a_given_mpp_wins_and_is_recorded(slide, root):
    card = ingest(slide, root, mpp=0.5).card
    assert (card.source.l0_mpp, card.source.mpp_given, card.source.halvings) == (0.5, True, 0)
    assert (card.stored_size, card.base_size, card.kernel) == ((3001, 2003), (6002, 4006), "box2")


def test_real_slides(shared_data, root):
    region = ingest(shared_data / "wsi-small" / "CMU-1-Small-Region.svs", root)
    assert (region.card.stored_size, region.card.base_size) == ((2220, 2967), (4440, 5934))
    assert region.card.associated == ["label", "macro", "thumbnail"]
    assert region.card.source.vendor == "aperio"
    with pytest.raises(IngestError, match="--mpp"):
        ingest(shared_data / "wsi-small" / "TCGA-CR-7395-01A-01-TS1.svs", root)
    assert verify(Library(root)).faults == []


def test_a_dicom_series_is_one_slide_by_whichever_file_it_is_named(shared_data, root):
    folder = shared_data / "wsi-small" / "dicom-cmu1"
    first = ingest(folder / "level-2-frames-0-4.dcm", root, name="series")
    second = ingest(folder / "level-0-frames-0-30.dcm", root)
    assert (second.slide_id, second.version, second.created) == (first.slide_id, first.version, False)
    assert first.card.stored_size == (2220, 2967)
    assert first.card.source.bytes == sum(path.stat().st_size for path in folder.glob("*.dcm"))


# -- again, and names ----------------------------------------------------------------------------------------------


def test_the_same_file_again_does_no_work(slide, root, tmp_path):
    first = ingest(slide, root)
    copy = shutil.copy(slide, tmp_path / "renamed.svs")
    steps: list[Progress] = []
    again = ingest(copy, root, progress=steps.append)
    assert (again.created, again.slide_id, again.version, again.name) == (False, first.slide_id, first.version, "slide")
    assert "convert" not in {step.phase for step in steps}
    assert len(Library(root).slides()) == 1


def test_other_parameters_make_a_new_version_of_the_same_slide(slide, root):
    first, second = ingest(slide, root), ingest(slide, root, mpp=0.26)
    assert second.slide_id == first.slide_id
    assert second.version != first.version
    library = Library(root)
    assert library.versions(first.slide_id) == [first.version, second.version]
    assert library.slide(first.slide_id).current == second.version
    assert verify(library).faults == []


def test_a_file_ingested_before_a_new_encoding_is_converted_anew_into_the_same_slide(slide, root, monkeypatch):
    monkeypatch.setattr(ingest_module, "REVISION", 1)
    first = ingest(slide, root)
    monkeypatch.undo()
    steps: list[Progress] = []
    second = ingest(slide, root, progress=steps.append)
    assert (second.created, second.slide_id) == (True, first.slide_id)
    assert "convert" in {step.phase for step in steps}
    assert ingest(slide, root).created is False


def test_a_name_that_is_taken_is_refused_and_an_explicit_one_makes_a_version(slide, root, tmp_path):
    first = ingest(slide, root)
    other = write_svs(tmp_path / "slide.svs", picture(700, 600, seed=9))
    with pytest.raises(
        IngestError, match="A slide named “slide” is already in the library with other content; give --name"
    ):
        ingest(other, root)
    assert len(list((root / "slides").iterdir())) == 1
    assert not any(os.scandir(root / "staging"))
    assert ingest(other, root, name="slide").slide_id == first.slide_id
    third = write_svs(tmp_path / "third.svs", picture(700, 600, seed=10))
    assert ingest(third, root, name="another").name == "another"
    assert [slide.name for slide in Library(root).slides()] == ["another", "slide"]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201])
def test_a_name_must_be_printable(slide, root, name):
    with pytest.raises(IngestError, match="--name must have"):
        ingest(slide, root, name=name)


def test_two_ingestions_at_once_give_one_version(slide, root):
    Library.create(root)
    results = []
    threads = [threading.Thread(target=lambda: results.append(ingest(slide, root))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.created for result in results) == [False, True]
    assert len({(result.slide_id, result.version) for result in results}) == 1
    assert verify(Library(root)).faults == []
    assert not any(os.scandir(root / "staging"))


# -- what is refused -----------------------------------------------------------------------------------------------


def make_missing(folder, slide):
    return folder / "absent.svs"


def make_folder(folder, slide):
    (folder / "folder.svs").mkdir()
    return folder / "folder.svs"


def make_empty(folder, slide):
    (folder / "empty.svs").touch()
    return folder / "empty.svs"


def make_page(folder, slide):
    (folder / "page.svs").write_text("<!DOCTYPE html><p>Sign in</p>")
    return folder / "page.svs"


def make_truncated(folder, slide):
    path = folder / "cut.svs"
    path.write_bytes(slide.read_bytes()[: slide.stat().st_size * 2 // 3])
    return path


def make_tile_bomb(folder, slide):
    path = folder / "tile.svs"
    shutil.copy(slide, path)
    patch_tag(path, 322, 1 << 30)
    return path


def make_huge(folder, slide):
    path = folder / "huge.svs"
    shutil.copy(slide, path)
    patch_tag(path, 256, 1 << 31)
    return path


def make_unscaled(folder, slide):
    return write_svs(folder / "unscaled.svs", picture(300, 300), mpp=None)


def make_pixels_only(folder, slide):
    return write_generic(folder / "72dpi.tif", picture(300, 300), mpp=352.8)


REFUSED = [
    (make_missing, "There is no file “absent.svs”"),
    (make_folder, "“folder.svs” is a folder; give the slide's file"),
    (make_empty, r"“empty.svs” is empty \(0 bytes\)"),
    (make_page, "“page.svs” is not a whole-slide image: it is a web page"),
    (make_truncated, "“cut.svs” is truncated"),
    (make_tile_bomb, "claims tiles of 1073741824 × 256 px"),
    (make_huge, "claims 2147483648 × 2003 px"),
    (make_unscaled, "states no µm/px; give it with --mpp"),
    (make_pixels_only, "states no µm/px; give it with --mpp"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[make.__name__[5:] for make, _ in REFUSED])
def test_bad_input_is_one_sentence_and_leaves_nothing(slide, root, tmp_path, make, words):
    with pytest.raises(IngestError, match=words) as caught:
        ingest(make(tmp_path, slide), root)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert nothing_left(root)


def test_a_file_one_may_not_read_is_refused(slide, root, tmp_path):
    path = tmp_path / "locked.svs"
    shutil.copy(slide, path)
    path.chmod(0)
    Library.create(root)
    was_root = os.geteuid() == 0
    if was_root:
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(IngestError, match="permission denied"):
            ingest_module.check_file(path)
    finally:
        if was_root:
            os.seteuid(0)


def test_a_link_is_followed(slide, root, tmp_path):
    (tmp_path / "link.svs").symlink_to(slide)
    assert ingest(tmp_path / "link.svs", root).name == "link"


def test_a_scan_too_large_for_memory_is_refused(root, tmp_path):
    path = write_generic(tmp_path / "bomb.tif", np.zeros((4096, 8192, 3), np.uint8), tile=4096)
    with pytest.raises(IngestError, match=r"memory|limit of|cannot be decoded"):
        ingest(path, root, mpp=0.5, limits=Limits(memory_bytes=360 << 20))
    assert nothing_left(root)


def test_a_full_disk_is_refused_before_and_during_the_work(slide, root, monkeypatch):
    with pytest.raises(DiskFullError, match="disk is full"):
        ingest(slide, root, limits=Limits(file_bytes=100_000))
    assert nothing_left(root)
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(DiskFullError, match="1 MB free and this slide may need"):
        ingest(slide, root)
    assert nothing_left(root)


def test_a_missing_part_of_a_slide_is_named(root, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "s" / "Slidedat.ini").write_text(
        "[HIERARCHICAL]\nINDEXFILE = Index.dat\n[DATAFILE]\nFILE_0 = Data0000.dat\n"
    )
    (tmp_path / "s" / "Index.dat").write_bytes(b"x")
    with pytest.raises(IngestError, match=r"“s\.mrxs” is not whole: its part “Data0000\.dat” is missing"):
        ingest(tmp_path / "s.mrxs", root)


# -- death ---------------------------------------------------------------------------------------------------------

VICTIM = """
import sys, time
from wsi_ml.slides.ingest import ingest

def stop_at(progress):
    if progress.phase == sys.argv[3] and progress.done >= int(sys.argv[4]) * progress.total / 100:
        print("there", flush=True)
        time.sleep(60)

ingest(sys.argv[1], sys.argv[2], progress=stop_at)
"""


def children() -> list[int]:
    found = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    return [int(pid) for pid in found.split()]


@pytest.mark.parametrize(
    ("phase", "percent"),
    [("hash", 0), ("convert", 50), ("verify", 0), ("publish", 0)],
)
def test_an_ingestion_killed_anywhere_leaves_nothing_that_stays(slide, root, phase, percent):
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", VICTIM, str(slide), str(root), phase, str(percent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": path}) as victim:
        assert victim.stdout.readline() == b"there\n"
        victim.send_signal(signal.SIGKILL)
    library = Library(root)
    assert library.slides() == []
    assert library.check() == []
    result = ingest(slide, root)
    assert result.created
    assert verify(library).faults == []
    assert not any(os.scandir(root / "staging"))


def test_a_child_killed_midway_is_one_sentence(slide, root):
    def kill(progress: Progress) -> None:
        if progress.phase == "convert":
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(IngestError, match="decoder was killed"):
        ingest(slide, root, progress=kill)
    assert nothing_left(root)


def test_what_the_child_wrote_is_checked_before_it_is_published(slide, root):
    def spoil(progress: Progress) -> None:
        if progress.phase == "verify":
            pyramid = next((root / "staging").glob("*/pyramid.tif"))
            data = bytearray(pyramid.read_bytes())
            data[3000] ^= 1
            pyramid.write_bytes(data)

    with pytest.raises(IngestError, match=r"not what was meant\. Version .* Stored tile 0_0 of level 0"):
        ingest(slide, root, progress=spoil)
    assert nothing_left(root)


def test_an_interrupt_ends_the_child_and_leaves_nothing(slide, root):
    def interrupt(progress: Progress) -> None:
        if progress.phase == "convert":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(slide, root, progress=interrupt)
    assert children() == []
    assert nothing_left(root)
