"""The server as people run it: real processes, real sockets, real signals."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT
from tests.versions import add_slide
from wsi_ml.geometry import Size
from wsi_ml.slides.library import Library

TILE_SECONDS = 0.4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(library, *, tile_seconds=TILE_SECONDS, **settings):
    port = free_port()
    environment = os.environ | {"OCULAR_TEST_TILE_SECONDS": str(tile_seconds), "OCULAR_LOG_FORMAT": "json"}
    environment |= {f"OCULAR_{key.upper()}": str(value) for key, value in settings.items()}
    command = [sys.executable, "-m", "tests.app.slow_server", str(library.root), str(port)]
    with (library.root / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log)
    try:
        server = Server(port, process)
        server.wait_until(lambda: server.get("/readyz")[2]["parts"]["synthesis"]["state"] == "running")
        yield server
    finally:
        process.terminate()
        process.wait(30)


class Server:
    def __init__(self, port, process):
        self.port, self.process = port, process

    def request(self, path, method="GET", headers=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path):
        status, headers, data = self.request(path)
        return status, headers, json.loads(data) if "json" in headers.get("content-type", "") else data

    def engine(self):
        return self.get("/readyz")[2]["parts"]["synthesis"]

    def wait_until(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError, TypeError, http.client.HTTPException):
                if condition():
                    return
            time.sleep(0.05)
        raise AssertionError(f"not so within {seconds} s; process: {self.process.poll()}")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = Library.create(tmp_path_factory.mktemp("served") / "library")
    add_slide(library, "liver", Size(4400, 3000))
    return library


@pytest.fixture(scope="module")
def slide(library):
    slide = library.slides()[0]
    return slide.id, slide.current


@pytest.fixture(scope="module")
def server(library):
    with running(library) as server:
        yield server


def test_a_stored_tile_is_the_bytes_on_disk(server, library, slide):
    status, headers, data = server.get(f"/dzi/{slide[0]}/{slide[1]}/stored_files/12/1_1.jpg")
    assert (status, data) == (200, library.pyramid(slide[0]).tile_bytes(0, 1, 1))
    assert headers["cache-control"] == "private, max-age=31536000, immutable"
    assert headers["x-tile-source"] == "stored"
    unchanged = server.request(
        f"/dzi/{slide[0]}/{slide[1]}/stored_files/12/1_1.jpg", headers={"If-None-Match": headers["etag"]}
    )
    assert (unchanged[0], unchanged[2]) == (304, b"")
    head = server.request(f"/dzi/{slide[0]}/{slide[1]}/stored_files/12/1_1.jpg", "HEAD")
    assert (head[0], int(head[1]["content-length"]), head[2]) == (200, len(data), b"")


def test_a_hundred_clients_on_one_synthesised_tile_cost_one_computation(server, slide):
    before = server.engine()["computed"]
    path = f"/dzi/{slide[0]}/{slide[1]}/sr-fast_files/13/2_2.png"
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: server.request(path), range(100)))
    assert {status for status, _, _ in answers} == {200}
    assert len({data for _, _, data in answers}) == 1
    assert answers[0][1]["x-tile-source"].startswith("sr; model=sr-fast; sha256=")
    assert server.engine()["computed"] == before + 1


def test_stored_tiles_are_served_while_synthesis_is_busy(server, slide):
    paths = [f"/dzi/{slide[0]}/{slide[1]}/sr-fast_files/13/{col}_0.jpg" for col in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        pending = [pool.submit(server.request, path) for path in paths]
        server.wait_until(lambda: server.engine()["running"] > 0)
        served = [server.get(f"/dzi/{slide[0]}/{slide[1]}/stored_files/12/{col}_0.jpg")[0] for col in range(4)]
        assert not all(each.done() for each in pending)
        assert served == [200] * 4
        assert [each.result()[0] for each in pending] == [200] * 6


def test_work_of_clients_that_left_never_starts(server, slide):
    before = server.engine()
    sockets = []
    for number in range(40):
        path = f"/dzi/{slide[0]}/{slide[1]}/sr-fast_files/13/{number % 8}_{1 + number // 8}.webp"
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        sockets.append(connection)
    server.wait_until(lambda: server.engine()["queued"] >= 30)
    for connection in sockets:
        connection.close()
    server.wait_until(lambda: server.engine()["queued"] == 0, 5)
    server.wait_until(lambda: server.engine()["running"] == 0)
    started = server.engine()["computed"] - before["computed"]
    assert started <= 40 - 30
    assert server.engine()["dropped"] - before["dropped"] >= 30


def test_a_killed_engine_is_replaced_and_nobody_notices(server, slide):
    path = f"/dzi/{slide[0]}/{slide[1]}/sr-fast_files/13/7_3.jpg"
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        pending = [pool.submit(server.request, path) for _ in range(5)]
        server.wait_until(lambda: server.engine()["running"] > 0)
        killed = server.engine()["pid"]
        os.kill(killed, signal.SIGKILL)
        answers = [each.result() for each in pending]
    assert [status for status, _, _ in answers] == [200] * 5
    assert len({data for _, _, data in answers}) == 1
    assert server.engine()["pid"] != killed


def test_pages_and_cards_come_through_the_same_port(server, slide):
    status, headers, page = server.get("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"Ocular" in page
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and "unsafe" not in headers["content-security-policy"]
    )
    card = server.get(f"/api/slides/{slide[0]}")[2]
    assert [each["source"] for each in card["sources"]][:2] == ["stored", "bicubic"]
    assert server.get("/healthz")[2] == b"ok\n"
    metrics = server.get("/metrics")[2].decode()
    assert 'ocular_tiles_total{kind="stored"}' in metrics and "ocular_engine_up 1" in metrics
    assert "ocular_engine_computed_total " in metrics


def test_static_files_are_served_and_nothing_else_of_the_disk(server):
    assert server.get("/static/js/api.js")[1]["content-type"].startswith("text/javascript")
    for path in ("/static/../app/settings.py", "/static/%2e%2e/setup.cfg", "/static//etc/passwd", "/static/js/%00"):
        status, headers, _ = server.get(path)
        assert (status, headers["content-type"]) == (404, "application/problem+json")


def test_other_host_names_and_large_bodies_are_refused(server):
    assert server.request("/api/slides", headers={"Host": "evil.example"})[0] == 400
    status, _, data = server.request("/api/slides", "POST", {"Content-Length": str(10 << 20)})
    assert (status, json.loads(data)["code"]) == (413, "too_large")


def test_a_removed_slide_is_gone_in_all_web_processes_within_a_second(server, library):
    slide_id, version, _ = add_slide(library, "goes", Size(900, 700), seed=9)
    path = f"/dzi/{slide_id}/{version}/stored_files/9/0_0.jpg"
    assert {server.get(path)[0] for _ in range(20)} == {200}
    library.remove(slide_id)
    time.sleep(1)
    assert {server.get(path)[0] for _ in range(20)} == {410}


def test_a_killed_web_process_is_replaced_while_the_other_serves(server, slide):
    path = f"/dzi/{slide[0]}/{slide[1]}/stored_files/12/0_0.jpg"
    before = web_processes(server)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    server.wait_until(lambda: len(set(web_processes(server)) - {before[0]}) == 2, 10)
    server.wait_until(lambda: server.get(path)[0] == 200)


def web_processes(server):
    """Processes that multiprocessing spawned from the server's own, its resource tracker left out."""
    parent = server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_the_log_holds_no_names_and_no_paths(server, library, slide):
    server.get("/slides/liver-of-a-patient")
    server.get(f"/api/slides/{slide[0]}")
    text = (library.root / "server.log").read_text()
    assert "liver" not in text
    assert all(str(library.root) not in line for line in text.splitlines() if line.startswith("{"))


def test_sigterm_finishes_running_requests_and_ends_every_process(tmp_path):
    library = Library.create(tmp_path / "library")
    slide = add_slide(library, "liver", Size(4400, 3000))
    with running(library, tile_seconds=1.0) as server:
        engine = server.engine()["pid"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pending = pool.submit(server.request, f"/dzi/{slide[0]}/{slide[1]}/sr-fast_files/13/8_5.png")
            server.wait_until(lambda: server.engine()["running"] > 0)
            server.process.send_signal(signal.SIGTERM)
            assert pending.result()[0] == 200
        assert server.process.wait(20) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(engine, 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--host", "0.0.0.0"], "ocular: host: 0.0.0.0 is not a loopback address"),
        (["--port", "99999"], "ocular: port: Input should be less than or equal to 65535"),
        (["--workers", "0"], "ocular: workers: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_settings_stop_the_start_with_one_line(tmp_path, arguments, line):
    command = [sys.executable, "-m", "app.cli", "serve", "--library", str(tmp_path / "library"), *arguments]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(line) and len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "library").exists()


def test_a_port_in_use_stops_the_start(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [
            sys.executable,
            "-m",
            "app.cli",
            "serve",
            "--library",
            str(tmp_path / "l"),
            "--port",
            str(taken.getsockname()[1]),
        ]
        ended = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("ocular: port: ")
