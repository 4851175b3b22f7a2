"""A viewport of 1920 × 1080 px at ×40: time until every tile is sharp, cold, panned by a third, and seen before.

Tiles are fetched over six connections as a browser does, centre first.

Run: python -m benchmarks.viewport
"""

from __future__ import annotations

import asyncio
import random

from benchmarks.common import table, write_result
from benchmarks.sr_load import Served, fetch_all, percentile, served_slide

WIDTH, HEIGHT = 1920, 1080
VIEWS = 8
PANS = 3
SIDE = 512


def addresses(x: int, y: int) -> list[tuple[int, int]]:
    """Tiles under a viewport whose top left corner is at (x, y) of the base plane, nearest to its centre first."""
    tiles = [
        (t_col, t_row)
        for t_col in range(x // SIDE, (x + WIDTH - 1) // SIDE + 1)
        for t_row in range(y // SIDE, (y + HEIGHT - 1) // SIDE + 1)
    ]
    centre = ((x + WIDTH / 2) / SIDE - 0.5, (y + HEIGHT / 2) / SIDE - 0.5)
    return sorted(tiles, key=lambda tile: (tile[0] - centre[0]) ** 2 + (tile[1] - centre[1]) ** 2)


def show(served: Served, tiles: list[tuple[int, int]]) -> tuple[float, float]:
    """Milliseconds until the first tile and until all tiles are there."""
    answers, seconds = asyncio.run(fetch_all(served.url, [served.sr_path(*tile) for tile in tiles]))
    return min(answer.seconds for answer in answers) * 1000, seconds * 1000


def walk(served: Served, rng: random.Random, kinds: dict[str, list[tuple[int, float, float]]]) -> None:
    """One view: opened cold, panned right by thirds, then the first view again."""
    size = served.base.size
    x, y = rng.randrange(size.width - 2 * WIDTH), rng.randrange(size.height - HEIGHT)
    first = addresses(x, y)
    kinds["cold"].append((len(first), *show(served, first)))
    seen = set(first)
    for number in range(1, PANS + 1):
        new = [tile for tile in addresses(x + number * WIDTH // 3, y) if tile not in seen]
        seen |= set(new)
        if new:
            kinds["panned by a third"].append((len(new), *show(served, new)))
    kinds["seen before"].append((len(first), *show(served, first)))


def main() -> None:
    """Measure and write benchmarks/results/viewport.md."""
    kinds: dict[str, list[tuple[int, float, float]]] = {"cold": [], "panned by a third": [], "seen before": []}
    rng = random.Random(3)
    with served_slide() as served:
        for _ in range(VIEWS):
            walk(served, rng, kinds)
        seconds = served.engine.stats()["tile_seconds"]
    rows = []
    for kind, shown in kinds.items():
        counts = [count for count, _, _ in shown]
        every = [all_ms for _, _, all_ms in shown]
        rows.append(
            {
                "view": kind,
                "views": len(shown),
                "new tiles": f"{min(counts)}–{max(counts)}",
                "first tile p50 ms": round(percentile([first for _, first, _ in shown], 0.5)),
                "all sharp p50 ms": round(percentile(every, 0.5)),
                "all sharp p95 ms": round(percentile(every, 0.95)),
                "ms per tile": round(sum(every) / sum(counts), 1),
            }
        )
    goals = "Goals: cold ≤ 1000 ms, panned ≤ 250 ms."
    body = f"{table(rows)}\n\n{goals} One maker thread spent {seconds['p50'] * 1000:.0f} ms on a tile (p50)."
    write_result("viewport", "A viewport of 1920 × 1080 at ×40", "python -m benchmarks.viewport", body)


if __name__ == "__main__":
    main()
