"""The estimators for tables keep scikit-learn's contract, and find columns by their names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpunn.errors import DataError
from gpunn.sklearn import TableClassifier, TableRegressor

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


def test_a_cross_validation_of_a_frame():
    table = frame()
    scores = cross_val_score(TableRegressor(**OPTIONS), table, table["n"], cv=2)
    assert scores.shape == (2,)
