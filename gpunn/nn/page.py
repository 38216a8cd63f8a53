"""A module as a table, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunn.html import Html, code, table

LONGEST = 60  # characters of a module in a terminal


def _rows(module: Any) -> Iterator[tuple[str, str, int]]:
    """Yield the name, the text and the number of parameters of each module with its own.

    A module that has others inside has a row if it has parameters besides theirs. A parameter that
    is used twice is counted once.
    """
    counted = set[int]()

    def walk(name: str, each: Any) -> Iterator[tuple[str, str, int]]:
        inside = list(each.children())
        for part, child in inside:
            yield from walk(f"{name}.{part}" if name else part, child)
        new = {id(p): p.size for p in each.parameters() if id(p) not in counted}
        counted.update(new)
        if new or not inside:
            text = f"{type(each).__name__}, its own parameters" if inside else repr(each)
            yield name, text, sum(new.values())

    return walk("", module)


def shorten(text: str) -> str:
    """Return a text with at most `LONGEST` characters."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def text_table(module: Any) -> str:
    """Return the table for a terminal: a line for each module, then the sums.

    Args:
        module: the outermost `Module`.
    """
    rows = [(name, shorten(text), number) for name, text, number in _rows(module)]
    names = max(len("name"), *(len(name) for name, *_ in rows))
    texts = max(len("module"), *(len(text) for _, text, _ in rows))
    lines = [f"{'name':{names}}  {'module':{texts}}  {'parameters':>10}"]
    lines += [f"{name:{names}}  {text:{texts}}  {number:>10,}" for name, text, number in rows]
    total = sum(number for *_, number in rows)
    frozen = sum(p.size for p in module.parameters() if not p.requires_grad)
    kept = f", {frozen:,} of them frozen" if frozen else ""
    size = f"{total * module.dtype.itemsize:,} bytes of {module.dtype} on {module.device}"
    lines.append(f"{total:,} parameters{kept}, {size}")
    return "\n".join(lines)


def html_table(module: Any) -> str:
    """Return the table for a notebook: a row for each module, then the sum.

    Args:
        module: the outermost `Module`.
    """
    rows: list[tuple[object, ...]] = []
    for name, text, number in _rows(module):
        rows.append((name, code(text), f"{number:,}"))
    total = sum(p.size for p in module.parameters())
    size = f"{total * module.dtype.itemsize:,} bytes of {module.dtype}"
    whole = f"{type(module).__name__} on {module.device}, {size}"
    rows.append(("", whole, Html(f"<b>{total:,}</b>")))
    return table(("name", "module", "parameters"), rows, numbers=1)
