"""Fixtures of the tests of inference: one stained picture, and fresh libraries that hold it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.fakes import add_picture, spotted_picture
from wsi_ml.data.synthetic import Scene, make_scene
from wsi_ml.data.synthetic_pixels import Painter
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.library import Library

SIZE = Size(1010, 770)


@pytest.fixture(scope="session")
def stained() -> np.ndarray:
    return spotted_picture(SIZE)


@pytest.fixture(scope="session")
def scene() -> Scene:
    return make_scene(Size(1300, 1000), seed=3)


@pytest.fixture(scope="session")
def drawn(scene) -> np.ndarray:
    """The stored plane of a drawn slide, whose truth is `scene`."""
    return halve_pixels(Painter(scene).paint(Region(0, 0, *scene.size)))


@pytest.fixture
def library(tmp_path) -> Library:
    return Library.create(tmp_path / "library")


@pytest.fixture
def slide_id(library, stained) -> str:
    return add_picture(library, "spots", stained)
