"""Prometheus metrics of one app: few, with label sets that cannot grow with the input."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one app. With `PROMETHEUS_MULTIPROC_DIR` set, `render` sums those of all web processes."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.tiles = Counter(
            "ocular_tiles", "Tiles answered with pixels, by how they came about.", ["kind"], registry=registry
        )
        self.tiles_stored = self.tiles.labels("stored")
        self.tiles_kept = self.tiles.labels("kept")
        self.tiles_made = self.tiles.labels("made")
        self.tile_errors = Counter(
            "ocular_tile_errors", "Tile requests refused or failed, by code.", ["code"], registry=registry
        )
        self.synthesised_seconds = Histogram(
            "ocular_synthesised_tile_seconds",
            "Time to a synthesised tile, waiting included.",
            buckets=SECONDS,
            registry=registry,
        )
        self.requests = Counter(
            "ocular_requests", "Other requests, by route and status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "ocular_request_seconds",
            "Time to answer other requests, by route.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )

    def render(self) -> bytes:
        """All metrics in Prometheus' text form."""
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            shared = CollectorRegistry()
            multiprocess.MultiProcessCollector(shared)
            return generate_latest(shared)
        return generate_latest(self.registry)
