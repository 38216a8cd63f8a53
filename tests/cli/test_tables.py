"""Tables from the command line: any file in, a model, a report and predictions out."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import gpunn as gn
from gpunn.cli.app import app
from gpunn.tables import TableModel

RNG = np.random.default_rng(0)
QUICK = ["--epochs", "12", "--hidden", "32", "--device", "cpu", "--quiet"]


def written(path, names, rows, **options):
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, **options).writerows([names, *rows])
    return str(path)


def homes(n=120):
    rows = []
    for k in range(n):
        area, city = RNG.uniform(20, 200), ["Köln", "Bonn", ""][k % 3]
        price = round(1000 * area * (1.5 if city == "Köln" else 1))
        rows.append([f"{area:.1f}", city, f"{1 + k % 28:02}.05.2023", price])
    return ["area", "city", "sold", "price"], rows


def gpunn(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_a_table_of_a_spreadsheet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, rows = homes()
    german = [[row[0].replace(".", ","), *row[1:]] for row in rows]
    table = written(tmp_path / "homes.csv", names, german, delimiter=";", encoding="latin-1")
    done = gpunn("train", table, "--target", "price", *QUICK)
    assert done.exit_code == 0, done.output
    said = done.output
    assert "task: regression of price" in said
    assert "area (number), city (category of 2, with missing cells), sold (date)" in said
    report = json.loads((tmp_path / "runs/homes/report.json").read_text())["report"]
    assert report["scores"]["R2"] > 0.8 > report["trivial"]["R2"]
    assert max(report["importance"], key=report["importance"].get) == "area"
    page = (tmp_path / "runs/homes/report.html").read_text()
    assert page.count("data:image/png") == 3
    for words in ("R2", "Columns that matter", "<td>city</td>", "5 members"):
        assert words in page
    english = written(tmp_path / "new.csv", names[::-1], [row[::-1] for row in rows[:5]])
    done = gpunn("predict", "runs/homes", english, "--interval", 0.8, "--device", "cpu")
    assert done.exit_code == 0, done.output
    lines = list(csv.reader(done.stdout.splitlines()))
    assert lines[0] == ["prediction", "low", "high"]
    found = np.array(lines[1:6], float)
    assert (found[:, 1] < found[:, 0]).all()
    assert (found[:, 0] < found[:, 2]).all()
    model = TableModel.load("runs/homes/model.safetensors", device="cpu")
    raw = {name: [row[k] for row in rows[:5]] for k, name in enumerate(names[:3])}
    np.testing.assert_allclose(model.outputs(raw)[:, 0], found[:, 0], rtol=1e-6)
    assert "rmse: " in done.output


def test_classes_and_their_probabilities(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, rows = homes()
    rows = [[*row[:3], "dear" if row[3] > 100_000 else "cheap"] for row in rows]
    table = written(tmp_path / "homes.csv", names, rows)
    done = gpunn("train", table, "--target", "price", *QUICK)
    assert done.exit_code == 0, done.output
    for words in ("accuracy", "balanced accuracy", "log-loss", "AUC", "true class"):
        assert words in done.output
    done = gpunn("predict", "runs/homes", table, "--probabilities", "--device", "cpu")
    lines = list(csv.reader(done.stdout.splitlines()))
    assert lines[0] == ["prediction", "probability of cheap", "probability of dear"]
    chances = np.array([line[1:] for line in lines[1:121]], float)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-6)
    assert float(done.output.split("accuracy: ")[1].split(" %")[0]) > 90
    done = gpunn("predict", "runs/homes", table, "--reasons", "2", "--device", "cpu")
    lines = list(csv.reader(done.stdout.splitlines()))
    assert lines[0] == ["prediction", "reason_1", "reason_2"]
    assert {line[1].rpartition(" ")[0] for line in lines[1:121]} <= {"area", "city", "sold"}
    for wrong, words in ((["--interval", "0.9"], "classes"), (["--interval", "2"], "coverage")):
        refused = gpunn("predict", "runs/homes", table, *wrong, "--device", "cpu")
        assert refused.exit_code != 0
        assert words in str(refused.exception) + refused.output


def test_cells_that_the_training_data_does_not_explain_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, rows = homes()
    assert gpunn("train", written(tmp_path / "homes.csv", names, rows), "--target", "price", *QUICK)
    rows = [["large", "Ulm", "soon", 1], *rows[1:5], ["7", "Ulm", "", 1]]
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"new.{suffix}"
        if suffix == "csv":
            written(path, names, rows)
        else:
            pd.DataFrame([[str(c) for c in row] for row in rows], columns=names).to_parquet(path)
        done = gpunn("predict", "runs/homes", path, "--device", "cpu")
        assert done.exit_code == 0, done.exception
        for words in ("1 in area", "2 in city", "1 in sold"):
            assert words in done.output
    wrong = written(tmp_path / "wrong.csv", ["Area", *names[1:]], rows)
    refused = gpunn("predict", "runs/homes", wrong)
    assert "did you mean 'Area'" in str(refused.exception)


def test_a_second_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = written(tmp_path / "homes.csv", *homes())
    args = ("train", table, "--target", "price", *QUICK)
    assert "output:" not in gpunn(*args).output
    first = (tmp_path / "runs/homes/model.safetensors").read_bytes()
    assert "output: runs/homes-2" in gpunn(*args).output
    assert (tmp_path / "runs/homes-2/model.safetensors").read_bytes() == first
    pages = [(tmp_path / f"runs/{name}/report.html").read_bytes() for name in ("homes", "homes-2")]
    assert pages[0] == pages[1]
    refused = gpunn(*args, "--output", "runs/homes")
    assert refused.exit_code != 0
    assert "--overwrite" in str(refused.exception) + refused.output
    assert gpunn(*args, "--output", "runs/homes", "--overwrite").exit_code == 0


def test_an_option_of_the_network_chooses_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [[k % 5, k % 3, k % 2] for k in range(40)]
    table = written(tmp_path / "t.csv", ["a", "b", "c"], rows)
    done = gpunn("train", table, "--target", "c", "--l2", "1e-4", *QUICK)
    assert done.exit_code == 0, done.output
    assert gn.train.read_info("runs/t/model.safetensors")["encoding"] is None
    done = gpunn("train", table, "--target", "c", "--kind", "a=category", *QUICK)
    assert done.exit_code == 0, done.output
    assert "a (category of 5)" in done.output


@pytest.mark.parametrize("kind", ["a", "a=text", "z=number"])
def test_wrong_kinds_are_refused(kind, tmp_path):
    table = written(tmp_path / "t.csv", ["a", "c"], [[k % 5, k % 2] for k in range(40)])
    done = gpunn("train", table, "--target", "c", "--kind", kind, "--output", tmp_path, *QUICK)
    assert done.exit_code != 0
    assert "unknown" in (str(done.exception) + done.output).lower()
