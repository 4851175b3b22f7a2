"""100 clients ask for one synthesised tile at the same moment: computations, bodies, wall time against one client.

Run: python -m benchmarks.sr_herd
"""

from __future__ import annotations

import asyncio

from benchmarks.common import table, write_result
from benchmarks.sr_load import Served, fetch_all, percentile, served_slide

CLIENTS = 100
ROUNDS = 15


def ask(served: Served, address: tuple[int, int], clients: int) -> tuple[float, int, int]:
    """Seconds until every client has its tile, computations the engine counted, different bodies."""
    before = served.engine.stats()["computed"]
    answers, seconds = asyncio.run(fetch_all(served.url, [served.sr_path(*address)] * clients, clients))
    return seconds, served.engine.stats()["computed"] - before, len({answer.body for answer in answers})


def main() -> None:
    """Measure and write benchmarks/results/sr_herd.md."""
    rows: list[dict[str, object]] = []
    medians = []
    with served_slide() as served:
        addresses = iter(served.interior())
        # One and a hundred in turn, so that both see the same machine.
        rounds = [(ask(served, next(addresses), 1), ask(served, next(addresses), CLIENTS)) for _ in range(ROUNDS)]
        for number, clients in enumerate((1, CLIENTS)):
            seconds = [each[number][0] for each in rounds]
            medians.append(percentile(seconds, 0.5))
            rows.append(
                {
                    "clients": clients,
                    "tiles": ROUNDS,
                    "computations": sum(each[number][1] for each in rounds),
                    "different bodies per tile": max(each[number][2] for each in rounds),
                    "p50 ms to the last client": round(medians[-1] * 1000),
                    "p95 ms": round(percentile(seconds, 0.95) * 1000),
                }
            )
    body = f"{table(rows)}\n\nA hundred clients wait {medians[1] / medians[0]:.2f} × as long as one (goal: ≤ 1.3)."
    write_result("sr_herd", "100 clients on one synthesised tile", "python -m benchmarks.sr_herd", body)


if __name__ == "__main__":
    main()
