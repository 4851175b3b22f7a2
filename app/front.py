"""The async front: what granian runs in each web process (RSGI).

Tiles are answered on the event loop itself: a stored tile is one pread, and a tile that has to be synthesised is an
await on the engine, so a thousand waiting clients hold no thread and a client that leaves takes its work with it.
Everything else goes to the Flask app in a few threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask

from app import errors, tiles
from app.security import HEADERS, is_trusted_host
from app.state import EXTENSION, State
from wsi_ml.errors import OcularError

FLASK_THREADS = 8
Headers = list[tuple[str, str]]


class Front:
    """RSGI application around one Flask app."""

    def __init__(self, app: Flask):
        self.app = app
        self.state: State = app.extensions[EXTENSION]
        self._threads = ThreadPoolExecutor(FLASK_THREADS, thread_name_prefix="flask")
        self._trusted = self.state.settings.trusted_hosts
        self._body_limit = self.state.settings.body_limit_mb << 20

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        if scope.proto != "http":
            protocol.close(None)
            return
        host = scope.authority or scope.headers.get("host") or ""
        if not is_trusted_host(host, self._trusted):
            body, headers = errors.problem(
                400, "bad_request", "This server does not answer to that host name (trusted_hosts)."
            )
            protocol.response_bytes(400, headers + HEADERS, body)
        elif scope.path.startswith("/dzi/"):
            await self._tile(scope, protocol)
        else:
            await self._flask(scope, protocol)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let go of threads and the engine when the worker stops."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.state.synthesis.close()

    # -- tiles -----------------------------------------------------------------------------------------------------

    async def _tile(self, scope: Any, protocol: Any) -> None:
        method = scope.method
        try:
            condition = scope.headers.get("if-none-match")
            found = tiles.answer(self.state, scope.path, scope.query_string, method, condition)
            result = await self._await_tile(found, protocol) if isinstance(found, tiles.PendingTile) else found
        except Exception as error:  # noqa: BLE001 - the process's edge: an unforeseen error must not cut the connection
            result = tiles.TileAnswer(*errors.incident(error))
        if result is None:
            return
        if method == "HEAD" or result.status == 304:
            headers = [*result.headers, ("content-length", str(len(result.body)))] if result.body else result.headers
            protocol.response_empty(result.status, headers)
        else:
            protocol.response_bytes(result.status, result.headers, result.body)

    async def _await_tile(self, pending: tiles.PendingTile, protocol: Any) -> tiles.TileAnswer | None:
        """Wait for the engine or for the client to leave, whichever comes first; None when it left."""
        making = asyncio.ensure_future(self.state.synthesis.make_async(pending.version, pending.plan))
        leaving = asyncio.ensure_future(protocol.client_disconnect())
        try:
            await asyncio.wait((making, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                return None
            made = making.result()
            return tiles.finish(self.state, pending, made.data, made.source, made.fallback)
        except OcularError as error:
            return tiles.problem(self.state, error)
        finally:
            for task in (making, leaving):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    # -- everything else: WSGI in threads --------------------------------------------------------------------------

    async def _flask(self, scope: Any, protocol: Any) -> None:
        data = await self._body(scope, protocol)
        if data is None:
            body, headers = errors.problem(
                413, "too_large", f"A request body may have {self._body_limit >> 20} MB at most."
            )
            protocol.response_bytes(413, headers + HEADERS, body)
            return
        loop = asyncio.get_running_loop()
        status, headers, chunks = await loop.run_in_executor(self._threads, call_wsgi, self.app, environ(scope, data))
        if len(chunks) <= 1:
            protocol.response_bytes(status, headers, chunks[0] if chunks else b"")
            return
        transport = protocol.response_stream(status, headers)
        for chunk in chunks:
            await transport.send_bytes(chunk)

    async def _body(self, scope: Any, protocol: Any) -> bytes | None:
        """The request's body, None when it is too large: by its stated length unread, else as soon as it is seen."""
        length = scope.headers.get("content-length") or "0"
        if not length.isascii() or not length.isdigit() or int(length) > self._body_limit:
            return None
        if scope.method in ("GET", "HEAD"):
            return b""
        data = bytearray()
        async for chunk in protocol:
            data += chunk
            if len(data) > self._body_limit:
                return None
        return bytes(data)


def environ(scope: Any, body: bytes) -> dict[str, Any]:
    """WSGI environment (PEP 3333) of an RSGI request."""
    host, _, port = scope.server.rpartition(":")
    values: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        # granian has decoded the path once already; WSGI wants its UTF-8 bytes as latin-1.
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        if name == "content-type":
            values["CONTENT_TYPE"] = value
        # The body is whole here: with `Transfer-Encoding` still told, werkzeug would take none of it.
        elif name not in ("content-length", "transfer-encoding") and "_" not in name:
            values[f"HTTP_{name.upper().replace('-', '_')}"] = value
    if scope.authority:
        values["HTTP_HOST"] = scope.authority
    return values


def call_wsgi(app: Flask, values: dict[str, Any]) -> tuple[int, Headers, list[bytes]]:
    """Status, headers and body chunks of a WSGI app's answer."""
    status, headers = 500, []

    def start_response(line: str, pairs: Headers, _failure: Any = None) -> Callable[[bytes], None]:
        nonlocal status, headers
        status, headers = int(line.split(" ", 1)[0]), [(name.lower(), value) for name, value in pairs]
        return lambda _data: None

    body = app.wsgi_app(values, start_response)
    try:
        return status, headers, [chunk for chunk in body if chunk]
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
