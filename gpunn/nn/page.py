"""A module as a table for a notebook."""

from __future__ import annotations

from html import escape
from typing import Any

ROW = '<tr><td>{}</td><td>{}</td><td style="text-align:right">{}</td></tr>'


def html_table(module: Any) -> str:
    """Return a row for each module that has no other inside: its name, itself, its parameters.

    Args:
        module: the outermost `Module`. A parameter that is used twice is counted once.
    """
    rows, counted = list[str](), set[int]()

    def add(name: str, each: Any) -> None:
        inside = list(each.children())
        for part, child in inside:
            add(f"{name}.{part}" if name else part, child)
        if not inside:
            new = {id(p): p.size for p in each.parameters() if id(p) not in counted}
            counted.update(new)
            rows.append(ROW.format(escape(name), escape(repr(each)), f"{sum(new.values()):,}"))

    add("", module)
    whole = f"{type(module).__name__} on {module.device}"
    total = sum(p.size for p in {id(p): p for p in module.parameters()}.values())
    head = "<tr><th>name</th><th>module</th><th>parameters</th></tr>"
    foot = ROW.format("", escape(whole), f"<b>{total:,}</b>")
    return f"<table>{head}{''.join(rows)}{foot}</table>"
