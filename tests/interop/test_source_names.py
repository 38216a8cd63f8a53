"""Names of files, columns and classes, whatever they are, in exported source."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpunn import nn
from gpunn.errors import ArgumentError
from gpunn.interop import to_source
from gpunn.interop.source.described import shown
from tests.netcases import D, randomized
from tests.sourcecases import (
    NAMES,
    RUN,
    SUFFIX,
    called,
    done,
    rows,
    rows_c,
    rows_javascript,
    rows_python,
    tool,
)

HEADS = {"scores": (3, "identity"), "chances": (3, "softmax"), "one": (1, "identity")}
HEADS["sigmoid"] = (1, "sigmoid")


@pytest.mark.parametrize("head", HEADS)
def test_classes_and_probabilities(head, target, tmp_path):
    width, last = HEADS[head]
    names = NAMES if width == 3 else NAMES[:2]
    net = randomized(nn.Sequential(nn.Linear(D, 8, "relu"), nn.Linear(8, width, last)))
    x = rows()
    to_source(net, tmp_path / f"net.{SUFFIX[target]}", classes=names, features=list("vwxyz"))
    scores = net.predict(x).astype(np.float64)
    if last == "identity":
        scores = np.hstack([-scores / 2, scores / 2]) if width == 1 else scores
        powers = np.exp(scores - scores.max(1, keepdims=True))
        scores = powers / powers.sum(1, keepdims=True)
    elif width == 1:
        scores = np.hstack([1 - scores, scores])
    assert called(target, tmp_path, x) == [names[k] for k in scores.argmax(1)]
    if target != "c":
        run = {"javascript": rows_javascript, "python": rows_python}[target]
        found = run(tmp_path, "net", x, "probabilities")
        np.testing.assert_allclose(found, scores, rtol=0, atol=1e-6)


def test_scores_that_are_no_numbers_have_no_class(target, tmp_path):
    net = nn.Sequential(nn.Linear(2, 3))
    net.load_state_dict({"0.weight": np.eye(2, 3), "0.bias": np.zeros(3)})
    to_source(net, tmp_path / f"net.{SUFFIX[target]}", classes=NAMES)
    x = np.array([[1, 0], [np.nan, 2], [np.inf, 0], [0, 3]], np.float32)
    assert called(target, tmp_path, x) == [NAMES[0], None, None, NAMES[1]]


HOSTILE = ["*/", "/* x", "a //", "a??/", "\\", "line\nend", '"""', "\udc80", "*//", "*\\"]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_of_a_column_and_a_class(name, target, tmp_path):
    net = randomized(nn.Linear(2, 2))
    path = tmp_path / f"net.{SUFFIX[target]}"
    to_source(net, path, classes=[name, "other"], features=[name, "other"])
    x = rows(width=2)
    np.testing.assert_allclose(RUN[target](tmp_path, "net", x), net.predict(x), atol=1e-6)
    if target != "c":
        found = called(target, tmp_path, x)
        assert found == [[name, "other"][k] for k in net.predict(x).argmax(1)]


@pytest.mark.parametrize("stem", ["int", "2 of 3", "class", "Ünit", "name", "x-y", "module"])
def test_any_name_of_a_file(stem, target, tmp_path):
    net, x = randomized(nn.Linear(D, 2)), rows()
    text = to_source(net, tmp_path / f"{stem}.{SUFFIX[target]}")
    (tmp_path / f"net.{SUFFIX[target]}").write_text(text)
    if target == "c":
        name = text.split("_predict(")[0].split()[-1]
        (tmp_path / f"{name}.h").write_text(text)
        found = rows_c(tmp_path, name, x)
    else:
        found = RUN[target](tmp_path, "net", x)
    np.testing.assert_allclose(found, net.predict(x), atol=1e-5)


@given(st.text('*/\\<?"\n\u202eé '))
def test_a_text_in_a_comment_ends_nothing(text):
    found = shown(text)
    assert not [end for end in ("*/", "/*", "//", "??", "</", '""', "\\", "\n") if end in found]
    assert shown(found) == found


GLOBALS = """
const names = Object.getOwnPropertyNames(globalThis).filter((name) => /^[a-z]+$/.test(name));
const x = JSON.parse(process.argv[2]);
console.log(JSON.stringify(names.map((name) => [name, x && require(`./${name}.js`).predict(x)])));
"""


def test_names_of_the_globals_of_javascript(tmp_path):
    """A script may have the name of a global that it needs itself."""
    net, x = randomized(nn.Linear(D, 2)), rows(1)
    (tmp_path / "All.js").write_text(GLOBALS)
    names = dict(json.loads(done([tool("node"), "All.js", "null"], tmp_path, b"")))
    assert {"atob", "process", "console", "undefined"} <= set(names)
    for name in names:
        to_source(net, tmp_path / f"{name}.js")
    given = json.dumps(x[0].tolist())
    for _, y in json.loads(done([tool("node"), "All.js", given], tmp_path, b"")):
        np.testing.assert_allclose([y], net.predict(x), atol=1e-6)


def test_names_in_arrays(target, tmp_path):
    net, x = randomized(nn.Linear(2, 3)), rows(width=2)
    names, columns = np.array(["ash", "oak", "élm"]), np.array(["a", "b"])
    to_source(net, tmp_path / f"net.{SUFFIX[target]}", classes=names, features=columns)
    assert called(target, tmp_path, x) == names[net.predict(x).argmax(1)].tolist()


def test_names_that_hide_modules_of_python_are_refused(tmp_path):
    for stem in ("struct", "operator", "random"):
        with pytest.raises(ArgumentError, match=f"got '{stem}.py', the name of a module"):
            to_source(nn.Linear(2, 2), tmp_path / f"{stem}.py")
        assert not list(tmp_path.iterdir())
        assert to_source(nn.Linear(2, 2), tmp_path / f"{stem}.js")
        (tmp_path / f"{stem}.js").unlink()
