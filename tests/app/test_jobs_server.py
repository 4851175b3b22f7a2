"""Jobs through the server as people run it: real web processes, workers and children, over sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.app.test_server import Server, running
from tests.jobs.conftest import is_running
from tests.jobs.fakes import DO_FILE, GO_FILE, runs
from tests.versions import add_slide
from wsi_ml.geometry import Size
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def library(tmp_path):
    library = Library.create(tmp_path / "library")
    add_slide(library, "liver", Size(900, 700))
    return library


def post(server: Server, library: Library, **more: object) -> dict:
    order = {"kind": "predict", "slide": library.slides()[0].id, "model": "tissue", **more}
    status, headers, body = server.request("/api/jobs", "POST", JSON, json.dumps(order))
    assert status in (200, 201), body
    assert headers["location"].startswith("/api/jobs/")
    return json.loads(body)


def wait(server: Server, job: dict, state: str) -> dict:
    server.wait_until(lambda: server.get(f"/api/jobs/{job['id']}")[2]["state"] == state, 60)
    return server.get(f"/api/jobs/{job['id']}")[2]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def job_processes(server: Server, module: str = "wsi_ml.jobs") -> list[int]:
    """Workers (module `wsi_ml.jobs`) or their children (`wsi_ml.jobs.child`) of a server."""
    return [
        pid
        for pid in descendants(server.process.pid)
        if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]


def test_jobs_run_are_watched_cancelled_and_outlive_the_server(library):
    (library.root / DO_FILE).write_text("wait")
    with running(library) as server:
        slide = post(server, library)
        quick = post(server, library, region=[0, 0, 100, 100], preview=True)
        for job in (slide, quick):
            assert wait(server, job, "running")["lane"] in ("slide", "quick")
        # Another web process may answer: all see the same queue.
        for _ in range(6):
            listed = server.get("/api/jobs")[2]["jobs"]
            assert [job["id"] for job in listed] == [quick["id"], slide["id"]]
        server.wait_until(lambda: server.get(f"/api/jobs/{slide['id']}")[2]["progress"] is not None)
        status, headers, _ = server.get(f"/api/jobs/{slide['id']}")
        assert headers["cache-control"] == "no-store" and status == 200
        assert server.request(f"/api/jobs/{quick['id']}", "DELETE")[0] == 200
        assert wait(server, quick, "cancelled")["reason"] == "It was cancelled."
        assert len(job_processes(server)) == 2
        waiting = post(server, library, region=[0, 0, 400, 400], priority=3)
        below = descendants(server.process.pid)
    # SIGTERM: the running job was let go, nothing is left behind. A child that was just starting when its worker ended
    # finds that out when it has started.
    assert server.process.returncode == 0
    server.wait_until(lambda: not any(map(is_running, below)))
    assert LayerStore(library.root).layers(library.slides()[0].id) == []
    (library.root / GO_FILE).touch()
    with running(library) as server:
        for job in (slide, waiting):
            done = wait(server, job, "done")
            assert (done["tries"], done["reason"]) == (1, None)
        layers = server.get(f"/api/slides/{library.slides()[0].id}/layers")[2]["layers"]
        assert sorted(layer["id"] for layer in layers) == sorted(
            server.get(f"/api/jobs/{job['id']}")[2]["layer"] for job in (slide, waiting)
        )


def test_a_killed_worker_is_replaced_and_its_job_taken_up_at_once(library):
    (library.root / DO_FILE).write_text("wait")
    with running(library) as server:
        job = post(server, library)
        server.wait_until(lambda: len(runs(library.root)) == 1)
        (child,) = job_processes(server, "wsi_ml.jobs.child")
        worker = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(worker, signal.SIGKILL)
        server.wait_until(lambda: len(runs(library.root)) == 2)
        again = server.get(f"/api/jobs/{job['id']}")[2]
        assert (again["tries"], again["reason"]) == (2, "The process that ran it died.")
        assert not is_running(child)
        (library.root / GO_FILE).touch()
        assert wait(server, job, "done")["tries"] == 2
        assert len(LayerStore(library.root).layers(job["slide"])) == 1


def test_everything_dies_with_a_killed_server_and_the_next_goes_on(library):
    (library.root / DO_FILE).write_text("wait")
    with running(library) as server:
        job = post(server, library)
        server.wait_until(lambda: len(runs(library.root)) == 1)
        below = descendants(server.process.pid)
        workers = [*job_processes(server), *job_processes(server, "wsi_ml.jobs.child")]
        web = [pid for pid in below if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.wait_until(lambda: not any(map(is_running, workers)))
        # Web processes of a killed parent are granian's affair; they must not disturb the next server.
        for pid in web:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
    (library.root / GO_FILE).touch()
    with running(library) as server:
        done = wait(server, job, "done")
        assert done["tries"] == 1
        assert len(LayerStore(library.root).layers(job["slide"])) == 1


def test_no_workers_no_jobs_and_everything_else_as_ever(library):
    with running(library, job_workers=0) as server:
        job = post(server, library)
        assert job_processes(server) == []
        assert server.get(f"/api/jobs/{job['id']}")[2]["state"] == "queued"
        assert server.get("/readyz")[2]["parts"]["jobs"] == {"queued": 1, "running": 0}


def raw(server: Server, request: bytes) -> bytes:
    """The first bytes of the answer to bytes sent as they are."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def test_bodies_pass_the_front_whole_and_limited(library):
    with running(library, job_workers=0) as server:
        order = json.dumps({"kind": "predict", "slide": library.slides()[0].id, "model": "tissue"}).encode()
        for origin, status in (("http://evil.example", 403), (f"http://127.0.0.1:{server.port}", 201)):
            assert server.request("/api/jobs", "POST", JSON | {"Origin": origin}, order)[0] == status
        assert server.request("/api/jobs", "POST", {"Content-Type": "text/plain"}, order)[0] == 415
        assert server.request("/api/jobs", "POST", JSON, order.ljust(65537))[0] == 413
        # A length over the limit is answered before a byte of the body has come.
        status, _, body = server.request("/api/jobs", "POST", JSON | {"Content-Length": str(3 << 20)})
        assert (status, json.loads(body)["detail"]) == (413, "A request body may have 2 MB at most.")
        head = b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        half = len(order) // 2
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (order[:half], order[half:], b""))
        assert b" 200 " in raw(server, chunked + pieces).splitlines()[0]
        # No length is stated and the body does not end: it is refused at the first byte over the limit.
        assert b" 413 " in raw(server, chunked + b"200002\r\n" + b" " * 0x200001).splitlines()[0]
        assert server.get("/healthz")[0] == 200
