"""The built site in a browser, from the file system: its search, and what it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import tab as tab

SITE = Path(__file__).parents[1] / "build" / "site"


@pytest.fixture
def site(tab):
    """A page of the site; what it asks of a network and what it complains of fails the test."""
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: mkdocs build --strict")
    found = []
    tab.on("request", lambda request: request.url.startswith("file:") or found.append(request.url))
    tab.on("console", lambda said: said.type != "error" or found.append(said.text))
    tab.goto((SITE / "start.html").as_uri())
    yield tab
    assert found == []


def test_the_search_finds_the_page_of_a_name(site):
    site.fill("[data-md-component=search-query]", "huber")
    link = site.locator(".md-search-result__link[href*='gpunn.ops.huber.html']").first
    link.wait_for(timeout=20_000)
    link.click()
    site.wait_for_url("**/api/gpunn.ops.huber.html*")
    assert site.locator("h1").inner_text().startswith("gpunn.ops.huber")


@pytest.mark.parametrize(
    "page", ["start", "comparisons", "api/gpunn.Trainer", "gallery", "lectures"]
)
def test_a_page_is_no_wider_than_a_telephone(site, page):
    site.set_viewport_size({"width": 390, "height": 844})
    site.goto((SITE / f"{page}.html").as_uri())
    assert site.evaluate("document.documentElement.scrollWidth") == 390
