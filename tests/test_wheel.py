"""A built wheel is whole: installed outside the checkout it has its pages, static files, weights and commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile

import pytest

from tests.app.test_server import free_port
from tests.conftest import PROJECT_ROOT

pytestmark = pytest.mark.skipif(
    not (PROJECT_ROOT / "static" / "vendor" / "openseadragon").is_dir(),
    reason="front-end packages are not installed: make setup",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    shutil.rmtree(PROJECT_ROOT / "build", ignore_errors=True)  # setuptools would pack what an older build left there
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(PROJECT_ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("ocular_wsi-*.whl"))


def test_the_wheel_holds_everything_a_checkout_serves(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    for folder, package in (("static", "app/static"), ("templates", "app/templates")):
        for path in (PROJECT_ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{package}/{path.relative_to(PROJECT_ROOT / folder).as_posix()}" in inside
    assert {
        "wsi_ml/models/weights/sr-fast.safetensors",
        "wsi_ml/models/weights/sr-fast.json",
        "wsi_ml/slides/library.sql",
        "wsi_ml/jobs/schema.sql",
    } <= inside
    assert any(name.endswith("licenses/NOTICE") for name in inside)
    assert not [name for name in inside if name.startswith("tests/") or "private" in name]


def serve_and_look(python, folder):
    """Start an installed `ocular serve` in an empty folder and fetch a page and its files."""
    port = free_port()
    command = [str(python), "-m", "app.cli", "serve", "--library", "library", "--port", str(port), "--workers", "1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            base = f"http://127.0.0.1:{port}"
            for _ in range(200):
                try:
                    page = urllib.request.urlopen(f"{base}/", timeout=5).read().decode()
                    break
                except OSError:
                    assert process.poll() is None
                    time.sleep(0.1)
            assert "js/gallery.js" in page
            for path in (
                "static/js/gallery.js",
                "static/css/base.css",
                "static/vendor/openseadragon/openseadragon.min.js",
            ):
                assert len(urllib.request.urlopen(f"{base}/{path}", timeout=5).read()) > 100
            return json.loads(urllib.request.urlopen(f"{base}/api/slides", timeout=5).read())
        finally:
            process.terminate()
            process.wait(20)


def test_the_wheel_serves_from_an_environment_without_the_checkout(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    site = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Third-party packages only: a path file does not follow the path files of the folder it names, where the
    # checkout's own editable installation lies.
    (site / "third-party.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = environment / "bin" / "python"
    where = subprocess.run(
        [python, "-c", "import app; print(app.__file__)"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(str(site))
    models = subprocess.run(
        [python, "-m", "app.cli", "models", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    names = [model["name"] for model in json.loads(models.stdout)["models"]]
    assert names == [
        "bicubic", "sr-fast", "sr-joint", "nuclei", "nuclei-fast", "tissue", "tissue-fast", "tissue-joint",
        "trust-sr-fast", "trust-sr-joint",
    ]  # fmt: skip
    assert serve_and_look(python, tmp_path) == {"slides": []}


@pytest.mark.slow
def test_the_wheel_installs_with_its_dependencies_into_an_empty_environment(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(PROJECT_ROOT / "constraints.txt")]
    subprocess.run([*install, "torch"], cwd=tmp_path, check=True)
    subprocess.run([*install, f"{wheel}[serve]"], cwd=tmp_path, check=True)
    installed = subprocess.run(
        [str(python), "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout.lower()
    assert not [word for word in ("torchvision", "triton", "nvidia") if word in installed]
    help_text = subprocess.run(
        [environment / "bin" / "ocular", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "serve" in help_text.stdout
    assert serve_and_look(python, tmp_path) == {"slides": []}
