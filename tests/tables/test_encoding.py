"""Raw columns: what they are taken for, and how they go through a model file."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import gpunn as gn
from gpunn.cli.app import app
from gpunn.errors import DataError, ModelFileError
from gpunn.tables import Column, Encoding

NAMES = ("size", "colour", "open")
ROWS = [("1", "red", "True"), ("NA", "blue", "False"), ("5", "", "True"), ("9", "red", "False")]


def test_each_kind_of_column():
    encoding = Encoding.fit("t.csv", NAMES, ROWS)
    assert encoding.columns == (
        Column("size", None, 5.0, True),
        Column("colour", ["blue", "red"], 0.0, True),
        Column("open", ["False", "True"]),
    )
    assert encoding.encoded_names == (
        *("size", "size is missing", "colour=blue", "colour=red", "colour is missing"),
        *("open=False", "open=True"),
    )
    assert encoding(ROWS).tolist() == [
        [1, 0, 0, 1, 0, 0, 1],
        [5, 1, 1, 0, 0, 1, 0],
        [5, 0, 0, 0, 1, 0, 1],
        [9, 0, 0, 1, 0, 1, 0],
    ]


def test_a_level_that_training_did_not_see_is_zeros():
    encoding = Encoding.fit("t.csv", NAMES, ROWS)
    assert encoding([("2", "green", "")]).tolist() == [[2, 0, 0, 0, 0, 0, 0]]


def test_values_go_through_json():
    encoding = Encoding.fit("t.csv", NAMES, ROWS)
    again = Encoding.of(json.loads(json.dumps(encoding.values())))
    assert again.columns == encoding.columns


def test_refusals_name_the_column():
    with pytest.raises(DataError, match="no value in column 'b'"):
        Encoding.fit("t.csv", ("a", "b"), [("1", ""), ("2", "?")])
    with pytest.raises(DataError, match="101 different values in column 'a'"):
        Encoding.fit("t.csv", ("a",), [(f"name {k}",) for k in range(101)])
    with pytest.raises(DataError, match="line 1, column 'size'"):
        Encoding.fit("t.csv", NAMES, ROWS)([("big", "red", "True")])


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        [3],
        [{}],
        [{"name": 3}],
        [{"name": "a", "levels": "bc"}],
        [{"name": "a", "levels": []}],
        [{"name": "a", "levels": ["b", "b"]}],
        [{"name": "a", "levels": [["b"]]}],
        [{"name": "a", "levels": {"b": 1}}],
        [{"name": "a", "levels": ["b", 1]}],
        [{"name": "a", "middle": float("nan")}],
        [{"name": "a", "middle": True}],
        [{"name": "a", "missing": 2}],
        [{"name": "a", "other": 1}],
    ],
    ids=str,
)
def test_hostile_values_are_refused(values):
    with pytest.raises(ModelFileError, match="gpunn train writes"):
        Encoding.of(values)


def written(path, names, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return str(path)


def test_raw_rows_from_the_command_line(tmp_path):
    """The file alone predicts raw rows; columns are found by name, in any order."""
    rows = [(*row, "yes" if row[2] == "True" else "no") for row in ROWS * 10]
    table = written(tmp_path / "t.csv", (*NAMES, "bought"), rows)
    run = CliRunner().invoke
    options = ["--target", "bought", "--epochs", "30", "--output", str(tmp_path), "--quiet"]
    done = run(app, ["train", table, *options, "--device", "cpu", "--dropout", "0"])
    assert done.exit_code == 0, done.output
    assert "size (number, with missing cells), colour (category of 2, with" in done.output
    model = str(tmp_path / "model.safetensors")
    outputs = []
    for order in ([0, 1, 2], [2, 0, 1]):
        turned = [[row[k] for k in order] for row in [*ROWS, ("7", "green", "True")]]
        new = written(tmp_path / "new.csv", [NAMES[k] for k in order], turned)
        out = tmp_path / "out.npy"
        done = run(app, ["predict", model, new, "--out", str(out), "--device", "cpu"])
        assert done.exit_code == 0, done.output
        outputs.append(np.load(out))
    np.testing.assert_array_equal(*outputs)
    info = gn.train.read_info(model)
    assert [info["classes"][k] for k in outputs[0].argmax(axis=1)] == [
        *("yes", "no", "yes", "no", "yes")
    ]
    encoding = Encoding.of(info["encoding"])
    raw = encoding([*ROWS, ("7", "green", "True")]).astype(np.float32)
    np.testing.assert_array_equal(gn.load(model, device="cpu").predict(raw), outputs[0])
    bare = written(tmp_path / "bare.csv", NAMES[:2], [row[:2] for row in ROWS])
    done = run(app, ["predict", model, bare, "--device", "cpu"])
    assert done.exit_code != 0
    assert "open" in str(done.output) + str(done.exception)
