"""Every snippet of docs/interop.md runs."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
FIRST, *SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
OPTIONAL = ("torch", "onnx", "onnxruntime", "pandas", "polars")


def needs(snippet):
    """The packages that a snippet imports, and onnx where it exports."""
    names = [alias.name for n in ast.walk(ast.parse(snippet)) for alias in getattr(n, "names", ())]
    return {name.split(".")[0] for name in names} | ({"onnx"} if "to_onnx" in snippet else set())


def test_the_page_has_snippets():
    assert len(SNIPPETS) >= 12
    assert {name for s in SNIPPETS for name in needs(s)} >= set(OPTIONAL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(number, tmp_path, monkeypatch):
    for package in needs(SNIPPETS[number]) & set(OPTIONAL):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(FIRST + SNIPPETS[number], f"{PAGE.name} {number}", "exec"), {})
