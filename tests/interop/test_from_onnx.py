"""Networks from ONNX files predict what onnxruntime computes from them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn as gn
from gpunn import nn
from gpunn.errors import MissingExtraError, ModelFileError
from gpunn.interop import from_onnx, to_onnx
from gpunn.interop.onnx_activations import ACTIVATIONS as EXPORTED
from gpunn.interop.onnx_layers import LAYERS as KNOWN
from gpunn.interop.onnx_patterns import OTHERS
from gpunn.ops import ACTIVATIONS, get_activation

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import numpy_helper  # noqa: E402

from tests.netcases import LAYERS, D, largest, randomized, small_network  # noqa: E402
from tests.onnxcases import assert_agrees, graph, outputs  # noqa: E402


def rows(name):
    """A network with a layer of the table, behind one that tells how many columns there are."""
    return randomized(nn.Sequential(nn.Linear(D, D), LAYERS[name]()))


# our own files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_what_is_exported_comes_back(layer, tmp_path):
    net = rows(layer)
    proto = to_onnx(net, tmp_path / "net.onnx")
    back = from_onnx(tmp_path / "net.onnx")
    assert not back.training
    assert_agrees(back, proto, 1e-6)
    assert_agrees(net, to_onnx(back), 1e-6)
    gn.save(back, tmp_path / "net.safetensors")
    again = gn.load(tmp_path / "net.safetensors")
    x = np.ones((3, D), np.float32)
    np.testing.assert_array_equal(again.predict(x), back.predict(x))


def test_an_embedding_comes_back_with_its_codes():
    net = nn.Sequential(nn.Embedding(9, 3, flatten=True), nn.RMSNorm(6), nn.Linear(6, 2))
    back = from_onnx(to_onnx(randomized(net)))
    assert [type(m) for m in back] == [type(m) for m in net]
    codes = np.arange(18).reshape(9, 2) % 9
    np.testing.assert_allclose(back.predict(codes), net.predict(codes), rtol=1e-6)


def test_the_operator_of_opset_23():
    gamma = np.array([1.5, -0.5, 2.0, 1.0, 0.25], np.float32)
    nodes = [("RMSNormalization", ["x", "g"], "y", {"epsilon": 0.5, "axis": -1})]
    back = from_onnx(graph(nodes, {"g": gamma}, opset=23))
    assert (type(back), back.eps) == (nn.RMSNorm, 0.5)
    np.testing.assert_array_equal(back.gamma.numpy(), gamma)


LOST = {nn.FeedbackLinear: nn.Linear, nn.RandomFeatures: nn.Linear, nn.Dropout: None,
        nn.VanillaDropout: nn.Standardize}  # fmt: skip
"""What a file does not tell: the way errors go back, what is fixed, what is left out."""


def test_no_module_is_exported_that_does_not_come_back():
    tried, back = set(), set()
    for name in LAYERS:
        net = rows(name)
        tried |= {type(module) for module in net.modules()}
        back |= {type(module) for module in from_onnx(to_onnx(net)).modules()}
    back |= {type(module) for module in from_onnx(to_onnx(nn.Activate("relu"))).modules()}
    assert {module.forward for module in tried} | {nn.Activate.forward} == KNOWN.keys()
    assert {LOST.get(module, module) for module in tried} - {None} <= back


@pytest.mark.parametrize("layer", LAYERS)
def test_float16(layer):
    net = rows(layer)
    proto = to_onnx(net, float16=True)
    back = from_onnx(proto)
    assert {value.dtype for value in back.parameters()} == {np.dtype(np.float16)}
    assert_agrees(back, proto, 2e-2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("alone", [False, True], ids=["fused", "alone"])
def test_activations(activation, alone):
    own = get_activation(activation)
    layers = [nn.Dropout(0.5), activation] if alone else [nn.Linear(D, 6, activation)]
    net = randomized(nn.Sequential(nn.Linear(D, D), *layers, nn.Linear(D if alone else 6, 3)))
    back = from_onnx(to_onnx(net))
    assert_agrees(back, to_onnx(net), 1e-6)
    functions = [get_activation(m.activation) for m in back.modules() if hasattr(m, "activation")]
    like = getattr(own, "same_as", None) or own
    assert like in functions or like.name == "relu_right"
    assert type(back[-1]) is nn.Linear


def test_options_come_back_as_they_were_written():
    net = nn.Sequential(
        nn.Linear(D, 4, get_activation("leaky_relu", slope=0.3)),
        nn.BatchNorm(4, eps=1e-3, momentum=0.3),
        nn.Linear(4, 4, get_activation("elu", alpha=0.7)),
        nn.LayerNorm(4, eps=1e-4),
        nn.RMSNorm(4, eps=1e-4),
    )
    back = from_onnx(to_onnx(randomized(net)))
    assert [m.config() for m in back] == [m.config() for m in net]
    for name, value in back.state_dict().items():
        np.testing.assert_array_equal(value, net.state_dict()[name], name)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_small_networks(data):
    net = small_network(data)
    whole = nn.Sequential(nn.Linear(D, D), net)
    back = from_onnx(to_onnx(randomized(whole)))
    assert_agrees(whole, to_onnx(back), 2e-6, least=largest(whole))


def test_shared_layers_stay_shared():
    layer = nn.Linear(D, D, "relu")
    net = nn.Sequential(layer, layer, nn.Residual(layer))
    back = from_onnx(to_onnx(randomized(net)))
    assert len(back.parameters()) == 2
    assert_agrees(back, to_onnx(net), 1e-6)
    bent = nn.Sequential(nn.Linear(D, D), "tanh")
    both = nn.Sequential(bent, nn.Residual(nn.Sequential(bent[0], "relu")))
    back = from_onnx(to_onnx(randomized(both)))
    assert len(back.parameters()) == 2
    assert_agrees(back, to_onnx(both), 1e-6)


def test_shortcuts_and_branches():
    inner = nn.Sequential(nn.Linear(D, 3, "relu"), nn.Residual(nn.Linear(3, 3)), nn.Linear(3, D))
    net = randomized(nn.Sequential(nn.Residual(inner), nn.LayerNorm(D)))
    back = from_onnx(to_onnx(net))
    assert str(back) == str(net)
    crossed = nn.Graph(
        {
            "a": (nn.Linear(D, D, "tanh"), ["x"]),
            "b": (nn.Linear(D, D, "relu"), ["a"]),
            "c": (nn.Sum(), ["b", "x"]),
            "d": (nn.Sum(), ["a", "c"]),
        }
    )
    assert_agrees(from_onnx(to_onnx(randomized(crossed))), to_onnx(crossed), 1e-6)


def test_it_can_be_trained(rng):
    net = from_onnx(
        to_onnx(nn.Sequential(nn.Linear(D, 8, "relu", seed=0), nn.Linear(8, 1, seed=1)))
    )
    x = rng.standard_normal((64, D)).astype(np.float32)
    y = x[:, :1] * 2
    trainer = gn.Trainer(net, "squared_error", lr=0.02)
    before = trainer.evaluate(x, y)["loss"]
    trainer.fit(x, y, epochs=20, progress=False)
    assert trainer.evaluate(x, y)["loss"] < before / 2
    assert_agrees(net, to_onnx(net), 1e-6)


def test_the_probabilities_of_a_classifier():
    for width, names in ((3, "abc"), (1, "ab")):
        net = randomized(nn.Sequential(nn.Linear(D, 8, "gelu"), nn.Linear(8, width)))
        proto = to_onnx(net, classes=list(names))
        x = np.random.default_rng(0).standard_normal((5, D)).astype(np.float32)
        expected = outputs(proto, x)["probabilities"]
        np.testing.assert_allclose(from_onnx(proto).predict(x), expected, atol=1e-6)


# files of other libraries ----------------------------------------------------------------------


def values(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def agrees(proto, tolerance=2e-6, width=D):
    net = from_onnx(proto.SerializeToString())
    x = 2 * np.random.default_rng(1).standard_normal((7, width)).astype(np.float32)
    (expected,) = outputs(proto, x).values()
    found = net.predict(x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1, np.abs(expected).max())
    return net


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", [(), (1,), (3,), (1, 3), None])
def test_gemm(turned, bias, rng):
    constants = {"w": values(rng, *((3, D) if turned else (D, 3)))}
    if bias is not None:
        constants["b"] = values(rng, *bias)
    options = {"transB": turned, "alpha": 0.5, "beta": 2.0}
    net = agrees(graph([("Gemm", ["x", *constants], ["y"], options)], constants))
    assert (type(net), net.bias is None) == (nn.Linear, bias is None)


@pytest.mark.parametrize("swapped", [False, True])
def test_matmul_and_add(swapped, rng):
    constants = {"w": values(rng, D, 3), "b": values(rng, 3)}
    sides = ["b", "z"] if swapped else ["z", "b"]
    nodes = [("MatMul", ["x", "w"], ["z"]), ("Add", sides, ["s"]), ("Relu", ["s"], ["y"])]
    net = agrees(graph(nodes, constants))
    assert (type(net), net.activation) == (nn.Linear, "relu")


def test_what_changes_nothing_is_left_out(rng):
    constants = {"w": values(rng, D, 3), "shape": np.array([-1, 3]), "one": np.float32(1)}
    nodes = [
        ("Identity", ["x"], ["a"]),
        ("Cast", ["a"], ["b"], {"to": 1}),
        ("Flatten", ["b"], ["c"]),
        ("MatMul", ["c", "w"], ["d"]),
        ("Reshape", ["d", "shape"], ["e"]),
        ("Mul", ["e", "one"], ["f"]),
        ("Identity", ["f"], ["y"]),
    ]
    assert type(agrees(graph(nodes, constants))) is nn.Linear


def test_dropout_comes_back_where_a_file_has_it(rng):
    constants = {"w": values(rng, D, 3), "rate": np.float32(0.3)}
    nodes = [("Dropout", ["x", "rate"], ["d"]), ("MatMul", ["d", "w"], ["y"])]
    assert agrees(graph(nodes, constants))[0].rate == 0.3


def test_transposed_weights_and_constants_in_nodes(rng):
    weight = numpy_helper.from_array(values(rng, 3, D))
    nodes = [
        ("Constant", [], ["v"], {"value": weight}),
        ("Transpose", ["v"], ["w"], {"perm": [1, 0]}),
        ("MatMul", ["x", "w"], ["y"]),
    ]
    agrees(graph(nodes, {}))


def test_images_are_flat(rng):
    nodes = [("Flatten", ["x"], ["f"]), ("MatMul", ["f", "w"], ["y"])]
    proto = graph(nodes, {"w": values(rng, 12, 2)}, shape=("N", 1, 3, 4))
    x = values(rng, 5, 1, 3, 4)
    found = from_onnx(proto).predict(x.reshape(5, -1))
    np.testing.assert_allclose(found, outputs(proto, x)["y"], atol=1e-5)
    direct = graph([("MatMul", ["x", "w"], ["y"])], {"w": values(rng, 4, 2)}, ("N", 1, 3, 4))
    with pytest.raises(ModelFileError, match=r"'y' \(MatMul\): it takes an input of 4 axes"):
        from_onnx(direct)


@pytest.mark.parametrize(
    "nodes",
    [
        [("Sub", ["x", "m"], ["c"]), ("Div", ["c", "s"], ["y"])],
        [("Mul", ["s", "x"], ["c"]), ("Add", ["m", "c"], ["y"])],
        [("Mul", ["x", "s"], ["y"])],
        [("Add", ["x", "m"], ["y"])],
        [("Sub", ["m", "x"], ["y"])],
        [("Sub", ["x", "m"], ["y"])],
        [("Div", ["x", "s"], ["y"])],
        [("Div", ["x", "half"], ["y"])],
        [("Neg", ["x"], ["y"])],
        [("PRelu", ["x", "s"], ["y"])],
        [("PRelu", ["x", "half"], ["y"])],
        [("Add", ["x", "x"], ["y"])],
        [("Sum", ["x", "x", "x"], ["y"])],
        [("Relu", ["x"], ["r"]), ("Add", ["x", "r"], ["y"])],
        [("MatMul", ["x", "w"], ["z"]), ("Relu", ["z"], ["r"]), ("Add", ["z", "r"], ["y"])],
        [("Relu", ["x"], ["r"]), ("Concat", ["r", "x"], ["y"], {"axis": 1})],
        [("Relu", ["x"], ["r"]), ("Add", ["x", "r"], ["t"]), ("Mul", ["t", "half"], ["y"])],
        [("LayerNormalization", ["x", "s"], ["y"])],
        [("LayerNormalization", ["x", "s", "m"], ["y"], {"axis": 1, "epsilon": 0.1})],
        [("BatchNormalization", ["x", "s", "m", "m", "s"], ["y"])],
        [("Softmax", ["x"], ["y"], {"axis": 1})],
        [("ai.onnx.ml.Scaler", ["x"], ["y"], {"offset": [0.5] * D, "scale": [2.0] * D})],
    ],
    ids=lambda nodes: "-".join(each[0] for each in nodes),
)
def test_arithmetic_and_normalisation(nodes, rng):
    constants = {"m": values(rng, D), "s": 0.5 + rng.random(D).astype("f"), "w": values(rng, D, D)}
    constants["half"] = np.float32(0.5)
    nodes = [
        (each[0].removeprefix("ai.onnx.ml."), *each[1:3],
         (each[3] if len(each) > 3 else {}) | ({"domain": "ai.onnx.ml"} if "ml" in each[0] else {}))
        for each in nodes
    ]  # fmt: skip
    agrees(graph(nodes, constants, domains=["ai.onnx.ml"]))


@pytest.mark.parametrize("number", range(len(OTHERS)))
def test_activations_as_others_write_them(number, rng):
    from gpunn.interop.onnx_draft import INPUT, Draft, Value

    spelling = OTHERS[number]
    draft = Draft(np.float32)
    top = spelling.draft(draft, Value(INPUT, 0), "")
    names = {INPUT: "x", top.name: "y"}
    nodes = [
        (o.kind, [names.get(i, i) for i in o.inputs], [names.get(o.output, o.output)], o.attributes)
        for o in draft.operators
    ]
    newest = 24 if nodes[0][0] == "Swish" else 20
    proto = graph(nodes, draft.constants, opset=newest)
    net = from_onnx(proto)
    assert net.activation == spelling.activation
    if nodes[0][0] != "Swish":  # of a version that not every onnxruntime knows
        agrees(proto)


def test_the_order_of_factors_does_not_matter(rng):
    for nodes in (
        [("Sigmoid", ["x"], ["s"]), ("Mul", ["s", "x"], ["y"])],
        [("Softplus", ["x"], ["s"]), ("Tanh", ["s"], ["t"]), ("Mul", ["t", "x"], ["y"])],
    ):
        assert isinstance(agrees(graph(nodes, {})), nn.Activate)


def test_scikit_learns_perceptrons(rng):
    skl = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = values(rng, 60, 4)
    one = {"max_iter": 9, "tol": 1e9, "n_iter_no_change": 1, "hidden_layer_sizes": (5, 4)}
    for model, y in (
        (MLPClassifier(**one), rng.integers(0, 3, 60)),
        (MLPClassifier(activation="tanh", **one), rng.integers(0, 2, 60)),
        (MLPClassifier(activation="identity", **one), rng.integers(0, 2, (60, 3))),
        (make_pipeline(StandardScaler(), MLPRegressor(activation="logistic", **one)), x[:, 0]),
    ):
        proto = skl.to_onnx(model.fit(x, y), x[:1])
        found = from_onnx(proto).predict(x)
        expected = getattr(model, "predict_proba", model.predict)(x)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


# what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([("Erf", ["x"], ["y"])], r"1 operators.*'y' \(Erf\): gpunn has no module for it"),
        ([("Log", ["x"], ["a"]), ("Sin", ["a"], ["y"])], r"'a' \(Log\).*'y' \(Sin\)"),
        ([("Gemm", ["x", "w"], ["y"], {"transA": 1})], r"\(Gemm\): transA=1"),
        ([("MatMul", ["w", "x"], ["y"])], "its weights are no"),
        ([("MatMul", ["x", "narrow"], ["y"])], "takes 2 columns, and its input has 5"),
        ([("Add", ["x", "narrow"], ["y"])], "a constant stands where a network has rows"),
        ([("Tanh", ["x"], ["a"]), ("Sigmoid", ["a"], ["b"]), ("Mul", ["b", "x"], ["y"])],
         r"'y' \(Mul\): no module"),
        ([("Mul", ["x", "x"], ["y"])], "no module computes it with these inputs"),
        ([("Div", ["half", "x"], ["y"])], "no module computes it with these inputs"),
        ([("Softmax", ["x"], ["y"], {"axis": 0})], r"\(Softmax\)"),
        ([("Concat", ["x", "x"], ["y"], {"axis": 0})], "axis is not the last"),
        ([("Reshape", ["x", "shape"], ["y"])], r"the shape \(5, -1\)"),
        ([("LeakyRelu", ["x"], ["y"], {"alpha": 2.0})], r"slope=2\.0 in leaky_relu"),
        ([("Greater", ["x", "half"], ["g"]), ("Cast", ["g"], ["y"], {"to": 1})], r"\(Cast\)"),
        ([("Dropout", ["x", "big"], ["y"])], r"rate=1\.5"),
        ([("MatMul", ["x", "tall"], ["y"])], "its weights are no"),
        ([("Add", ["x", "deep"], ["y"])], "a constant stands"),
        ([("Gemm", ["x", "w"], ["y"], {"alpha": float("inf")})], "alpha is not finite"),
        ([("Elu", ["x"], ["y"], {"alpha": "a"})], "alpha is no float"),
        ([("Relu", ["w"], ["y"])], "no module computes it|gpunn has no module"),
    ],
)  # fmt: skip
def test_what_no_module_computes_is_named_with_the_reason(nodes, words):
    constants = {
        "w": np.ones((D, 3), "f"),
        "narrow": np.ones((2, 2), "f"),
        "tall": np.ones((1, D, 3), "f"),
        "deep": np.ones((1, 1, D), "f"),
        "half": np.float32(0.5),
        "big": np.float32(1.5),
        "shape": np.array([5, -1]),
    }
    with pytest.raises(ModelFileError, match=words):
        from_onnx(graph(nodes, constants))


def test_what_differs_a_little_from_an_export_is_refused():
    net = nn.Sequential(nn.Linear(D, 2), nn.DifferenceFeature())
    proto = to_onnx(net)
    column = next(each for each in proto.graph.initializer if each.name.endswith("column_0"))
    column.dims[:] = []  # a number takes an axis away
    with pytest.raises(ModelFileError, match=r"\(Concat\)|\(Expand\)"):
        from_onnx(proto)
    proto = to_onnx(rows("mean chance"))
    next(each for each in proto.graph.node if each.op_type == "Softmax").attribute[0].i = 0
    with pytest.raises(ModelFileError, match=r"\(Log\)"):
        from_onnx(proto)


def test_an_output_is_chosen(rng):
    constants = {"w": values(rng, D, 3)}
    nodes = [("MatMul", ["x", "w"], ["y"]), ("Erf", ["y"], ["z"])]
    proto = graph(nodes, constants, outs=("y", "z"))
    with pytest.raises(ModelFileError, match="outputs 'y', 'z': pass output="):
        from_onnx(proto)
    with pytest.raises(ModelFileError, match="no output 'q', but 'y', 'z'"):
        from_onnx(proto, output="q")
    assert type(from_onnx(proto, output="y")) is nn.Linear


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"gpunn\[onnx\]"):
        from_onnx(b"")


def test_every_exported_activation_has_a_name():
    assert {f.name for f in EXPORTED if hasattr(f, "name")} <= ACTIVATIONS.keys() | {"exp"}
