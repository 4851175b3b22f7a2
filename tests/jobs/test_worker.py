"""Workers as real processes: done, tried again, cancelled, killed, stopped; nothing is published twice."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.jobs.conftest import FAST, PATIENCE_S, is_running, wait_for
from wsi_ml.errors import DiskFullError
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.order import order
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.jobs.worker import Worker
from wsi_ml.layers.store import LayerStore


def test_a_job_is_done_and_its_layer_is_there(bench):
    bench.start()
    done = bench.wait(bench.submit("slowly"), "done")
    layer = LayerStore(bench.root).layer(done.layer_id)
    assert (layer.slide_id, layer.version, layer.kind, layer.provenance["job"]) == (
        bench.slide_id, bench.version, "prediction", done.id,
    )  # fmt: skip
    assert (done.tries, done.reason, done.progress.unit) == (1, None, "windows")


def test_without_another_runner_a_job_is_a_prediction(bench):
    bench.start(runner=JobOptions.runner, device="cpu", threads=1)
    asked = {"kind": "predict", "slide": bench.slide_id, "model": "tissue", "parameters": {"tissue": "all"}}
    done = bench.wait(bench.queue.submit(order(bench.root, asked))[0], "done")
    layer = LayerStore(bench.root).layer(done.layer_id)
    assert (layer.kind, layer.provenance["model"], layer.provenance["preview"]) == ("prediction", "tissue", False)
    assert layer.provenance["slide_version"] == bench.version


def test_progress_is_seen_while_a_job_runs(bench):
    bench.start()
    job = bench.submit("wait")
    running = bench.wait(job, lambda now: now.progress is not None)
    assert (running.state, tuple(running.progress)) == ("running", (1, 2, "windows"))
    bench.let_go()
    bench.wait(job, "done")


def test_jobs_go_in_order_in_one_process_that_stays_warm(bench):
    jobs = [bench.submit(number=number, priority=number % 2) for number in range(4)]
    bench.start()
    for job in jobs:
        bench.wait(job, "done")
    assert [id_ for id_, _ in bench.runs()] == [jobs[number].id for number in (1, 3, 0, 2)]
    assert len({pid for _, pid in bench.runs()}) == 1


def test_a_process_is_replaced_after_so_many_jobs_and_ended_when_idle(bench):
    worker = bench.start(recycle=2, idle_s=0.3)
    assert bench.children(worker) == []
    for number in range(3):
        bench.wait(bench.submit(number=number), "done")
    wait_for(lambda: bench.children(worker), lambda children: children == [])
    assert len({pid for _, pid in bench.runs()}) >= 2


def test_an_idle_worker_has_loaded_nothing_large(bench):
    worker = bench.start()
    bench.wait(bench.submit(), "done")
    mapped = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libtorch" not in mapped and "numpy" not in mapped


def test_a_quick_job_does_not_wait_for_a_whole_slide(bench):
    bench.start("slide")
    bench.start("quick")
    slide = bench.submit("wait")
    bench.wait(slide, "running")
    bench.wait(bench.submit(quick=True), "done")
    assert bench.queue.job(slide.id).state == "running"
    bench.let_go()
    bench.wait(slide, "done")


def test_many_workers_do_each_job_once(bench):
    jobs = [bench.submit(number=number) for number in range(12)]
    for _ in range(3):
        bench.start()
    for job in jobs:
        bench.wait(job, "done")
    assert sorted(bench.layers()) == sorted(job.id for job in jobs) == sorted(id_ for id_, _ in bench.runs())


# -- deaths --------------------------------------------------------------------------------------------------------


def test_the_job_of_a_killed_worker_is_taken_over_when_its_lease_runs_out(bench):
    first = bench.start()
    job = bench.submit("wait")
    bench.wait(job, lambda now: now.progress is not None)
    (child,) = bench.children(first)
    bench.kill(first)
    wait_for(lambda: is_running(child), lambda running: not running)
    assert bench.queue.job(job.id).state == "running"
    bench.start(lease_s=1.0)
    again = bench.wait(job, lambda now: now.tries == 2)
    assert again.reason == "The process that ran it fell silent."
    bench.let_go()
    done = bench.wait(job, "done")
    assert (done.tries, done.reason, bench.layers()) == (2, None, [job.id])


def test_a_job_whose_workers_die_three_times_fails_with_words(bench):
    job = bench.submit("wait")
    for number in (1, 2, 3):
        worker = bench.start(lease_s=0.5)
        bench.wait(job, lambda now, number=number: now.tries == number and now.state == "running")
        wait_for(bench.runs, lambda runs, number=number: len(runs) == number)
        bench.kill(worker)
    bench.start(lease_s=0.5)
    failed = bench.wait(job, "failed")
    assert failed.reason == "It was tried 3 times. The last time: The process that ran it fell silent."
    other = bench.submit(number=2)
    bench.wait(other, "done")
    assert bench.layers() == [other.id]


def test_a_job_that_kills_its_process_is_tried_three_times_while_others_go_on(bench):
    bench.start()
    poison, healthy = bench.submit("die"), bench.submit()
    failed = bench.wait(poison, "failed")
    assert (failed.tries, failed.reason) == (
        3, "It was tried 3 times. The last time: Its process died (SIGSEGV).",
    )  # fmt: skip
    bench.wait(healthy, "done")
    assert [id_ for id_, _ in bench.runs()] == [poison.id] * 3 + [healthy.id]
    assert bench.layers() == [healthy.id]


def test_a_process_killed_by_the_kernel_is_told_so(bench):
    bench.start()
    failed = bench.wait(bench.submit("killed"), "failed")
    assert failed.reason.endswith("Its process was killed, probably because the machine ran out of memory.")


def test_a_job_that_dies_once_is_done_at_the_second_try(bench):
    bench.start()
    done = bench.wait(bench.submit("die_once"), "done")
    assert (done.tries, done.reason, bench.layers()) == (2, None, [done.id])


def test_a_stopped_worker_that_wakes_publishes_nothing_and_works_on(bench):
    """The worker is stopped, not its child: the child goes on for a while and must not publish either."""
    stale = bench.start()
    job = bench.submit("deaf")
    wait_for(bench.runs, lambda runs: len(runs) == 1)
    stale.send_signal(signal.SIGSTOP)
    bench.start(lease_s=1.0)
    wait_for(bench.runs, lambda runs: len(runs) == 2)
    # Both children stand before `before_publish` now, the stale one with its worker still asleep.
    bench.let_go()
    done = bench.wait(job, "done")
    assert (done.tries, bench.layers()) == (2, [job.id])
    stale.send_signal(signal.SIGCONT)
    others = [bench.submit(number=number) for number in range(4)]
    for other in others:
        bench.wait(other, "done")
    assert bench.layers() == [job.id, *sorted([o.id for o in others], key=bench.layers().index)]
    assert stale.poll() is None
    assert bench.queue.job(job.id) == done


def test_a_child_that_lost_its_job_stops_even_while_its_worker_sleeps(bench):
    stale = bench.start()
    job = bench.submit("wait")
    bench.wait(job, lambda now: now.progress is not None)
    stale.send_signal(signal.SIGSTOP)
    bench.start(lease_s=1.0)
    wait_for(bench.runs, lambda runs: len(runs) == 2)
    stale.send_signal(signal.SIGCONT)
    (first, second) = (int(pid) for _, pid in bench.runs())
    wait_for(lambda: is_running(first), lambda running: not running)
    assert is_running(second) and bench.queue.job(job.id).state == "running"
    bench.let_go()
    bench.wait(job, "done")
    assert bench.layers() == [job.id]


def test_everything_may_be_killed_and_the_queue_goes_on(bench):
    bench.start("slide")
    bench.start("quick")
    jobs = [bench.submit("wait"), bench.submit("wait", quick=True), bench.submit(number=3)]
    for job in jobs[:2]:
        bench.wait(job, lambda now: now.progress is not None)
    for worker in bench.workers:
        bench.kill(worker)
    bench.let_go()
    bench.start("slide", lease_s=1.0)
    bench.start("quick", lease_s=1.0)
    assert [bench.wait(job, "done").tries for job in jobs] == [2, 2, 1]
    assert sorted(bench.layers()) == sorted(job.id for job in jobs)


def test_a_worker_told_to_stop_lets_its_job_go_without_counting_the_try(bench):
    worker = bench.start()
    job = bench.submit("deaf")
    wait_for(bench.runs, lambda runs: len(runs) == 1)
    (child,) = bench.children(worker)
    worker.terminate()
    assert worker.wait(PATIENCE_S) == 0
    assert not is_running(child)
    waiting = bench.queue.job(job.id)
    assert (waiting.state, waiting.tries, waiting.position) == ("queued", 0, 1)
    bench.let_go()
    bench.start()
    assert bench.wait(job, "done").tries == 1


def test_a_worker_ends_cleanly_with_its_parent(bench):
    worker = bench.start()
    bench.wait(bench.submit(), "done")
    worker.stdin.close()
    assert worker.wait(PATIENCE_S) == 0


# -- faults --------------------------------------------------------------------------------------------------------


def test_a_refused_job_fails_at_once_in_the_words_of_the_refusal(bench):
    bench.start()
    failed = bench.wait(bench.submit("refused"), "failed")
    assert (failed.tries, failed.reason) == (1, "There is no tissue on this slide.")


def test_an_unforeseen_error_is_tried_three_times_and_named_without_its_text(bench):
    bench.start()
    failed = bench.wait(bench.submit("broken"), "failed")
    assert failed.tries == 3
    assert failed.reason.startswith(
        "It was tried 3 times. The last time: An unforeseen error, LookupError at fakes.py:"
    )
    assert str(bench.root) not in failed.reason


def test_a_runner_that_cannot_be_loaded_is_told_and_not_a_crash(bench):
    bench.start(runner="tests.jobs.nosuchmodule:run")
    failed = bench.wait(bench.submit(), "failed")
    assert failed.reason.startswith("It was tried 3 times. The last time: An unforeseen error, ModuleNotFoundError at ")


def test_a_full_disk_costs_no_worker_and_the_job_is_done_when_there_is_room(bench, monkeypatch):
    """The queue's end of a job cannot be written once: the job is taken back and its layer found."""
    worker = Worker(bench.root, "slide", "w", JobOptions(**(FAST | {"lease_s": 0.5, "runner": "tests.jobs.fakes:run"})))
    finish, refused = JobQueue.finish, []

    def finish_at_the_second_time(queue, job, layer_id):
        if not refused:
            refused.append(layer_id)
            raise DiskFullError("The disk is full.")
        finish(queue, job, layer_id)
        worker.stop()

    monkeypatch.setattr(JobQueue, "finish", finish_at_the_second_time)
    job = bench.submit("keyed")
    worker.run()
    done = bench.queue.job(job.id)
    assert (done.state, done.tries, [done.layer_id], bench.layers()) == ("done", 2, refused, [job.id])


def test_the_job_of_a_removed_slide_fails_with_words(bench):
    job = bench.submit()
    bench.library.remove(bench.slide_id)
    bench.start()
    failed = bench.wait(job, "failed")
    assert (failed.tries, failed.reason) == (1, "This slide version has been removed from the library.")
    assert bench.runs() == []


def test_a_job_over_its_memory_fails_naming_the_limit_and_the_next_is_done(bench):
    bench.start(memory_mb=400)
    greedy, healthy = bench.submit("hungry"), bench.submit()
    failed = bench.wait(greedy, "failed")
    assert (failed.tries, failed.reason) == (
        1, "It needed more memory than the 400 MB a job may have (job_memory_mb).",
    )  # fmt: skip
    bench.wait(healthy, "done")


def test_a_job_without_a_sign_of_life_is_killed_and_tried_again(bench):
    bench.start(stall_s=0.5)
    failed = bench.wait(bench.submit("deaf"), "failed")
    assert (failed.tries, failed.reason.split(": ")[1]) == (3, "It gave no sign of life for 0 s.")


# -- cancelling ----------------------------------------------------------------------------------------------------


def test_a_running_job_stops_when_it_is_cancelled_and_its_process_lives_on(bench):
    worker = bench.start(cancel_s=60.0)
    job = bench.submit("wait")
    bench.wait(job, lambda now: now.progress is not None)
    (child,) = bench.children(worker)
    bench.queue.cancel(job.id)
    cancelled = bench.wait(job, "cancelled")
    assert (cancelled.reason, cancelled.tries, cancelled.layer_id) == ("It was cancelled.", 1, None)
    bench.wait(bench.submit(), "done")
    assert bench.children(worker) == [child]


def test_a_job_that_does_not_listen_is_killed_when_it_is_cancelled(bench):
    bench.start(cancel_s=0.3)
    job = bench.submit("deaf")
    wait_for(bench.runs, lambda runs: len(runs) == 1)
    bench.queue.cancel(job.id)
    bench.wait(job, "cancelled")
    bench.let_go()
    other = bench.submit()
    bench.wait(other, "done")
    assert bench.layers() == [other.id]


def test_cancelled_and_ordered_anew_at_once_it_is_done(bench):
    bench.start()
    job = bench.submit("wait")
    bench.wait(job, lambda now: now.progress is not None)
    bench.queue.cancel(job.id)
    anew = bench.submit("wait")
    assert anew.id != job.id
    bench.let_go()
    bench.wait(anew, "done")
    assert bench.queue.job(job.id).state in ("cancelled", "done")


def test_a_worker_whose_queue_cannot_be_opened_ends_with_a_line(bench):
    bench.submit()
    with sqlite3.connect(bench.queue.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    worker = bench.start()
    assert worker.wait(PATIENCE_S) == 1
    with sqlite3.connect(bench.queue.path) as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()


@pytest.mark.slow
def test_a_thousand_contended_jobs_with_workers_killed_and_stopped_publish_each_once(bench):
    jobs = [bench.submit("keyed", number=number) for number in range(1000)]
    workers = [bench.start(lease_s=1.0) for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: [bench.wait(job, lambda now: now.finished is not None) for job in jobs])
        for round_ in range(8):
            seen = len(bench.runs())
            wait_for(lambda seen=seen: done.done() or len(bench.runs()) > seen + 40, bool)
            stopped, killed = workers[round_ % 3], workers[(round_ + 1) % 3]
            os.kill(stopped.pid, signal.SIGSTOP)
            bench.kill(killed)
            workers[(round_ + 1) % 3] = bench.start(lease_s=1.0)
            # For a while and not for a number of jobs: it may have been stopped while it held the database's lock.
            time.sleep(3)
            os.kill(stopped.pid, signal.SIGCONT)
        ended = done.result()
    assert {job.state for job in ended} == {"done"}
    assert sorted(bench.layers()) == sorted(job.id for job in jobs)
    # A kill between file and row leaves a file that no layer has, and nothing worse.
    assert [fault for fault in LayerStore(bench.root).check() if "delete it" not in fault] == []
    assert max(job.tries for job in ended) >= 2
