"""Structured logs: one line an event, opaque ids only, never a file name, a slide name or a path."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable

import structlog

log = structlog.get_logger("ocular.requests")


def configure_logs(form: str, level: str) -> None:
    """Log to standard error as JSON or as text, from `level` upwards; may be called again."""
    renderer = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


class Faults:
    """Tells the log of faults that last, each once until it is gone; threads may share it."""

    def __init__(self, event: str):
        self._event = event
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def tell(self, faults: Iterable[str]) -> None:
        """Log those of the present faults that were not there the last time."""
        with self._lock:
            now = set(faults)
            new, self._known = sorted(now - self._known), now
        for fault in new:
            log.error(self._event, detail=fault)


def log_request(method: str, route: str, status: int, seconds: float) -> None:
    """One line for an answered request: the route's pattern, not the address, so no name can slip in."""
    emit = log.warning if status >= 500 else log.debug
    emit("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))
