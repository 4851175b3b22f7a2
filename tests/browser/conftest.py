"""Chromium on a server of our own; every test ends with a look at what the console said and where requests went."""

from __future__ import annotations

import shutil

import pytest

from tests.browser.site import make_site
from tests.browser.tab import CHROMIUM_FLAGS, Tab


def pytest_collection_modifyitems(items):
    for item in items:
        if "/browser/" in str(item.path):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium_path():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    return path


@pytest.fixture(scope="session")
def chromium(chromium_path):
    """A headless Chromium; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def running_site(tmp_path_factory):
    yield from make_site(tmp_path_factory.mktemp("site") / "library")


@pytest.fixture
def site(running_site):
    running_site.synthesis.reset()
    yield running_site
    running_site.synthesis.open.set()


@pytest.fixture
def open_tab(chromium, site):
    """Makes tabs in contexts of their own; at the end each is checked for errors and for requests that went astray."""
    tabs = []

    def make(**options) -> Tab:
        tabs.append(Tab(chromium, site, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.page.context.close()
    for tab in tabs:
        tab.check()


@pytest.fixture(scope="session")
def lasting_tab(chromium, running_site):
    tab = Tab(chromium, running_site)
    yield tab
    tab.page.context.close()


@pytest.fixture(scope="session")
def panel_site(tmp_path_factory):
    """A site to which tests add slides, layers and jobs; nobody counts what is in it."""
    yield from make_site(tmp_path_factory.mktemp("panels") / "library")


@pytest.fixture
def panel_tab(chromium, panel_site):
    """A tab of 1280 × 800 px on `panel_site`, checked at the end."""
    tab = Tab(chromium, panel_site, size=(1280, 800))
    yield tab
    tab.page.context.close()
    tab.check()


@pytest.fixture
def tab(lasting_tab, site):
    """A tab of 1000 × 700 px that tests use one after the other, checked after each."""
    yield lasting_tab
    lasting_tab.page.unroute_all(behavior="ignoreErrors")
    lasting_tab.page.goto("about:blank")
    lasting_tab.check()
