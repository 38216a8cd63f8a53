"""Exported models compute in onnxruntime what they compute here."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, MissingExtraError, OutputError, ShapeError
from gpunn.interop import to_onnx
from gpunn.ops import ACTIVATIONS
from tests.netcases import BATCHES, LAYERS, D, largest, randomized, small_network
from tests.onnxcases import assert_agrees, outputs

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("alone", [False, True], ids=["fused", "alone"])
def test_activations(activation, alone):
    layers = [nn.Linear(D, 6), activation] if alone else [nn.Linear(D, 6, activation)]
    net = randomized(nn.Sequential(*layers, nn.Linear(6, 3)))
    assert_agrees(net, to_onnx(net), 1e-6)


def test_every_module_has_a_formula():
    from gpunn.interop.onnx_layers import LAYERS as known

    public = [m for m in vars(nn).values() if isinstance(m, type) and issubclass(m, nn.Module)]
    assert {m.__name__ for m in public if m.forward not in known} == {"Module"}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer):
    net = randomized(nn.Sequential(LAYERS[layer]()))
    assert_agrees(net, to_onnx(net), 1e-6)
    assert_agrees(net, to_onnx(net, opset=21), 1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_float16(layer):
    net = randomized(LAYERS[layer]())
    assert_agrees(net, to_onnx(net, float16=True), 1e-2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_float16(activation):
    net = randomized(nn.Sequential(nn.Linear(D, 6, activation), nn.Linear(6, 3)))
    assert_agrees(net, to_onnx(net, float16=True), 1e-2)


def test_a_model_of_float16_and_one_of_float64():
    for dtype, tolerance in (("float16", 1e-2), ("float64", 1e-6)):
        net = nn.Sequential(nn.Linear(D, 4, "gelu", dtype=dtype), nn.BatchNorm(4, dtype=dtype))
        assert_agrees(randomized(net), to_onnx(net), tolerance)


CODES = np.array([[0, 3, 6], [6, 6, 1]])


def embedded(flatten=True):
    width = 4 * 3 if flatten else 4
    return nn.Sequential(nn.Embedding(7, 4, flatten=flatten, seed=0), nn.Linear(width, 2, seed=1))


@pytest.mark.parametrize(("opset", "narrow"), [(17, False), (21, False), (17, True)])
def test_an_embedding(opset, narrow):
    kind, net = np.dtype("float16" if narrow else "float32"), embedded()
    proto = to_onnx(net, opset=opset, float16=narrow)
    for x in (CODES, CODES[:1]):
        found = outputs(proto, x.astype(kind))["output"]
        np.testing.assert_allclose(found, net.predict(x), rtol=0, atol=1e-2 if narrow else 1e-6)


def test_an_embedding_of_one_code_an_example():
    net = embedded(flatten=False)
    proto = to_onnx(net)
    codes = CODES[0]
    found = outputs(proto, codes[:, None].astype(np.float32))["output"]
    np.testing.assert_allclose(found, net.predict(codes), rtol=0, atol=1e-6)
    with pytest.raises(ShapeError, match="takes 1"):
        to_onnx(nn.Sequential(nn.Linear(2, 3), nn.Embedding(7, 4)))


@pytest.mark.parametrize("code", [-1, 7, 2.5, np.nan])
def test_a_runtime_refuses_a_code_that_is_none(code):
    x = CODES.astype(np.float32)
    x[1, 1] = code
    with pytest.raises(Exception, match="out of"):
        outputs(to_onnx(embedded()), x)


def test_codes_that_float16_cannot_tell_apart_are_not_exported():
    net = nn.Embedding(2049, 1)
    to_onnx(net)
    with pytest.raises(ArgumentError, match="without float16"):
        to_onnx(net, float16=True)


def test_a_mean_far_from_zero_costs_no_digits():
    net = nn.BatchNorm(D)
    net.load_state_dict(net.state_dict() | {"running_mean": np.full(D, 1e4, np.float32)})
    x = (1e4 + np.random.default_rng(0).standard_normal((7, D))).astype(np.float32)
    np.testing.assert_allclose(outputs(to_onnx(net), x)["output"], net.predict(x), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_small_networks(data):
    net = small_network(data)
    assert_agrees(net, to_onnx(net), 2e-6, least=largest(net))


# classifiers -----------------------------------------------------------------------------------

NAMES = ["setosa", "versicolor", "virginica"]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("last", ["identity", "softmax"])
@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("float16", [False, True])
def test_labels_and_probabilities(last, n, float16, rng):
    net = randomized(nn.Sequential(nn.Linear(D, 8, "relu"), nn.Linear(8, 3, last)))
    x = (3 * rng.standard_normal((n, D))).astype(np.float16 if float16 else np.float32)
    found = outputs(to_onnx(net, classes=NAMES, float16=float16), x)
    assert list(found) == ["label", "probabilities"]
    scores = net.predict(x.astype(np.float32)).astype(np.float64)
    assert found["label"].tolist() == [NAMES[k] for k in scores.argmax(axis=1)]
    if last == "identity":
        scores = softmax(scores)
    np.testing.assert_allclose(found["probabilities"], scores, atol=1e-2 if float16 else 1e-6)


@pytest.mark.parametrize("last", ["identity", "sigmoid"])
@pytest.mark.parametrize("n", BATCHES)
def test_two_classes_of_one_output(last, n, rng):
    net = randomized(nn.Sequential(nn.Linear(D, 8, "relu"), nn.Linear(8, 1, last)))
    x = (9 * rng.standard_normal((n, D))).astype(np.float32)
    found = outputs(to_onnx(net, classes=("no", "yes")), x)
    z = net.predict(x).astype(np.float64)
    yes = z if last == "sigmoid" else 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(found["probabilities"], np.hstack([1 - yes, yes]), atol=1e-6)
    assert found["label"].tolist() == [("no", "yes")[int(p > 0.5)] for p in yes[:, 0]]
    loss = "binary_cross_entropy" + ("_with_logits" if last == "identity" else "")
    assert [("no", "yes")[k] for k in gn.Trainer(net, loss).classify(x)] == found["label"].tolist()


def test_small_probabilities_keep_their_digits():
    net = nn.Linear(1, 1)
    net.load_state_dict({"weight": np.ones((1, 1)), "bias": np.zeros(1)})
    x = np.array([[-30.0], [30.0]], np.float32)
    found = outputs(to_onnx(net, classes=("no", "yes")), x)["probabilities"]
    np.testing.assert_allclose(found[[0, 1], [1, 0]], np.exp(-30), rtol=1e-4)


# the graph and the file ------------------------------------------------------------------------


def shape(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_axes_are_named_and_constants_are_shared():
    layer = nn.Linear(D, D, "relu")
    proto = to_onnx(nn.Sequential(layer, layer, nn.Linear(D, 2)), batch="rows")
    assert shape(proto.graph.input[0]) == ["rows", D]
    assert shape(proto.graph.output[0]) == ["rows", 2]
    assert len(proto.graph.initializer) == 4
    assert (proto.producer_name, proto.opset_import[0].version) == ("gpunn", 17)
    assert shape(to_onnx(layer, batch=3).graph.input[0]) == [3, D]


def test_widths_that_no_layer_tells():
    net = nn.Sequential("relu", nn.Dropout(0.5), nn.Activate("identity"))
    proto = to_onnx(net)
    assert shape(proto.graph.input[0]) == ["N", "D"]
    assert_agrees(net, proto, 1e-6, width=3)
    nothing = nn.Dropout(0.5)
    assert_agrees(nothing, to_onnx(nothing), 1e-6)
    later = nn.Sequential("tanh", nn.Residual(nn.Activate("relu")), nn.Linear(4, 1))
    assert shape(to_onnx(later).graph.input[0]) == ["N", 4]
    assert_agrees(randomized(later), to_onnx(later), 1e-6, width=4)


def test_training_mode_does_not_matter_and_stays():
    net = randomized(nn.Sequential(nn.BatchNorm(D), nn.Dropout(0.5))).train()
    assert_agrees(net, to_onnx(net), 1e-6)
    assert net.training


def test_names_of_nodes_that_look_like_ours():
    net = nn.Graph({"output": (nn.Linear(D, D), ["x"]), "input": (nn.Linear(D, 2), ["output"])})
    assert_agrees(randomized(net), to_onnx(net), 1e-6)


def test_the_file_is_the_model(tmp_path, rng):
    net = randomized(nn.Linear(D, 2))
    proto = to_onnx(net, tmp_path / "net.onnx")
    assert onnx.load(tmp_path / "net.onnx") == proto
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    with pytest.raises(OutputError, match="another place"):
        to_onnx(net, tmp_path / "missing" / "net.onnx")


def doubled(x):
    return x * 2.0


class Twice(nn.Linear):
    def forward(self, x, dropout=None):
        return super().forward(x) * 2.0


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Twice(D, D), r"got a Twice at 1\.inner"),
        (nn.Linear(D, D, doubled), r"the activation <function doubled.*at 1\.inner"),
        (nn.Activate(doubled), r"the activation <function doubled.*leaky_relu"),
    ],
)
def test_what_has_no_operators_is_named(layer, words, tmp_path):
    net = nn.Sequential(nn.Linear(D, D), nn.Residual(layer))
    with pytest.raises(ArgumentError, match=words):
        to_onnx(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"opset": 16}, "got opset=16; expected 17 to"),
        ({"opset": 999}, "got opset=999"),
        ({"batch": 0}, "got batch=0"),
        ({"batch": ""}, "got batch=''"),
        ({"classes": ["a", "b"]}, "got 2 classes for 3 outputs"),
        ({"classes": ["a", "b", "b"]}, "different strings"),
        ({"classes": [0, 1, 2]}, "different strings"),
        ({"classes": "abc"}, "got classes='abc'"),
    ],
)
def test_arguments(options, words):
    with pytest.raises(ArgumentError, match=words):
        to_onnx(nn.Linear(D, 3), **options)


def test_numbers_that_float16_does_not_hold():
    net = nn.Standardize([1e6], [1.0])
    with pytest.raises(ArgumentError, match="mean with a number that float16 does not hold"):
        to_onnx(net, float16=True)
    with pytest.raises(ArgumentError, match="rounds to 0"):
        to_onnx(nn.Standardize([0.0], [1e-9]), float16=True)
    to_onnx(net)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)),
        nn.Residual(nn.Linear(3, 4)),
        nn.Graph({"a": (nn.Linear(2, 2), ["x"]), "b": (nn.BatchNorm(3), ["x"])}),
    ],
)
def test_layers_that_do_not_fit(net):
    with pytest.raises(ShapeError, match="columns"):
        to_onnx(net)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"gpunn\[onnx\]"):
        to_onnx(nn.Linear(2, 2))


def test_interop_alone_imports_no_package():
    code = "import sys, gpunn.interop; print([m for m in ('onnx', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
