"""The command `gpunn playground`."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from gpunn.playground import write


def playground(
    output: Annotated[
        Path | None, typer.Option(help="Write the page to this file instead of opening it.")
    ] = None,
) -> None:
    """Open a page that trains small networks in the browser, with the kernels of gpunn.

    The page is one HTML file. It needs no server and no network.

    Examples:
      gpunn playground

      gpunn playground --output playground.html
    """
    if output is not None:
        write(output)
        typer.echo(f"written to {output}: {output.stat().st_size / 1024:,.1f} KiB", err=True)
        return
    path = Path(tempfile.mkdtemp(prefix="gpunn-")) / "playground.html"
    write(path)
    if not webbrowser.open(path.as_uri()):
        typer.echo(f"no browser found: open {path}", err=True)
