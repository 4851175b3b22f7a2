"""`ocular serve`: web processes under granian, engine and job workers beside them, one orderly shutdown for all."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from app import create_app
from app.front import Front
from app.settings import Settings, SettingsError
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.supervisor import JobSupervisor
from wsi_ml.slides.library import STAGING_FOLDER, Library
from wsi_ml.slides.staging import sweep
from wsi_ml.sr.engine import EngineOptions, EngineSupervisor

SETTINGS_VARIABLE = "OCULAR_SETTINGS"
RESPAWN_S = 1.0


def make_front() -> Front:
    """The front of one web process; its settings come from the parent as JSON in the environment."""
    return Front(create_app(Settings.model_validate_json(os.environ[SETTINGS_VARIABLE])))


def free_port(settings: Settings) -> int:
    """The port to listen on, a free one for port 0; raises SettingsError when it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host.strip("[]"), settings.port))
        except OSError as error:
            raise SettingsError(f"port: {settings.port} on {settings.host} cannot be used: {error.strerror}") from error
        return probe.getsockname()[1]


def address(settings: Settings, port: int) -> str:
    """The URL people open."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}/"


def serve(settings: Settings) -> None:
    """Serve a library until SIGTERM or SIGINT; running requests are finished first. Raises SettingsError."""
    library = Library.create(settings.library)
    sweep(library.root / STAGING_FOLDER)
    port = free_port(settings)
    # A fork would carry this process's threads' locks and its metrics, which were made before the folder was known.
    multiprocessing.set_start_method("spawn", force=True)
    metrics_folder = tempfile.mkdtemp(prefix="ocular-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_folder
    os.environ[SETTINGS_VARIABLE] = settings.model_dump_json()
    engine = EngineSupervisor(settings.library, engine_options(settings))
    jobs = JobSupervisor(settings.library, settings.job_workers, job_options(settings))
    engine.start()
    jobs.start()
    try:
        line = f"Ocular serves “{settings.library.name}” at {address(settings, port)}"
        threading.Thread(target=_say_when_listening, args=(settings.host, port, line), daemon=True).start()
        web_server(settings, port).serve()
    finally:
        jobs.stop()
        engine.stop()
        shutil.rmtree(metrics_folder, ignore_errors=True)


def _say_when_listening(host: str, port: int, line: str) -> None:
    """Print the address once a browser would be answered there, not before."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), port), timeout=1):
            print(line, flush=True)  # noqa: T201
            return
        time.sleep(0.1)


def engine_options(settings: Settings) -> EngineOptions:
    """What the engine has to know of the settings."""
    return EngineOptions(
        queue=settings.sr_queue,
        cache_bytes=settings.cache_mb << 20,
        threads=settings.sr_threads,
        device=settings.sr_device,
        warm=settings.sr_warm,
        log_format=settings.log_format,
    )


def job_options(settings: Settings) -> JobOptions:
    """What the job workers have to know of the settings."""
    return JobOptions(
        memory_mb=settings.job_memory_mb,
        threads=settings.job_threads,
        device=settings.job_device,
        nice=settings.job_nice,
        log_format=settings.log_format,
    )


def web_server(settings: Settings, port: int) -> MPServer:
    """Granian with our limits: keep-alive on, slow headers cut off, failed workers started again."""
    return MPServer(
        f"{__name__}:make_front",
        factory=True,
        address=settings.host.strip("[]"),
        port=port,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        workers=settings.workers,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_S,
        workers_kill_timeout=max(1, round(settings.drain_s)),
        log_enabled=False,
        working_dir=Path.cwd(),
    )
