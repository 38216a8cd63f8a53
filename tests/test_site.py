"""The documentation as a site: every name has a page and an example, and pages lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "building"))
import names  # noqa: E402

sys.path.pop(0)
pytestmark = pytest.mark.fast
PUBLIC = names.public()
EXAMPLES = names.examples()
PAGES = ("start", "images", "comparisons", "training", "losses")
EXTRAS = {  # what the examples of a name need
    "gpunn.sklearn.": "sklearn",
    "gpunn.accel.": "sklearn",
    "gpunn.plot.": "matplotlib",
    "gpunn.interop.to_onnx": "onnx",
    "gpunn.interop.from_onnx": "onnx",
    "gpunn.train.TensorBoard": "tensorboard",
    "gpunn.train.MLflow": "mlflow",
    "gpunn.train.WandB": "wandb",
}


def test_every_public_name_has_a_page():
    """A package that users may import, or a module of the list, misses no name of its `__all__`."""
    pages = {each.path for each in PUBLIC}
    for module in names.MODULES:
        found = importlib.import_module(module)
        for name in getattr(found, "__all__", ()):
            value = getattr(found, name)
            if inspect.ismodule(value):
                assert value.__name__ in names.MODULES, value
                continue
            homes = [each for each in PUBLIC if each.value is value]
            assert homes, f"{module}.{name} has no page"
    assert len(pages) == len(PUBLIC) > 300


@pytest.mark.parametrize("each", PUBLIC, ids=lambda each: each.path)
def test_every_public_name_has_an_example(each):
    if not names.is_constant(each.value):
        assert names.has_example(each.value) or each.path in EXAMPLES


def test_no_example_is_left_over():
    assert set(EXAMPLES) <= {each.path for each in PUBLIC if not names.is_constant(each.value)}
    twice = [e.path for e in PUBLIC if e.path in EXAMPLES and names.has_example(e.value)]
    assert twice == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(EXAMPLES))
def test_the_examples_run(path):
    for start, package in EXTRAS.items():
        if path.startswith(start):
            pytest.importorskip(package, reason=f"{package} is not installed")
    scope = {"gn": gn, "np": np, "__name__": "__main__"}
    parsed = doctest.DocTestParser().get_doctest(EXAMPLES[path], scope, path, None, 0)
    assert doctest.DocTestRunner().run(parsed).failed == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_programs_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    scope = {"__name__": "__main__"}
    for program in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(program, page, "exec"), scope)


@pytest.mark.filterwarnings("ignore")
def test_the_idioms_of_the_comparison_run(tmp_path, monkeypatch):
    """The first code in the last column of each row is a program, if it says nothing else."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "comparisons.md").read_text("utf-8")
    scope = {"__name__": "__main__"}
    for program in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(program, "comparisons", "exec"), scope)
    scope["sklearn"] = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    importlib.import_module("sklearn.model_selection")
    run = 0
    for row in re.findall(r"^\| `.*\|$", text, re.M):
        idiom = row.rsplit(" | ", 1)[1]
        for program in re.findall(r"`([^`]+)`", idiom)[:1]:
            if "(" in program or "=" in program:
                exec(compile(program, row, "exec"), scope)
                run += 1
    assert run >= 20


def test_every_guide_is_in_the_navigation():
    hooks = (ROOT / "docs" / "building" / "hooks.py").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f'"{page.name}"' in hooks, page.name
