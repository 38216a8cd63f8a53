"""The documentation as a site: every name has a page and an example, and pages lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
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
MODULES = [m.name for m in pkgutil.walk_packages(gn.__path__, "gpunn.") if "__main__" not in m.name]
UNSEEN = {  # doctest looks for functions and classes, and an operation is neither
    each.path: each.doc
    for each in PUBLIC
    if names.has_example(each)
    and not (inspect.isclass(each.value) or inspect.isroutine(each.value))
}
PAGES = ("start", "images", "comparisons", "training", "losses")
EXTRAS = {  # what the examples of a name need
    "gpunn.sklearn.": "sklearn",
    "gpunn.accel.": "sklearn",
    "gpunn.train.METRICS": "sklearn",
    "gpunn.interop.from_torch": "torch",
    "gpunn.interop.save_torch": "safetensors",
    "gpunn.plot.": "matplotlib",
    "gpunn.interop.to_onnx": "onnx",
    "gpunn.interop.from_onnx": "onnx",
    "gpunn.train.TensorBoard": "tensorboard",
    "gpunn.train.MLflow": "mlflow",
    "gpunn.train.WandB": "wandb",
}


def test_every_public_name_has_a_page():
    """No module that has an `__all__` is missing, and no name in one."""
    pages = {(each.name, id(each.value)) for each in PUBLIC}
    for module in MODULES:
        found = importlib.import_module(module)
        for name in getattr(found, "__all__", ()):
            value = getattr(found, name)
            if inspect.ismodule(value):
                assert value.__name__ in names.MODULES, value
            else:
                assert (name, id(value)) in pages, f"{module}.{name} has no page"
    assert len(PUBLIC) > 350


def test_pages_differ_where_upper_and_lower_case_are_the_same():
    files = [*names.MODULES, *(Path(each.page).stem for each in PUBLIC)]
    assert len({file.lower() for file in files}) == len(files)


@pytest.mark.parametrize("each", PUBLIC, ids=lambda each: each.path)
def test_every_public_name_says_what_it_is(each):
    assert each.doc


@pytest.mark.parametrize("each", PUBLIC, ids=lambda each: each.path)
def test_every_public_name_has_an_example(each):
    assert names.has_example(each) != (each.path in EXAMPLES)  # one of the two


def test_no_example_is_skipped():
    assert [each.path for each in PUBLIC if "+SKIP" in each.doc + EXAMPLES.get(each.path, "")] == []


def test_every_section_of_examples_has_a_program():
    parts = [(each, each.doc.partition("Example:\n")) for each in PUBLIC]
    assert [each.path for each, (_, found, text) in parts if found and ">>>" not in text] == []


@pytest.mark.parametrize(
    "each", [e for e in PUBLIC if e.module == "gpunn.ops"], ids=lambda each: each.path
)
def test_the_example_of_an_operation_calls_it(each):
    example = EXAMPLES.get(each.path, each.doc)
    assert re.search(rf">>> .*\b{each.name}\b", example)


def test_no_example_is_left_over():
    assert set(EXAMPLES) <= {each.path for each in PUBLIC}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(EXAMPLES | UNSEEN))
def test_the_examples_run(path, monkeypatch):
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")  # Open MPI refuses root otherwise
    for start, package in EXTRAS.items():
        if path.startswith(start):
            pytest.importorskip(package, reason=f"{package} is not installed")
    scope = {"gn": gn, "np": np, "__name__": "__main__"}
    text = (EXAMPLES | UNSEEN)[path]
    parsed = doctest.DocTestParser().get_doctest(text, scope, path, None, 0)
    assert doctest.DocTestRunner().run(parsed).failed == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_programs_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    scope = {"__name__": "__main__"}
    for program in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(program, page, "exec"), scope)


IDIOM = re.compile(r"`((?:gn|nn|optim|net|trainer|print|train|MLPClassifier|sklearn)\b[^`]*)`")


@pytest.mark.filterwarnings("ignore")
def test_the_idioms_of_the_comparison_run(tmp_path, monkeypatch):
    """All code in the last column runs in turn, if it begins with a name of the page's program."""
    pytest.importorskip("sklearn.model_selection", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "comparisons.md").read_text("utf-8")
    scope = {"__name__": "__main__"}
    for program in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(program, "comparisons", "exec"), scope)
    scope["sklearn"] = importlib.import_module("sklearn")
    failed, run = {}, 0
    for row in re.findall(r"^\| .* \| (.*) \|$", text, re.M):
        for program in IDIOM.findall(row):
            run += 1
            try:
                exec(compile(program, row, "exec"), scope)
            except Exception as error:
                failed[program] = repr(error)
    assert failed == {}
    assert run >= 80


def test_every_guide_is_in_the_navigation():
    hooks = (ROOT / "docs" / "building" / "hooks.py").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f'"{page.name}"' in hooks, page.name
