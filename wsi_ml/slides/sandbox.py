"""A function run in a short-lived child process with limits: the only place where foreign files are decoded.

The child gets a bare environment, no new privileges, and limits on address space, CPU time, open files and file size
before it imports anything that decodes. It dies with its parent. It speaks JSON lines: one job in, messages out.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any

from wsi_ml.errors import DiskFullError, IngestError, OcularError

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
MAX_LINE_BYTES = 1 << 22
DISK_FULL_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL = "The disk is full: the slide was not ingested and nothing was kept; free some space and ingest it again."
KINDS: dict[str, type[OcularError]] = {error.code: error for error in (IngestError, DiskFullError)}

Message = dict[str, Any]
Report = Callable[[Message], None]
Job = Callable[[Message, Report], Message]


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    memory_bytes: int = 3 << 30
    """Address space; a decoder that asks for more fails."""
    cpu_s: int = 600
    """CPU seconds of all its threads together; `Child.run` may allow more once the job's size is known."""
    stall_s: float = 120.0
    """Longest silence between two messages before it is killed."""
    open_files: int = 256
    file_bytes: int = 1 << 40
    """Largest file it may write."""


class Child:
    """A child process that runs `target` ("package.module:function") once; use as a context manager.

    It starts importing at once, so the caller can do other work before `run`. Leaving the context kills it.
    """

    def __init__(self, target: str, limits: Limits = Limits()):
        self.limits = limits
        command = [sys.executable, "-m", "wsi_ml.slides.sandbox", target, json.dumps(asdict(limits)), str(os.getpid())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def tell(self, message: Message) -> None:
        """Send one more message to a job that listens (see `hear`); one that has ended hears nothing."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def run(self, job: Message, on_message: Report = lambda message: None, cpu_s: int | None = None) -> Message:
        """Give the child its job and return its result; `on_message` gets what it reports on the way.

        Raises the IngestError or DiskFullError the child names, and IngestError when it dies, stalls or passes a limit.
        """
        limits = self.limits if cpu_s is None else replace(self.limits, cpu_s=cpu_s)
        self.tell({"job": job, "cpu_s": limits.cpu_s})
        reader = _LineReader(self._process.stdout.fileno())  # type: ignore[union-attr]
        while (line := reader.next_line(self.limits.stall_s)) is not None:
            message = json.loads(line)
            if "result" in message:
                return message["result"]
            if "error" in message:
                raise KINDS.get(message["error"], IngestError)(_printable(message["sentence"]))
            on_message(message)
        raise IngestError(_death_sentence(self._process.wait(), limits))


class _LineReader:
    """Lines of a pipe, each with a deadline."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._buffer = b""

    def next_line(self, timeout_s: float) -> bytes | None:
        """The next line, or None at the end; raises IngestError when none comes in time."""
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise IngestError(
                        f"The file could not be read: its decoder made no progress for {timeout_s:g} s and was ended; "
                        "the file is probably damaged."
                    )
                data = os.read(self._descriptor, 1 << 16)
                if not data or len(self._buffer) > MAX_LINE_BYTES:
                    return None
                self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line


def _environment() -> dict[str, str]:
    """The bare environment of a child: no secrets of the parent's, one thread and one heap per library."""
    return {
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "4",
    }


def _printable(sentence: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", sentence)[:500]


def _death_sentence(status: int, limits: Limits) -> str:
    """One sentence for a child that ended without a result."""
    if status == -signal.SIGXCPU:
        return f"The file could not be read: decoding it took more than the {limits.cpu_s} s of CPU time allowed."
    if status == -signal.SIGKILL:
        return "The file could not be read: its decoder was killed, probably because the machine ran out of memory."
    return (
        f"The file could not be read: its decoder crashed or passed its limit of {limits.memory_bytes >> 20} MB; "
        "the file is damaged or claims sizes it does not have."
    )


# -- inside the child ----------------------------------------------------------------------------------------------


def confine(limits: Limits, parent: int) -> None:
    """Apply all limits but that on CPU time to this process for good, and tie its life to its parent's."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    for name, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, most))


def confine_cpu(cpu_s: int) -> None:
    """Limit CPU time; the hard limit lies beyond the soft one, for at the hard one the kernel kills without a word."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = cpu_s + 5 if hard == resource.RLIM_INFINITY else min(cpu_s + 5, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (min(cpu_s, most), most))


def fault_of(error: BaseException) -> Message:
    """The message a failed job ends with; an error nobody foresaw is named by place and type, never by its text."""
    if isinstance(error, OcularError):
        return {"error": error.code, "sentence": str(error)}
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNO:
        return {"error": DiskFullError.code, "sentence": DISK_FULL}
    if isinstance(error, MemoryError):
        sentence = "The file could not be read: decoding it needs more memory than allowed; it claims too large sizes."
        return {"error": IngestError.code, "sentence": sentence}
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119
    sentence = f"The file could not be read: {type(error).__name__} at {where}; the file is probably damaged."
    return {"error": IngestError.code, "sentence": sentence}


def hear() -> Message | None:
    """For a job inside the child: the next message of the parent, waiting for it; None when it sends no more."""
    line = sys.stdin.buffer.readline()
    return json.loads(line) if line else None


def main(target: str, limits: str, parent: str) -> None:
    """Entry of the child: confine, import, read the job, run it, report the end."""
    confine(Limits(**json.loads(limits)), int(parent))
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def report(message: Message) -> None:
        out.write(json.dumps(message).encode() + b"\n")

    try:
        module, function = target.split(":")
        job: Job = getattr(importlib.import_module(module), function)
        if order := hear():
            confine_cpu(order["cpu_s"])
            report({"result": job(order["job"], report)})
    except Exception as error:  # noqa: BLE001 - the process's edge: every fault becomes one sentence
        report(fault_of(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
