"""Files as people have them: each is trained on and predicted from the command line, or refused."""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import io
import lzma
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from gpunn.cli.app import app
from gpunn.tables import TableModel

N = 60
QUICK = ["--epochs", "1", "--folds", "2", "--hidden", "4", "--device", "cpu", "--quiet"]
CLASSES, SIZES = ["old", "new", "used"], ["a", "b"]


def gpunn(*args, given=None):
    return CliRunner().invoke(app, [str(a) for a in args], input=given)


def columns(**more):
    """Numbers, a category and a target of classes."""
    rng = np.random.default_rng(0)
    return {
        "width": [f"{v:.3f}" for v in rng.normal(10, 3, N)],
        "colour": [["red", "green", "blue"][k % 3] for k in range(N)],
        **more,
        "state": [CLASSES[k % 3] for k in range(N)],
    }


def text_of(table, delimiter=",", header=True, **options):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", **options)
    writer.writerows([list(table)] * header)
    writer.writerows(zip(*table.values(), strict=True))
    return file.getvalue()


def cell(place, words, table=None, **options):
    """A file in which one cell of the column `width` has other words."""
    found = columns() if table is None else table
    found["width"][place] = words
    return text_of(found, **options)


def some(words, name="extra"):
    return columns(**{name: [words[k % len(words)] for k in range(N)]})


SPELLINGS = ["NA", "", "?", "null", "nan"]
BOOLEANS = {"yes": some(["yes", "no"]), "True": some(["True", "False"]), "0": some(["0", "1"])}
LONG = {f"n{k}": [f"{(k * j) % 7}" for j in range(N)] for k in range(5000)}
GERMAN = columns(price=[f"{1000 + 13 * k % 977},{k % 100:02}" for k in range(N)])
GERMAN["width"] = [each.replace(".", ",") for each in GERMAN["width"]]
FREE = [f"a note of {k} words, none of which occurs {k} times" for k in range(N)]
DATES = [f"2023-0{1 + k % 9}-{1 + k % 28:02}" for k in range(N)]

# name -> text or bytes of the file, and what the description of the columns says
TEXTS = {
    "plain": (text_of(columns()), ["width (number)", "colour (category of 3)"]),
    "dates": (text_of(columns(sold=DATES)), ["sold (date)"]),
    "dates of the day first": (
        text_of(columns(sold=[f"{1 + k % 28:02}.0{1 + k % 9}.2023" for k in range(N)])),
        ["sold (date)"],
    ),
    "moments": (
        text_of(columns(at=[f"{d} 12:{k:02}" for k, d in enumerate(DATES)])),
        ["at (date)"],
    ),
    **{
        f"missing as {s!r}": (cell(3, s), ["width (number, with missing cells)"]) for s in SPELLINGS
    },
    "a missing category": (
        text_of(some(["x", "", "y"])),
        ["extra (category of 2, with missing cells)"],
    ),
    **{
        f"booleans {name}": (
            text_of(table),
            ["extra (number)" if name == "0" else "extra (category of 2)"],
        )
        for name, table in BOOLEANS.items()
    },
    "semicolons": (text_of(columns(), ";"), ["width (number)"]),
    "tabs": (text_of(columns(), "\t"), ["width (number)"]),
    "bars": (text_of(columns(), "|"), ["width (number)"]),
    "decimal commas": (text_of(GERMAN, ";"), ["width (number)", "price (number)"]),
    "thousands": (
        text_of(columns(price=[f"{1_000_000 + 1234 * k:,}" for k in range(N)])),
        ["price (number)"],
    ),
    "thousands of the continent": (
        text_of(columns(price=[f"{1000 + 17 * k:,}".replace(",", ".") + ",50" for k in range(N)])),
        ["price (number)"],
    ),
    "currency": (text_of(columns(price=[f"${9 + k}.50" for k in range(N)])), ["price (number)"]),
    "per cent": (text_of(columns(share=[f"{k % 40} %" for k in range(N)])), ["share (number)"]),
    "latin-1": (
        text_of(some(["Köln", "Münster"], "größe")).encode("latin-1"),
        ["größe (category of 2)"],
    ),
    "utf-16": (text_of(some(["Köln", "Bonn"])).encode("utf-16"), ["extra (category of 2)"]),
    "a byte order mark": (text_of(columns()).encode("utf-8-sig"), ["width (number)"]),
    "line ends within quotes": (
        text_of(some(["one\nline", "two\nlines"]), quoting=csv.QUOTE_ALL),
        ["extra (category of 2)"],
    ),
    "line ends of Windows": (text_of(columns()).replace("\n", "\r\n"), ["width (number)"]),
    "comments": ("# made by hand\n# in May\n" + text_of(columns()), ["width (number)"]),
    "blank lines": (text_of(columns()).replace("\n", "\n\n"), ["width (number)"]),
    "a strange word": (cell(3, "unknown"), ["width (number, with missing cells, unknown counts"]),
    "a constant": (text_of(some(["same"])), ["extra (left out, it is constant)"]),
    "an identifier": (
        text_of(columns(id=[f"k{k}-{k * k}" for k in range(N)])),
        ["id (left out, it looks like an identifier)"],
    ),
    "numbers of rows": (text_of(columns(row=range(N))), ["row (left out, it numbers the rows)"]),
    "an index of pandas": (
        text_of({"": range(N), **columns()}),
        ["Unnamed: 0 (left out, it numbers the rows)"],
    ),
    "free text": (text_of(columns(note=FREE)), ["note (left out, it looks like free text)"]),
    "an empty column": (text_of(some([""])), ["extra (left out, it has no values)"]),
    "commas at the ends of lines": (
        "".join(f"{line},\n" for line in text_of(columns()).splitlines()),
        ["Unnamed: 3 (left out, it has no values)"],
    ),
    "a column without a name": (
        text_of({**columns(), "": range(N)}),
        ["Unnamed: 3 (left out, it numbers the rows)"],
    ),
    "a title": ("Our things\n\n" + text_of(columns()), ["width (number)"]),
    "Excel's line of its delimiter": ("sep=;\n" + text_of(columns(), ";"), ["width (number)"]),
    "spaces": (text_of(columns(), " "), ["width (number)"]),
    "utf-16 without a mark": (text_of(columns()).encode("utf-16-le"), ["width (number)"]),
    "bzip2": (bz2.compress(text_of(columns()).encode()), ["width (number)"]),
    "xz": (lzma.compress(text_of(columns()).encode()), ["width (number)"]),
    "moments of a zone": (
        text_of(columns(at=[f"{d}T12:00:00+02:00" for d in DATES])),
        ["at (date)"],
    ),
    "hours of the afternoon": (
        text_of(
            columns(at=[f"{1 + k % 12}/{1 + k % 28}/2023 {1 + k % 12}:05 PM" for k in range(N)])
        ),
        ["at (date)"],
    ),
    **{
        f"numbers with {s!r} between": (
            text_of(columns(n=[s if k % 6 == 0 else k % 11 for k in range(N)])),
            [f"n (number, with missing cells, {s} counts as missing)"],
        )
        for s in ("-", "..", "#DIV/0!")
    },
    "a class with one row": (
        text_of({**columns(), "state": ["rare", *CLASSES[1:] * 29, "new"]}),
        ["classification into 3 classes"],
    ),
    "5,000 columns": (text_of({**LONG, **columns()}), ["n1 (number)"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_file_is_trained_on_and_predicted(name, tmp_path):
    content, words = TEXTS[name]
    path = tmp_path / "things.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(path, words, tmp_path)


def check(path, words, folder, target="state", *options):
    """Train on a file and predict from it; return the model and what was printed."""
    done = gpunn("train", path, "--target", target, "--output", folder / "out", *options, *QUICK)
    assert done.exit_code == 0, done.exception or done.output
    for each in words:
        assert each in done.output
    told = [each for each in options if each in ("--no-header",)]
    found = gpunn("predict", folder / "out", path, "--device", "cpu", *told)
    assert found.exit_code == 0, found.exception
    lines = found.stdout.splitlines()
    assert lines[0] == "prediction"
    if target == "state":
        assert set(lines[1 : N + 1]) <= {*CLASSES, "rare"}
        assert "accuracy: " in found.output
    return TableModel.load(folder / "out" / "model.safetensors", device="cpu"), done.output


def frame():
    """The same table with the types of pandas."""
    table = pd.DataFrame(columns(sold=pd.to_datetime(DATES), ok=[k % 2 == 0 for k in range(N)]))
    table["width"] = table["width"].astype(float)
    table.loc[5, "width"] = np.nan
    table["colour"] = table["colour"].astype("category")
    table["kept"] = [None if k % 5 == 0 else "kept" if k % 2 else "lost" for k in range(N)]
    return table


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".xlsx", ".csv", ".csv.gz", ".tsv"])
def test_a_file_of_every_kind_gives_the_same_model(suffix, tmp_path):
    table, path = frame(), tmp_path / f"things{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif suffix == ".feather":
        table.to_feather(path)
    elif suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    words = ["width (number, with missing cells)", "colour (category of 3)", "sold (date)"]
    words += ["ok (category of 2)", "kept (category of 2, with missing cells)"]
    model, _ = check(path, words, tmp_path)
    plain = tmp_path / "plain.csv"
    table.to_csv(plain, index=False)
    again, _ = check(plain, words, tmp_path / "again")
    rows = table.drop(columns="state")
    np.testing.assert_array_equal(model.outputs(rows), again.outputs(rows))


def test_a_file_without_a_header(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text(text_of(columns(), header=False))
    words = ["column_1 (number), column_2 (category of 3)"]
    check(path, words, tmp_path / "a", "column_3")
    model, _ = check(path, words, tmp_path / "b", "column_3", "--no-header")
    assert model.encoding.names == ("column_1", "column_2")
    refused = gpunn("train", path, "--target", "state", "--no-header", *QUICK)
    assert "column_1" in str(refused.exception)


def test_what_is_recognised_can_be_said(tmp_path):
    path = tmp_path / "things.csv"
    table = columns(price=[f"{1 + k},234" for k in range(N)])
    path.write_text(text_of(table, ";"), "utf-8")
    model, _ = check(path, ["price (number)"], tmp_path / "a")
    comma, _ = check(path, ["price (number)"], tmp_path / "b", "state", "--decimal", ",")
    cells = {"width": ["1"], "colour": ["red"], "price": ["7,234"]}
    assert model.encoding(cells)[0, 1] == 7234
    assert comma.encoding({**cells, "width": ["1"]})[0, 1] == np.float32(7.234)
    told = ("--delimiter", ";", "--encoding", "utf-8", "--kind", "price=left out")
    check(path, ["price (left out, as you said"], tmp_path / "c", "state", *told)
    for wrong, words in ((["--encoding", "utf-99"], "utf-99"), (["--decimal", "x"], "decimal")):
        refused = gpunn("train", path, "--target", "state", *wrong, *QUICK)
        assert words in str(refused.exception)


def test_targets_in_the_spelling_of_a_country(tmp_path):
    path = tmp_path / "homes.csv"
    table = columns(price=[f"{1000 + 17 * k:,}".replace(",", ".") + ",50 €" for k in range(N)])
    path.write_text(text_of(table, ";"), "utf-8")
    model, said = check(path, [], tmp_path, "price")
    assert "task: regression of price (--task classification for classes)" in said
    assert model.limits[0] == 1000.5


def test_whole_numbers_are_amounts_or_classes(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(text_of(columns(count=[k % 30 for k in range(N)])))
    _, said = check(path, [], tmp_path / "a", "count")
    assert "regression of count" in said
    path.write_text(text_of(columns(count=[k % 3 for k in range(N)])))
    _, said = check(path, [], tmp_path / "b", "count")
    assert "classification into 3 classes (--task regression for numbers)" in said


def test_a_test_file_leaves_all_rows_for_training(tmp_path):
    path, test = tmp_path / "things.csv", tmp_path / "test.csv"
    table = columns()
    path.write_text(text_of(table))
    reordered = {name: table[name][:9] for name in ("state", "colour", "width")}
    test.write_text(text_of(reordered))
    _, said = check(path, [], tmp_path / "a", "state", "--test", test)
    assert f"{N} rows to train on, 9 to test on" in said
    reordered["state"][0] = "new?"
    test.write_text(text_of(reordered))
    refused = gpunn("train", path, "--target", "state", "--test", test, *QUICK)
    assert "new?" in str(refused.exception)


def test_rows_without_a_target_are_left_out(tmp_path):
    path, table = tmp_path / "things.csv", columns()
    for k in (3, 9, 30):
        table["state"][k] = "" if k > 3 else "NA"
    path.write_text(text_of(table))
    _, said = check(path, [], tmp_path)
    assert "46 rows to train on, 11 to test on, 3 left out without state" in said


def test_standard_input(tmp_path):
    command = [sys.executable, "-m", "gpunn", "train", "-", "--target", "state", *QUICK]
    content = gzip.compress(text_of(columns()).encode())
    done = subprocess.run(command, input=content, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"width (number)" in done.stdout
    assert (tmp_path / "runs/stdin/model.safetensors").exists()


REFUSED = {
    "duplicate names": (text_of({**columns(), "width ": range(N)}), "width"),
    "no target": (text_of({**columns(), "state": [""] * N}), "without a value in the target"),
    "one class": (text_of({**columns(), "state": ["old"] * N}), "only the value 'old'"),
    "2 rows": (text_of({k: v[:2] for k, v in columns().items()}), "none of which can be used"),
    "one number": (text_of({**columns(), "state": [2.5] * N}), "only the value '2.5'"),
    "a zip archive": ("PK\3\4" + text_of(columns()), "zip archive"),
    "json": ('{"width": [1, 2], "state": [3, 4]}', "state"),
    "a header alone": (text_of({k: [] for k in columns()}), "no rows"),
    "an empty file": ("", "empty"),
    "only the target": (text_of({"state": columns()["state"]}), "only the target"),
    "only free text": (text_of({"note": FREE, "state": columns()["state"]}), "none of which can"),
    "a NUL byte": (text_of(columns()).replace("red", "r\0d"), "NUL"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_for_a_reason(name, tmp_path):
    content, words = REFUSED[name]
    path = tmp_path / "things.csv"
    path.write_text(content)
    refused = gpunn("train", path, "--target", "state", "--output", tmp_path / "out", *QUICK)
    assert refused.exit_code != 0
    assert words in str(refused.exception), refused.exception
    assert not (tmp_path / "out/model.safetensors").exists()


def test_all_problems_are_told_at_once(tmp_path):
    path, table = tmp_path / "things.csv", columns()
    lines = text_of(table).splitlines()
    for line in (6, 11, 21):
        lines[line - 1] += ",more"
    path.write_text("\n".join(lines))
    told = str(gpunn("train", path, "--target", "state", *QUICK).exception)
    assert told.startswith("got 3 problems")
    for line in (6, 11, 21):
        assert f"line {line}" in told
    near = str(gpunn("train", path, "--target", "stte", *QUICK).exception)
    assert "state" in near


BROKEN = {
    ".parquet": [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"text"],
    ".feather": [b"", b"ARROW1", b"FEA1" + bytes(50), b"text"],
    ".xlsx": [b"", b"PK\3\4", b"text", b"PK\5\6" + bytes(18)],
}


@pytest.mark.parametrize(
    ("suffix", "content"), [(s, c) for s, all_ in BROKEN.items() for c in all_]
)
def test_a_broken_file_is_refused(suffix, content, tmp_path):
    path = tmp_path / f"things{suffix}"
    path.write_bytes(content)
    refused = gpunn("train", path, "--target", "state", *QUICK)
    assert type(refused.exception).__name__ == "DataError", refused.exception
    assert "things" in str(refused.exception)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".xlsx"])
def test_a_truncated_file_is_refused(suffix, tmp_path):
    table, path = frame(), tmp_path / f"things{suffix}"
    writers = {".parquet": table.to_parquet, ".feather": table.to_feather}
    writers.get(suffix, table.to_excel)(path)
    path.write_bytes(path.read_bytes()[:-200])
    refused = gpunn("train", path, "--target", "state", *QUICK)
    assert type(refused.exception).__name__ == "DataError", refused.exception


def test_cells_of_a_sheet(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Our things"])
    sheet.append(["when", "day", "n", "state", None])
    for k in range(N):
        moment = datetime.datetime(2023, 1 + k % 12, 3, 4, 5)
        sheet.append([moment, moment.date(), k % 7, CLASSES[k % 3]])
        sheet.append([])
    book.save(tmp_path / "sheet.xlsx")
    words = ["when (date)", "day (date)", "n (number)"]
    model, _ = check(tmp_path / "sheet.xlsx", words, tmp_path)
    assert model.encoding.names == ("when", "day", "n")
