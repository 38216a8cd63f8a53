"""Make notebooks of the examples and of the course, and run them.

    python examples/notebooks.py notebooks              # all, in their short form
    python examples/notebooks.py notebooks 05 lecture   # only those whose names contain a word
    python examples/notebooks.py notebooks --long       # in their full form

The scripts are the only source. A part of the course is a script in jupytext's percent format. An
example becomes such a script here: its functions are cells, and so is each step of `main`. Needs
jupytext, nbclient and ipykernel: pip install "gpunn[site]".
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

HERE = Path(__file__).parent
LIMIT = 600  # seconds of a cell
HIDDEN = {"jupyter": {"source_hidden": True, "outputs_hidden": True}}


def sources() -> list[Path]:
    """Return the scripts that become notebooks, in their order."""
    return [*sorted((HERE / "course").glob("[0-9]*.py")), *sorted(HERE.glob("[0-9]*.py"))]


def percent(script: Path, short: bool) -> str:
    """Return a script in jupytext's percent format.

    Args:
        script: an example, or a part of the course, which has this format already.
        short: whether the example takes seconds, not minutes.
    """
    text = script.read_text("utf-8")
    if script.parent.name == "course":
        return text
    lines, tree = text.splitlines(), ast.parse(text)
    title, _, rest = ast.get_docstring(tree).partition("\n")
    cells, before = [markdown(f"# {title}\n{rest}"), ""], None
    for node in tree.body[1:]:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        source = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            cells += steps(node, lines, short)
        elif isinstance(node, ast.Import | ast.ImportFrom) and "lesson" not in source:
            cells[1] += source + "\n"
        elif isinstance(node, ast.Assign) and isinstance(before, ast.Assign):
            cells[-1] += f"\n{source}"
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.If):
            cells.append(source)
        before = node
    return "\n\n".join(
        cell if cell.startswith("# %%") else f"# %%\n{cell.strip()}" for cell in cells if cell
    )


def steps(main: ast.FunctionDef, lines: list[str], short: bool) -> list[str]:
    """Return the cells of an example's `main`: a new one begins where something is printed."""
    found = [[f"short = {short}  # False takes minutes"]]
    for node in main.body:
        source = dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
        if isinstance(node, ast.Return):
            source = ast.get_source_segment("\n".join(lines), node.value) or ""
        if "print(" in "\n".join(found[-1]) and len(found[-1]) > 1:
            found.append([])
        found[-1].append(source)
    return ["\n".join(cell) for cell in found]


def markdown(text: str) -> str:
    """Return a cell of text."""
    return "# %% [markdown]\n" + "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def notebook(script: Path, short: bool = True) -> Any:
    """Return the notebook of a script, before it has run.

    Solutions of the course's exercises are hidden until a reader opens them.
    """
    import jupytext

    made = jupytext.reads(percent(script, short), fmt="py:percent")
    made.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    for number, cell in enumerate(made.cells):
        cell.id = f"{script.stem.replace('_', '-')[:50]}-{number}"  # the same in every run
        if "solution" in cell.metadata.get("tags", ()):
            cell.metadata.update(HIDDEN)
    return made


def executed(script: Path, short: bool) -> Any:
    """Return the notebook of a script with its outputs.

    Raises:
        CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient

    made = notebook(script, short)
    client = NotebookClient(made, timeout=LIMIT, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # times
    return made


def write(script: Path, folder: Path, short: bool) -> str:
    """Run a notebook and write it; return a line about it."""
    import nbformat

    begun = time.perf_counter()
    path = folder / f"{'lecture_' if script.parent.name == 'course' else ''}{script.stem}.ipynb"
    nbformat.write(executed(script, short), path)
    seconds = time.perf_counter() - begun
    pictures = len(re.findall('"image/png"', path.read_text("utf-8")))
    return (
        f"{path.name:40} {path.stat().st_size // 1000:5} kB {pictures:3} pictures {seconds:6.1f} s"
    )


def main() -> None:
    """Make the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description="Make notebooks of the examples and the course.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("words", nargs="*", help="parts of names; none for all")
    parser.add_argument("--long", action="store_true", help="the full form of the examples")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    chosen = [
        script
        for script in sources()
        if not given.words or any(word in str(script.relative_to(HERE)) for word in given.words)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for line in pool.map(lambda script: write(script, given.folder, not given.long), chosen):
            print(line, flush=True)


if __name__ == "__main__":
    main()
