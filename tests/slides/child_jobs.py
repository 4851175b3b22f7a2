"""Jobs that the sandbox tests run in a child."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path


def facts(job, report):
    for number in range(3):
        report({"step": number})
    return {
        "doubled": job["number"] * 2,
        "environment": sorted(os.environ),
        "no_new_privileges": "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(),
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def eat_memory(job, report):
    return {"bytes": len(bytearray(job["bytes"]))}


def burn(job, report):
    while True:
        pass


def sleep(job, report):
    report({"pid": os.getpid()})
    time.sleep(600)
    return {}


def crash(job, report):
    os.abort()


def be_killed(job, report):
    os.kill(os.getpid(), 9)


def fail(job, report):
    raise ValueError("a patient's name")


def chatter(job, report):
    print("not a message")
    os.system("echo not a message either")
    return {"fine": True}


def fill_disk(job, report):
    Path(job["path"]).write_bytes(bytes(1 << 20))
    return {}
