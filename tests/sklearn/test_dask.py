"""Searches on workers of Dask have the scores and the bits of a search in one process."""

from __future__ import annotations

import os
import signal
import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import gpunn as gn
from gpunn.sklearn import MLPClassifier

DIGITS = gn.data.load_digits()
X, Y = DIGITS.x[:300], DIGITS.y[:300]
FOLDS = list(StratifiedKFold(3).split(X, Y))


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    with (
        distributed.LocalCluster(
            2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def search(first=None):
    """A search whose fits call a function first."""
    steps = FunctionTransformer(first), StandardScaler(), MLPClassifier((16,), max_iter=4)
    pipeline = make_pipeline(*steps).set_params(mlpclassifier__random_state=0)
    grid = {"mlpclassifier__alpha": [1e-4, 1e-1], "mlpclassifier__learning_rate_init": [1e-3, 1e-2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four iterations do not converge
        return GridSearchCV(pipeline, grid, cv=FOLDS).fit(X, Y)


def assert_same(found, expected):
    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    for a, b in zip(
        found.best_estimator_[-1].coefs_, expected.best_estimator_[-1].coefs_, strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore")
def test_a_search_on_workers_has_the_bits_of_one_process(cluster):
    import joblib

    expected = search()
    with joblib.parallel_config("dask", scatter=[X, Y]):
        assert_same(search(), expected)
        scores = cross_val_score(MLPClassifier((8,), max_iter=3, random_state=1), X, Y, cv=3)
    alone = cross_val_score(MLPClassifier((8,), max_iter=3, random_state=1), X, Y, cv=3)
    np.testing.assert_array_equal(scores, alone)


@pytest.mark.filterwarnings("ignore")
def test_a_search_survives_a_worker_that_dies(cluster, tmp_path):
    import joblib

    expected, dead = search(), tmp_path / "dead"

    def kill_the_first(x):
        """Kill the process that comes here first."""
        try:
            os.close(os.open(dead, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        os.kill(os.getpid(), signal.SIGKILL)
        return x

    copied = [X, Y, *(rows for fold in FOLDS for rows in fold)]
    with joblib.parallel_config("dask", scatter=copied):  # else joblib gives one worker an array
        found = search(kill_the_first)
    assert dead.exists()
    assert_same(found, expected)
