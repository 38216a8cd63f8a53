"""Model files of tables whose contents somebody has changed: refused, or still a model."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

import gpunn as gn
from gpunn.errors import GpunnError, ModelFileError
from gpunn.sklearn import TableClassifier, TableRegressor
from gpunn.tables import TableModel

HOSTILE = (None, True, -1, 0, 7, 1e308, 2**70, "", "x", [], {}, [None], [[1]], {"a": 1}, ["a", "a"])
OPTIONS = {"folds": 1, "epochs": 1, "hidden_layer_sizes": (4,), "random_state": 0, "device": "cpu"}


def frame():
    n = 60
    return pd.DataFrame(
        {
            "width": [None if k % 7 == 0 else k * 0.37 % 5 for k in range(n)],
            "colour": [["red", "green", None][k % 3] for k in range(n)],
            "sold": pd.date_range("2023-01-01", periods=n),
            "same": 1,
        }
    )


def places(value, path=()):
    """Every place in nested lists and dicts; of long lists the first two."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, each in value.items():
            yield from places(each, (*path, name))
    elif isinstance(value, list):
        for k, each in enumerate(value[:2]):
            yield from places(each, (*path, k))


def changed(info, path, value):
    info = copy.deepcopy(info)
    inner = info
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return info


@pytest.mark.parametrize("kind", [TableClassifier, TableRegressor])
def test_a_changed_value_is_refused_or_still_gives_a_model(kind, tmp_path):
    path, table = tmp_path / "model.safetensors", frame()
    model = kind(**OPTIONS).fit(table, np.arange(60) % 3).model_
    model.save(path)
    info, refused, loaded = gn.train.read_info(path), 0, 0
    network = TableModel.load(path, device="cpu").network
    for place in places(info):
        for value in HOSTILE:
            gn.save(network, path, info=changed(info, place, value))
            try:
                found = TableModel.load(path, device="cpu")
            except ModelFileError:
                refused += 1
                continue
            loaded += 1
            try:
                outputs = found.outputs(table)
            except GpunnError:
                continue
            assert outputs.shape[0] == 60, (place, value)
    assert refused > 200
    assert loaded > 20  # notes, names that are not used


def test_a_column_that_is_gone_or_twice_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    model = TableClassifier(**OPTIONS).fit(frame(), np.arange(60) % 3).model_
    info = model.info()
    columns = info["encoding"]
    for hostile in (columns[1:], [*columns, columns[0]], columns[::-1][:2], []):
        gn.save(model.network, path, info={**info, "encoding": hostile})
        with pytest.raises(ModelFileError):
            TableModel.load(path, device="cpu")
