"""Parts of HTML pages: tables, and curves as SVG. Texts are escaped unless they are `Html`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite

WIDTH, HEIGHT, EDGE = 260, 120, 6  # of a curve, in pixels


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def text(part: object) -> str:
    """Return a part of a page as HTML."""
    return part if isinstance(part, Html) else escape(str(part))


def code(part: str) -> Html:
    """Return a text in the type of programs."""
    return Html(f"<code>{escape(part)}</code>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: int = 0) -> Html:
    """Return a table.

    Args:
        head: the titles of the columns; empty for none.
        rows: the cells of each row.
        numbers: how many columns at the end are numbers, which stand on the right.
    """

    def line(cells: Sequence[object], kind: str) -> str:
        found = ""
        for place, cell in enumerate(cells):
            right = ' style="text-align:right"' if place >= len(cells) - numbers else ""
            found += f"<{kind}{right}>{text(cell)}</{kind}>"
        return f"<tr>{found}</tr>"

    first = line(head, "th") if head else ""
    return Html(f"<table>{first}{''.join(line(row, 'td') for row in rows)}</table>")


def curve(title: str, lines: Mapping[str, Sequence[float]], colors: Sequence[str]) -> Html:
    """Return a small picture of curves over the epochs, from their least to their largest number.

    Args:
        title: what the numbers are.
        lines: the numbers of each curve, by the name of its data.
        colors: a colour for each curve.
    """
    known = [value for values in lines.values() for value in values if isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    longest = max(map(len, lines.values()))
    across = (WIDTH - 2 * EDGE) / max(longest - 1, 1)
    up = (HEIGHT - 2 * EDGE) / ((high - low) or 1.0)
    drawn, legend = "", ""
    for (name, values), color in zip(lines.items(), colors, strict=False):
        points = " ".join(
            f"{EDGE + across * epoch:.1f},{HEIGHT - EDGE - up * (value - low):.1f}"
            for epoch, value in enumerate(values)
            if isfinite(value)
        )
        drawn += f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
        legend += f' <span style="color:{color}">{text(name)} {values[-1]:.4g}</span>'
    ends = [f"{name} {values[0]:.4g} to {values[-1]:.4g}" for name, values in lines.items()]
    said = f"{title}: {', '.join(ends)}"
    return Html(
        '<figure style="display:inline-block;margin:0 1em 0 0">'
        f"<figcaption>{text(title)}{legend}</figcaption>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{text(said)}" '
        f'style="border-left:1px solid;border-bottom:1px solid">{drawn}</svg>'
        f"<div><small>{low:.4g} to {high:.4g}, {longest} epoch{'s' * (longest != 1)}</small></div>"
        "</figure>"
    )
