"""The job of the ingestion child: vendor file in, pyramid files out. Run it through sandbox.py only."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsi_ml.slides.card import PRIVATE_FOLDER, THUMBNAIL_FILE
from wsi_ml.slides.header import sniff
from wsi_ml.slides.jpeg_scan import JpegFile
from wsi_ml.slides.plan import make_plan
from wsi_ml.slides.psi_scan import PsiScan
from wsi_ml.slides.pyramid_writer import PyramidWriter
from wsi_ml.slides.sandbox import Message, Report
from wsi_ml.slides.scan import Scan, ScanPixels
from wsi_ml.slides.thumbnail import make_thumbnail

REPORT_EVERY_S = 0.1


def convert(job: Message, report: Report) -> Message:
    """Convert `job["path"]` into `job["folder"]`; reports `facts` first, then `pixels` done.

    Job: path, folder, mpp (or null), dct (whether half-size decoding is allowed). Result: kernel, icc, associated.
    """
    folder = Path(job["folder"])
    with open_scan(Path(job["path"])) as scan:
        facts = scan.facts()
        plan = make_plan(facts, job["mpp"])
        colour = scan.colour()
        report({"facts": asdict(facts), "plan": asdict(plan)})
        with JpegFile(Path(job["path"])) as file:
            fast = file.pixels(scan, facts, plan, colour, job["dct"]) if isinstance(scan, Scan) else None
            read = fast or ScanPixels(scan, plan, colour)
            writer = PyramidWriter(folder, plan.stored_size, plan.stored_mpp, read)
            writer.write(_Pace(report))
        write_durably(folder / THUMBNAIL_FILE, make_thumbnail(writer.overview))
        associated = scan.save_associated(folder / PRIVATE_FOLDER)
    return {"kernel": read.kernel, "icc": colour.word, "associated": associated}


def open_scan(path: Path) -> Scan | PsiScan:
    """The reader of a vendor file, by its content; raises IngestError where it cannot be opened."""
    return PsiScan(path) if sniff(path) == "psi" else Scan(path)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file and flush it to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class _Pace:
    """Passes progress on a few times a second."""

    def __init__(self, report: Report):
        self._report = report
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        if done == total or time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_EVERY_S
            message: dict[str, Any] = {"done": done, "total": total}
            self._report(message)
