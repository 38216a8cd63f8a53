"""The numbers of scikit-learn's own estimators, over a grid of settings."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from tests.sklearn.cases import ROWS, assert_same, data, fitted, pair

TASKS = ("binary", "multiclass", "multilabel", "regression", "outputs", "poisson")
GRID = {
    "batch_size": ("auto", 20),
    "alpha": (0.0001, 0.3),
    "learning_rate": ("constant", "invscaling", "adaptive"),
    "early_stopping": (False, True),
    "weights": (False, True),
}
VARIANTS = list(itertools.product(*GRID.values()))  # 48


def settings(number):
    """One variant: keyword arguments and whether there are sample weights."""
    options = dict(zip(GRID, VARIANTS[number], strict=True))
    weights = np.random.default_rng(1).uniform(0.2, 2, ROWS) if options.pop("weights") else None
    return options, weights


def sampled(task, solver, activation):
    """Six of the variants, others for every combination; together they cover all."""
    start = (TASKS.index(task) * 7 + len(solver) * 3 + len(activation)) % 8
    return range(start, len(VARIANTS), 8)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("task", TASKS)
def test_float64_has_the_same_bits(task, solver, activation):
    for number in sampled(task, solver, activation):
        options, weights = settings(number)
        (theirs, ours), x, _ = fitted(
            task,
            sample_weight=weights,
            hidden_layer_sizes=(7, 5),
            solver=solver,
            activation=activation,
            learning_rate_init=0.003,
            max_iter=15,
            tol=1e-2,
            n_iter_no_change=3,
            random_state=number,
            **options,
        )
        assert_same(theirs, ours, x)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("task", TASKS)
def test_float32_agrees_for_the_first_epochs(task, solver, activation):
    for number in sampled(task, solver, activation):
        options, weights = settings(number)
        (theirs, ours), x, _ = fitted(
            task,
            "float32",
            sample_weight=weights,
            hidden_layer_sizes=(7, 5),
            solver=solver,
            activation=activation,
            max_iter=3,
            random_state=number,
            **options,
        )
        for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
            assert a.dtype == b.dtype == "float32"
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)
        assert ours.predict(x).dtype == theirs.predict(x).dtype


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "sgd", "nesterovs_momentum": False},
        {"solver": "sgd", "momentum": 0.0},
        {"solver": "sgd", "momentum": 1.0},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1},
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2},
        {"shuffle": False, "batch_size": 10},
        {"batch_size": 1, "max_iter": 2},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": 3},
        {"hidden_layer_sizes": (4, 3, 2, 3)},
        {"beta_1": 0.0, "beta_2": 0.5, "epsilon": 0.1},
        {"alpha": 0.0},
        {"early_stopping": True, "validation_fraction": 0.4},
        {"n_iter_no_change": np.inf},
    ],
    ids=str,
)
def test_other_settings_have_the_same_bits(options):
    for task in ("multiclass", "regression"):
        (theirs, ours), x, _ = fitted(task, **{"max_iter": 30, "random_state": 0, **options})
        assert_same(theirs, ours, x)


def test_several_blas_threads_agree_to_1e_10():
    x, y = data("multiclass")
    theirs, ours = pair("multiclass", hidden_layer_sizes=(64, 64), max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(x, y)
        ours.fit(x, y)
    for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * np.abs(a).max())
