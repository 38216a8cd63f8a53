"""A model with weights in eight bits, and as WebAssembly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpunn import nn
from gpunn.errors import MissingExtraError, UnknownNameError
from gpunn.interop import round_to_int8, to_source
from tests.netcases import LAYERS, D, randomized
from tests.sourcecases import NAMES, done, outputs, rows, tool


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_weights_in_eight_bits(layer, target, tmp_path):
    """The file computes what a copy with rounded weights computes."""
    net, x = randomized(nn.Sequential(LAYERS[layer]())), rows()
    expected = round_to_int8(net).predict(x)
    found = outputs(net, target, tmp_path, x, weights="int8")
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * max(1, abs(expected).max()))


def test_a_file_in_eight_bits_is_small_and_its_error_is_that_of_rounding(tmp_path):
    net = nn.Sequential(nn.Linear(64, 100, "relu", seed=1), nn.Linear(100, 10, seed=2))
    net[0].weight.data[:, 3] = 0  # a unit without weights
    for target in ("c", "python", "javascript", "html"):
        floats, small = (to_source(net, target=target, weights=w) for w in ("float", "int8"))
        code = len(to_source(nn.Linear(64, 1), target=target))
        assert len(small) - code < (len(floats) - code) / 2.5
    rounded = round_to_int8(net)
    for layer, exact in zip(rounded.layers, net.layers, strict=True):
        apart = np.abs(layer.weight.numpy() - exact.weight.numpy())
        assert (apart <= np.abs(exact.weight.numpy()).max(axis=0) / 127 / 2 * 1.0001).all()
    assert np.abs(rounded.predict(rows(width=64)) - net.predict(rows(width=64))).max() < 0.1
    with pytest.raises(UnknownNameError, match="float, int8"):
        to_source(net, target="c", weights="int4")


CALLS = """
const bytes = require("fs").readFileSync("net.wasm");
const code = new WebAssembly.Module(bytes);
const api = new WebAssembly.Instance(code, {}).exports;
const x = () => new Float32Array(api.memory.buffer, api.input(), api.inputs());
const y = () => new Float32Array(api.memory.buffer, api.output(), api.outputs());
api._initialize();
const rows = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const run = (row) => { x().set(row); return [api.classify(), Array.from(y())]; };
console.log(JSON.stringify([WebAssembly.Module.imports(code), rows.map(run)]));
"""


def test_webassembly(tmp_path):
    pytest.importorskip("ziglang", reason="ziglang is not installed")
    parts = nn.Linear(D, 8, "gelu"), nn.LayerNorm(8), nn.Linear(8, 8, "mish"), nn.Linear(8, 3)
    net, x = randomized(nn.Sequential(*parts)), rows()
    to_source(net, tmp_path / "net.wasm", classes=NAMES)
    (tmp_path / "calls.js").write_text(CALLS)
    given = str(x.tolist()).encode()
    imports, found = json.loads(done([tool("node"), "calls.js"], tmp_path, given))
    expected = net.predict(x)
    assert imports == []
    np.testing.assert_allclose([y for _, y in found], expected, rtol=0, atol=2e-6)
    assert [k for k, _ in found] == expected.argmax(1).tolist()


def test_webassembly_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"gpunn\[compiled\]"):
        to_source(nn.Linear(2, 2), tmp_path / "net.wasm")
    assert not list(tmp_path.iterdir())
