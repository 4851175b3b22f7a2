"""Faithful ×40 end to end: what is kept, what is told, what is left after a death."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.slides.make_slides import picture, write_generic
from wsi_ml.errors import DiskFullError, IngestError, ModelOutputError, RemovedError, UnknownSlideError
from wsi_ml.geometry import Region
from wsi_ml.metrics.image import ssim
from wsi_ml.slides.codec import decode_jpeg
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.kept import encode_kept
from wsi_ml.slides.library import Library
from wsi_ml.slides.tiles import VersionTiles
from wsi_ml.slides.verify import verify
from wsi_ml.sr import keeping
from wsi_ml.sr.keeping import check_floor, keep_tiles, upscaled_tiles
from wsi_ml.sr.synthesis import DecodedTiles, TileKey, synthesise
from wsi_ml.sr.upscaler import open_upscaler

WIDTH, HEIGHT, ROWS, COLS = 1603, 1030, 3, 4
FLOOR = 0.9


class FakeNetwork:
    """Bicubic under another name, so that `auto` would show it."""

    def __init__(self, **facts):
        self.plain = open_upscaler("bicubic")
        self.card = replace(self.plain.card, name="sr-fake", kind="sr", sha256="ab" * 32, **facts)

    def __call__(self, rgb):
        return self.plain(rgb)

    def batch(self, tiles):
        return [self(tile) for tile in tiles]


def scan_picture() -> np.ndarray:
    """Smooth on the left, where interpolation is faithful; fine noise on the right, where nothing is."""
    rgb = picture(WIDTH, HEIGHT)
    smooth = np.full_like(rgb, 200)
    smooth[:, :1024] -= np.arange(1024, dtype=np.uint8)[None, :, None] // 16
    noise = np.random.default_rng(4).integers(40, 220, (HEIGHT, WIDTH - 1024, 3), np.uint8)
    smooth[:, 1024:] = noise
    return smooth


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_generic(tmp_path_factory.mktemp("scan") / "slide.tif", scan_picture(), mpp=0.25)


@pytest.fixture(scope="module")
def template(scan, tmp_path_factory):
    """A library that holds the slide, to be copied; and its ingestion."""
    root = tmp_path_factory.mktemp("template") / "library"
    return root, ingest(scan, root)


@pytest.fixture
def ingested(template, tmp_path):
    root, result = template
    shutil.copytree(root, tmp_path / "library")
    library = Library(tmp_path / "library")
    yield library, result
    assert library.check() == []


def keep(scan, library, result, floor=FLOOR, **more):
    return keep_tiles(scan, library, result.slide_id, result.version, floor, upscaler=FakeNetwork(), **more)


def test_what_falls_short_is_kept_and_the_rest_is_not(scan, ingested):
    library, result = ingested
    steps = []
    kept = keep(scan, library, result, progress=steps.append)
    tiles, rgb = library.kept_tiles(result.version), scan_picture()
    pyramid, network = library.pyramid(result.slide_id), FakeNetwork()
    assert kept.created and kept.facts == tiles.facts
    assert tiles.fidelity.values.shape == (ROWS, COLS)
    for t_row in range(ROWS):
        for t_col in range(COLS):
            truth = rgb[512 * t_row : 512 * (t_row + 1), 512 * t_col : 512 * (t_col + 1)]
            key = TileKey(result.version, "sr-fake", "ab" * 32, t_col, t_row)
            served = decode_jpeg(synthesise(pyramid, network, key, DecodedTiles(1 << 24)))
            expected = ssim(served, truth) if min(truth.shape[:2]) >= 7 else tiles.fidelity.values[t_row, t_col]
            assert tiles.fidelity.values[t_row, t_col] == pytest.approx(expected, abs=1e-3)
            assert tiles.has(t_col, t_row) == (expected < FLOOR) == (t_col >= 2)
            if tiles.has(t_col, t_row):
                assert tiles.tile_bytes(t_col, t_row) == encode_kept(truth)
    facts = kept.facts
    assert (facts.tiles, facts.kept, facts.floor, facts.model) == (12, 6, FLOOR, "sr-fake")
    assert facts.bytes_kept == sum(len(tiles.tile_bytes(t_col, t_row)) for t_col in (2, 3) for t_row in range(ROWS))
    assert facts.bytes_all > facts.bytes_kept and sum(facts.histogram) == 12
    assert verify(library).faults == []
    assert not any(os.scandir(library.root / "staging"))
    told = [step for step in steps if step.phase == "keep"]
    assert [step.done for step in told] == [0, 4, 8, 12] and told[0].total == 12
    assert told[0].message == "comparing 12 tiles at ×40 made by sr-fake with the scan, floor 0.9"


def test_the_same_comparison_twice_is_no_work_and_another_floor_replaces_it(scan, ingested):
    library, result = ingested
    first = keep(scan, library, result)
    path = library.kept_tiles(result.version).path
    before = path.stat().st_mtime_ns
    again = keep(scan, library, result)
    assert (again.created, again.facts, path.stat().st_mtime_ns) == (False, first.facts, before)
    other = keep(scan, library, result, floor=0.01)
    assert other.created and other.facts.kept < first.facts.kept
    assert library.kept_key(result.version) == other.facts.key != first.facts.key
    assert [each.name for each in path.parent.iterdir()] == [f"{other.facts.key[:16]}.kept"]
    assert verify(library).faults == []


def test_sources_prefer_the_scan_and_synthesise_the_rest(scan, ingested):
    library, result = ingested
    network, other = FakeNetwork().card, replace(FakeNetwork().card, name="sr-new", sha256="cd" * 32)
    keep(scan, library, result)
    tiles = VersionTiles(library.pyramid(result.slide_id), [other, network], library.kept_tiles(result.version))
    assert list(tiles.sources) == ["stored", "sr-new", "sr-fake", "scan", "auto"]
    assert tiles.sources["auto"].upscaler is network, "auto shows the model that was compared"
    assert tiles.sources["scan"].pin == library.kept_key(result.version)[:12]
    pins = {tiles.sources["auto"].pin}
    pins |= {VersionTiles(tiles.pyramid, [other], tiles.kept).sources["auto"].pin, tiles.sources["scan"].pin}
    pins |= {VersionTiles(tiles.pyramid, [network]).sources["auto"].pin}
    assert len(pins) == 4, "whatever can change the pixels of auto changes its pin"


def test_a_killed_comparison_goes_on_and_ends_as_an_undisturbed_one(scan, ingested, tmp_path):
    library, result = ingested
    shutil.copytree(library.root, tmp_path / "whole")
    keep(scan, Library(tmp_path / "whole"), result)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.sr.test_keeping import FakeNetwork, FLOOR\n"
        "from wsi_ml.slides.library import Library\n"
        "from wsi_ml.sr.keeping import keep_tiles\n"
        "def tell(step):\n"
        "    if step.phase == 'keep' and step.done == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "path, root, slide, version = sys.argv[1:]\n"
        "keep_tiles(Path(path), Library(root), slide, version, FLOOR, upscaler=FakeNetwork(), progress=tell)\n"
    )
    command = [sys.executable, "-c", script, str(scan), str(library.root), result.slide_id, result.version]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert library.kept_tiles(result.version) is None and verify(library).faults == []
    steps = []
    kept = keep(scan, library, result, progress=steps.append)
    assert [step.done for step in steps if step.phase == "keep"] == [8, 12]
    clean = Library(tmp_path / "whole").kept_tiles(result.version)
    assert replace(kept.facts, created="") == replace(clean.facts, created="")
    mine = library.kept_tiles(result.version)
    assert np.array_equal(mine.fidelity.values, clean.fidelity.values)
    assert mine.tile_bytes(3, 2) == clean.tile_bytes(3, 2) and verify(library).faults == []
    assert not any(os.scandir(library.root / "staging"))


def test_a_finished_file_without_its_row_is_adopted(scan, ingested, monkeypatch):
    library, result = ingested
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Library, "publish_kept", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        keep(scan, library, result)
    assert library.kept_tiles(result.version) is None
    assert [fault for fault in verify(library).faults if "have a file but no row" in fault]
    monkeypatch.setattr(keeping, "scan_strips", None)
    assert keep(scan, library, result).facts.kept == 6
    assert verify(library).faults == []


def test_a_stop_leaves_the_slide_as_it_was(scan, ingested):
    library, result = ingested

    def stop(step):
        if step.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(scan, library, result, progress=stop)
    assert library.kept_tiles(result.version) is None and verify(library).faults == []
    assert library.pyramid(result.slide_id).region(Region(0, 0, 5, 5)).shape == (5, 5, 3)
    assert not any(os.scandir(library.root / "staging"))


def test_a_full_disk_is_said_and_nothing_is_published(scan, ingested, monkeypatch):
    library, result = ingested

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="goes on where it stopped"):
        patch.setattr("wsi_ml.slides.kept_writer.os.fsync", full)
        keep(scan, library, result)
    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="MB free"):
        patch.setattr("wsi_ml.sr.keeping.LEAST_FREE_BYTES", 1 << 60)
        keep(scan, library, result)
    assert library.kept_tiles(result.version) is None and verify(library).faults == []
    assert keep(scan, library, result).created


def test_two_at_once_make_it_once(scan, ingested):
    library, result = ingested
    results = []
    threads = [threading.Thread(target=lambda: results.append(keep(scan, library, result))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.created for each in results) == [False, True]
    assert results[0].facts == results[1].facts


def test_a_tile_the_network_cannot_make_is_kept_whatever_the_floor(scan, ingested, monkeypatch):
    library, result = ingested
    calls = []

    def run(self, rgb):
        calls.append(rgb.shape)
        if len(calls) in (2, 6):  # once in the batch, and once more alone
            raise ModelOutputError("NaN")
        return self.plain(rgb)

    monkeypatch.setattr(FakeNetwork, "__call__", run)
    keep(scan, library, result, floor=1e-6)
    grid = library.kept_tiles(result.version).fidelity
    assert grid.kept.sum() == 1 and np.argwhere(grid.kept).tolist() in ([[0, 1]], [[0, 3]])
    assert grid.values[grid.kept].tolist() == [0.0]


def test_a_constant_picture_is_no_picture():
    class Flat(FakeNetwork):
        def __call__(self, rgb):
            return np.full((2 * rgb.shape[0], 2 * rgb.shape[1], 3), 9, np.uint8)

    assert upscaled_tiles(Flat(), [picture(32, 32)]) == [None]


def test_removing_the_slide_removes_its_kept_tiles(scan, ingested):
    library, result = ingested
    keep(scan, library, result)
    folder = library.version_folder(result.version)
    library.remove(result.slide_id)
    assert not folder.exists() and library.kept_key(result.version) is None
    with pytest.raises((RemovedError, UnknownSlideError)):
        keep(scan, library, result)


def test_a_slide_removed_meanwhile_is_named(scan, ingested):
    library, result = ingested

    def remove(step):
        if step.done == 8:
            Library(library.root).remove(result.slide_id)

    with pytest.raises((RemovedError, UnknownSlideError)):
        keep(scan, library, result, progress=remove)


def test_every_flipped_bit_of_kept_tiles_is_verified(scan, ingested):
    library, result = ingested
    keep(scan, library, result)
    path = library.kept_tiles(result.version).path
    data, random = path.read_bytes(), np.random.default_rng(1)
    for spot in [0, len(data) - 1, *random.integers(0, len(data), 10).tolist()]:
        path.write_bytes(data[:spot] + bytes([data[spot] ^ 16]) + data[spot + 1 :])
        assert any("kept" in fault for fault in verify(library).faults)
    path.unlink()
    assert any("row of kept tiles but no file" in fault for fault in library.check())
    path.write_bytes(data)


@pytest.mark.parametrize("floor", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_floor_that_is_no_ssim_is_refused(floor):
    with pytest.raises(IngestError, match="above 0 and at most 1"):
        check_floor(floor)


def test_a_x20_scan_has_nothing_to_keep(tmp_path):
    path = write_generic(tmp_path / "a.tif", picture(600, 400), mpp=0.5)
    result = ingest(path, tmp_path / "library")
    with pytest.raises(IngestError, match="no ×40 tiles to compare"):
        keep_tiles(path, Library(tmp_path / "library"), result.slide_id, result.version, 0.9)


def test_without_a_network_for_its_pixels_a_slide_is_refused(tmp_path):
    path = write_generic(tmp_path / "a.tif", picture(600, 400), mpp=0.174)
    result = ingest(path, tmp_path / "library")
    assert result.card.stored_mpp == pytest.approx(0.696, abs=1e-3)
    with pytest.raises(IngestError, match="No super-resolution network is meant for"):
        keep_tiles(path, Library(tmp_path / "library"), result.slide_id, result.version, 0.9)
