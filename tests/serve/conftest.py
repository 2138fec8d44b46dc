"""Fixtures of the tests of the studio in a browser: one Chromium and one server a file, one page a test."""

import pytest
from browser import DESKTOP, app_of, chromium, is_elsewhere, new_page, served
from fake_engine import FakeEngine

from lens.serve.studio.gallery import Gallery


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One server for all: (address, engine, gallery)."""
    folder = tmp_path_factory.mktemp("studio") / "gallery"
    engine = FakeEngine(step_s=0.12)
    with served(app_of(folder, engine, lambda prompt: f"{prompt}, in the rain")) as address:
        yield address, engine, Gallery(folder)


@pytest.fixture
def page(browser, site):
    """A page of a new visitor; it must raise no error and load nothing from other machines."""
    page, problems = new_page(browser, site[0], viewport=DESKTOP), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if is_elsewhere(request.url) else None)
    yield page
    page.context.close()
    assert problems == []
