"""The estimators for tables keep scikit-learn's contract, and find columns by their names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpunn.columns import RawTable
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.sklearn import TableClassifier, TableRegressor
from gpunn.tables.folds import QUANTILES, folds_of, log_loss, quantiles_of
from gpunn.tables.training import fit_table

OPTIONS = {
    "epochs": 24,
    "folds": 2,
    "hidden_layer_sizes": (16,),
    "random_state": 0,
    "device": "cpu",
}
OTHERWISE = {
    "check_sample_weight_equivalence_on_dense_data": "a row that occurs twice is in two batches",
    "check_dataframe_column_names_consistency": "columns are found by their names, in any order",
}


@parametrize_with_checks(
    [TableClassifier(**OPTIONS), TableRegressor(**OPTIONS)],
    expected_failed_checks=lambda estimator: OTHERWISE,
)
def test_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


def frame(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "width": rng.normal(size=n),
            "colour": rng.choice(["red", "blue"], n),
            "n": np.arange(n) % 7,
        }
    )


def fitted(X, kind=TableClassifier):
    return kind(**OPTIONS).fit(X, np.arange(len(frame())) % 2)


@pytest.mark.parametrize("kind", [TableClassifier, TableRegressor])
def test_columns_are_found_by_their_names(kind):
    table = frame()
    model = fitted(table, kind)
    wanted = model.predict(table)
    more = table[["n", "colour", "width"]].assign(other=1)
    np.testing.assert_array_equal(model.predict(more), wanted)
    rows = {name: table[name].tolist() for name in reversed(table.columns)}
    np.testing.assert_array_equal(model.predict(rows), wanted)
    with pytest.raises(DataError, match=r"colour too.*did you mean 'color'"):
        model.predict(table.rename(columns={"colour": "color"}))
    with pytest.warns(UserWarning, match="valid feature names"):
        np.testing.assert_array_equal(model.predict(table.to_numpy()), wanted)


def test_columns_without_names_are_found_by_their_place():
    table = frame()
    model = fitted(table.to_numpy())
    wanted = model.predict_proba(table.values.tolist())
    with pytest.warns(UserWarning, match="without feature names"):
        np.testing.assert_array_equal(model.predict_proba(table), wanted)
    with pytest.raises(ValueError, match="X has 2 features, but TableClassifier is expecting 3"):
        model.predict(table.to_numpy()[:, :2])


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="Negative values"):
        TableClassifier(**OPTIONS).fit(frame(), np.arange(60) % 2, sample_weight=-np.ones(60))


def noisy(n=400):
    """Rows of which the first half has a target that follows from a column, and the second none."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(n, 2)), rng.integers(0, 2, n)
    x[:, 0] += 4 * y
    y[n // 2 :] = rng.integers(0, 2, n - n // 2)
    return x, y, np.where(np.arange(n) < n // 2, 1.0, 1e-9)


@pytest.mark.parametrize("kind", [TableClassifier, TableRegressor])
def test_a_row_of_weight_0_counts_as_if_it_were_not_there(kind):
    x, y, weights = noisy()
    weights = np.round(weights) * (1 + np.arange(len(y)) % 3)
    counts = weights > 0
    x[~counts] *= 100
    whole = kind(**OPTIONS).fit(x, y, sample_weight=weights)
    part = kind(**OPTIONS).fit(x[counts], y[counts], sample_weight=weights[counts])
    np.testing.assert_array_equal(whole.predict(x), part.predict(x))
    np.testing.assert_array_equal(whole.out_of_fold_[counts], part.out_of_fold_)
    assert np.isnan(whole.out_of_fold_[~counts]).all()
    if kind is TableClassifier:
        np.testing.assert_array_equal(whole.predict_proba(x), part.predict_proba(x))
    else:
        np.testing.assert_array_equal(whole.predict_interval(x), part.predict_interval(x))


def test_weights_count_in_the_choice_of_the_epoch():
    x, y, weights = noisy()
    model = TableClassifier(**OPTIONS).fit(x, y, sample_weight=weights)
    right = model.out_of_fold_.argmax(axis=1) == y
    folds = folds_of(y, OPTIONS["folds"], OPTIONS["random_state"])
    for k, history in enumerate(model.histories_):
        own = folds == k
        kept = np.average(right[own], weights=weights[own])
        assert kept == pytest.approx(max(history["val_weighted_accuracy"]), abs=1e-12)


def test_weights_count_in_the_calibration():
    x, y, weights = noisy()
    rows = weights == 1
    model = TableClassifier(**OPTIONS).fit(x, y, sample_weight=weights)
    chance = model.out_of_fold_[rows, y[rows]]
    losses = [log_loss(np.log(model.out_of_fold_[rows]) * t, y[rows]) for t in (0.8, 1, 1.25)]
    assert losses[1] == min(losses)
    assert np.median(chance) > 0.95


def test_weights_count_in_the_intervals():
    x, y, weights = noisy()
    target = x[:, 0] + np.where(weights == 1, 0, 50.0 * y)
    half = TableRegressor(**OPTIONS).fit(x, target, sample_weight=weights).model_.half_width(0.8)
    assert half < 10


def test_a_weighted_quantile_counts_a_number_as_often_as_its_weight_says(rng):
    numbers, weights = rng.normal(size=20), rng.integers(1, 5, 20)
    wanted = np.quantile(
        np.repeat(numbers, weights), np.linspace(0, 1, QUANTILES), method="inverted_cdf"
    )
    np.testing.assert_array_equal(quantiles_of(numbers, weights), wanted)
    np.testing.assert_array_equal(
        quantiles_of(numbers)[[0, 500, 1000]], np.quantile(numbers, [0, 0.5, 1])
    )


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (np.ones(3), ShapeError, "3"),
        (-np.ones(400), DataError, "at least 0"),
        (["a"] * 400, DTypeError, "numbers"),
    ],
)
def test_weights_that_are_wrong_are_refused(weights, error, words):
    x, y, _ = noisy()
    with pytest.raises(error, match=words):
        fit_table(RawTable.of(x), y, classes=2, weights=weights)


def test_a_cross_validation_of_a_frame():
    table = frame()
    scores = cross_val_score(TableRegressor(**OPTIONS), table, table["n"], cv=2)
    assert scores.shape == (2,)
