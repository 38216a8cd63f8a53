"""A table model on a GPU: recorded steps, and the numbers of the CPU."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from gpunn.sklearn import TableClassifier, TableRegressor
from gpunn.tables import TableModel


@pytest.mark.parametrize("kind", [TableClassifier, TableRegressor])
def test_a_table_model_on_a_gpu(kind, cuda_device, caplog, tmp_path, rng):
    n = 320
    table = pd.DataFrame(
        {"a": rng.normal(size=n), "b": rng.choice(["x", "y", "z"], n), "c": rng.normal(size=n)}
    )
    table.loc[::9, "c"] = np.nan
    y = (table["a"] > 0).to_numpy() + 2.0 * (table["b"] == "x")
    found = {}
    with caplog.at_level(logging.WARNING, "gpunn"):
        for device in ("cpu", cuda_device):
            options = {"folds": 2, "epochs": 2, "hidden_layer_sizes": (8,), "random_state": 0}
            model = kind(**options, device=device).fit(table, y.astype(int))
            chances = kind is TableClassifier
            found[device] = (model.predict_proba if chances else model.predict)(table)
            model.save(tmp_path / "model.safetensors")
            again = TableModel.load(tmp_path / "model.safetensors", device=device)
            np.testing.assert_array_equal(again.outputs(table), model.model_.outputs(table))
    assert not [each for each in caplog.messages if "without captured" in each]
    np.testing.assert_allclose(found[cuda_device], found["cpu"], rtol=1e-3, atol=1e-3)
