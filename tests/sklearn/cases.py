"""Data for every kind of task, and pairs of estimators that should agree."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn import neural_network
from threadpoolctl import threadpool_limits

import gpunn.sklearn

ROWS = 97


def data(task, dtype="float64"):
    """Examples and targets of a task."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 6))
    y = {
        "binary": (x[:, 0] * x[:, 1] > 0).astype(int),
        "multiclass": np.digitize(x[:, 0] + x[:, 1], [-1, 0, 1]),
        "multilabel": (x[:, :3] + x[:, 3:] > 0).astype(int),
        "regression": x[:, 0] * 3 + x[:, 1] ** 2,
        "outputs": np.c_[x[:, 0] * 3, x[:, 1] ** 2],
        "poisson": rng.poisson(np.exp(x[:, 0] / 2)).astype(float),
    }[task]
    return x.astype(dtype), y


def kind(task):
    """The estimator of a task."""
    return "MLPRegressor" if task in ("regression", "outputs", "poisson") else "MLPClassifier"


def pair(task, **options):
    """The estimators of scikit-learn and of gpunn with equal settings."""
    if task == "poisson":
        options["loss"] = "poisson"
    return [getattr(module, kind(task))(**options) for module in (neural_network, gpunn.sklearn)]


def fitted(task, dtype="float64", sample_weight=None, **options):
    """Both estimators, fitted on one BLAS thread, and the data."""
    x, y = data(task, dtype)
    models = pair(task, **options)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        for model in models:
            model.fit(x, y, sample_weight=sample_weight)
    return models, x, y


CURVES = ("loss_curve_", "validation_scores_")
NUMBERS = ("loss_", "best_loss_", "best_validation_score_", "n_iter_", "t_", "n_layers_")
WORDS = ("n_outputs_", "out_activation_", "n_features_in_")


def assert_same(theirs, ours, x):
    """Every attribute and every prediction has the same bits."""
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(theirs, name), getattr(ours, name), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    for name in (*CURVES, *NUMBERS, *WORDS):
        assert hasattr(theirs, name) == hasattr(ours, name), name
        if hasattr(theirs, name):
            np.testing.assert_equal(getattr(ours, name), getattr(theirs, name), name)
    with threadpool_limits(1):
        for method in ("predict", "predict_proba", "predict_log_proba"):
            assert hasattr(theirs, method) == hasattr(ours, method)
            if hasattr(theirs, method):
                with np.errstate(divide="ignore"):
                    a, b = getattr(theirs, method)(x), getattr(ours, method)(x)
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b, method)
