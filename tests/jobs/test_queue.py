"""The queue: order, one owner a job, leases with a fence, nothing lost, nothing twice."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import sqlite3
import subprocess
import sys

import pytest

from tests.conftest import PROJECT_ROOT
from wsi_ml.errors import (
    ConflictError,
    DiskFullError,
    LeaseLostError,
    LibraryError,
    PredictionCancelledError,
    QueueFullError,
    UnknownJobError,
)
from wsi_ml.jobs import queue as queue_module
from wsi_ml.jobs.job import JobBox, NewJob, Progress
from wsi_ml.jobs.leases import LeaseWatch
from wsi_ml.jobs.queue import DATABASE_FILE, JobQueue

SMALL = JobBox(0, 0, 8192, 8192)
LARGE = JobBox(0, 0, 8192, 8193)


@pytest.fixture
def queue(tmp_path):
    queue = JobQueue(tmp_path)
    yield queue
    assert queue.check() == []


def new(number=0, **fields):
    values = {"key": f"k{number}", "slide_id": "slide0001", "version": "0" * 16, "model": "m", **fields}
    return NewJob(**{"parameters": {"number": number}, **values})


def add(queue, number=0, **fields):
    return queue.submit(new(number, **fields))[0]


def test_a_job_says_all_that_was_asked_and_what_became_of_it(queue):
    job, is_new = queue.submit(new(7, region=SMALL, preview=True, priority=3))
    assert is_new
    assert job.to_json() == {
        "id": job.id, "kind": "predict", "slide": "slide0001", "version": "0" * 16, "model": "m",
        "region": [0, 0, 8192, 8192], "parameters": {"number": 7}, "preview": True, "priority": 3, "lane": "quick",
        "state": "queued", "cancelling": False, "position": 1, "progress": None, "tries": 0, "reason": None,
        "layer": None, "created": job.created, "started": None, "finished": None,
    }  # fmt: skip
    claimed = queue.claim("quick", "w")
    assert (claimed.id, claimed.state, claimed.tries, claimed.position) == (job.id, "running", 1, None)
    assert claimed.started >= job.created
    queue.beat(claimed, Progress(3, 9, "windows"))
    assert queue.job(job.id).to_json()["progress"] == {"done": 3, "total": 9, "unit": "windows"}
    queue.finish(claimed, "layer1")
    done = queue.job(job.id)
    assert (done.state, done.layer_id, done.reason, done.finished is not None) == ("done", "layer1", None, True)


def test_jobs_go_by_priority_and_then_by_age_and_their_places_say_so(queue):
    jobs = [add(queue, number, priority=priority) for number, priority in enumerate([0, 5, 0, 5, -1])]
    assert [queue.job(job.id).position for job in jobs] == [3, 1, 4, 2, 5]
    quick = add(queue, 9, region=SMALL)
    assert queue.job(quick.id).position == 1
    taken = [queue.claim("slide", "w") for _ in range(5)]
    assert [job.parameters["number"] for job in taken] == [1, 3, 0, 2, 4]
    assert queue.claim("slide", "w") is None
    assert queue.claim("quick", "w").id == quick.id


def test_only_small_regions_are_quick(queue):
    assert (new(region=SMALL).lane, new(region=LARGE).lane, new().lane) == ("quick", "slide", "slide")


def test_lists_are_newest_first_and_filtered(queue):
    first, second, third = add(queue, 1), add(queue, 2, slide_id="slide0002"), add(queue, 3)
    queue.cancel(third.id)
    ids = [job.id for job in queue.jobs()]
    assert ids == [third.id, second.id, first.id]
    assert [job.id for job in queue.jobs(slide_id="slide0001")] == [third.id, first.id]
    assert [job.id for job in queue.jobs(state="queued")] == [second.id, first.id]
    assert [job.id for job in queue.jobs("slide0001", "cancelled")] == [third.id]
    assert queue.counts() == {"queued": 2, "running": 0, "done": 0, "failed": 0, "cancelled": 1}


def test_the_same_work_is_queued_once_while_it_waits_runs_or_is_done(queue):
    job = add(queue)
    assert queue.submit(new()) == (job, False)
    claimed = queue.claim("slide", "w")
    assert queue.submit(new())[0].id == job.id
    queue.finish(claimed, "layer1")
    asked = []
    again, is_new = queue.submit(new(), lambda layer_id: asked.append(layer_id) or True)
    assert (again.id, is_new, asked) == (job.id, False, ["layer1"])
    other, is_new = queue.submit(new(), lambda layer_id: False)
    assert is_new and other.id != job.id


def test_a_failed_or_cancelled_job_may_be_ordered_anew(queue):
    failed = add(queue)
    queue.fail(queue.claim("slide", "w"), "No tissue.")
    cancelled = add(queue)
    queue.cancel(cancelled.id)
    third = add(queue)
    assert len({failed.id, cancelled.id, third.id}) == 3
    # Running, and being cancelled: the wish to start it again must not lead to the job that is about to end.
    claimed = queue.claim("slide", "w")
    queue.cancel(claimed.id)
    fourth, is_new = queue.submit(new())
    assert is_new and fourth.position == 1
    queue.stopped(claimed)


def test_equal_work_of_higher_priority_rises_and_never_sinks(queue):
    first, second = add(queue, 1), add(queue, 2)
    assert add(queue, 2, priority=4).id == second.id
    assert (queue.job(second.id).priority, queue.job(second.id).position, queue.job(first.id).position) == (4, 1, 2)
    assert add(queue, 2, priority=-4).priority == 4


def test_a_full_queue_refuses_and_keeps_what_it_has(queue, monkeypatch):
    monkeypatch.setattr(queue_module, "MOST_QUEUED", 3)
    jobs = [add(queue, number) for number in range(3)]
    with pytest.raises(QueueFullError, match="3 jobs wait already"):
        add(queue, 3)
    assert add(queue, 1).id == jobs[1].id
    assert len(queue.jobs()) == 3


def test_ended_jobs_are_forgotten_oldest_first_and_open_ones_never(queue, monkeypatch):
    monkeypatch.setattr(queue_module, "MOST_ENDED", 2)
    waiting = add(queue, 100, priority=-1)
    ended = []
    for number in range(4):
        ended.append(add(queue, number))
        queue.cancel(ended[-1].id)
    add(queue, 101)
    assert [job.parameters["number"] for job in queue.jobs()] == [101, 3, 2, 100]
    assert queue.job(waiting.id).state == "queued"
    with pytest.raises(UnknownJobError):
        queue.job(ended[0].id)


# -- one owner -----------------------------------------------------------------------------------------------------


def test_threads_never_claim_the_same_job(queue):
    jobs = {add(queue, number).id for number in range(80)}

    def drain(name):
        taken = []
        while (job := queue.claim("slide", name)) is not None:
            taken.append(job.id)
            queue.finish(job, "layer1")
        return taken

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        taken = [id_ for ids in pool.map(drain, map(str, range(8))) for id_ in ids]
    assert len(taken) == len(set(taken)) and set(taken) == jobs


CLAIMER = """
import sys
from wsi_ml.jobs.queue import JobQueue
queue = JobQueue(sys.argv[1])
sys.stdin.readline()
while (job := queue.claim("slide", sys.argv[2])) is not None:
    print(job.id)
    queue.finish(job, "layer1")
"""


def test_processes_never_claim_the_same_job(queue, tmp_path):
    jobs = {add(queue, number).id for number in range(80)}
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(tmp_path), str(number)],
            cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for each in claimers:
        each.stdin.write("go\n")
        each.stdin.flush()
    taken = [id_ for each in claimers for id_ in each.communicate()[0].split()]
    assert len(taken) == 80 and set(taken) == jobs


def test_two_who_order_the_same_at_once_get_the_same_job(queue):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: queue.submit(new()), range(40)))
    assert len({job.id for job, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1


# -- leases --------------------------------------------------------------------------------------------------------


def test_a_worker_that_lost_its_job_can_do_nothing_with_it(queue):
    add(queue)
    stale = queue.claim("slide", "first")
    assert queue.take_back(queue.beats()[0], "It fell silent.")
    fresh = queue.claim("slide", "second")
    assert (fresh.id, fresh.tries, fresh.fence) == (stale.id, 2, stale.fence + 1)
    for attempt in (
        lambda: queue.beat(stale), lambda: queue.allow_publishing(stale), lambda: queue.finish(stale, "layer1"),
        lambda: queue.fail(stale, "no"), lambda: queue.retry(stale, "no"), lambda: queue.stopped(stale),
        lambda: queue.give_back(stale), lambda: queue.is_cancelled(stale),
    ):  # fmt: skip
        with pytest.raises(LeaseLostError):
            attempt()
    assert queue.job(fresh.id).state == "running" and queue.job(fresh.id).tries == 2
    queue.finish(fresh, "layer2")
    assert queue.job(fresh.id).layer_id == "layer2"


def test_a_job_that_beat_meanwhile_is_not_taken_back(queue):
    add(queue)
    job = queue.claim("slide", "w")
    seen = queue.beats()[0]
    queue.beat(job)
    assert not queue.take_back(seen, "It fell silent.")
    assert queue.job(job.id).state == "running"


def test_three_tries_and_then_failed_with_the_last_reason(queue):
    job = add(queue)
    for number in (1, 2):
        queue.retry(queue.claim("slide", "w"), f"Crash {number}.")
        again = queue.job(job.id)
        assert (again.state, again.tries, again.reason, again.position) == ("queued", number, f"Crash {number}.", 1)
    queue.retry(queue.claim("slide", "w"), "Crash 3.")
    failed = queue.job(job.id)
    assert (failed.state, failed.tries) == ("failed", 3)
    assert failed.reason == "It was tried 3 times. The last time: Crash 3."
    assert queue.claim("slide", "w") is None


def test_a_job_let_go_in_peace_does_not_count_as_a_try(queue):
    job = add(queue)
    for _ in range(5):
        queue.give_back(queue.claim("slide", "w"))
    again = queue.job(job.id)
    assert (again.state, again.tries, again.reason) == ("queued", 0, None)


def test_the_jobs_of_a_dead_worker_are_taken_back_and_no_others(queue):
    first, second = add(queue, 1), add(queue, 2)
    queue.claim("slide", "dead")
    queue.claim("slide", "alive")
    assert queue.forget_worker("dead", "It died.") == 1
    assert (queue.job(first.id).state, queue.job(second.id).state) == ("queued", "running")
    assert queue.forget_worker("dead", "It died.") == 0


class Clock:
    """The monotonic clock of a watcher, moved by the test."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("wsi_ml.jobs.leases.time.monotonic", lambda: self.now)


def test_a_silent_worker_loses_its_job_after_the_lease_and_not_before(queue, monkeypatch):
    clock, watch = Clock(monkeypatch), LeaseWatch(queue, 1.0, 8.0)
    job = add(queue)
    queue.claim("slide", "w")
    for _ in range(8):
        assert not watch.look()
        clock.now += 1
    assert queue.job(job.id).state == "running"
    assert watch.look()
    again = queue.job(job.id)
    assert (again.state, again.reason) == ("queued", "The process that ran it fell silent.")


def test_a_worker_that_beats_keeps_its_job(queue, monkeypatch):
    clock, watch = Clock(monkeypatch), LeaseWatch(queue, 1.0, 8.0)
    add(queue)
    job = queue.claim("slide", "w")
    for _ in range(50):
        assert not watch.look()
        clock.now += 1
        if clock.now % 7 == 0:
            queue.beat(job)
    assert not queue.is_cancelled(job)


def test_a_watcher_that_slept_takes_nothing_away_when_it_wakes(queue, monkeypatch):
    # As when the whole machine, or a container with watcher and worker alike, was stopped for an hour.
    clock, watch = Clock(monkeypatch), LeaseWatch(queue, 1.0, 8.0)
    add(queue)
    queue.claim("slide", "w")
    watch.look()
    clock.now += 3600
    assert not watch.look()
    clock.now += 1
    assert not watch.look()


def test_no_time_in_the_database_decides_anything(queue, monkeypatch):
    # Wall clocks that jump by a day in either direction change neither order nor leases.
    days = iter(["2030-01-02T00:00:00+00:00", "2030-01-01T00:00:00+00:00", "2031-01-01T00:00:00+00:00"] * 9)
    monkeypatch.setattr(queue_module, "utc_now", lambda: next(days))
    jobs = [add(queue, number) for number in range(3)]
    assert [job.id for job in queue.jobs()] == [job.id for job in reversed(jobs)]
    taken = [queue.claim("slide", "w") for _ in range(3)]
    assert [job.id for job in taken] == [job.id for job in jobs]
    watch = LeaseWatch(queue, 0.0, 60.0)
    assert not watch.look() and not watch.look()


# -- cancelling ----------------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(queue):
    job = add(queue)
    cancelled = queue.cancel(job.id)
    assert (cancelled.state, cancelled.reason) == ("cancelled", "It was cancelled before it began.")
    assert queue.claim("slide", "w") is None


def test_a_running_job_is_cancelled_when_its_worker_has_stopped(queue):
    job = add(queue)
    claimed = queue.claim("slide", "w")
    for _ in range(2):
        wished = queue.cancel(job.id)
        assert (wished.state, wished.cancelling) == ("running", True)
    assert queue.beat(claimed) and queue.is_cancelled(claimed)
    with pytest.raises(PredictionCancelledError):
        queue.allow_publishing(claimed)
    queue.stopped(claimed)
    ended = queue.job(job.id)
    assert (ended.state, ended.cancelling, ended.layer_id) == ("cancelled", False, None)


def test_a_wish_to_cancel_that_comes_too_late_leaves_the_layer_and_the_truth(queue):
    job = add(queue)
    claimed = queue.claim("slide", "w")
    queue.allow_publishing(claimed)
    queue.cancel(job.id)
    queue.finish(claimed, "layer1")
    assert (queue.job(job.id).state, queue.job(job.id).layer_id) == ("done", "layer1")


def test_a_job_whose_worker_dies_while_it_is_cancelled_is_cancelled(queue):
    job = add(queue)
    queue.claim("slide", "w")
    queue.cancel(job.id)
    queue.forget_worker("w", "It died.")
    assert queue.job(job.id).state == "cancelled"


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_a_job_that_has_ended_cannot_be_cancelled(queue, end):
    job = add(queue)
    if end == "cancel":
        queue.cancel(job.id)
    else:
        getattr(queue, end)(queue.claim("slide", "w"), "words")
    with pytest.raises(ConflictError, match="has ended already"):
        queue.cancel(job.id)


# -- storage -------------------------------------------------------------------------------------------------------


def test_the_queue_survives_a_restart_of_everything(queue, tmp_path):
    running, waiting = add(queue, 1), add(queue, 2, priority=-5)
    queue.claim("slide", "w")
    again = JobQueue(tmp_path)
    assert [(job.id, job.state) for job in again.jobs()] == [(waiting.id, "queued"), (running.id, "running")]
    assert again.beats()[0].id == running.id


def test_a_library_without_jobs_has_no_database(tmp_path):
    queue = JobQueue(tmp_path)
    assert (queue.jobs(), queue.counts()["queued"], queue.check()) == ([], 0, [])
    with pytest.raises(UnknownJobError):
        queue.job("nosuchjob000")
    with pytest.raises(UnknownJobError):
        queue.cancel("nosuchjob000")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", [2, 99])
def test_a_queue_of_another_format_is_refused(tmp_path, format_):
    add(JobQueue(tmp_path))
    with sqlite3.connect(tmp_path / DATABASE_FILE) as connection:
        connection.execute(f"PRAGMA user_version = {format_}")
    connection.close()
    with pytest.raises(LibraryError, match=f"format {format_}; this Ocular reads format 1"):
        JobQueue(tmp_path).jobs()


def test_a_damaged_database_is_a_named_error(tmp_path):
    (tmp_path / DATABASE_FILE).write_bytes(b"not a database" * 1000)
    with pytest.raises(LibraryError, match="queue of jobs cannot be used"):
        JobQueue(tmp_path).jobs()


def test_a_full_disk_is_a_named_error_and_changes_nothing(queue):
    job = add(queue, "first")
    with queue._connection() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    kept = [job.id]
    with pytest.raises(DiskFullError, match="queue of jobs is as it was"):
        for number in range(1000):
            kept.append(add(queue, number, model="m" * 60).id)
    assert len(kept) < 1000
    assert [job.id for job in queue.jobs()] == kept[::-1]
    assert queue.check() == []
    with queue._connection() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert add(queue, "after").position == len(kept) + 1


def test_a_lock_held_by_another_is_waited_for(queue, tmp_path, monkeypatch):
    add(queue)
    other = sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(add, queue, 1)
        assert not pending.done()
        assert len(queue.jobs()) == 1
        other.execute("COMMIT")
        assert pending.result().position == 2
    other.close()


def test_a_change_by_another_connection_is_seen_cheaply(queue, tmp_path):
    add(queue)
    before = queue.version()
    assert queue.version() == before
    add(JobQueue(tmp_path), 1)
    assert queue.version() != before


def test_reasons_are_one_printable_line(queue):
    job = add(queue)
    queue.fail(queue.claim("slide", "w"), "a\nb\x00c" + "x" * 1000)
    reason = queue.job(job.id).reason
    assert reason.startswith("a b cxxx") and len(reason) == 500


def test_every_field_of_a_job_but_its_fence_is_shown(queue):
    job = add(queue)
    names = {"slide_id": "slide", "layer_id": "layer"}
    fields = {names.get(field.name, field.name) for field in dataclasses.fields(job)} - {"fence"}
    assert fields == set(job.to_json())
