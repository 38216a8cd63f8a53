"""Why a table model answers as it does: the columns that move its answer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gpunn.sklearn import TableClassifier, TableRegressor

QUICK = {
    **{"folds": 2, "epochs": 16, "hidden_layer_sizes": (32,)},
    **{"random_state": 0, "device": "cpu"},
}


def test_reasons_name_the_column_that_decides(rng):
    n = 200
    table = pd.DataFrame(
        {
            "area": rng.uniform(1, 9, n),
            "noise": rng.normal(size=n),
            "kind": rng.choice(["a", "b"], n),
        }
    )
    table.loc[::11, "noise"] = np.nan
    model = TableRegressor(**QUICK).fit(table, 100 * table["area"]).model_
    codes = model.encoding(table)
    effects = model.effects(codes)
    assert effects.shape == (n, 3)
    assert (np.abs(effects).argmax(axis=1) == 0).mean() > 0.8
    low, high = table["area"].argmin(), table["area"].argmax()
    assert effects[low, 0] < 0 < effects[high, 0]
    assert model.reasons(codes[[high]], 1)[0][0].startswith("area +")
    np.testing.assert_array_equal(model.effects(model.encoding.neutral[None]), 0)
    assert repr(model).startswith("TableModel(y: numbers from 1")


def test_reasons_of_classes_are_shares_of_their_probability(rng):
    table = pd.DataFrame({"kind": rng.choice(["a", "b"], 90), "noise": rng.normal(size=90)})
    y = (table["kind"] == "a").to_numpy()
    model = TableClassifier(**QUICK).fit(table, y).model_
    effects = model.effects(model.encoding(table))
    assert (np.abs(effects) <= 1).all()
    assert effects[:, 0].mean() > 0.2
    assert list(model.encoding.neutral) == [np.float32(model.encoding.columns[1].middle), -1]
