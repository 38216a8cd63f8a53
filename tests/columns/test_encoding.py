"""Raw columns: what they are taken for, and what they become."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunn.columns import Encoding, RawTable
from gpunn.errors import ArgumentError, DataError, ModelFileError, ShapeError, UnknownNameError

SIZE = ["1", "NA", "5", "9"] * 3
COLOUR = ["red", "blue", None, "red"] * 3
OPEN = [True, False, True, False] * 3
TABLE = {"colour": COLOUR, "size": SIZE, "open": OPEN}


def test_each_kind_of_column():
    encoding = Encoding.fit(RawTable.of(TABLE))
    kinds = [(column.name, column.kind, column.missing) for column in encoding.columns]
    assert kinds == [
        *[("colour", "category", True), ("size", "number", True), ("open", "category", False)]
    ]
    assert encoding.encoded_names == ("size", "colour", "size is missing", "open")
    assert encoding.levels == (0, 3, 2, 2)
    assert encoding.columns[0].levels == ("blue", "red", "")
    assert encoding(TABLE)[:4].tolist() == [
        *[[1, 1, 0, 1], [5, 0, 1, 0], [5, 2, 0, 1], [9, 1, 0, 0]]
    ]


def test_levels_that_training_did_not_see():
    encoding = Encoding.fit(RawTable.of(TABLE))
    new = {"size": ["2"], "colour": ["green"], "open": ["maybe"]}
    assert encoding(new).tolist() == [[2, -1, 0, -1]]
    assert encoding.unseen(new) == {"colour": 1, "open": 1}


def test_rare_levels_share_one_with_unseen_ones():
    cells = ["a", "b"] * 10 + ["c", "d"]
    encoding = Encoding.fit(RawTable.of({"x": cells}))
    assert encoding.columns[0].levels == ("a", "b", None)
    assert encoding({"x": ["a", "c", "d", "new", ""]})[:, 0].tolist() == [0, 2, 2, 2, -1]


def test_dates_become_parts():
    days = ["2024-02-29 06:00", "2024-03-01 18:00", "2023-12-31 00:00"] * 4
    encoding = Encoding.fit(RawTable.of({"t": days}))
    assert encoding.columns[0].form == "%Y-%m-%d %H:%M"
    assert encoding({"t": days})[:3].tolist() == [
        [60.25, 2024, 2, 29, 3, 6],
        [61.75, 2024, 3, 1, 4, 18],
        [0, 2023, 12, 31, 6, 0],
    ]
    stamps = np.array(["2024-02-29T06:00", "NaT"], "datetime64[s]")
    assert encoding({"t": stamps})[0].tolist() == [60.25, 2024, 2, 29, 3, 6]


def test_what_cannot_be_used_is_left_out_and_said():
    n = 60
    table = {
        "row": range(1, n + 1),
        "user_id": [(37 * k) % 61 for k in range(n)],
        "same": ["x"] * n,
        "none": [""] * n,
        "code": [f"A{k}" for k in range(n)],
        "text": [f"a long story {k}" for k in range(n)],
        "good": [k % 7 for k in range(n)],
        "width": [(37 * k) % 61 for k in range(n)],
    }
    encoding = Encoding.fit(RawTable.of(table))
    assert encoding.names == ("good", "width")
    said = encoding.describe()
    for why in ("numbers the rows", "constant", "no values", "an identifier", "free text"):
        assert why in said
    del table["good"], table["width"]
    with pytest.raises(DataError, match="none of which can be used"):
        Encoding.fit(RawTable.of(table))


def test_a_few_words_among_numbers_count_as_missing():
    cells = [str(k) for k in range(0, 120, 2)] + ["error"]
    encoding = Encoding.fit(RawTable.of({"x": cells}))
    assert encoding.columns[0].kind == "number"
    assert "error counts as missing" in encoding.describe()
    assert encoding({"x": ["4", "error", "other"]}).tolist() == [[4, 0], [59, 1], [59, 1]]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1,5", "2,25", "-3,0"], [1.5, 2.25, -3]),
        (["1.234,5", "2", "1.000.000,25"], [1234.5, 2, 1000000.25]),
        (["1,234.5", "2", "1,000,000.25"], [1234.5, 2, 1000000.25]),
        (["$1,000", "$25.50", "$3"], [1000, 25.5, 3]),
        (["1 000 €", "2,5 €", "3 €"], [1000, 2.5, 3]),
        (["5%", "12.5 %", "0%"], [5, 12.5, 0]),
        (["1e3", " 2 ", "+3"], [1000, 2, 3]),
    ],
)
def test_numbers_as_people_write_them(cells, values):
    encoding = Encoding.fit(RawTable.of({"x": cells}))
    assert encoding.columns[0].kind == "number"
    np.testing.assert_array_equal(encoding({"x": cells})[:, 0], np.float32(values))


@pytest.mark.parametrize("cell", ["", "NA", "n/a", "?", "None", "null", "NaN", " "])
def test_missing_cells_in_every_spelling(cell):
    encoding = Encoding.fit(RawTable.of({"x": ["1", "3", cell, "5"]}))
    assert encoding({"x": [cell]}).tolist() == [[3, 1]]


def test_the_user_overrides_kinds():
    table = RawTable.of({"zip": [10115, 20095, 10115, 20095], "x": [1, 2, 3, 5], "y": list("abab")})
    encoding = Encoding.fit(table, {"zip": "category", "x": "left out"})
    assert encoding.names == ("zip", "y")
    assert encoding.columns[0].levels == ("10115", "20095")
    with pytest.raises(UnknownNameError, match="zap"):
        Encoding.fit(table, {"zap": "category"})
    with pytest.raises(UnknownNameError, match="text"):
        Encoding.fit(table, {"zip": "text"})
    with pytest.raises(ArgumentError, match="'y'"):
        Encoding.fit(table, {"y": "date"})


def test_columns_are_matched_by_name():
    encoding = Encoding.fit(RawTable.of(TABLE))
    turned = dict(reversed(TABLE.items()))
    np.testing.assert_array_equal(encoding(turned), encoding(TABLE))
    with pytest.raises(DataError, match="did you mean 'siez'"):
        encoding({"siez": SIZE, "colour": COLOUR, "open": OPEN})


def test_frames_arrays_rows_and_texts_agree():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "n": [1.5, None, 3.25, 4.0] * 5,
            "i": [3, 1, 2, 2] * 5,
            "c": ["u", None, "v", "v"] * 5,
            "k": pd.Categorical(["p", "q", "p", None] * 5),
            "b": [True, False, False, True] * 5,
            "d": pd.to_datetime(["2024-01-01", "2024-05-06", "2023-01-01", "2022-02-02"] * 5),
        }
    )
    encoding = Encoding.fit(RawTable.of(frame))
    expected = encoding(frame)
    texts = {name: [("" if pd.isna(v) else str(v)) for v in frame[name]] for name in frame}
    texts["d"] = [str(day)[:10] for day in frame["d"]]
    from_text = Encoding.fit(RawTable.of(texts))
    np.testing.assert_array_equal(from_text(texts), expected)
    np.testing.assert_array_equal(from_text(frame), expected)
    rows = list(zip(*texts.values(), strict=True))
    np.testing.assert_array_equal(from_text(RawTable.of(rows, list(texts))), expected)


def test_infinity_and_ragged_rows_are_refused():
    with pytest.raises(DataError, match="infinity in row 1"):
        RawTable.of(np.array([[1.0], [np.inf]]))
    with pytest.raises(ShapeError, match="rows of"):
        RawTable.of([[1, 2], [3]])
    with pytest.raises(ShapeError, match="lengths"):
        RawTable.of({"a": [1], "b": [1, 2]})
    huge = Encoding.fit(RawTable.of({"x": [1.0, 2.0, 4.0]}))
    with pytest.raises(DataError, match="column 'x'"):
        huge({"x": [1e300]})


CELLS = st.one_of(
    st.none(), st.sampled_from(["a", "b", "1", "2.5", "2024-01-01", "NA", "x y"]), st.floats(-9, 9)
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=3, max_size=12),
    st.permutations([0, 1, 2]),
)
def test_any_cells_in_any_order(rows, order):
    table = RawTable.of(rows, ["p", "q", "r"])
    try:
        encoding = Encoding.fit(table)
    except DataError:
        return
    expected = encoding(table)
    assert expected.shape == (len(rows), encoding.width)
    assert np.isfinite(expected).all()
    names = [("p", "q", "r")[k] for k in order]
    turned = RawTable.of([[row[k] for k in order] for row in rows], names)
    np.testing.assert_array_equal(encoding(turned), expected)
    again = Encoding.of(json.loads(json.dumps(encoding.values())))
    np.testing.assert_array_equal(again(table), expected)
    one_by_one = [encoding(table.rows(np.array([k]))) for k in range(len(rows))]
    np.testing.assert_array_equal(np.concatenate(one_by_one), expected)


GOOD = Encoding.fit(RawTable.of(TABLE)).values()


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"kind": "other"},
        {"kind": "category"},
        {"levels": "bc"},
        {"levels": ["b", "b"]},
        {"levels": ["b", 1]},
        {"levels": [None, "b"]},
        {"middle": float("nan")},
        {"middle": True},
        {"missing": 2},
        {"decimal": ";"},
        {"form": 3},
        {"other": 1},
        {"name": "colour"},
    ],
    ids=str,
)
def test_hostile_values_are_refused(change):
    values = [GOOD[0], GOOD[1] | change, GOOD[2]]
    with pytest.raises(ModelFileError, match="that gpunn writes"):
        Encoding.of(values)


@pytest.mark.parametrize("values", [{}, [], [3], [{}], None, [GOOD[1] | {"kind": "left out"}]])
def test_other_values_are_refused(values):
    with pytest.raises(ModelFileError, match="that gpunn writes"):
        Encoding.of(values)
