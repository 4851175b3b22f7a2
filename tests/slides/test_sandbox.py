"""The confined child: limits, death, messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsi_ml.errors import DiskFullError, IngestError
from wsi_ml.slides.sandbox import Child, Limits

JOBS = "tests.slides.child_jobs"


def run(name: str, job: dict, on_message=lambda message: None, **limits) -> dict:
    with Child(f"{JOBS}:{name}", Limits(**limits)) as child:
        return child.run(job, on_message)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_job_gets_its_arguments_and_gives_messages_and_a_result(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    steps: list[dict] = []
    result = run("facts", {"number": 21}, steps.append, memory_bytes=1 << 30, open_files=77)
    assert steps == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert result["doubled"] == 42
    assert "SECRET_TOKEN" not in result["environment"]
    assert (result["no_new_privileges"], result["memory"], result["files"]) == (True, 1 << 30, 77)


def test_memory_beyond_the_limit_is_refused_with_a_sentence():
    with pytest.raises(IngestError, match="more memory than allowed"):
        run("eat_memory", {"bytes": 2 << 30}, memory_bytes=1 << 30)


def test_cpu_time_beyond_the_limit_ends_the_child():
    with pytest.raises(IngestError, match="more than the 1 s of CPU time"):
        run("burn", {}, cpu_s=1)


def test_silence_ends_the_child():
    with pytest.raises(IngestError, match=r"no progress for 0\.3 s"):
        run("sleep", {}, stall_s=0.3)


@pytest.mark.parametrize(("job", "words"), [("crash", "crashed or passed its limit"), ("be_killed", "was killed")])
def test_a_dying_child_is_one_sentence(job, words):
    with pytest.raises(IngestError, match=words):
        run(job, {})


def test_an_unforeseen_error_is_named_by_place_and_never_by_its_text():
    with pytest.raises(IngestError, match=r"ValueError at child_jobs\.py:\d+") as caught:
        run("fail", {})
    assert "patient" not in str(caught.value)


def test_what_libraries_print_does_not_disturb_the_messages():
    assert run("chatter", {}) == {"fine": True}


def test_a_file_over_the_limit_is_a_full_disk(tmp_path):
    with pytest.raises(DiskFullError, match="disk is full"):
        run("fill_disk", {"path": str(tmp_path / "big")}, file_bytes=1 << 16)


def test_a_missing_job_is_a_sentence_too():
    with pytest.raises(IngestError, match="AttributeError"):
        run("absent", {})


def test_leaving_the_context_ends_the_child():
    with Child(f"{JOBS}:sleep") as child:
        pid = child.pid
        assert not gone(pid)
    assert gone(pid)


def test_the_child_dies_with_its_parent():
    program = (
        "from wsi_ml.slides.sandbox import Child\n"
        f"with Child('{JOBS}:sleep') as child:\n"
        "    child.run({}, lambda message: print(message['pid'], flush=True))\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    with parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(pid)
