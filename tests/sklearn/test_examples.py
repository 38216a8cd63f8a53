"""Scripts after scikit-learn's own examples print the same with one import line changed."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("sklearn_*.py"))


def printed(text):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), threadpool_limits(1):
        space = {"__name__": "example"}
        exec(compile(text, "example", "exec"), space)
        space["main"]()
    return out.getvalue()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_one_import_line_is_all_that_differs(path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["example", "--short"])
    text = path.read_text()
    lines = [line for line in text.split("\n") if line.startswith("from gpunn.sklearn import ")]
    assert len(lines) == 1
    theirs = text.replace(lines[0], lines[0].replace("gpunn.sklearn", "sklearn.neural_network"))
    ours, expected = printed(text), printed(theirs)
    assert len(expected.split("\n")) > 2
    assert ours == expected


def test_there_are_three():
    assert len(EXAMPLES) == 3
