"""The ways to turn gpunn.accel on and off, the command line, and worker processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.exceptions import ConvergenceWarning

import gpunn as gn
from gpunn import accel
from gpunn.accel import switch
from tests.accel.cases import patched
from tests.accel.test_same import made
from tests.sklearn.cases import data

ROOT = Path(__file__).parents[2]

SCRIPT = """
import hashlib, sys, warnings
import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier

def main():
    warnings.simplefilter("ignore")
    x, y = load_iris(return_X_y=True)
    model = MLPClassifier((8,), max_iter=20, random_state=0)
    search = GridSearchCV(model, {"alpha": [1e-4, 1.0], "solver": ["adam", "sgd", "lbfgs"]}, cv=2,
                          n_jobs=int(sys.argv[1])).fit(x, y)
    digest = hashlib.sha256()
    best = search.best_estimator_
    for array in (*best.coefs_, *best.intercepts_, search.predict_proba(x)):
        digest.update(np.ascontiguousarray(array).tobytes())
    print(digest.hexdigest(), type(best).__module__, sys.argv, __name__, sorted(vars())[:1])

if __name__ == "__main__":
    main()
"""


def run(*args, cwd=ROOT, **environment):
    """Run Python, and return its standard output and error."""
    done = subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_untouched_script(tmp_path, jobs):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    plain, _ = run(str(script), jobs)
    fast, words = run("-m", "gpunn.accel", "--verbose", str(script), jobs)
    assert fast == plain
    fits = [line for line in words.splitlines() if "fit on gpunn" in line]
    assert len(fits) == 13  # with two jobs, 12 of them in workers
    assert "scikit-learn" not in words
    _, words = run("-m", "gpunn.accel", str(script), jobs)
    assert words == ""
    off, words = run("-m", "gpunn.accel", "-v", str(script), jobs, GPUNN_ACCEL="0")
    assert (off, words) == (plain, "")


def test_a_module(tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    plain, _ = run("-m", "mine", "1", cwd=tmp_path)
    fast, words = run("-m", "gpunn.accel", "-m", "mine", "1", cwd=tmp_path, GPUNN_ACCEL_VERBOSE="1")
    assert fast == plain
    assert "fit on gpunn" in words


SPAWN = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from sklearn.neural_network import MLPClassifier

def where(_):
    return MLPClassifier._fit_stochastic.__module__

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            print(method, *pool.map(where, [0]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_processes_of_every_kind(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SPAWN)
    lines = run("-m", "gpunn.accel", str(script), cwd=tmp_path)[0].splitlines()
    assert lines == [f"{name} gpunn.accel.switch" for name in ("fork", "spawn", "forkserver")]


def test_workers_that_joblib_keeps_are_replaced(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import gpunn, joblib
from sklearn.neural_network import MLPClassifier

def where():
    return MLPClassifier._fit_stochastic.__module__

for change in (lambda: None, gpunn.accel.patch, gpunn.accel.unpatch):
    change()
    print(*set(joblib.Parallel(2)(joblib.delayed(where)() for _ in range(2))))
""")
    own = "sklearn.neural_network._multilayer_perceptron"
    assert run(str(script))[0].split() == [own, "gpunn.accel.switch", own]


def test_a_script_runs_as_python_runs_it(tmp_path):
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    script = tmp_path / "script.py"
    script.write_text("""
import sys, pickle, beside
class Mine: pass
pickle.loads(pickle.dumps(Mine()))
import __main__
print(sys.argv, __name__, __file__, __spec__, beside.NAME, __main__.Mine is Mine)
print("sklearn" in sys.modules, sorted(k for k in globals() if k.isupper()))
sys.exit(3)
""")
    command = [str(script), "--verbose", "-m", "x"]
    outs = []
    for start in ([], ["-m", "gpunn.accel"]):
        done = subprocess.run(
            [sys.executable, *start, *command],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        assert done.returncode == 3, done.stderr
        outs.append(done.stdout)
    assert outs[0] == outs[1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "got no script"),
        (["-m"], "got no module"),
        (["--fast", "x.py"], "unknown option --fast"),
        (["absent.py"], "can't open 'absent.py'"),
    ],
)
def test_errors_of_the_command(args, words):
    done = subprocess.run(
        [sys.executable, "-m", "gpunn.accel", *args], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert words in done.stderr


def test_the_environment_variable_is_read_by_import_gpunn():
    code = (
        "import sys, gpunn; print('sklearn' in sys.modules); "
        "from sklearn.neural_network import MLPRegressor as M; print(M._fit_lbfgs.__module__)"
    )
    own = "sklearn.neural_network._multilayer_perceptron"
    assert run("-c", code, GPUNN_ACCEL="1")[0].split() == ["False", "gpunn.accel.switch"]
    for off in ("0", "", "no"):
        assert run("-c", code, GPUNN_ACCEL=off)[0].split() == ["False", own]


def test_the_extension_of_ipython():
    from sklearn.neural_network import MLPClassifier

    own = MLPClassifier._fit_stochastic
    accel.load_ipython_extension(None)
    accel.load_ipython_extension(None)  # a second time changes nothing
    assert MLPClassifier._fit_stochastic is switch.fit_stochastic
    accel.unload_ipython_extension(None)
    assert MLPClassifier._fit_stochastic is own
    accel.unpatch()
    assert MLPClassifier._fit_stochastic is own


def test_a_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setattr(accel, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"gpunn\[sklearn\]"):
        accel.patch()
    monkeypatch.setenv("GPUNN_ACCEL", "1")
    accel.patch_if_wanted()  # an exported variable breaks no import


def test_messages_go_to_logging(caplog):
    x, y = data("binary")
    with patched(), caplog.at_level(logging.INFO, "gpunn.accel"):
        for examples in (x.astype("float32"), x):
            with pytest.warns(ConvergenceWarning):
                made("binary", solver="lbfgs").fit(examples, y)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("MLPClassifier: fit on scikit-learn: the examples are float32")
    assert second == "MLPClassifier: fit on gpunn, on the CPU in float64"


def test_names_that_people_guess():
    with pytest.raises(AttributeError, match=r"gn\.accel\.patch\(\)"):
        gn.accel.patch_sklearn  # noqa: B018
    with pytest.raises(AttributeError, match=r"gn\.accel\.patch\(\)"):
        gn.patch_sklearn  # noqa: B018
