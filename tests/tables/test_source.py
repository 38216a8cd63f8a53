"""A table model in Python and JavaScript takes raw rows, and gives the answers of gpunn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gpunn.errors import ArgumentError
from gpunn.interop import round_to_int8, to_source
from gpunn.sklearn import TableClassifier, TableRegressor
from tests.sourcecases import ROWS_JS, ROWS_PY, SUFFIX, done, tool

OPTIONS = {"epochs": 3, "folds": 2, "hidden_layer_sizes": (12,), "random_state": 0}


def frame(n=90, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "width": rng.normal(1e7, 9, n),
            "whole": rng.integers(0, 99, n).astype(float),
            "colour": rng.choice(["red", "green", "</script>"], n),
            "town": rng.choice(["Bonn", "Köln", None], n),
            "rare": [f"k{k}" if k % 9 == 0 else "often" if k % 2 else "seldom" for k in range(n)],
            "code": rng.choice(["1", "2", "7"], n),
            "same": 1.0,
        }
    )
    table.loc[::7, "width"] = np.nan
    return table


def strange(table):
    """Rows with levels and missing cells that the training data does not have."""
    table = table.copy()
    table.loc[0, ["colour", "town", "rare"]] = ["violet", "Ulm", "new"]
    table.loc[1, ["colour", "whole"]] = [None, np.nan]
    table.loc[2, ["town", "rare"]] = ["NA", " often "]
    return table[::-1]


def cells(model, table, by_name):
    rows = table[list(model.encoding.names)].astype(object)
    rows = rows.where(rows.notna(), None).to_dict("records")
    return rows if by_name else [list(row.values()) for row in rows]


def answers(target, folder, model, table, called="predict", by_name=False, **options):
    to_source(model, folder / f"net.{SUFFIX[target]}", **options)
    given = json.dumps(cells(model, table, by_name)).encode()
    words = {"name": "net", "called": called}
    if target == "javascript":
        (folder / "rows.js").write_text(ROWS_JS.format(**words).replace("Number(v)", "v"))
        return json.loads(done([tool("node"), "rows.js"], folder, given))
    (folder / "rows.py").write_text(ROWS_PY.format(**words))
    return json.loads(done([tool("python3"), "-S", "rows.py"], folder, given))


@pytest.mark.parametrize("target", ["javascript", "python"])
def test_a_classifier(target, tmp_path):
    table, y = frame(), np.array(["no", "yes", "so"])[np.arange(90) % 3]
    fitted = TableClassifier(**OPTIONS, kinds={"code": "category"}).fit(table, y)
    model = replace(fitted.model_, classes=fitted.classes_.tolist())
    rows = strange(frame(seed=1))
    for by_name in (False, True):
        found = answers(target, tmp_path, model, rows, "probabilities", by_name)
        np.testing.assert_allclose(found, model.probabilities(rows), rtol=0, atol=1e-5)
    assert answers(target, tmp_path, model, rows, "classify") == fitted.predict(rows).tolist()


@pytest.mark.parametrize("target", ["javascript", "python"])
def test_a_regressor_stays_in_its_limits(target, tmp_path):
    table = frame()
    y = np.where(np.arange(90) % 2, 1.0, 2.0)
    model, rows = TableRegressor(**OPTIONS).fit(table, y).model_, strange(frame(seed=1))
    model = replace(model, limits=(1.2, 1.5))
    expected = model.outputs(rows)
    found = answers(target, tmp_path, model, rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert set(np.ravel(found)) > set(map(float, np.float32(model.limits)))


@pytest.mark.parametrize("target", ["javascript", "python"])
def test_weights_in_eight_bits(target, tmp_path):
    model, rows = TableRegressor(**OPTIONS).fit(frame(), np.arange(90.0)).model_, frame(seed=1)
    rounded = replace(model, network=round_to_int8(model.network))
    expected = rounded.outputs(rows)
    assert abs(expected - model.outputs(rows)).max() > 0.01
    found = answers(target, tmp_path, model, rows, weights="int8")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("target", ["javascript", "python"])
def test_numbers_in_texts(target, tmp_path):
    texts = ["12", " 3.5 ", "+7.", ".5e1", "-2E1", "x", "1_000", "0x10", "inf", "", "nan", "N/A"]
    table = frame()[["width", "whole"]]
    model = TableRegressor(**OPTIONS).fit(table, np.arange(90.0)).model_
    rows = pd.DataFrame({"width": texts, "whole": texts[::-1]}, dtype=object)
    expected = model.outputs(rows)
    np.testing.assert_allclose(answers(target, tmp_path, model, rows), expected, atol=1e-4)


@pytest.mark.parametrize("target", ["javascript", "python"])
def test_cells_are_read_as_gpunn_reads_them(target, tmp_path):
    """Truth values, numbers as levels, and the spaces that Python strips."""
    n = 80
    table = pd.DataFrame(
        {
            "new": np.arange(n) % 2 == 0,
            "rate": np.array([1e-7, 0.25, 1e22, -3.0, 1e15] * (n // 5)),
            "mark": ["plain", "\ufeffmark", "é", "a b"] * (n // 4),
        }
    )
    y = np.random.default_rng(0).normal(size=n)
    model = TableRegressor(**OPTIONS, kinds={"rate": "category"}).fit(table, y).model_
    rows = table[:8].copy()
    rows["mark"] = [" plain", "\x1cplain\x85", "\ufeffmark", "mark", "\u2003é", "a b ", "ab", ""]
    expected = model.outputs(rows)
    assert len(np.unique(expected)) >= 6
    for by_name in (False, True):
        found = answers(target, tmp_path, model, rows, by_name=by_name)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_cells_beyond_float32_and_rows_without_a_column_are_errors(tmp_path):
    model = TableRegressor(**OPTIONS).fit(frame()[["width", "whole"]], np.arange(90.0)).model_
    to_source(model, tmp_path / "net.py")
    made = {}
    exec((tmp_path / "net.py").read_text(), made)
    for cell in (1e39, "1e39", -(10**39), float("inf")):
        with pytest.raises(ValueError, match="that float32 can hold"):
            made["predict"]([cell, 1])
    with pytest.raises(KeyError, match="whole"):
        made["predict"]({"width": 1})
    with pytest.raises(ValueError, match="got 3 cells"):
        made["predict"]([1, 2, 3])
    to_source(model, tmp_path / "net.js")
    calls = "const net = require('./net.js');\nconst told = (x) => {\n"
    calls += "try { net.predict(x); return ''; } catch (e) { return e.message; } };\n"
    rows = "[1e39, 1], ['1e39', 1], [-Infinity, 1], {width: 1}, [1, 2, 3], [1, 2]"
    (tmp_path / "calls.js").write_text(f"{calls}console.log(JSON.stringify([{rows}].map(told)));")
    told = json.loads(done([tool("node"), "calls.js"], tmp_path, b""))
    assert ["that float32 can hold" in each for each in told] == [True] * 3 + [False] * 3
    assert told[3:] == ["got a row without whole", "got 3 cells; expected 2", ""]


def test_a_page_has_fields_and_levels():
    model = TableRegressor(**OPTIONS).fit(frame(), np.arange(90.0)).model_
    text = to_source(model, target="html")
    assert text.count("<select name=") == 3
    assert '<option value="&lt;/script&gt;">' in text
    assert text.count("</script>") == 1


def test_what_has_no_form_is_refused_by_name():
    y = np.arange(90.0)
    model = TableRegressor(**OPTIONS).fit(frame(), y).model_
    for target in ("c", "webassembly"):
        with pytest.raises(ArgumentError, match="got a model of a table"):
            to_source(model, target=target)
    dated = frame().assign(day=[f"2024-01-{1 + k % 28:02d}" for k in range(90)])
    with pytest.raises(ArgumentError, match=r"got a model with dates in day"):
        to_source(TableRegressor(**OPTIONS).fit(dated, y).model_, target="python")
