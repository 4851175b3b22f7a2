"""What the super-resolution benchmarks share: a real slide, a server with its engine, a plain HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.common import SHARED, ocular_server
from wsi_ml.geometry import DeepZoom
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.library import Library
from wsi_ml.slides.tiles import VersionTiles
from wsi_ml.sr import available_upscalers
from wsi_ml.sr.engine import BlockingEngineClient, socket_path

SLIDE = SHARED / "wsi-atlas-dev" / "duodenum-adenoma-HE-x40.svs"
BROWSER_CONNECTIONS = 6


@dataclass(frozen=True)
class Served:
    """A served library with one real slide."""

    url: str
    prefix: str
    """Path of the slide's Deep Zoom sources."""
    base: DeepZoom
    sr_address: str
    engine: BlockingEngineClient

    def sr_path(self, t_col: int, t_row: int) -> str:
        """Path of one synthesised tile."""
        return f"{self.prefix}/{self.sr_address}_files/{self.base.top}/{t_col}_{t_row}.jpg"

    def stored_paths(self, count: int) -> list[str]:
        """Paths of whole stored tiles at the native level, the same ones every time."""
        counts = self.base.tile_counts(self.base.top - 1)
        addresses = [(col, row) for col in range(counts.width - 1) for row in range(counts.height - 1)]
        chosen = random.Random(1).sample(addresses, min(count, len(addresses)))
        return [f"{self.prefix}/stored_files/{self.base.top - 1}/{col}_{row}.jpg" for col, row in chosen]

    def interior(self) -> list[tuple[int, int]]:
        """Addresses of whole ×40 tiles, shuffled the same way every time."""
        counts = self.base.tile_counts(self.base.top)
        addresses = [(col, row) for col in range(counts.width - 1) for row in range(counts.height - 1)]
        random.Random(2).shuffle(addresses)
        return addresses

    def wait_until_warm(self) -> None:
        """Return when the network is loaded and has made its first tiles."""
        until = time.monotonic() + 60
        while not any(model["state"] == "ready" for model in self.engine.stats(30)["models"].values()):
            if time.monotonic() > until:
                raise SystemExit("The network did not load within a minute.")
            time.sleep(0.1)


@contextlib.contextmanager
def served_slide(**settings: str) -> Iterator[Served]:
    """Ingest the slide into a scratch library and serve it, the network loaded and warm."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library.create(Path(folder) / "library")
        result = ingest(SLIDE, library.root)
        tiles = VersionTiles(library.pyramid(result.slide_id), available_upscalers())
        network = next(source for source in tiles.sources.values() if source.upscaler and source.upscaler.kind == "sr")
        with ocular_server(library.root, **settings) as url:
            engine = BlockingEngineClient(socket_path(library.root))
            prefix = f"/dzi/{result.slide_id}/{result.version}"
            served = Served(url, prefix, tiles.base, network.address, engine)
            served.wait_until_warm()
            corner = served.base.tile_counts(served.base.top)
            for number in range(2):
                asyncio.run(fetch_all(url, [served.sr_path(corner.width - 1 - number, corner.height - 1)]))
            yield served
            engine.close()


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    source: str
    body: bytes
    seconds: float


class Connection:
    """One keep-alive HTTP/1.1 connection."""

    def __init__(self, url: str):
        self._host = urlsplit(url).netloc
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, if not yet done."""
        if self._streams is None:
            host, _, port = self._host.partition(":")
            self._streams = await asyncio.open_connection(host, int(port))
        return self._streams

    async def get(self, path: str) -> Answer:
        """GET one path."""
        began = time.perf_counter()
        reader, writer = await self.open()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        status = int(head[0].split()[1])
        return Answer(status, fields.get("x-tile-source", ""), body, time.perf_counter() - began)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


async def fetch_all(url: str, paths: list[str], connections: int = BROWSER_CONNECTIONS) -> tuple[list[Answer], float]:
    """Fetch paths in order over several open connections, as a browser does; answers, and seconds until the last.

    Raises SystemExit for any answer but 200.
    """
    left = iter(paths)
    answers: list[Answer] = []

    async def walk(connection: Connection) -> None:
        for path in left:
            answers.append(await connection.get(path))

    opened = [Connection(url) for _ in range(min(connections, len(paths)))]
    for connection in opened:
        await connection.open()
    began = time.perf_counter()
    await asyncio.gather(*(walk(connection) for connection in opened))
    seconds = time.perf_counter() - began
    for connection in opened:
        connection.close()
    bad = [answer for answer in answers if answer.status != 200]
    if bad:
        raise SystemExit(f"{len(bad)} of {len(paths)} answers were errors, the first {bad[0].status}: {bad[0].body!r}")
    return answers, seconds


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
