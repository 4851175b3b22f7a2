"""Fixtures every test folder shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ocular", deadline=None)  # no test asserts a time, not even by a library's default
settings.load_profile("ocular")

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real slides, tiles and annotations beside the project; skips where it is absent."""
    folder = PROJECT_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests go last: while Playwright is open, its event loop occupies the main thread."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)
