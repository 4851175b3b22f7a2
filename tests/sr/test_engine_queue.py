"""The queue without processes: joining, order, bounds, leaving, batches, draining."""

from __future__ import annotations

import threading

import pytest

from wsi_ml.errors import EngineUnavailableError, QueueFullError
from wsi_ml.sr.engine.queue import TileQueue
from wsi_ml.sr.synthesis import TileKey


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def key(number: int, upscaler: str = "sr-fast") -> TileKey:
    return TileKey("0" * 16, upscaler, "a" * 64, number, 0)


def columns(queue: TileQueue[str], limit: int = 1) -> list[int]:
    return [job.key.t_col for job in queue.take(lambda _key: limit)]


def test_newest_first_without_bursts() -> None:
    queue: TileQueue[str] = TileQueue(8)
    for number in range(4):
        queue.ask(key(number), "a")
    assert [columns(queue) for _ in range(4)] == [[3], [2], [1], [0]]
    assert (queue.queued, queue.running) == (0, 4)


def test_a_burst_keeps_its_order_and_the_newer_burst_goes_first() -> None:
    clock = Clock()
    queue: TileQueue[str] = TileQueue(8, burst_s=0.15, clock=clock)
    for number, now in enumerate((0.0, 0.1, 0.14, 0.16, 0.30, 0.32)):
        clock.now = now
        queue.ask(key(number), "a")
    assert [columns(queue)[0] for _ in range(6)] == [5, 3, 4, 0, 1, 2]


def test_asking_again_brings_a_queued_tile_to_the_front() -> None:
    queue: TileQueue[str] = TileQueue(8)
    for number in range(3):
        queue.ask(key(number), "a")
    queue.ask(key(0), "b")
    assert [columns(queue)[0] for _ in range(3)] == [0, 2, 1]
    assert (queue.asked, queue.joined) == (4, 1)


def test_bringing_forward_moves_queued_tiles_only() -> None:
    queue: TileQueue[str] = TileQueue(8)
    for number in range(4):
        queue.ask(key(number), "a")
    assert columns(queue) == [3]
    for number in (1, 3, 7):
        queue.bring_forward(key(number))
    assert [columns(queue)[0] for _ in range(3)] == [1, 2, 0]


def test_waiters_join_a_queued_and_a_running_job_and_are_handed_over_once() -> None:
    queue: TileQueue[str] = TileQueue(8)
    queue.ask(key(0), "a")
    queue.ask(key(0), "b")
    (job,) = queue.take()
    queue.ask(key(0), "c")
    queue.leave(key(0), "b")
    assert queue.finish(job) == {"a", "c"}
    queue.ask(key(0), "d")
    assert (queue.queued, queue.running) == (1, 0)


def test_the_last_to_leave_takes_a_queued_job_along_but_not_a_running_one() -> None:
    queue: TileQueue[str] = TileQueue(8)
    queue.ask(key(0), "a")
    queue.ask(key(0), "b")
    queue.leave(key(0), "a")
    assert (queue.queued, queue.dropped) == (1, 0)
    queue.leave(key(0), "b")
    assert (queue.queued, queue.dropped) == (0, 1)
    queue.leave(key(0), "b")
    queue.ask(key(1), "a")
    (job,) = queue.take()
    queue.leave(key(1), "a")
    assert (queue.running, queue.finish(job)) == (1, set())


def test_bounded_by_distinct_tiles() -> None:
    queue: TileQueue[str] = TileQueue(2, makers=2)
    queue.ask(key(0), "a")
    queue.ask(key(1), "a")
    with pytest.raises(QueueFullError) as caught:
        queue.ask(key(2), "a")
    assert caught.value.retry_after_s == 1
    queue.ask(key(1), "b")
    for _ in range(100):
        queue.measure(40.0)
    with pytest.raises(QueueFullError) as caught:
        queue.ask(key(2), "a")
    assert caught.value.retry_after_s == 30
    assert queue.facts() | {"refused": 2, "queued": 2} == queue.facts()


def test_batches_hold_one_upscaler_and_no_more_than_the_limit() -> None:
    queue: TileQueue[str] = TileQueue(8)
    for number, name in enumerate(("sr-fast", "bicubic", "sr-fast", "sr-fast", "sr-fast")):
        queue.ask(key(number, name), "a")
    assert [columns(queue, 3) for _ in range(3)] == [[4, 3, 2], [1], [0]]


def test_a_batch_that_is_not_full_waits_a_little() -> None:
    queue: TileQueue[str] = TileQueue(8)
    queue.ask(key(0), "a")
    later = threading.Timer(0.05, queue.ask, (key(1), "a"))
    later.start()
    assert [job.key.t_col for job in queue.take(lambda _key: 2, gather_s=30.0)] == [1, 0]
    later.join()


def test_take_waits_for_work_that_is_left_while_gathering() -> None:
    queue: TileQueue[str] = TileQueue(8)
    queue.ask(key(0), "a")
    taken: list[list[int]] = []
    thread = threading.Thread(target=lambda: taken.append([j.key.t_col for j in queue.take(lambda _key: 2, 0.3)]))
    thread.start()
    queue.leave(key(0), "a")
    queue.ask(key(1), "a")
    thread.join()
    assert taken == [[1]]


def test_a_helper_leaves_a_lone_job_to_the_others() -> None:
    queue: TileQueue[str] = TileQueue(8)
    taken: list[list[int]] = []

    def help_out() -> None:
        while jobs := queue.take(helping=True):
            taken.append([job.key.t_col for job in jobs])

    helper = threading.Thread(target=help_out)
    helper.start()
    queue.ask(key(0), "a")
    assert columns(queue) == [0]
    queue.ask(key(1), "a")
    queue.close()
    helper.join()
    assert taken == [[1]]


def test_a_closed_queue_refuses_and_drains() -> None:
    queue: TileQueue[str] = TileQueue(8)
    queue.ask(key(0), "a")
    queue.close()
    with pytest.raises(EngineUnavailableError):
        queue.ask(key(1), "a")
    assert columns(queue) == [0]
    assert columns(queue) == []


def test_longest_run() -> None:
    clock = Clock()
    queue: TileQueue[str] = TileQueue(8, clock=clock)
    assert queue.longest_run_s() == 0
    queue.ask(key(0), "a")
    (job,) = queue.take()
    clock.now = 7.0
    assert queue.longest_run_s() == 7.0
    queue.finish(job)
    assert queue.longest_run_s() == 0
