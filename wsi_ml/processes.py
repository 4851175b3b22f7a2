"""What the processes beside the web share: flags, logs, a parent that may die, a supervisor that starts them again."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any, Self

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
STEADY_S = 10.0
"""A process that lived so long is started again at once; one that did not makes the next pause twice as long."""
KILL_AFTER_DRAIN_S = 5.0


class FlagOptions:
    """Mixin for a frozen dataclass of plain values that is handed over as command-line flags of the same names."""

    def arguments(self) -> list[str]:
        """Command-line flags of these options."""
        flags = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            flags += [f"--{field.name.replace('_', '-')}", str(int(value) if isinstance(value, bool) else value)]
        return flags

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add one flag for each option."""
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            kind: Any = type(field.default)
            parse = (lambda text: bool(int(text))) if kind is bool else kind
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=parse, default=field.default)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Options of parsed flags."""
        return cls(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


class KeptProcess:
    """Runs a command until `stop`, and starts it again when it dies; the pause grows while it keeps dying young.

    The command must end by itself when its standard input ends, which happens when this process dies, however it dies.
    """

    def __init__(self, command: list[str], what: str, log: logging.Logger, drain_s: float):
        self.restarts = 0
        self._command = command
        self._what = what
        self._log = log
        self._drain_s = drain_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the process and the watch over it; returns at once."""
        process = self._launch()
        self._thread = threading.Thread(target=self._keep_running, args=(process,), name=self._what, daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Send SIGTERM and start no other; returns at once."""
        with self._lock:
            self._stop.set()
            process = self._process
        if process is not None:
            process.terminate()

    def stop(self) -> None:
        """Stop the process: it gets its drain time, then it is killed."""
        self.ask_to_stop()
        if self._process is not None:
            try:
                self._process.wait(self._drain_s + KILL_AFTER_DRAIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._thread is not None:
            self._thread.join()

    def ended(self, pid: int) -> None:
        """Called in the watching thread after a process ended without having been told to; to be overridden."""

    def _launch(self) -> subprocess.Popen[bytes] | None:
        """Start a process, unless we are stopping."""
        with self._lock:
            if self._stop.is_set():
                return None
            # A process group of its own: Ctrl-C at a terminal reaches the web processes first, which still need it.
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)
            return self._process

    def _keep_running(self, process: subprocess.Popen[bytes] | None) -> None:
        pause = FIRST_PAUSE_S
        while process is not None:
            began = time.monotonic()
            status = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            if self._stop.is_set():
                return
            pause = FIRST_PAUSE_S if time.monotonic() - began >= STEADY_S else min(pause * 2, LONGEST_PAUSE_S)
            self._log.error("%s ended with status %s; starting it again in %.1f s", self._what, status, pause)
            self.ended(process.pid)
            self._stop.wait(pause)
            self.restarts += 1
            process = self._launch()


class JsonLines(logging.Formatter):
    """One JSON object a line, with the keys of the web processes' logs."""

    def __init__(self, part: str):
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat()
        line = {"event": record.getMessage(), "level": record.levelname.lower(), "timestamp": moment}
        line["part"] = self._part
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logs(form: str, part: str) -> None:
    """Log to standard error as text or JSON: ids and model names only, no slide's name, no path to one."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s {part} %(levelname)s %(message)s")
    handler.setFormatter(JsonLines(part) if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def watch_parent() -> threading.Event:
    """An event set when standard input ends: the parent holds its other end, so even a killed parent is noticed."""
    gone = threading.Event()

    def watch() -> None:
        # Not through sys.stdin: its lock, held by this thread, would abort the interpreter at its end.
        while os.read(sys.stdin.fileno(), 1 << 10):
            pass
        gone.set()

    threading.Thread(target=watch, daemon=True).start()
    return gone
