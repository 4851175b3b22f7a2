"""Stored tiles while super-resolution is saturated: p50 and p99 of a steady stream of requests against an idle engine.

The stream has a fixed rate (people looking, not a load test), so a slow answer does not slow the questions down.

Run: python -m benchmarks.sr_saturation
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import time

from benchmarks.common import table, write_result
from benchmarks.sr_load import BROWSER_CONNECTIONS, Connection, Served, percentile, served_slide

RATE = 100
SECONDS = 12
SATURATORS = 16


async def stored_stream(url: str, paths: list[str]) -> list[float]:
    """Seconds from the moment each request was due until its answer, at `RATE` a second."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(BROWSER_CONNECTIONS):
        free.put_nowait(Connection(url))
    seconds: list[float] = []

    async def ask(path: str, due: float) -> None:
        connection = await free.get()
        answer = await connection.get(path)
        if answer.status != 200 or answer.source != "stored":
            raise SystemExit(f"a stored tile answered {answer.status}: {answer.body[:200]!r}")
        seconds.append(time.perf_counter() - due)
        free.put_nowait(connection)

    began = time.perf_counter()
    tasks = []
    for number, path in zip(range(RATE * SECONDS), itertools.cycle(paths), strict=False):
        due = began + number / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(ask(path, due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait().close()
    return seconds


def saturate(url: str, paths: list[str]) -> None:
    """Keep `SATURATORS` synthesised tiles asked for until the process is ended."""

    async def walk(left: itertools.cycle) -> None:
        connection = Connection(url)
        for path in left:
            await connection.get(path)

    async def walk_all() -> None:
        left = itertools.cycle(paths)
        await asyncio.gather(*(walk(left) for _ in range(SATURATORS)))

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(walk_all())


def main() -> None:
    """Measure and write benchmarks/results/sr_saturation.md."""
    rows: list[dict[str, object]] = []
    p99 = {}
    # No cache for made tiles, so that the same tiles keep the engine busy for as long as it takes.
    with served_slide(cache_mb="0") as served:
        paths = served.stored_paths(200)
        asyncio.run(stored_stream(served.url, paths))
        for name in ("idle", "saturated", "idle again"):
            seconds, made = measure(served, paths, name == "saturated")
            p99[name] = percentile(seconds, 0.99)
            rows.append(
                {
                    "engine": name,
                    "stored tiles": len(seconds),
                    "p50 ms": round(percentile(seconds, 0.5) * 1000, 2),
                    "p99 ms": round(p99[name] * 1000, 2),
                    "longest ms": round(max(seconds) * 1000, 1),
                    "synthesised tiles/s beside": round(made / SECONDS, 1),
                }
            )
    ratio = p99["saturated"] / max(p99["idle"], p99["idle again"])
    note = f"Stored tiles at {RATE} a second: p99 is {ratio:.1f} × that of the slower idle run (goal: ≤ 2)."
    body = f"{table(rows)}\n\n{note}"
    write_result("sr_saturation", "Stored tiles beside a saturated engine", "python -m benchmarks.sr_saturation", body)


def measure(served: Served, paths: list[str], saturated: bool) -> tuple[list[float], int]:
    """Times of the stored stream, and how many tiles the engine made meanwhile."""
    load = multiprocessing.get_context("spawn").Process(
        target=saturate, args=(served.url, [served.sr_path(*address) for address in served.interior()[:200]])
    )
    if saturated:
        load.start()
        time.sleep(2)
    before = served.engine.stats(30)["computed"]
    seconds = asyncio.run(stored_stream(served.url, paths))
    made = served.engine.stats(30)["computed"] - before
    if saturated:
        load.terminate()
        load.join()
    return seconds, made


if __name__ == "__main__":
    main()
