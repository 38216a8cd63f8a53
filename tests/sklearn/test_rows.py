"""Estimators on rows that are read from disk while they fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from gpunn.data import open_rows
from gpunn.errors import ArgumentError
from gpunn.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((600, 4))
LABELS = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")
OPTIONS = {"hidden_layer_sizes": (8,), "random_state": 0, "learning_rate_init": 0.02}


class Slices:
    """An array of which rows can be sliced, as of Zarr."""

    def __init__(self, array):
        self.shape, self.dtype, self._array = array.shape, array.dtype, array
        self.chunks = (50, *array.shape[1:])

    def __getitem__(self, rows):
        return self._array[rows]


def rows_of(x, y):
    return open_rows(Slices(x), Slices(y))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_a_classifier_learns_from_rows_on_disk(dtype):
    x = (100 * X).astype(dtype) if dtype is np.int16 else X.astype(dtype)
    rows = rows_of(x, LABELS)
    model = MLPClassifier(max_iter=30, **OPTIONS)
    model.set_params(learning_rate_init=0.005 if dtype is np.int16 else 0.02)
    model.fit(rows.x, rows.y)
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.n_features_in_ == 4
    assert model.coefs_[0].dtype == (np.float32 if dtype is np.float32 else np.float64)
    assert len(model.loss_curve_) == model.n_iter_ == 30
    assert model.score(rows.x, rows.y) > 0.9
    np.testing.assert_array_equal(model.predict(rows.x), model.predict(x))
    np.testing.assert_array_equal(model.predict_proba(rows.x), model.predict_proba(x))


def test_rows_in_their_order_have_the_bits_of_memory():
    rows = rows_of(X, LABELS)
    first = MLPClassifier(max_iter=3, shuffle=False, **OPTIONS).fit(X, LABELS)
    second = MLPClassifier(max_iter=3, shuffle=False, **OPTIONS).fit(rows.x, rows.y)
    for a, b in zip(first.coefs_, second.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_order_is_that_of_the_random_state():
    rows = rows_of(X, LABELS)
    fits = [
        MLPClassifier(max_iter=2, **OPTIONS | {"random_state": seed}).fit(rows.x, rows.y)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(fits[0].coefs_[0], fits[1].coefs_[0])
    seeds = [fit._trainer.seed for fit in fits]
    assert seeds[0] == seeds[1] != seeds[2]


def test_a_regressor_and_partial_fit():
    y = 3 * X[:, 0] - X[:, 1]
    rows = rows_of(X, y)
    model = MLPRegressor(max_iter=60, **OPTIONS).fit(rows.x, rows.y)
    assert model.score(rows.x, rows.y) > 0.95
    later = MLPRegressor(**OPTIONS)
    for _ in range(40):
        later.partial_fit(rows.x, rows.y)
    assert later.score(X, y) > 0.9


def test_what_is_refused_for_rows_on_disk():
    rows = rows_of(X, LABELS)
    for options, words in (
        ({"early_stopping": True}, "early_stopping=True for rows on disk"),
        ({"solver": "lbfgs"}, 'solver="lbfgs" for rows on disk'),
        ({"class_weight": "balanced"}, "sample_weight for rows on disk"),
    ):
        with pytest.raises(ArgumentError, match=words):
            MLPClassifier(max_iter=2, **OPTIONS, **options).fit(rows.x, rows.y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        MLPClassifier(**OPTIONS).fit(rows.x, LABELS[:-1])
    fitted = MLPClassifier(max_iter=1, **OPTIONS).fit(rows.x, rows.y)
    with pytest.raises(ValueError, match="3 features"), warnings.catch_warnings():
        fitted.predict(rows_of(X[:, :3], LABELS).x)
