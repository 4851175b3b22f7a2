"""Clients of the engine: one for event loops, one for plain threads."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from wsi_ml.errors import DeadlineError, EngineUnavailableError, OcularError
from wsi_ml.sr.engine.protocol import error_of, frame, key_fields, read_frame
from wsi_ml.sr.synthesis import MadeTile, TileKey

Result = TypeVar("Result")
Answer = tuple[dict[str, Any], bytes]

DEADLINE_S = 30.0
LATE = "The tile was not made in time; the super-resolution engine is busy."
PAUSES_S = (0.05, 0.1, 0.2, 0.4)
"""Waits between attempts to reach an engine that is being restarted; the last one repeats."""
PATIENCE_S = 6.0
"""How long an engine may be out of reach: a restart takes less, and waiting on for one that does not come would hold
all six connections a browser has, so that stored tiles could not get through either."""
MOST_SENDS = 3
"""A request is sent so often in all when the engine dies under it: one that kills engines must not go on for ever."""


class Link:
    """One connection to the engine and the requests under way on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._reading = asyncio.ensure_future(self._read())

    @property
    def is_lost(self) -> bool:
        """True once nothing can be asked any more."""
        return self._reading.done() or self._writer.is_closing()

    async def exchange(self, message: dict[str, Any], left_s: float) -> Answer:
        """The answer to a message; raises DeadlineError, or EngineUnavailableError when the connection is lost."""
        request_id = next(self._ids)
        future = self._pending[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(frame({"id": request_id, "deadline_s": left_s, **message}))
            async with asyncio.timeout(left_s):
                return await future
        except TimeoutError as error:
            self.tell({"op": "cancel", "id": request_id})
            raise DeadlineError(LATE) from error
        except asyncio.CancelledError:
            self.tell({"op": "cancel", "id": request_id})
            raise
        finally:
            del self._pending[request_id]

    async def close(self) -> None:
        """Hang up; whoever still waits gets EngineUnavailableError."""
        self._writer.close()
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message that has no answer, if the connection stands."""
        if not self.is_lost:
            self._writer.write(frame(message))

    async def _read(self) -> None:
        """Hand answers to those who wait until the connection ends; then tell them all."""
        try:
            while True:
                header, body = await read_frame(self._reader)
                future = self._pending.get(header.get("id", 0))
                if future is not None and not future.done():
                    future.set_result((header, body))
        except EngineUnavailableError:
            pass
        finally:
            self._writer.close()
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(EngineUnavailableError("The super-resolution engine was lost."))


@dataclass(eq=False)
class SharedRequest:
    """One request to the engine that several callers of this process wait for."""

    task: asyncio.Task[MadeTile]
    callers: int = 0


class EngineClient:
    """Asks the engine from one event loop, over one connection that is made when first needed and again when lost.

    Callers that want the same tile share one request, so its bytes cross the socket once; when the last of them is
    cancelled, the request is cancelled in the engine.
    """

    def __init__(self, socket_path: Path, patience_s: float = PATIENCE_S):
        self._path = Path(socket_path)
        self._patience_s = patience_s
        self._shared: dict[TileKey, SharedRequest] = {}
        self._link: Link | None = None
        self._connecting = asyncio.Lock()

    async def tile(self, key: TileKey, deadline_s: float = DEADLINE_S) -> MadeTile:
        """The tile, made or from the engine's cache.

        Raises the named error that the engine answers (QueueFullError, ModelUnavailableError …), DeadlineError when it
        is too busy, and EngineUnavailableError when it stays out of reach (`patience_s`) or dies of this tile.
        """
        ends = time.monotonic() + deadline_s
        while True:
            shared = self._join(key, ends - time.monotonic())
            try:
                async with asyncio.timeout(ends - time.monotonic()):
                    return await asyncio.shield(shared.task)
            except TimeoutError as error:
                raise DeadlineError(LATE) from error
            except DeadlineError:
                # It may have been the nearer deadline of a caller who came before.
                if time.monotonic() + PAUSES_S[0] >= ends:
                    raise
            finally:
                self._leave(key, shared)

    def _join(self, key: TileKey, deadline_s: float) -> SharedRequest:
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = SharedRequest(asyncio.ensure_future(self._tile(key, deadline_s)))
        elif self._link is not None:
            # Somebody looks at it now: it goes to the front of the queue as a new request would.
            self._link.tell({"op": "again", **key_fields(key)})
        shared.callers += 1
        return shared

    def _leave(self, key: TileKey, shared: SharedRequest) -> None:
        shared.callers -= 1
        if not shared.callers:
            if self._shared.get(key) is shared:
                del self._shared[key]
            shared.task.cancel()

    async def _tile(self, key: TileKey, deadline_s: float) -> MadeTile:
        header, data = await self._ask({"op": "tile", **key_fields(key)}, deadline_s)
        return MadeTile(data, header["source"], header["fallback"])

    async def stats(self, deadline_s: float = 2.0) -> dict[str, Any]:
        """The engine's state and counters; raises EngineUnavailableError or DeadlineError."""
        header, _ = await self._ask({"op": "stats"}, deadline_s)
        return header["stats"]

    async def close(self) -> None:
        """Hang up; a later request connects again."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _ask(self, message: dict[str, Any], deadline_s: float) -> Answer:
        """Send a message until it is answered, over as many connections as the engine's restarts need."""
        ends = time.monotonic() + deadline_s
        gives_up = time.monotonic() + self._patience_s
        sends = 0
        for attempt in itertools.count():
            error: OcularError
            try:
                link = await self._connected()
                sends += 1
                gives_up = math.inf
                header, body = await link.exchange(message, ends - time.monotonic())
                if "error" not in header:
                    return header, body
                error = error_of(header)
            except EngineUnavailableError as lost:
                error = lost
                gives_up = min(gives_up, time.monotonic() + self._patience_s)
            pause = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
            is_final = not isinstance(error, EngineUnavailableError) or sends >= MOST_SENDS
            if is_final or time.monotonic() + pause >= min(ends, gives_up):
                raise error
            await asyncio.sleep(pause)
        raise AssertionError

    async def _connected(self) -> Link:
        async with self._connecting:
            if self._link is None or self._link.is_lost:
                try:
                    self._link = Link(*await asyncio.open_unix_connection(self._path))
                except OSError as error:
                    raise EngineUnavailableError("The super-resolution engine is not running.") from error
            return self._link


class ClientThread(NamedTuple):
    """A thread that runs an event loop with one client."""

    loop: asyncio.AbstractEventLoop
    client: EngineClient
    thread: threading.Thread


class BlockingEngineClient:
    """Asks the engine from any number of threads: a thread of its own runs one EngineClient for all."""

    def __init__(self, socket_path: Path, patience_s: float = PATIENCE_S):
        self._path = socket_path
        self._patience_s = patience_s
        self._running: ClientThread | None = None
        self._lock = threading.Lock()

    def tile(self, key: TileKey, deadline_s: float = DEADLINE_S) -> MadeTile:
        """See EngineClient.tile."""
        running = self._started()
        return self._wait(running, running.client.tile(key, deadline_s))

    def stats(self, deadline_s: float = 2.0) -> dict[str, Any]:
        """See EngineClient.stats."""
        running = self._started()
        return self._wait(running, running.client.stats(deadline_s))

    def close(self) -> None:
        """Hang up and end the thread; the client may be used again afterwards."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            self._wait(running, running.client.close())
            running.loop.call_soon_threadsafe(running.loop.stop)
            running.thread.join()
            running.loop.close()

    def _started(self) -> ClientThread:
        with self._lock:
            if self._running is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="engine-client", daemon=True)
                thread.start()
                self._running = ClientThread(loop, EngineClient(self._path, self._patience_s), thread)
            return self._running

    @staticmethod
    def _wait(running: ClientThread, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, running.loop).result()
