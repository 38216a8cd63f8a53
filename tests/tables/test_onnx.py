"""A table model in onnxruntime takes raw rows, and gives the answers of gpunn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpunn.columns import Encoding, RawTable
from gpunn.errors import ArgumentError
from gpunn.interop import to_onnx
from gpunn.sklearn import TableClassifier, TableRegressor

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

OPTIONS = {"folds": 2, "epochs": 2, "hidden_layer_sizes": (8,), "random_state": 0, "device": "cpu"}


def frame(n=90, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "width": rng.normal(1000, 300, n),
            "whole": rng.normal(0, 1e-3, n),
            "colour": rng.choice(["red", "green", "blue"], n),
            "town": rng.choice(["Bonn", "Köln", None], n),
            "rare": [f"k{k}" if k % 9 == 0 else "often" if k % 2 else "seldom" for k in range(n)],
            "same": 1.0,
        }
    )
    table.loc[::7, "width"] = np.nan
    return table


def answers(proto, table):
    session = runtime.InferenceSession(proto.SerializeToString())
    given = {}
    for each in session.get_inputs():
        column = table[each.name].to_numpy()
        if each.type == "tensor(string)":
            column = np.array(["" if c is None or c != c else c for c in column], object)
        else:
            column = column.astype(np.float16 if "float16" in each.type else np.float32)
        given[each.name] = column[:, None]
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))


def strange(table):
    """Rows with levels and missing cells that the training data does not have."""
    table = table.copy()
    table.loc[0, ["colour", "town", "rare"]] = ["violet", "Ulm", "new"]
    table.loc[1, ["colour", "whole"]] = [None, np.nan]
    table.loc[2, ["town"]] = ["NA"]
    return table[::-1]


@pytest.mark.parametrize("names", [["no", "yes", "so"], [1, 2, 3], [True, False, True]])
def test_a_classifier(names, tmp_path):
    table, y = frame(), np.array(names)[np.arange(90) % 3]
    model = TableClassifier(**OPTIONS).fit(table, y)
    proto = to_onnx(model, tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx") == proto
    assert "same" not in {each.name for each in proto.graph.input}
    for rows in (table, strange(frame(seed=1))):
        found = answers(proto, rows)
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), atol=1e-5)
        expected = model.predict(rows)
        sure = np.abs(np.diff(np.sort(model.predict_proba(rows))[:, -2:])[:, 0]) > 1e-4
        assert (found["label"][sure] == expected[sure]).all()


def test_a_regressor():
    table = frame()
    y = table["width"].fillna(0).to_numpy() * 3 + 7
    model = TableRegressor(**OPTIONS).fit(table, y)
    rows = strange(frame(seed=1))
    found = answers(to_onnx(model), rows)["output"][:, 0]
    np.testing.assert_allclose(found, model.predict(rows), rtol=1e-5, atol=1e-5 * np.ptp(y))
    assert found.min() >= np.float32(y.min())
    assert found.max() <= np.float32(y.max())


def test_a_single_column_in_float16():
    table = pd.DataFrame({"colour": ["red", "blue"] * 30})
    model = TableClassifier(**OPTIONS).fit(table, np.arange(60) % 2)
    found = answers(to_onnx(model, float16=True), table)["probabilities"]
    np.testing.assert_allclose(found, model.predict_proba(table), atol=2e-3)


def test_what_onnx_cannot_say_is_refused_by_name():
    table = frame().assign(sold=pd.date_range("2023-01-01", periods=90))
    model = TableClassifier(**OPTIONS).fit(table, np.arange(90) % 2)
    with pytest.raises(ArgumentError, match="sold"):
        to_onnx(model)
    with pytest.raises(ArgumentError, match="names of its classes"):
        to_onnx(TableClassifier(**OPTIONS).fit(frame(), np.arange(90) % 2).model_)


def test_the_columns_of_the_codes_are_known():
    table = RawTable.of({"a": ["1", "?", "3"], "b": ["x", "y", "x"], "c": ["2", "4", "9"]})
    encoding = Encoding.fit(table, {"b": "category"})
    assert encoding.encoded_names == ("a", "c", "a is missing", "b")
    assert encoding.sources == ("a", "c", "a", "b")
