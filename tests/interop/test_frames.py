"""Frames where arrays are taken: a stand-in for one, pandas and Polars where installed."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.data import Dataset, batches
from gpunn.errors import DataError, ShapeError

TABLE = {"width": [1.0, 2.0, 3.0, 4.0], "count": [4, 3, 2, 1], "flag": [True, False, True, True]}
X = np.array([[1, 4, 1], [2, 3, 0], [3, 2, 1], [4, 1, 1]], np.float64)
LABELS = [0, 1, 1, 0]


class Column:
    def __init__(self, name, values):
        self.name, self.values = name, np.asarray(values)

    def to_numpy(self):
        return self.values


class Frame:
    """What frames have in common. `numpy.asarray` of it is no array of numbers."""

    def __init__(self, table):
        self.table = {name: Column(name, values) for name, values in table.items()}

    @property
    def columns(self):
        return list(self.table)

    def __len__(self):
        return len(next(iter(self.table.values())).values) if self.table else 0

    def __getitem__(self, name):
        return self.table[name]

    def to_numpy(self):
        raise AssertionError("columns of several dtypes would become one of objects")


def pandas_kind():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    return pandas.DataFrame, pandas.Series


def polars_kind():
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    return polars.DataFrame, lambda values, name=None: polars.Series(name or "", values)


KINDS = {
    "stand-in": lambda: (Frame, lambda values, name=None: Column(name, values)),
    "pandas": pandas_kind,
    "polars": polars_kind,
}


@pytest.fixture(params=KINDS)
def kind(request):
    """The classes of a frame and of a column."""
    return KINDS[request.param]()


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(3, 4, "tanh", seed=1), nn.Linear(4, 2, seed=2))


def test_a_fit_is_that_of_the_array(kind, net):
    frame, column = kind
    both = []
    for x, y in ((X, np.array(LABELS)), (frame(TABLE), column(LABELS))):
        model = nn.Sequential(nn.Linear(3, 4, "tanh", seed=1), nn.Linear(4, 2, seed=2))
        trainer = gn.Trainer(model, optimizer="adam", seed=3)
        history = trainer.fit(x, y, epochs=3, batch_size=2, validation=(x, y), progress=False)
        both.append((history["loss"], history["val_loss"], trainer.evaluate(x, y)))
        both[-1] += (trainer.predict(x).tolist(), model.predict(x).tolist())
    assert both[0] == both[1]


def test_predictions_come_as_arrays(kind, net):
    frame, _ = kind
    for answer in (net.predict(frame(TABLE)), net.classify(frame(TABLE))):
        assert type(answer) is np.ndarray
    np.testing.assert_array_equal(net.predict(frame(TABLE)), net.predict(X))


def test_targets_of_a_regression_in_a_frame(kind):
    frame, _ = kind
    trainer = gn.Trainer(nn.Linear(3, 2, seed=0), "squared_error", seed=0)
    y = {"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 1.0, 0.0, 0.0]}
    found = trainer.evaluate(frame(TABLE), frame(y))
    assert found == trainer.evaluate(X, np.column_stack(list(y.values())))


def test_batches(kind):
    frame, column = kind
    found = list(batches(frame(TABLE), column(LABELS), 3, seed=1))
    for (x, y), (x_array, y_array) in zip(found, batches(X, LABELS, 3, seed=1), strict=True):
        np.testing.assert_array_equal(x, x_array)
        np.testing.assert_array_equal(y, y_array)


def test_a_dataset_takes_the_names_of_columns(kind):
    frame, column = kind
    data = Dataset(frame(TABLE), column(LABELS))
    np.testing.assert_array_equal(data.x, X)
    assert data.x.flags.c_contiguous
    assert data.y.tolist() == LABELS
    assert data.features == ("width", "count", "flag")
    assert data.subset([1, 0]).features == data.features
    assert Dataset(frame(TABLE), LABELS, features=("a", "b", "c")).features == ("a", "b", "c")
    assert Dataset(X, LABELS).features is None
    with pytest.raises(ShapeError, match="got 2 feature names"):
        Dataset(frame(TABLE), LABELS, features=("a", "b"))


def test_a_column_that_is_no_number_is_named(kind, net):
    frame, column = kind
    text = TABLE | {"colour": ["red", "green", "red", "blue"]}
    trainer = gn.Trainer(net)
    words = r"got x with column 'colour' of dtype .*expected numbers"
    for call in (
        lambda: trainer.fit(frame(text), LABELS, progress=False),
        lambda: trainer.evaluate(frame(text), LABELS),
        lambda: trainer.predict(frame(text)),
        lambda: net.predict(frame(text)),
        lambda: batches(frame(text), LABELS),
        lambda: Dataset(frame(text), LABELS),
    ):
        with pytest.raises(DataError, match=words):
            call()
    with pytest.raises(DataError, match="got validation with column 'colour'"):
        trainer.fit(X, LABELS, validation=(frame(text), LABELS), progress=False)
    with pytest.raises(DataError, match="the targets of x with column 'species'"):
        trainer.fit(frame(TABLE), column(["a", "b", "b", "a"], name="species"), progress=False)


def test_a_missing_number_is_told_by_row_and_column(kind):
    frame, _ = kind
    gaps = TABLE | {"width": [1.0, 2.0, float("nan"), 4.0]}
    with pytest.raises(DataError, match="nan in row 2, column 0"):
        Dataset(frame(gaps), LABELS)


def test_a_frame_without_columns(kind, net):
    frame, _ = kind
    with pytest.raises(DataError, match="holds nothing"):
        Dataset(frame({}), np.zeros(0))


def test_what_only_pandas_has():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"a": [1, 2], "b": [3, 4]})
    nullable = table.astype({"a": "Int64", "b": "Float32"})
    np.testing.assert_array_equal(Dataset(nullable, [0, 1]).x, [[1, 3], [2, 4]])
    nullable.loc[1, "a"] = pandas.NA
    with pytest.raises(DataError, match=r"column 'a' of dtype Int64|nan in row 1, column 0"):
        Dataset(nullable, [0, 1])
    twice = table.rename(columns={"b": "a"})
    with pytest.raises(DataError, match="several columns 'a'"):
        Dataset(twice, [0, 1])
    dates = table.assign(when=pandas.to_datetime(["2026-01-01", "2026-01-02"]))
    with pytest.raises(DataError, match="column 'when' of dtype datetime64"):
        Dataset(dates, [0, 1])
    shuffled = table.set_index(pandas.Index([7, 3]))
    assert Dataset(shuffled, pandas.Series([0, 1], index=[3, 7])).y.tolist() == [0, 1]
