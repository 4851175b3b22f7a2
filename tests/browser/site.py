"""A server over a library made by code, with synthesis that a test holds in its hand."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from werkzeug.serving import WSGIRequestHandler, make_server

from app import create_app
from app.settings import Settings
from app.state import EXTENSION
from tests.versions import FakeNetwork, add_slide
from wsi_ml.errors import QueueFullError
from wsi_ml.geometry import DeepZoom, Region, Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.slides.codec import encode
from wsi_ml.slides.library import Library
from wsi_ml.slides.tiles import OpenVersions
from wsi_ml.sr.synthesis import MadeTile
from wsi_ml.sr.upscaler import open_upscaler

BASE_SIZE = Size(4611, 5001)
GLAND = [[1500.0, 1000.0], [2900.0, 1200.0], [2600.0, 1750.0], [2950.0, 2500.0], [1700.0, 2300.0], [1500.0, 1000.0]]
LUMEN = [[1900.0, 1500.0], [2300.0, 1500.0], [2300.0, 1900.0], [1900.0, 1900.0], [1900.0, 1500.0]]
NUCLEUS = [[3300.0, 800.0], [3420.0, 800.0], [3420.0, 920.0], [3300.0, 920.0], [3300.0, 800.0]]
EVIL = "<img src=nowhere onerror=document.title='owned'>"


class HeldSynthesis:
    """Makes ×40 tiles of squares of 16 px that no stored pixels resemble; can stall, refuse and stand in."""

    def __init__(self):
        self.open = threading.Event()
        self.reset()

    def reset(self):
        self.open.set()
        self.refusals = 0
        self.stand_in = False
        self.asked: list[tuple[int, int]] = []

    def provenance(self, plan):
        return "bicubic" if plan.upscaler == "bicubic" else f"sr; model={plan.upscaler}; sha256={plan.sha256[:12]}"

    def cached(self, *_):
        return None

    def make(self, version, plan):
        self.asked.append((plan.t_col, plan.t_row))
        if self.refusals > 0:
            self.refusals -= 1
            raise QueueFullError("The queue is full.", retry_after_s=1)
        self.open.wait(120)
        part = DeepZoom(BASE_SIZE).tile_region(13, plan.t_col, plan.t_row)
        data = encode(squares(part), plan.extension)
        if self.stand_in:
            return MadeTile(data, f"bicubic; fallback-for={plan.upscaler}; reason=model_bad_output", True)
        return MadeTile(data, self.provenance(plan))

    def stats(self):
        return None

    def close(self):
        self.open.set()


def squares(part: Region) -> np.ndarray:
    """The pixels that HeldSynthesis makes of a region of the base plane: one grey for each square of 16 px."""
    y, x = np.mgrid[part.y : part.y_end, part.x : part.x_end] // 16
    return np.repeat(((x * 53 + y * 97) % 256)[..., None], 3, 2).astype(np.uint8)


@dataclass(frozen=True)
class Site:
    """A running server and what it serves."""

    url: str
    library: Library
    synthesis: HeldSynthesis
    liver: str
    """Slide of BASE_SIZE with a layer: a gland with a lumen, and a nucleus."""
    evil: str
    """Slide whose name, layer and class are markup."""
    coarse: str
    """Slide at ×10, which no source synthesises."""

    def pyramid(self, slide_id: str):
        return self.library.pyramid(slide_id, self.library.slide(slide_id).current)


def feature(rings: list, name: str, color: list[int]) -> dict:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": color}},
    }


def make_library(root: Path) -> dict[str, str]:
    """Fill a library; gives slide ids by word."""
    library = Library.create(root)
    ids = {
        "liver": add_slide(library, "liver", BASE_SIZE)[0],
        "evil": add_slide(library, EVIL, Size(1200, 900), seed=1)[0],
        "coarse": add_slide(library, "coarse", Size(1400, 1100), seed=2, stored_mpp=1.0)[0],
    }
    layers = {
        "liver": [feature([GLAND, LUMEN], "Gland", [0, 160, 0]), feature([NUCLEUS], "Nucleus", [220, 0, 0])],
        "evil": [feature([[[100, 100], [900, 100], [900, 700], [100, 100]]], EVIL, [0, 0, 200])],
    }
    for word, features in layers.items():
        path = root / f"{word}.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        import_layer(root, ids[word], path, name=EVIL if word == "evil" else "Drawn by hand")
        path.unlink()
    return ids


class Quiet(WSGIRequestHandler):
    """Serves without a log line; connections stay open, as behind the real server."""

    protocol_version = "HTTP/1.1"

    def log(self, *_args, **_options):
        pass


def make_site(root: Path):
    """A generator of one running Site; the server stops when it is closed."""
    ids = make_library(root)
    app = create_app(Settings(library=root, log_level="error"))
    library, synthesis = Library(root), HeldSynthesis()
    upscalers = [open_upscaler("bicubic").card, FakeNetwork()]
    app.extensions[EXTENSION] = replace(
        app.extensions[EXTENSION], versions=OpenVersions(library, upscalers), synthesis=synthesis
    )
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{server.server_port}", library, synthesis, **ids)
    finally:
        synthesis.close()
        server.shutdown()
        thread.join()
        server.server_close()


def decode_png(data: bytes) -> np.ndarray:
    """RGB pixels of a screenshot."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
