"""Staging folders: held by the living, swept from the dead."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wsi_ml.slides.staging import held, sweep

HOLDER = """
import sys, time
from pathlib import Path
from wsi_ml.slides.staging import held
with held(Path(sys.argv[1]), "key") as folder:
    (folder / "half").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds `key` in tmp_path."""
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    with process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_held_folder_is_empty_and_goes_afterwards(tmp_path):
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "old").write_text("left by a dead process")
    with held(tmp_path, "key") as folder:
        assert list(folder.iterdir()) == []
        (folder / "new").write_text("new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_renamed_away_stays(tmp_path):
    target = tmp_path / "published"
    with held(tmp_path, "key") as folder:
        folder.rename(target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_living_are_left_alone_and_the_dead_swept(tmp_path, holder):
    with held(tmp_path, "key") as folder:
        assert folder is None
    assert sweep(tmp_path) == []
    assert (tmp_path / "key" / "half").exists()
    holder.kill()
    holder.wait()
    assert sweep(tmp_path) == ["key"]
    assert list(tmp_path.iterdir()) == []
