"""Searches on workers of Dask have the scores and the bits of a search in one process."""

from __future__ import annotations

import os
import signal
import time
import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpunn as gn
from gpunn.sklearn import MLPClassifier

DIGITS = gn.data.load_digits()
X, Y = DIGITS.x[:300], DIGITS.y[:300]


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


def search():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=4, random_state=0))
    grid = {"mlpclassifier__alpha": [1e-4, 1e-1], "mlpclassifier__learning_rate_init": [1e-3, 1e-2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four iterations do not converge
        return GridSearchCV(pipeline, grid, cv=3).fit(X, Y)


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
def test_a_search_survives_a_worker_that_dies(cluster):
    import joblib

    expected, killed = search(), []

    def kill():
        time.sleep(0.3)
        worker = next(iter(cluster.scheduler_info()["workers"]))
        process = cluster.run(os.getpid, workers=[worker])[worker]
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    import threading

    killer = threading.Thread(target=kill)
    with joblib.parallel_config("dask"):
        killer.start()
        found = search()
    killer.join()
    assert killed
    assert_same(found, expected)
