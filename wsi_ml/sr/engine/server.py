"""The engine's front: one event loop that listens, answers, counts time and notices who left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wsi_ml.errors import BadRequestError, DeadlineError, EngineUnavailableError, OcularError
from wsi_ml.slides.library import CACHE_FOLDER
from wsi_ml.slides.tile_cache import TileCache
from wsi_ml.sr.engine.maker import Outcome, TileMaker
from wsi_ml.sr.engine.models import Models, OpenUpscaler
from wsi_ml.sr.engine.options import EngineOptions
from wsi_ml.sr.engine.pool import MakerPool, maker_count
from wsi_ml.sr.engine.protocol import error_fields, frame, make_socket_folder, parse_key, read_frame, socket_path
from wsi_ml.sr.engine.queue import TileQueue
from wsi_ml.sr.synthesis import MadeTile, TileKey, provenance

log = logging.getLogger("ocular.engine")

LONGEST_DEADLINE_S = 600.0
WATCH_S = 1.0
HUNG_EXIT = 70
BACKLOG = 512


class Waiter:
    """One request that waits for a tile."""

    def __init__(self, connection: Connection, request_id: int, key: TileKey):
        self.connection = connection
        self.request_id = request_id
        self.key = key
        self.timer: asyncio.TimerHandle | None = None


class Connection:
    """One client's connection and the requests it waits for."""

    def __init__(self, writer: asyncio.StreamWriter):
        self._writer = writer
        self.waiters: dict[int, Waiter] = {}

    def send(self, request_id: int, fields: dict[str, Any], body: bytes = b"") -> None:
        """Answer a request; a client that is gone hears nothing."""
        if not self._writer.is_closing():
            self._writer.write(frame({"id": request_id, **fields}, body))

    def send_outcome(self, request_id: int, outcome: Outcome) -> None:
        """Answer a request with a tile or a named error."""
        if isinstance(outcome, MadeTile):
            self.send(request_id, {"source": outcome.source, "fallback": outcome.fallback}, outcome.data)
        else:
            self.send(request_id, error_fields(outcome))

    def close(self) -> None:
        """Hang up once what was sent is written."""
        self._writer.close()


class Engine:
    """One engine of one library, made inside a running event loop; `run` serves until `stop`."""

    def __init__(
        self, library_root: Path, options: EngineOptions, open_upscaler: OpenUpscaler, warm: Iterable[str] = ()
    ):
        self.options = options
        self.cache = TileCache(library_root / CACHE_FOLDER, options.cache_bytes)
        self.models = Models(open_upscaler, options.device, options.batch)
        self.maker = TileMaker(library_root, self.models, self.cache, options.decoded_bytes)
        makers = maker_count(options.makers)
        self.queue: TileQueue[Waiter] = TileQueue(options.queue, options.burst_ms / 1000, makers)
        self.pool = MakerPool(self.queue, self.maker, makers, options.threads, options.gather_ms / 1000, self._deliver)
        self.expired = 0
        self._socket = socket_path(library_root)
        self._warm = list(warm)
        self._connections: set[Connection] = set()
        self._began = time.monotonic()
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self, listening: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`; then finish what was asked for, within the drain time, and hang up."""
        server = await self._listen()
        self.pool.start(self._warm)
        watch = asyncio.ensure_future(self._watch())
        listening()
        await self._stopping.wait()
        server.close()
        self.queue.close()
        await self._drain()
        watch.cancel()
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()

    def stop(self) -> None:
        """Begin to stop; to be called in the loop's thread."""
        self._stopping.set()

    async def _listen(self) -> asyncio.Server:
        """Listen on the socket, which only this user may open; one found here is stale, for we hold the engine lock."""
        make_socket_folder(self._socket)
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()
        before = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(self._serve, self._socket, backlog=BACKLOG)
        finally:
            os.umask(before)

    async def _drain(self) -> None:
        until = time.monotonic() + self.options.drain_s
        while time.monotonic() < until and (self.queue.queued or self.queue.running or self._waiting()):
            await asyncio.sleep(0.02)

    def _waiting(self) -> int:
        return sum(len(connection.waiters) for connection in self._connections)

    async def _watch(self) -> None:
        """End the process when a tile hangs: nothing inside can stop a thread that is stuck in a library."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self.queue.longest_run_s() > self.options.hang_s:
                log.critical("a tile has taken more than %.0f s; the engine ends itself", self.options.hang_s)
                os._exit(HUNG_EXIT)

    # -- talking: everything below runs in the loop's thread, but for _deliver ---------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer)
        self._connections.add(connection)
        try:
            while True:
                header, _ = await read_frame(reader)
                self._handle(connection, header)
        except EngineUnavailableError:
            pass
        finally:
            self._connections.discard(connection)
            for waiter in list(connection.waiters.values()):
                self._forget(waiter)
            connection.close()

    def _handle(self, connection: Connection, header: dict[str, Any]) -> None:
        request_id, operation = header.get("id", 0), header.get("op")
        if type(request_id) is not int:
            raise EngineUnavailableError("A request without a number cannot be answered.")
        if operation == "tile":
            self._handle_tile(connection, request_id, header)
        elif operation == "again":
            with contextlib.suppress(BadRequestError):
                self.queue.bring_forward(parse_key(header))
        elif operation == "cancel" and request_id in connection.waiters:
            self._forget(connection.waiters[request_id])
        elif operation == "stats":
            connection.send(request_id, {"stats": self.stats()})

    def _handle_tile(self, connection: Connection, request_id: int, header: dict[str, Any]) -> None:
        try:
            key = parse_key(header)
            data = self.cache.get(key.text)
            if data is not None:
                connection.send_outcome(request_id, MadeTile(data, provenance(key.upscaler, key.sha256)))
                return
            waiter = Waiter(connection, request_id, key)
            self.queue.ask(key, waiter)
        except OcularError as error:
            connection.send_outcome(request_id, error)
            return
        waiter.timer = self._loop.call_later(_deadline(header), self._expire, waiter)
        connection.waiters[request_id] = waiter

    def _forget(self, waiter: Waiter) -> None:
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.connection.waiters.pop(waiter.request_id, None)
        self.queue.leave(waiter.key, waiter)

    def _expire(self, waiter: Waiter) -> None:
        self.expired += 1
        self._forget(waiter)
        error = DeadlineError("The tile was not made in time; the super-resolution engine is busy.")
        waiter.connection.send_outcome(waiter.request_id, error)

    def _deliver(self, waiters: set[Waiter], outcome: Outcome) -> None:
        # A closed loop means that the drain time is over and nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._answer, waiters, outcome)

    def _answer(self, waiters: set[Waiter], outcome: Outcome) -> None:
        for waiter in waiters:
            if waiter.connection.waiters.pop(waiter.request_id, None) is not None:
                if waiter.timer is not None:
                    waiter.timer.cancel()
                waiter.connection.send_outcome(waiter.request_id, outcome)

    def stats(self) -> dict[str, Any]:
        """State and counters for operators; every number counts since the engine's start."""
        return {
            "state": "stopping" if self._stopping.is_set() else "running",
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._began, 3),
            "connections": len(self._connections),
            "waiting": self._waiting(),
            "expired": self.expired,
            "makers": self.pool.count,
            "tile_seconds": self.pool.tile_seconds(),
            **self.queue.facts(),
            **self.maker.facts(),
            "cache": self.cache.facts(),
            "models": self.models.facts(),
        }


def _deadline(header: dict[str, Any]) -> float:
    value = header.get("deadline_s")
    given = float(value) if isinstance(value, (int, float)) and value > 0 else LONGEST_DEADLINE_S
    return min(given, LONGEST_DEADLINE_S)
