"""The engine process: `python -m wsi_ml.sr.engine --library DIR`. Usually started by `EngineSupervisor`."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import functools
import importlib
import logging
import os
import signal
import threading
from pathlib import Path
from typing import TextIO

from wsi_ml.errors import OcularError
from wsi_ml.processes import configure_logs, watch_parent
from wsi_ml.slides.library import MODELS_FOLDER, RUN_FOLDER
from wsi_ml.sr.engine.options import EngineOptions
from wsi_ml.sr.engine.protocol import LOCK_FILE
from wsi_ml.sr.engine.server import Engine

log = logging.getLogger("ocular.engine")

STANDBY_S = 0.2


def wait_for_lock(library_root: Path, parent_gone: threading.Event) -> TextIO | None:
    """Hold the library's engine lock; while another engine holds it, stand by and take over when that one ends.

    None when the parent is gone first.
    """
    folder = library_root / RUN_FOLDER
    folder.mkdir(mode=0o750, exist_ok=True)
    file = (folder / LOCK_FILE).open("w")
    told = False
    while not parent_gone.is_set():
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                log.info("another engine serves this library; standing by")
                told = True
            parent_gone.wait(STANDBY_S)
        else:
            return file
    file.close()
    return None


async def serve(library_root: Path, options: EngineOptions, parent_gone: threading.Event) -> None:
    """Run one engine until it is told to stop or its parent is gone."""
    upscalers = importlib.import_module(options.upscalers)
    folders = (library_root / MODELS_FOLDER,)
    networks = [card.name for card in upscalers.available_upscalers(folders) if card.kind == "sr"]
    opener = functools.partial(upscalers.open_upscaler, folders=folders)
    engine = Engine(library_root, options, opener, networks[:1] if options.warm else [])
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, engine.stop)

    def stop_with_parent() -> None:
        parent_gone.wait()
        loop.call_soon_threadsafe(engine.stop)

    threading.Thread(target=stop_with_parent, daemon=True).start()
    await engine.run(lambda: log.info("engine listens"))


def main(arguments: list[str] | None = None) -> int:
    """Run an engine; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m wsi_ml.sr.engine", description=__doc__)
    parser.add_argument("--library", type=Path, required=True, help="folder of the slide library")
    parser.add_argument("--stop-on-eof", action="store_true", help="stop when standard input ends")
    EngineOptions.add_flags(parser)
    parsed = parser.parse_args(arguments)
    options = EngineOptions.of(parsed)
    configure_logs(options.log_format, "engine")
    os.nice(options.nice)
    library_root = parsed.library.resolve()
    try:
        parent_gone = watch_parent() if parsed.stop_on_eof else threading.Event()
        lock = wait_for_lock(library_root, parent_gone)
        if lock is not None:
            with lock:
                asyncio.run(serve(library_root, options, parent_gone))
    except OcularError as error:
        log.critical("%s", error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # A maker thread may be inside a tile whose drain time is over; an ordinary exit would wait for it.
    os._exit(code)
