"""Which files a slide is made of."""

from __future__ import annotations

import hashlib

import pytest

from wsi_ml.errors import IngestError
from wsi_ml.slides.source_files import dicom_series, source_files


def dicom(path, series: bytes):
    path.write_bytes(bytes(128) + b"DICM" + b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series)
    return path


def test_a_dicom_slide_is_its_series_in_name_order(tmp_path):
    second, first = dicom(tmp_path / "b.dcm", b"1.2.3\0"), dicom(tmp_path / "a.dcm", b"1.2.3")
    dicom(tmp_path / "c.dcm", b"1.2.4")
    (tmp_path / "notes.txt").write_text("not a slide")
    found = source_files(second, "dicom")
    assert found.files == [first, second]
    assert found.bytes == first.stat().st_size + second.stat().st_size
    steps: list[tuple[int, int]] = []
    assert found.sha256(lambda *step: steps.append(step)) == (
        hashlib.sha256(first.read_bytes() + second.read_bytes()).hexdigest()
    )
    assert steps[-1] == (found.bytes, found.bytes)
    assert dicom_series(tmp_path / "notes.txt") is None


def test_a_vms_slide_is_what_its_index_names(tmp_path):
    index = tmp_path / "slide.vms"
    index.write_text(
        "[Virtual Microscope Specimen]\nImageFile=a.jpg\nImageFile(1,0)=b.jpg\nMapFile=map.jpg\nNoLayers=1\n"
    )
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(IngestError, match=r"“slide\.vms” is not whole: its part “map\.jpg” is missing"):
        source_files(index, "vms")
    (tmp_path / "map.jpg").write_bytes(b"x")
    assert [path.name for path in source_files(index, "vms").files] == ["a.jpg", "b.jpg", "map.jpg", "slide.vms"]


def test_parts_cannot_lie_outside_the_slides_folder(tmp_path):
    index = tmp_path / "slide.vms"
    index.write_text("[Virtual Microscope Specimen]\nImageFile=../../etc/passwd\n")
    with pytest.raises(IngestError, match="“passwd” is missing"):
        source_files(index, "vms")


def test_everything_else_is_one_file(tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(b"abc")
    assert source_files(path, "tiff").files == [path]
