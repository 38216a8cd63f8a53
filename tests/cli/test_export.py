"""gpunn export: a model file as one file in another language."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import gpunn as gn
from gpunn import nn
from gpunn.cli.app import app
from gpunn.errors import ArgumentError, ModelFileError
from gpunn.tables import TableModel
from tests.sourcecases import RUN, SUFFIX, compiled, done, rows_javascript, rows_python

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
WIDTH, NAMES = 4, ["ash", "oak, red", "élm"]


@pytest.fixture
def net(tmp_path):
    gn.manual_seed(0)
    x = 50 + np.random.default_rng(0).standard_normal((9, WIDTH))
    net = nn.Sequential(nn.Standardize.fit(x), nn.Linear(WIDTH, 8, "relu"), nn.Linear(8, 3))
    info = {"classes": NAMES, "features": ["a", "b", "c", "d"], "target": "tree"}
    gn.save(net, tmp_path / "model.safetensors", info=info)
    return net


def export(*args):
    found = CliRunner().invoke(app, ["export", *map(str, args)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found


@pytest.mark.parametrize("target", sorted(RUN))
def test_a_folder_of_training(target, net, tmp_path, rng):
    path = tmp_path / f"trees.{SUFFIX[target]}"
    told = export(tmp_path, path)
    assert re.search(r"trees\.\w+: [\d.]+ KiB", told.stderr)
    x = (50 + rng.standard_normal((20, WIDTH))).astype(np.float32)
    np.testing.assert_allclose(RUN[target](tmp_path, "trees", x), net.predict(x), atol=1e-5)
    expected = [NAMES[k] for k in net.predict(x).argmax(1)]
    if target == "c":
        assert "x[0]: a" in path.read_text()
    else:
        run = {"javascript": rows_javascript, "python": rows_python}[target]
        assert run(tmp_path, "trees", x, "classify") == expected


def test_weights_in_eight_bits_and_what_they_change(net, tmp_path):
    data = tmp_path / "rows.csv"
    x = 50 + np.random.default_rng(1).standard_normal((30, WIDTH))
    lines = ["a,b,c,d", *(",".join(map(str, row)) for row in x)]
    data.write_text("\n".join(lines))
    told = export(tmp_path, tmp_path / "trees.h", "--int8", "--check", data).stderr
    apart, count = re.search(
        r"change by at most ([\d.e-]+) in 30 rows; (\d+) classes", told
    ).groups()
    rounded = gn.interop.round_to_int8(net)
    x = x.astype(np.float32)
    assert float(apart) == pytest.approx(np.abs(rounded.predict(x) - net.predict(x)).max(), 0.1)
    assert int(count) == (rounded.classify(x) != net.classify(x)).sum()
    with pytest.raises(ArgumentError, match="without --int8"):
        export(tmp_path, tmp_path / "trees.h", "--check", data)
    with pytest.raises(ArgumentError, match="expected no ONNX file"):
        export(tmp_path, tmp_path / "trees.onnx", "--int8")


@pytest.mark.usefixtures("net")
def test_what_cannot_be_exported(tmp_path):
    model = tmp_path / "model.safetensors"
    before = model.read_bytes()
    with pytest.raises(ArgumentError, match=r"expected a name that ends in \.h, "):
        export(model, tmp_path / "net.txt")
    (tmp_path / "same.h").hardlink_to(model)
    with pytest.raises(ArgumentError, match="which is also the model"):
        export(model, tmp_path / "same.h")
    with pytest.raises(ModelFileError):
        export(tmp_path / "missing", tmp_path / "net.h")
    assert model.read_bytes() == before


def test_onnx(net, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    export(tmp_path, tmp_path / "net.onnx")
    outputs = onnx.load(tmp_path / "net.onnx").graph.output
    assert [each.name for each in outputs] == ["label", "probabilities"]


def test_the_page(tmp_path, monkeypatch):
    """The programs of docs/export.md run as they stand, and answer alike."""
    monkeypatch.chdir(tmp_path)
    (snippets, (main,)) = (
        re.findall(rf"^```{name}\n(.*?)^```$", PAGE, re.M | re.S) for name in ("python", "c")
    )
    names = {}
    for snippet in snippets:
        exec(compile(snippet, "export.md", "exec"), names)
    x = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
    expected = names["names"][int(names["net"].predict(x).argmax())]
    assert done([compiled(tmp_path, main)], tmp_path, b"").decode() == f"{expected}\n"
    assert rows_python(tmp_path, "iris", x, "classify") == [expected]
    assert rows_javascript(tmp_path, "iris", x, "classify") == [expected]


def test_a_table(tmp_path):
    rows = ["size,town,price"] + [f"{k},{'ab'[k % 2]},{k * 2.5}" for k in range(60)]
    (tmp_path / "homes.csv").write_text("\n".join(rows) + "\n")
    command = [
        "train",
        tmp_path / "homes.csv",
        "--target",
        "price",
        "--epochs",
        "2",
        "--folds",
        "2",
    ]
    command += ["--output", tmp_path / "homes", "--quiet"]
    assert CliRunner().invoke(app, list(map(str, command))).exit_code == 0
    export(tmp_path / "homes", tmp_path / "homes.js", "--int8")
    assert "Int8Array" in (tmp_path / "homes.js").read_text()
    with pytest.raises(ArgumentError, match="for a model of a table"):
        export(tmp_path / "homes", tmp_path / "homes.js", "--int8", "--check", "homes.csv")
    export(tmp_path / "homes", tmp_path / "homes.py")
    model = TableModel.load(tmp_path / "homes" / "model.safetensors")
    expected = model.outputs({"size": np.array([3.0]), "town": np.array(["b"], object)})
    made = {}
    exec((tmp_path / "homes.py").read_text(), made)
    np.testing.assert_allclose(made["predict"]([3.0, "b"]), expected[0], atol=1e-3)
    np.testing.assert_allclose(made["predict"]({"town": "b", "size": "3"}), expected[0], atol=1e-3)
