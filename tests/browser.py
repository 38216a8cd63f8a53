"""A headless Chromium for tests of HTML pages. Without one they are skipped, with the reason."""

from __future__ import annotations

import shutil

import pytest

PLACES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # Playwright occupies the event loop of the thread
def chromium():
    """A running Chromium, driven by Playwright."""
    path = next(filter(None, map(shutil.which, PLACES)), None)
    if path is None:
        pytest.skip("chromium is not installed")
    reason = "playwright is not installed"
    driver = pytest.importorskip("playwright.sync_api", reason=reason)
    with driver.sync_playwright() as playwright:
        # Chromium's sandbox does not start as root, and containers have a small /dev/shm
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """An empty page without a network. An error that its scripts do not catch fails the test."""
    context = chromium.new_context(offline=True)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []
