"""Every line of docs/sklearn.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn.sklearn import MLPClassifier, MLPRegressor, from_sklearn, to_sklearn

TEXT = (Path(__file__).parents[2] / "docs" / "sklearn.md").read_text()
ROWS = re.findall(r"^\| (.+?) \|[^|]*\| `(.+)` \|$", TEXT, re.MULTILINE)
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def names():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 4))
    y = np.digitize(x[:, 0], [-0.5, 0.5])
    return {
        "gn": gn,
        "MLPClassifier": MLPClassifier,
        "MLPRegressor": MLPRegressor,
        "from_sklearn": from_sklearn,
        "to_sklearn": to_sklearn,
        "X": x[:60],
        "y": y[:60],
        "X2": x[60:],
        "y2": y[60:],
        "t": x[:60, 1] ** 2,
        "model": MLPClassifier((8,), max_iter=3).fit(x[:60], y[:60]),
    }


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("wanted", "line"), ROWS, ids=[wanted for wanted, _ in ROWS])
def test_a_refused_request_is_a_line(wanted, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = names()
    if "ProgressBar" in line:
        callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
        pytest.importorskip("rich", reason="scikit-learn's progress bar needs it")
        given["ProgressBar"] = callback.ProgressBar
    if "# ValueError" in line:
        with pytest.raises(ValueError, match="It happened in epoch"):
            exec(line, given)
        return
    exec(line, given)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "skops" in snippet:
        pytest.importorskip("skops", reason="skops is not installed")
    exec(snippet, names())


def test_every_row_was_found():
    assert len(ROWS) == 21
    assert len(SNIPPETS) == 3
