"""Hooks of MkDocs. They add generated pages, and let links out of docs/ lead to pages."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from posixpath import join, normpath, relpath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import gpunn

BUILDING = Path(__file__).parent
ROOT = BUILDING.parents[1]
WORKER = "assets/worker.js"
NOTEBOOKS = ROOT / "build" / "notebooks"
sys.path.insert(0, str(BUILDING))
import names  # noqa: E402
from docstrings import prose  # noqa: E402

GUIDES = {
    "Start": ["start.md", "index.md", "comparisons.md"],
    "Guides": [
        *("training.md", "losses.md", "tables.md", "images.md", "sklearn.md", "accel.md"),
        *("gpu.md", "scale.md", "files.md", "export.md", "interop.md", "reliability.md"),
        *("playground.md", "extending.md", "untrusted_files.md"),
    ],
    "Lectures": ["lectures.md", "gallery.md"],
    "Inside": ["evidence.md", "design.md", "decisions.md", "kernels.md", "benchmarks.md"],
    "Project": ["CHANGELOG.md", "CONTRIBUTING.md"],
}
BROUGHT = {
    "index.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "benchmarks.md": "benchmarks/README.md",
    "evidence.png": "benchmarks/results/papers/evidence.png",
}
"""Pages and pictures of the site that stand elsewhere in the repository."""

LANGUAGES = {".py": "python", ".cu": "cuda", ".cuh": "cuda", ".json": "json", ".toml": "toml"}
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(#[^)\s]*)?(?=\))")
_sources: set[str] = set()  # files of the repository that pages link to


def on_config(config: Any) -> Any:
    """Make the navigation, and show the version in the header, or all versions in a menu."""
    if "MIKE_DOCS_VERSION" in os.environ:  # on a server; a page of the file system finds no others
        config.extra["version"] = {"provider": "mike"}
    else:
        config.site_name = f"gpunn {gpunn.__version__}"
    nav: list[Any] = [{title: list(pages)} for title, pages in GUIDES.items()]
    course = sorted(notebooks())
    lectures = [f"notebooks/{path.stem}.md" for path in course if path.stem.startswith("lecture")]
    examples = [f"notebooks/{path.stem}.md" for path in course if path.stem[0].isdigit()]
    nav[2]["Lectures"] += [{"Course": lectures}, {"Examples": examples}]
    api: list[Any] = ["api/index.md"]
    for module in names.MODULES:
        mine = [each for each in names.public() if each.module == module]
        entries = [{each.name: each.page} for each in sorted(mine, key=lambda e: e.name.lower())]
        api.append({module: [f"api/{module}.md", *entries]})
    nav.insert(2, {"API": api})
    config.nav = nav
    return config


def notebooks() -> list[Path]:
    """Return the notebooks that have run; make them if there are none."""
    if not any(NOTEBOOKS.glob("*.ipynb")):
        script = ROOT / "examples" / "notebooks.py"
        subprocess.run([sys.executable, str(script), str(NOTEBOOKS)], check=True, cwd=ROOT)
    return list(NOTEBOOKS.glob("*.ipynb"))


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""

    def add(uri: str, content: str | bytes) -> None:
        files.append(File.generated(config, uri, content=content))

    for uri, source in BROUGHT.items():
        content = (ROOT / source).read_bytes()
        add(uri, links(content.decode(), source, uri) if uri.endswith(".md") else content)
    for path in notebooks():
        for uri, content in pages_of(path):
            add(uri, content)
    add(WORKER, (BUILDING / "worker.js").read_text("utf-8"))
    add("assets/names.css", "td a > code { white-space: nowrap; }  /* no name is broken in two */")
    add("api/index.md", overview())
    known = names.examples()
    for module in names.MODULES:
        add(f"api/{module}.md", module_page(module))
    for each in names.public():
        add(each.page, name_page(each, known))
    for file in list(files):
        if file.src_uri.endswith(".md") and file.generated_by is None:
            text = Path(file.abs_src_path or "").read_text("utf-8")
            links(text, f"docs/{file.src_uri}", file.src_uri)
    for source in sorted(_sources):
        add(f"source/{source}.md", source_page(source))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links out of docs/ lead to pages of the site."""
    uri = page.file.src_uri
    return markdown if page.file.generated_by else links(markdown, f"docs/{uri}", uri)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Check that the page of a name describes this name.

    Raises:
        PluginError: it describes something else, such as a module of the same name.
    """
    for each in names.public():
        heading = f'<h1 id="{each.path}" class="doc doc-heading">'
        if each.page == page.file.src_uri and (heading not in html or "doc-module" in html):
            raise PluginError(f"{each.page} does not describe {each.path}, which is {each.kind}")
    return html


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Load nothing from elsewhere: the search works offline with a worker of our own."""
    here = relpath(WORKER, os.path.dirname(page.url) or ".")
    return output.replace("https://unpkg.com/iframe-worker/shim", here)


def links(text: str, source: str, uri: str) -> str:
    """Return a page's text with links from its place on the site.

    Args:
        text: the text of the page.
        source: where it stands in the repository.
        uri: where it stands on the site.
    """
    brought = {there: here for here, there in BROUGHT.items()}

    def changed(match: re.Match[str]) -> str:
        target = normpath(join(os.path.dirname(source), match[1]))
        if target.startswith("docs/"):
            place = target.removeprefix("docs/")
        elif target in brought:
            place = brought[target]
        elif (ROOT / target).is_file():
            _sources.add(target)
            place = f"source/{target}.md"
        elif (ROOT / target / "README.md").is_file():
            place = brought.get(f"{target}/README.md", "index.md")
        else:
            return match[0]
        return relpath(place, os.path.dirname(uri) or ".") + (match[2] or "")

    return LINK.sub(changed, text)


def source_page(path: str) -> str:
    """Return the page of a file of the repository."""
    text = (ROOT / path).read_text("utf-8", errors="replace")
    fence = "`" * 5
    language = LANGUAGES.get(Path(path).suffix, "text")
    return (
        "---\nsearch: {exclude: true}\nhide: [navigation, toc]\n---\n\n"
        f"# {path}\n\n{fence}{language}\n{text}\n{fence}\n"
    )


def overview() -> str:
    """Return the page about all modules."""
    rows = [f"| [`{module}`]({module}.md) | {first_line(module)} |" for module in names.MODULES]
    return (
        "# API\n\nEvery public name has a page.\n\n| module | what |\n| --- | --- |\n"
        + "\n".join(rows)
    )


def first_line(module: str) -> str:
    """Return the first line of a module's docstring."""
    return (importlib.import_module(module).__doc__ or "").strip().partition("\n")[0]


def module_page(module: str) -> str:
    """Return the page of a module: its docstring's first line and its names."""
    rows = []
    for each in sorted(names.names_of(module), key=lambda e: e.name.lower()):
        page, said = names.home(each).page.removeprefix("api/"), prose(each.summary)
        rows.append(f"| [`{each.name}`]({page}) | {said.replace('|', '&#124;')} |")
    table = "\n".join(["| name | what |", "| --- | --- |", *rows])
    return f"# {module}\n\n{first_line(module)}\n\n{table}\n"


def name_page(each: names.Name, known: dict[str, str]) -> str:
    """Return the page of a name: its docstring, and its example."""
    example = known.get(each.path, "")
    code = f"\n## Example\n\n```pycon\n{example}```\n" if example else ""
    listed = ""
    if isinstance(each.value, (dict, tuple)):
        listed = ", ".join(f"`{key}`" for key in each.value) + "\n"
    short = f"`from {each.module} import {each.name}`"
    said = f"Examples assume `import numpy as np`, `import gpunn as gn` and {short}.\n"
    return f"::: {each.path}\n\n{listed}{code}\n{said}"


def pages_of(path: Path) -> list[tuple[str, str | bytes]]:
    """Return the page of a notebook and its pictures. Solutions are folded."""
    cells, found = json.loads(path.read_text("utf-8"))["cells"], []
    parts: list[str] = []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        piece = [f"```python\n{source}\n```"]
        for place, output in enumerate(cell["outputs"]):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{number}-{place}.png"
                found.append((f"notebooks/{name}", b64decode(data["image/png"])))
                piece.append(f"![The picture that the cell draws]({name})")
            elif "text/html" in data:
                piece.append(f"<div markdown='0'>{''.join(data['text/html'])}</div>")
            else:
                words = "".join(output.get("text", data.get("text/plain", "")))
                piece.append(f"```text\n{words}\n```")
        body = "\n\n".join(piece)
        if "solution" in cell["metadata"].get("tags", ()):
            title = re.sub(r"^#+ ", "", parts.pop())
            inside = body.replace("\n", "\n    ")
            body = f'??? success "{title}"\n\n    {inside}'
        parts.append(body)
    return [(f"notebooks/{path.stem}.md", "\n\n".join(parts) + "\n"), *found]
