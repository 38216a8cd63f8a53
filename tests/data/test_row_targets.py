"""Targets, scales and splits of data on disk, and the command line with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import gpunn as gn
from gpunn.cli.app import app
from gpunn.data import open_rows
from gpunn.data.rows import RowTable
from gpunn.data.rowtargets import scaled, scales, targets_of
from gpunn.errors import ArgumentError, DataError, ShapeError

arrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

ROWS = 600
RNG = np.random.default_rng(0)
X = (RNG.standard_normal((ROWS, 4)) * [1, 100, 1e-3, 1] + [0, 1e4, 0, 7]).astype(np.float32)
X[:, 3] = 7.0
SIDE = X[:, 0] + (X[:, 1] - 1e4) / 100 > 0


def written(folder, y, x=X, parts=3, group=40):
    """Parquet files, and the rows that they hold."""
    for k, rows in enumerate(np.array_split(np.arange(len(x)), parts)):
        columns = {f"c{j}": x[rows, j] for j in range(x.shape[1])}
        table = arrow.table({**columns, "t": arrow.array(np.asarray(y)[rows])})
        parquet.write_table(table, folder / f"part-{k}.parquet", row_group_size=group)
    return open_rows(str(folder / "part-*.parquet"), target="t")


# targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.where(SIDE, "yes", "no"),
        SIDE,
        np.where(SIDE, 30, -7),
        np.where(SIDE, 2.0, 5.0),
        np.where(SIDE, 2**60 + 1, 2**60),
    ],
    ids=["text", "bool", "int", "float", "large"],
)
def test_classes_are_those_of_the_values(tmp_path, values):
    y, classes = targets_of(written(tmp_path, values).y, "t", "auto")
    known, expected = np.unique(values, return_inverse=True)
    names = known.astype(int) if known.dtype.kind == "f" else known
    assert classes == tuple(map(str, names.tolist()))
    np.testing.assert_array_equal(y[:], expected)
    np.testing.assert_array_equal(y[95:130], expected[95:130])
    assert y.shape == (ROWS,)


def test_text_that_is_stored_once_is_text(tmp_path):
    table = arrow.table({"c": np.arange(4.0), "t": arrow.array(list("abba")).dictionary_encode()})
    parquet.write_table(table, tmp_path / "part-0.parquet")
    y, classes = targets_of(open_rows(str(tmp_path / "part-*"), target="t").y, "t", "auto")
    assert classes == ("a", "b")
    assert y[:].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("values", [X[:, 0], np.arange(ROWS)], ids=["fractions", "many"])
def test_numbers_without_classes_are_amounts(tmp_path, values):
    y, classes = targets_of(written(tmp_path, values).y, "t", "auto")
    assert classes is None
    np.testing.assert_array_equal(y[:], values[:, np.newaxis].astype(np.float64))


def test_a_task_can_be_named(tmp_path):
    rows = written(tmp_path, np.arange(ROWS) % 50)
    assert targets_of(rows.y, "t", "auto")[1] is None
    assert len(targets_of(rows.y, "t", "classification")[1]) == 50
    assert targets_of(written(tmp_path, SIDE).y, "t", "regression")[1] is None


@pytest.mark.parametrize(
    ("values", "task", "words"),
    [
        (["a", None] * 300, "auto", "a row without a value in the target 't'"),
        (["a"] * 600, "auto", "only the value 'a'"),
        (["a", "b"] * 300, "regression", "text in the target 't'.*classification"),
        (X[:, 0], "classification", "whole numbers or text for classes"),
        ([1.0] * 599 + [np.nan], "classification", "got nan in the target"),
    ],
)
def test_targets_that_do_not_fit_are_named(tmp_path, values, task, words):
    values = np.array(values, object if isinstance(values[0], str) else None)
    rows = written(tmp_path, values)
    with pytest.raises(DataError, match=words):
        targets_of(rows.y, "t", task)


# scales ------------------------------------------------------------------------------------------


def test_scales_are_those_of_the_whole(tmp_path):
    found = scales(written(tmp_path, SIDE).x)
    whole = gn.data.Standardizer.fit(X)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scale, whole.scale, rtol=1e-12)
    assert found.scale[3] == 1.0  # a column that is constant


def test_amounts_are_scaled_where_they_are_read(tmp_path):
    y, _ = targets_of(written(tmp_path, X[:, 1]).y, "t", "auto")
    unit = scales(y)
    expected = unit(X[:, 1:2].astype(np.float64))
    np.testing.assert_array_equal(scaled(y, unit)[:], expected)


def test_a_number_that_is_not_finite_is_found(tmp_path):
    x = X.copy()
    x[431, 2] = np.inf
    with pytest.raises(DataError, match=r"got inf in row 431 .* column 2"):
        scales(written(tmp_path, SIDE, x).x)
    with pytest.raises(ShapeError, match=r"expected \(D,\)"):
        scales(RowTable(written(tmp_path, SIDE).y.parts))


# splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 7, 40, 200])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
def test_a_split_is_a_partition(tmp_path, group, fraction):
    rows = written(tmp_path, np.arange(ROWS), group=group)
    first, second = rows.split(fraction, seed=3)
    together = np.concatenate([first.y[:], second.y[:]])
    assert sorted(together.tolist()) == list(range(ROWS))
    assert fraction * ROWS <= len(second) <= fraction * ROWS + ROWS / 50
    for part in (first, second):
        np.testing.assert_array_equal(part.x[:], X[part.y[:]])
        np.testing.assert_array_equal(part.x[5:9], X[part.y[5:9]])
        assert sum(part.x.chunks) == len(part)
    again, _ = rows.split(fraction, seed=3)
    assert again.x.mark() == first.x.mark() != rows.split(fraction, seed=4)[0].x.mark()


def test_a_split_of_a_split(tmp_path):
    train, test = written(tmp_path, np.arange(ROWS)).split(0.2, seed=0)
    train, validation = train.split(0.2, seed=1)
    together = np.concatenate([part.y[:] for part in (train, validation, test)])
    assert sorted(together.tolist()) == list(range(ROWS))


def test_what_cannot_be_split(tmp_path):
    rows = written(tmp_path, SIDE)
    for wrong in (-0.1, 1.0, "0.2"):
        with pytest.raises(ArgumentError, match="fraction"):
            rows.split(wrong, seed=0)
    with pytest.raises(DataError, match="600 rows to hold 0 of them out"):
        rows.split(0.0, seed=0)
    (tmp_path / "one").mkdir()
    with pytest.raises(DataError, match="1 rows to hold"):
        written(tmp_path / "one", SIDE[:1], X[:1], parts=1).split(0.5, seed=0)


def test_parts_need_the_same_columns(tmp_path):
    for name, columns in ("part-0", "ab"), ("part-1", "ba"):
        table = arrow.table({c: [1.0, 2.0] for c in columns} | {"t": [0, 1]})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"part-1.* with columns b, a, .*part-0.* with a, b"):
        open_rows(str(tmp_path / "part-*"), target="t")


def test_predictions_for_rows_on_disk_have_the_bits_of_those_in_memory(tmp_path):
    net = gn.nn.Sequential(gn.nn.Linear(4, 8, "relu", seed=1), gn.nn.Linear(8, 3, seed=2))
    rows = written(tmp_path, SIDE)
    np.testing.assert_array_equal(net.predict(rows.x), net.predict(X))
    np.testing.assert_array_equal(
        gn.Trainer(net).classify(rows.x, batch_size=77), net.classify(X, batch_size=77)
    )


# the command line --------------------------------------------------------------------------------


def gpunn(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def trained(folder, *options):
    """What `gpunn train` writes, and prints."""
    data = ["train", folder / "part-*.parquet", "--target", "t", "--seed", 1, "--device", "cpu"]
    net = ["--hidden", 16, "--dropout", 0, "--batch-size", 40, "--output", folder / "run"]
    done = gpunn(*data, *net, "--quiet", *options)
    assert done.exit_code == 0, done.output
    return json.loads((folder / "run" / "history.json").read_text()), done.output


def test_classes_from_the_command_line(tmp_path):
    written(tmp_path, np.where(SIDE, "yes", "no"))
    record, told = trained(tmp_path, "--epochs", 40, "--shards", 4)
    assert record["test"]["accuracy"] > 0.85
    assert "480 examples to train on, 120 to test on" in told
    parquet.write_table(arrow.table({f"c{j}": X[:, j] for j in range(4)}), tmp_path / "new.parquet")
    done = gpunn("predict", tmp_path / "run", tmp_path / "new.parquet", "--device", "cpu")
    assert done.exit_code == 0, done.output
    found = np.array([line.split(",")[0] for line in done.stdout.split()])
    found = found[np.isin(found, ["yes", "no"])]
    assert (found == np.where(SIDE, "yes", "no")).mean() > 0.85


def test_amounts_from_the_command_line(tmp_path):
    written(tmp_path, 1e6 + 500 * X[:, 0])
    record, _ = trained(tmp_path, "--epochs", 60, "--patience", 50, "--lr", 0.01)
    assert record["test"]["r2"] > 0.85
    assert record["test"]["rmse"] < 250


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("part-*.parquet", [], "without a target"),
        ("part-*.parquet", ["--target", "other"], "without a column 'other'"),
        ("part-*.parquet", ["--target", "t", "--held-out", "0"], "got --held-out 0.0"),
        ("no-*.parquet", ["--target", "t"], "which no file matches"),
        ("part-*", ["--target", "t"], "for x; expected NPY or Parquet files"),
    ],
)
def test_what_the_command_line_refuses(tmp_path, name, options, words):
    written(tmp_path, SIDE)
    (tmp_path / "part-9.csv").write_text("a,t\n")
    done = gpunn("train", tmp_path / name, *options, "--epochs", 1, "--quiet")
    assert done.exit_code
    assert words in str(done.exception)
