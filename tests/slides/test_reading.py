"""One interface over slides of the library, `.psi` and vendor files."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests.slides.make_slides import picture, write_svs
from wsi_ml.errors import IngestError, OutsideError, UnknownSlideError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides import LibrarySlide, open_slide
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.psi_writer import write_psi

REGION = Region(200, 100, 150, 130)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    rgb = picture(1100, 700, seed=5)
    svs = write_svs(folder / "a.svs", rgb, levels=2, quality=95)
    psi = write_psi(
        folder / "b.psi", Size(1100, 700), lambda r: rgb[r.y : r.y_end, r.x : r.x_end], magnification=40, quality=95
    )
    made = ingest(svs, folder / "library")
    return rgb, {"vendor": svs, "psi": psi, "library": LibrarySlide(folder / "library", made.slide_id)}


@pytest.mark.parametrize("kind", ["vendor", "psi", "library"])
def test_every_kind_reads_alike(slides, kind):
    rgb, where = slides
    stored = kind == "library"
    whole = halve_pixels(rgb) if stored else rgb
    with open_slide(where[kind]) as slide:
        assert slide.size == (whole.shape[1], whole.shape[0]) and slide.mpp == (0.5 if stored else 0.25)
        assert slide.name == {"vendor": "a", "psi": "b", "library": "a"}[kind]
        assert slide.levels[0] == (slide.size, 1.0) and slide.levels[1].downsample == pytest.approx(2.0)
        assert slide.levels[1].size == halve_pixels(whole).shape[1::-1]
        pixels = slide.region(0, REGION)
        part = whole[REGION.y : REGION.y_end, REGION.x : REGION.x_end]
        assert pixels.shape == part.shape and np.abs(pixels.astype(int) - part).mean() < 3
        half = slide.region(1, Region(10, 20, 50, 60))
        assert np.abs(half.astype(int) - halve_pixels(whole)[20:80, 10:60]).mean() < 3
        with pytest.raises(OutsideError, match="not inside level 0"):
            slide.region(0, Region(slide.size.width - 1, 0, 2, 2))
        with pytest.raises(OutsideError, match="has no level 9"):
            slide.region(9, REGION)
        assert np.array_equal(slide.region(0, REGION), pixels)  # by way of its memory
        slide.close()
        assert np.array_equal(slide.region(0, REGION), pixels)


def _read(slide, queue):
    queue.put([slide.region(0, Region(3 * n, n, 100, 100)) for n in range(20)])


@pytest.mark.parametrize("kind", ["vendor", "psi", "library"])
def test_forked_and_pickled_readers_open_anew(slides, kind):
    slide = open_slide(slides[1][kind])
    expected = [slide.region(0, Region(3 * n, n, 100, 100)) for n in range(20)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_read, args=(slide, queue)) for _ in range(2)]
    for child in children:
        child.start()
    _read(slide, queue)
    found = [queue.get(timeout=60) for _ in range(3)]
    for child in children:
        child.join()
    found.append([pickle.loads(pickle.dumps(slide)).region(0, Region(3 * n, n, 100, 100)) for n in range(20)])
    for pixels in found:
        assert all(np.array_equal(one, other) for one, other in zip(pixels, expected, strict=True))


def test_what_cannot_be_opened(slides, tmp_path):
    with pytest.raises(IngestError, match=r"There is no file “none.svs”"):
        open_slide(tmp_path / "none.svs")
    (tmp_path / "a.svs").write_bytes(b"%PDF-1.7")
    with pytest.raises(IngestError, match="it is a PDF document"):
        open_slide(tmp_path / "a.svs")
    with pytest.raises(UnknownSlideError):
        open_slide(LibrarySlide(slides[1]["library"].root, "nobody"))


def test_the_library_reads_without_decoders_of_foreign_files(slides):
    root, slide_id, _ = slides[1]["library"]
    program = (
        "import sys; from wsi_ml.slides import LibrarySlide, open_slide; from wsi_ml.geometry import Region\n"
        f"open_slide(LibrarySlide({str(root)!r}, {slide_id!r})).region(0, Region(0, 0, 9, 9))\n"
        "print([name for name in ('openslide', 'h5py', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
