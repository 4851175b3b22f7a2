"""What benchmarks share: real slides or a drawn one, servers as whole processes, load, tables."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared" / "data"


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(
    arguments: list[str], url: str, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """A server process that answers at `url` when the block starts and is ended after it."""
    child = subprocess.Popen(
        arguments, cwd=cwd, env=os.environ | (env or {}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(url, child)
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        if child.poll() is None:
            child.kill()
            child.wait()


def wait_for(url: str, child: subprocess.Popen, seconds: float = 60) -> None:
    """Return when `url` answers; raises RuntimeError when the process ended or time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.poll() is not None:
            raise RuntimeError(f"{child.args!r} ended with {child.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer in {seconds} s")


@contextlib.contextmanager
def ocular_server(library: Path, workers: int = 2, **settings: str) -> Iterator[str]:
    """`ocular serve` over a library; gives the URL without a final slash."""
    port = free_port()
    env = {f"OCULAR_{key.upper()}": value for key, value in settings.items()}
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "serve",
        "--library",
        str(library),
        "--port",
        str(port),
        "--workers",
        str(workers),
    ]
    with process(command, f"http://127.0.0.1:{port}/healthz", env=env):
        yield f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests per second, p50 and p99 in ms, answers that were not 2xx or 3xx."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


def wrk(base_url: str, paths: list[str], connections: int, seconds: float = 5.0) -> Load:
    """Load from one wrk thread that walks through `paths` in turn."""
    if shutil.which("wrk") is None:
        raise SystemExit("This benchmark needs wrk: sudo apt-get install wrk")
    script = Path(os.environ.get("TMPDIR", "/tmp")) / f"ocular-wrk-{os.getpid()}.lua"
    listing = ",".join(f'"{path}"' for path in paths)
    script.write_text(
        f"local paths = {{{listing}}}\nlocal i = 0\n"
        "request = function() i = i % #paths + 1 return wrk.format('GET', paths[i]) end\n"
    )
    try:
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:.0f}s",
            "--latency",
            "--timeout",
            "30s",
            "-s",
            str(script),
            base_url,
        ]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        script.unlink()
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        _milliseconds(re.search(r"50%\s+([\d.]+)(us|ms|s)", text)),
        _milliseconds(re.search(r"99%\s+([\d.]+)(us|ms|s)", text)),
        int(errors.group(1)) if errors else 0,
    )


def _milliseconds(match: re.Match[str]) -> float:
    return float(match.group(1)) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match.group(2)]


def table(rows: list[dict[str, object]]) -> str:
    """Rows of equal keys as a Markdown table."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(row[key]) for key in head) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """The machine in one line, without its name."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "?",
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, client on the same cores"


def write_result(name: str, title: str, command: str, body: str) -> None:
    """Print a result and keep it as benchmarks/results/<name>.md."""
    text = f"# {title}\n\nPrinted by `{command}` on {machine()}.\n\n{body}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
