"""Check the built site: every link leads to a page and an anchor, and nothing is loaded from afar.

Run it as `python docs/building/check.py build/site`.
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href")}
FREE = {"canonical", "alternate", "prev", "next", "icon"}  # links that load nothing from afar


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.anchors = {"", "__top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to and which anchors it makes."""
        given = dict(attrs)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        for name in ("href", "src"):
            if given.get(name):
                self.links.append((tag, given.get("rel") or "", given[name] or ""))


@cache
def page(path: Path) -> Page:
    """Return a page of the site."""
    return Page(path.read_text("utf-8"))


def faults(root: Path) -> list[str]:
    """Return what is wrong with the links of a site."""
    found = []  # 404.html is only shown by servers, and its links are theirs
    for path in sorted(set(root.rglob("*.html")) - {root / "404.html"}):
        for tag, rel, link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                name = "href" if tag == "link" else "src"
                if (tag, name) in LOADED and parts.scheme != "data" and rel not in FREE:
                    found.append(f"{path.relative_to(root)} loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{path.relative_to(root)} links to {link}, which is no file")
            elif target.suffix == ".html" and unquote(parts.fragment) not in page(target).anchors:
                found.append(f"{path.relative_to(root)} links to {link}, which has no such anchor")
    return found


def main() -> int:
    """Print the faults and the number of pages and links; return the exit status."""
    root = Path(sys.argv[1]).resolve()
    wrong = faults(root)
    print("\n".join(wrong[:40]))
    pages = sorted(root.rglob("*.html"))
    links = sum(len(page(path).links) for path in pages)
    print(f"{len(pages)} pages, {links} links, {len(wrong)} broken")
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
