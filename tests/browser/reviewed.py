"""A slide with a reference and a prediction whose every match is known, and a worker that tests hold in their hand."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass

import shapely

from tests.browser.site import Site
from tests.browser.tab import Tab
from tests.versions import add_slide
from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.jobs.job import Job, Progress
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.layer import Layer, NewLayer
from wsi_ml.layers.store import LayerStore

BASE_SIZE = Size(2400, 1600)
TUMOUR, LYMPHOCYTE = "Tumour", "Lymphocyte"
LARGE, SMALL = 80, 40
_number = itertools.count()


def square(x: float, y: float, side: float, class_name: str, score: float | None = None) -> Feature:
    return Feature(shapely.box(x, y, x + side, y + side), str(uuid.uuid4()), class_name, score=score)


TRUTH = [square(200 + 300 * at, 300, LARGE, TUMOUR) for at in range(6)] + [
    square(200 + 300 * at, 900, SMALL, LYMPHOCYTE) for at in range(4)
]
PREDICTION = [
    # Found, 8 px beside the truth: IoU 72 · 80 ÷ (2 · 6400 − 72 · 80) = 0.818.
    *(square(208 + 300 * at, 300, LARGE, TUMOUR, score) for at, score in enumerate((0.95, 0.85, 0.75, 0.65))),
    # Half beside it, IoU ⅓: a false positive, and its truth is missed. The sixth tumour has no prediction at all.
    square(1440, 300, LARGE, TUMOUR, 0.9),
    *(square(200 + 300 * at, 900, SMALL, LYMPHOCYTE, score) for at, score in enumerate((0.92, 0.6, 0.3))),
    # The right outline of the wrong class.
    square(1100, 900, SMALL, TUMOUR, 0.55),
    # Nothing there.
    square(2000, 1300, LARGE, TUMOUR, 0.45),
    square(200, 1300, SMALL, LYMPHOCYTE, 0.2),
]  # fmt: skip
PROVENANCE = {
    "model": "nuclei-test", "model_sha256": "cd" * 32, "kind": "instance", "parameters": {"threshold": 0.5},
    "region": None, "preview": False, "seconds": 12.5, "windows": 40, "engine": "local",
}  # fmt: skip


def publish(site: Site, slide: str, name: str, kind: str, features: list[Feature], /, **provenance) -> Layer:
    """Publish a layer of features on a slide's current version."""
    new = NewLayer(slide, site.library.slide(slide).current, name, kind, provenance)
    return LayerStore(site.library.root).publish(new, features, BASE_SIZE)


@dataclass(frozen=True)
class Reviewed:
    """A slide with its two layers."""

    slide: str
    truth: str
    prediction: str


def add_bare_slide(site: Site) -> str:
    """A slide of BASE_SIZE that no other test has, without layers."""
    return add_slide(site.library, f"reviewed-{next(_number)}", BASE_SIZE, seed=3)[0]


def add_reviewed(site: Site) -> Reviewed:
    """A slide of BASE_SIZE that no other test has, with TRUTH and PREDICTION on it."""
    slide = add_bare_slide(site)
    truth = publish(site, slide, "Drawn by Dr. A.", "truth", TRUTH)
    prediction = publish(site, slide, "Nuclei of May", "prediction", PREDICTION, **PROVENANCE)
    return Reviewed(slide, truth.id, prediction.id)


def note(tab: Tab) -> str:
    """What the page said last, empty when that is gone again."""
    return tab.page.locator("#note").inner_text()


def heard(tab: Tab, words: str) -> None:
    """Wait until the note says exactly this."""
    tab.until(lambda: note(tab) == words, words)


class Worker:
    """Does jobs of a site at the test's word; what it finds are the features it is told."""

    def __init__(self, site: Site):
        self.site = site
        self.queue = JobQueue(site.library.root)
        self.store = LayerStore(site.library.root)

    def take(self, lane: str = "slide") -> Job:
        """The next job of a lane."""
        job = self.queue.claim(lane, "test")
        assert job is not None, f"no job waits in the lane {lane}"
        return job

    def progress(self, job: Job, done: int, total: int) -> None:
        self.queue.beat(job, Progress(done, total, "windows"))

    def finish(self, job: Job, features: list[Feature] | None = None) -> Layer:
        """Publish a layer and end the job; a whole slide's result ends the previews of the same model."""
        if job.region is None:
            self._remove_previews(job)
        facts = {**PROVENANCE, "model": job.model, "preview": job.preview, "region": job.region and list(job.region)}
        found = PREDICTION if features is None else features
        layer = publish(self.site, job.slide_id, f"{job.model} {job.id}", "prediction", found, **facts)
        self.queue.finish(job, layer.id)
        return layer

    def _remove_previews(self, job: Job) -> None:
        for layer in self.store.layers(job.slide_id):
            if layer.provenance.get("preview") and layer.provenance["model"] == job.model:
                self.store.remove(layer.id)
