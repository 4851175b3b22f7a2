"""An app over a small library, with an upscaler that answers in the same process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app import create_app
from app.settings import Settings
from app.state import EXTENSION
from tests.versions import FakeNetwork, add_slide
from wsi_ml.geometry import Size
from wsi_ml.slides.library import Library
from wsi_ml.slides.tiles import OpenVersions
from wsi_ml.sr.synthesis import DecodedTiles, MadeTile, TileKey, provenance, synthesise
from wsi_ml.sr.upscaler import open_upscaler


class DirectSynthesis:
    """Makes tiles by bicubic in the calling thread; stands in for cache and engine."""

    def __init__(self, library: Library):
        self.library = library
        self.kept: dict[TileKey, MadeTile] = {}
        self.made = 0
        self.error: Exception | None = None
        self.fallback = False

    def provenance(self, plan):
        return provenance(plan.upscaler, plan.sha256)

    def cached(self, version, plan):
        return self.kept.get(plan)

    def make(self, version, plan):
        if self.error is not None:
            raise self.error
        self.made += 1
        key = TileKey(version, plan.upscaler, plan.sha256, plan.t_col, plan.t_row, plan.extension)
        slide = next(slide for slide in self.library.slides() if version in self.library.versions(slide.id))
        pyramid = self.library.pyramid(slide.id, version)
        data = synthesise(pyramid, open_upscaler("bicubic"), key, DecodedTiles(1 << 20))
        if self.fallback:
            return MadeTile(data, f"bicubic; fallback-for={plan.upscaler}; reason=model_bad_output", True)
        self.kept[plan] = MadeTile(data, self.provenance(plan))
        return self.kept[plan]

    def stats(self):
        return None

    def close(self):
        pass


@pytest.fixture
def library(tmp_path):
    library = Library.create(tmp_path / "library")
    yield library
    assert library.check() == []


@pytest.fixture
def app(library):
    made = create_app(Settings(library=library.root))
    upscalers = [open_upscaler("bicubic").card, FakeNetwork()]
    made.extensions[EXTENSION] = replace(
        made.extensions[EXTENSION], versions=OpenVersions(library, upscalers), synthesis=DirectSynthesis(library)
    )
    return made


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def state(app):
    return app.extensions[EXTENSION]


@pytest.fixture
def slide(library):
    """(slide id, version, stored picture) of a slide of odd sides."""
    return add_slide(library, "liver", Size(2311, 1533))
