"""The job of the child that reads ×40 pixels of a scan; see scan_strips.py. Run it through sandbox.py only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsi_ml.errors import IngestError
from wsi_ml.geometry import Size
from wsi_ml.slides.convert import open_scan
from wsi_ml.slides.jpeg_scan import JpegFile
from wsi_ml.slides.plan import base_plan, make_plan
from wsi_ml.slides.sandbox import Message, Report, hear
from wsi_ml.slides.scan import Scan, ScanPixels
from wsi_ml.slides.scan_strips import SLOTS, slot_file, strips_of

OTHER_FILE = (
    "The file is not the one this slide was made from: its ×40 plane has another size; give the same file again."
)


def read_strips(job: Message, report: Report) -> Message:
    """Write strip after strip to the scratch files, each reported as `{"strip", "slot"}`; waits for a free file.

    Job: the fields of ScanOrder, and `scratch` (a folder). Raises IngestError for another scan than the slide's.
    """
    base_size = Size(*job["base_size"])
    with open_scan(Path(job["path"])) as scan, JpegFile(Path(job["path"])) as file:
        facts = scan.facts()
        plan = base_plan(make_plan(facts, job["mpp"]))
        if plan.base_size != base_size:
            raise IngestError(OTHER_FILE)
        colour = scan.colour()
        fast = file.pixels(scan, facts, plan, colour, False) if isinstance(scan, Scan) else None
        read = fast or ScanPixels(scan, plan, colour)
        for number, strip in enumerate(strips_of(base_size, job["tile_side"], job["first_tile"])):
            pixels = read(strip.base_region)
            if number >= SLOTS and hear() is None:
                break
            slot_file(Path(job["scratch"]), number % SLOTS).write_bytes(np.ascontiguousarray(pixels).data)
            report({"strip": number, "slot": number % SLOTS})
    return {}
