"""The page as one HTML file: its scripts, its styles, and the kernels in base64."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from gpunn.errors import OutputError
from gpunn.playground.catalogue import catalogue
from gpunn.storage.atomic import write_atomically

HERE = Path(__file__).parent
PAGE = HERE / "page"
KERNELS, DIGEST = HERE / "kernels.wasm", HERE / "kernels.sha256"
SCRIPTS = (
    *("machine", "random", "network", "training"),
    *("python", "state", "data", "paint", "graph", "surface", "steps", "health", "tables"),
    *("controls", "app"),
)
"""The scripts, in an order in which each imports from those before it."""
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:class|function|const) (\w+))", re.MULTILINE)


def script(names: tuple[str, ...] = SCRIPTS) -> str:
    """Return scripts as one. Each is a function, so that its own names stay its own."""
    texts = ["const scripts = {};"]
    for name in names:
        text = (PAGE / f"{name}.js").read_text(encoding="utf-8")
        exports = ", ".join(EXPORT.findall(text))
        text = EXPORT.sub("", IMPORT.sub(r"const \1 = scripts.\2;", text))
        texts.append(f"scripts.{name} = (() => {{\n{text}\nreturn {{ {exports} }};\n}})();")
    return "\n".join(texts)


def digest(source: str) -> str:
    """Return what tells the source of the compiled kernels from another one."""
    return hashlib.sha256(source.encode()).hexdigest()


def html(module: bytes, offered: dict[str, Any]) -> str:
    """Return the page for a compiled module and a catalogue."""
    parts = {
        "STYLE": (PAGE / "style.css").read_text(encoding="utf-8"),
        "KERNELS": base64.b64encode(module).decode(),
        "CATALOGUE": json.dumps(offered, separators=(",", ":")).replace("</", "<\\/"),
        "SCRIPT": script(),
        "VERSION": str(offered["version"]),
    }
    text = (PAGE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text)


def page() -> str:
    """Return the page. It needs no compiler, because its kernels come with the package.

    Returns:
        The text of one HTML file, about 600 kB.

    Raises:
        OutputError: the kernels were compiled from another source than that of this package.

    Example:
        >>> page().startswith("<!doctype html>")
        True
    """
    source, offered = catalogue()
    if digest(source) != DIGEST.read_text(encoding="utf-8").strip():
        raise OutputError(
            f"got {KERNELS.name} of other formulas; expected those of this package: run "
            "python -m gpunn.playground.build"
        )
    return html(KERNELS.read_bytes(), offered)


def write(path: str | Path) -> None:
    """Write the page to a file.

    Args:
        path: the file, whose name should end in .html.

    Raises:
        OutputError: see `page`.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "playground.html"
        >>> write(path)
        >>> path.stat().st_size < 1_000_000
        True
    """
    write_atomically(Path(path), page().encode())
