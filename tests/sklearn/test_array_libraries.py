"""Arrays of other libraries through the estimators, with scikit-learn's `array_api_dispatch`.

SciPy decides when it is imported whether it takes such arrays. So most of this is run by its first
test in a process of its own, with scikit-learn's checks that ask for the same.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.utils.fixes import parse_version

from gpunn.sklearn import MLPClassifier, MLPRegressor
from tests.sklearn.cases import data, pair

strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SWITCH = "SCIPY_ARRAY_API"
HERE = Path(__file__).parent
FROM_1_9 = parse_version(sklearn.__version__) >= parse_version("1.9")
"""Older checks want `classes_` in the input's library, and nobody compares libraries there."""
dispatching = pytest.mark.skipif(
    os.environ.get(SWITCH) != "1", reason=f"in the process that has {SWITCH}=1"
)


@pytest.mark.skipif(os.environ.get(SWITCH) == "1", reason="this is that process")
def test_in_a_process_where_scipy_takes_other_arrays():
    names = ["test_array_libraries.py"] + ["test_checks.py"] * FROM_1_9
    files = [str(HERE / name) for name in names]
    chosen = "(array_api or array_libraries) and not cuda"
    command = [sys.executable, "-m", "pytest", "-v", "-k", chosen, *files]
    done = subprocess.run(
        command,
        env={**os.environ, SWITCH: "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    passed = [line for line in done.stdout.splitlines() if " PASSED" in line]
    for name in ("check_array_api", "another_library", "standin:0") if FROM_1_9 else names:
        assert any(name in line for line in passed), f"{name} did not run"


@dispatching
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression", "outputs"])
def test_outputs_are_arrays_of_another_library(task):
    x, y = data(task)
    host = pair(task, max_iter=3, random_state=0, hidden_layer_sizes=(6,))[1].fit(x, y)
    model = pair(task, max_iter=3, random_state=0, hidden_layer_sizes=(6,))[1]
    methods = ["predict", "transform"]
    methods += ["predict_proba", "predict_log_proba"] * isinstance(model, MLPClassifier)
    with sklearn.config_context(array_api_dispatch=True):
        theirs = strict.asarray(x, device=strict.Device("device1"))
        model.fit(theirs, strict.asarray(y))
        for name in methods:
            found = getattr(model, name)(theirs)
            assert found.__array_namespace__() is strict
            assert found.device == theirs.device
            expected = getattr(host, name)(x)
            np.testing.assert_array_equal(np.from_dlpack(found), expected, name)
        assert model.score(theirs, strict.asarray(y)) == host.score(x, y)
    assert isinstance(model.predict(theirs), np.ndarray)  # dispatch is off


@dispatching
def test_hinge_text_and_parts_of_another_library():
    x, y = data("multiclass")
    theirs = strict.asarray(x)
    some = {"max_iter": 3, "random_state": 0, "hidden_layer_sizes": (6,)}
    with sklearn.config_context(array_api_dispatch=True):
        model = MLPClassifier(loss="hinge", **some).fit(theirs, strict.asarray(y))
        assert model.decision_function(theirs).__array_namespace__() is strict
        assert model.predict(theirs).__array_namespace__() is strict
        names = np.array(["a", "b", "c", "d"])[y]
        assert MLPClassifier(**some).fit(theirs, names).predict(theirs).dtype == names.dtype
        model = MLPClassifier(early_stopping=True, **some)
        model.partial_fit(
            theirs,
            strict.asarray(y),
            classes=strict.asarray([0, 1, 2, 3]),
            validation=(theirs, strict.asarray(y), strict.asarray(np.ones(len(y)))),
        )
        assert model.predict(theirs).__array_namespace__() is strict


@dispatching
@pytest.mark.skipif(not FROM_1_9, reason="scikit-learn compares libraries from 1.9 on")
def test_examples_of_another_library_than_those_of_fit_are_refused():
    x, y = data("regression")
    theirs = strict.asarray(x)
    with sklearn.config_context(array_api_dispatch=True):
        model = MLPRegressor(max_iter=2).fit(theirs, strict.asarray(y))
        for method in (model.predict, model.transform):
            with pytest.raises(ValueError, match="must use the same namespace"):
                method(x)
        assert isinstance(copy.deepcopy(model).predict(x), np.ndarray)  # it can be anywhere
        model.fit(x, y)
        assert isinstance(model.predict(x), np.ndarray)
    model.predict(theirs)  # nobody asks
