"""What a killed process finished is taken over; what is torn, damaged or of another plan is not."""

import errno
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from wsi_ml.errors import DamagedError, DiskFullError
from wsi_ml.inference import window_file
from wsi_ml.inference.window_file import JOURNAL_FILE, RECORD_BYTES, WINDOWS_FILE, WindowFile

PLAN = {"key": "k", "numbers": "cpu"}
SHAPE = (2, 3, 4)


def result(number, count=2):
    return (np.arange(count * 24) * 7 + number).astype(np.uint8).reshape(count, *SHAPE)


def opened(folder, plan=PLAN, count=7, batch=2):
    return WindowFile(folder, plan, count, batch, SHAPE)


@pytest.fixture
def folder(tmp_path):
    """A folder in which batches 0, 1 and 3 (the last, of one window) are finished."""
    with opened(tmp_path / "w") as windows:
        assert windows.batches == 4 and windows.finished == set()
        for number in (0, 1):
            windows.write(number, result(number), 1.5 * (number + 1))
        windows.write(3, result(3, 1), 4.0)
    return tmp_path / "w"


def test_finished_batches_are_taken_over_with_their_time(folder):
    with opened(folder) as windows:
        assert windows.finished == {0, 1, 3}
        assert (windows.finished_windows, windows.active_s) == (5, 4.0)
        assert np.array_equal(windows.window(2), result(1)[0])
        assert np.array_equal(windows.window(6), result(3, 1)[0])


@pytest.mark.parametrize("cut", range(1, RECORD_BYTES))
def test_a_torn_record_counts_as_not_finished_and_new_ones_follow_whole_ones(folder, cut):
    journal = folder / JOURNAL_FILE
    os.truncate(journal, 3 * RECORD_BYTES - cut)
    with opened(folder) as windows:
        assert windows.finished == {0, 1}
        windows.write(2, result(2), 5.0)
    with opened(folder) as windows:
        assert windows.finished == {0, 1, 2}


def test_a_flipped_bit_anywhere_in_a_record_loses_that_batch_only(folder):
    journal = folder / JOURNAL_FILE
    whole = journal.read_bytes()
    for place in range(RECORD_BYTES, 2 * RECORD_BYTES):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        journal.write_bytes(damaged)
        with opened(folder) as windows:
            assert windows.finished == {0, 3}


def test_a_flipped_bit_in_a_result_loses_that_batch_only(folder):
    path = folder / WINDOWS_FILE
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    with opened(folder) as windows:
        assert windows.finished == {1, 3}


def test_results_that_never_reached_the_disk_are_not_finished(folder):
    os.truncate(folder / WINDOWS_FILE, 100)
    with opened(folder) as windows:
        assert windows.finished == {0, 1}


@pytest.mark.parametrize("change", [{"plan": {"key": "k", "numbers": "cuda"}}, {"count": 8}, {"batch": 3}])
def test_another_plan_starts_anew(folder, change):
    with opened(folder, **change) as windows:
        assert windows.finished == set()
    with opened(folder) as windows:
        assert windows.finished == set()


def test_a_damaged_plan_starts_anew(folder):
    (folder / window_file.PLAN_FILE).write_text("{")
    with opened(folder) as windows:
        assert windows.finished == set()


def test_a_window_that_was_cut_off_is_refused(folder):
    with opened(folder) as windows:
        os.truncate(folder / WINDOWS_FILE, 100)
        with pytest.raises(DamagedError, match="too short"):
            windows.window(6)


def test_too_small_a_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, window_file.SPARE_BYTES + 100))
    with pytest.raises(DiskFullError, match=r"needs 0\.0 GB .* choose a smaller region"):
        opened(tmp_path / "w")


def test_a_disk_that_fills_is_named_and_keeps_what_was_finished(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(folder) as windows:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(DiskFullError, match="the model's output cannot be written"):
            windows.write(2, result(2), 5.0)
    monkeypatch.undo()
    with opened(folder) as windows:
        assert windows.finished == {0, 1, 3}
