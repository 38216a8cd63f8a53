"""ONNX files of unknown origin: every damage and every attack ends in a `ModelFileError`."""

from __future__ import annotations

import os
import sys
import tracemalloc
import warnings
from contextlib import suppress

import numpy as np
import pytest

from gpunn import nn
from gpunn.errors import ModelFileError
from gpunn.interop import from_onnx, to_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tests.netcases import LAYERS, D, randomized  # noqa: E402
from tests.onnxcases import graph, outputs  # noqa: E402

W = np.ones((D, D), np.float32)


def refuses(source, words, limit_bytes=2**23):
    """Check that a source is refused, and that this takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=words) as caught:
            from_onnx(source)
        assert tracemalloc.get_traced_memory()[1] < limit_bytes
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 3000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("layer", ["graph", "levels", "waves", "products of three", "mean chance"])
def test_damaged_bytes(layer):
    content = to_onnx(
        randomized(nn.Sequential(nn.Linear(D, D), LAYERS[layer]()))
    ).SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        with suppress(ModelFileError):
            from_onnx(bytes(damaged[: rng.integers(1, 3) * len(damaged) // 2]))


def changed(proto, rng):
    """A copy of a model in which operators, edges, constants or attributes were exchanged."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes, constants = copy.graph.node, copy.graph.initializer
    for _ in range(rng.integers(1, 4)):
        node, other = (nodes[rng.integers(len(nodes))] for _ in range(2))
        what = rng.integers(5)
        if what == 0:
            node.input[rng.integers(len(node.input))] = rng.choice([*other.input, *other.output])
        elif what == 1:
            node.op_type = other.op_type
        elif what == 2 and constants:
            constant = constants[rng.integers(len(constants))]
            shape = rng.choice([1, 2, 3, 5], rng.integers(0, 4))
            numbers = rng.standard_normal(shape).astype(rng.choice(["f4", "i8", "f2"]))
            constant.CopyFrom(numpy_helper.from_array(numbers, constant.name))
        elif what == 3 and node.attribute:
            del node.attribute[rng.integers(len(node.attribute))]
        elif what == 4:
            name = str(rng.choice(["axis", "alpha", "epsilon", "transB", "perm", "momentum"]))
            value = [float("nan"), 1e300, -5, 0.5, 1, [1, 0], "a"][rng.integers(7)]
            node.attribute.append(helper.make_attribute(name, value))
    return copy


@pytest.mark.parametrize("layer", LAYERS)
def test_exchanged_parts_are_refused_or_computed(layer):
    from onnx.reference import ReferenceEvaluator

    proto = to_onnx(randomized(nn.Sequential(nn.Linear(D, D), LAYERS[layer]())))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, D)).astype(np.float32)
    for _ in range(60):
        other = changed(proto, rng)
        try:
            net = from_onnx(other)
        except ModelFileError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = evaluated(ReferenceEvaluator, other, x)
        if expected is not None and np.isfinite(expected).all():
            found, largest = net.predict(x), max(1, np.abs(expected).max())
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= 1e-3 * largest


def evaluated(evaluator, proto, x):
    """The output of a model; None for one that cannot be run."""
    try:
        return evaluator(proto).run(["output"], {"input": x})[0]
    except Exception:  # of any kind, because the model may be nonsense
        return None


@pytest.mark.parametrize("content", [b"", b"\xff" * 99, b"PK\x03\x04", b"{}"])
def test_no_onnx_files(content, tmp_path):
    (tmp_path / "net.onnx").write_bytes(content)
    refuses(tmp_path / "net.onnx", r"net\.onnx, which cannot be read")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_folders(tmp_path):
    os.mkfifo(tmp_path / "net.onnx")
    refuses(tmp_path / "net.onnx", "regular file")
    refuses(tmp_path, "regular file")
    refuses(tmp_path / "missing.onnx", "regular file")


def test_many_empty_messages(monkeypatch):
    """Of two bytes each, which protobuf would make objects of."""
    from gpunn.interop import onnx_source

    monkeypatch.setattr(onnx_source, "MAX_PARTS", 2**12)  # tracing memory is slow
    nodes = b"\x0a\x00" * 2**13
    refuses(b"\x3a\x80\x80\x01" + nodes, "more than 4096 parts", 2**20)
    nested = b"\x0a\x80\x80\x01" + b"\x2a\x00" * 2**13  # attributes of one operator
    refuses(b"\x3a\x84\x80\x01" + nested, "more than 4096 parts", 2**20)


@pytest.mark.parametrize("content", [b"\x3a", b"\x3a\x05\x0a", b"\x0b", b"\xff" * 20, b"\x3a\xff"])
def test_what_is_no_message(content):
    refuses(content, "cannot be read")


def test_shapes_that_the_bytes_do_not_fill():
    proto = graph([("MatMul", ["x", "w"], ["y"])], {"w": W})
    for shape in ([10**6, 10**6], [D, D + 1], [2**62, 4], [-1, D], [1] * 40):
        proto.graph.initializer[0].dims[:] = shape
        refuses(proto, "its constant 'w'")


def test_widths_without_bytes():
    scaled = [("Mul", ["x", "half"], ["y"])]
    refuses(graph(scaled, {"half": np.float32(0.5)}, ("N", 10**9)), "modules of 8000000000 bytes")
    slopes = [("PRelu", ["x", "half"], ["y"])]
    refuses(graph(slopes, {"half": np.float32(0.5)}, ("N", 2**62)), "bytes of the file are built")
    far = {"a": np.array([0]), "b": np.array([2**40]), "c": np.array([1])}
    refuses(graph([("Slice", ["x", "a", "b", "c"], ["y"])], far), r"\(Slice\)")


def test_one_constant_for_many_layers():
    weight = np.ones((300, 300), np.float32)
    nodes = [("Gemm", [f"x{k or ''}", "w"], [f"x{k + 1}"], {"alpha": k + 1.0}) for k in range(50)]
    nodes += [("Relu", ["x50"], ["y"])]
    refuses(graph(nodes, {"w": weight}, ("N", 300)), "times the .* bytes of the file are built")


def test_too_many_operators():
    nodes = [("Tanh", [f"x{k or ''}"], [f"x{k + 1}"]) for k in range(5000)]
    refuses(graph([*nodes, ("Tanh", ["x5000"], ["y"])], {}), "5001 modules", 2**25)
    many = graph([("Tanh", ["x"], ["y"])], {})
    many.graph.node.extend([many.graph.node[0]] * 2**16)
    refuses(many, "65537 operators", 2**25)


@pytest.mark.parametrize("kind", ["shortcuts", "means"])
def test_containers_inside_each_other_do_not_overflow_the_stack(kind):
    """x + f(x + f(...)), 400 deep."""
    nodes, value = [], "x"
    for k in range(400):
        nodes += [("Tanh", [value], [f"t{k}"])]
        value = f"t{k}"
    for k in range(400):
        other = "x" if k == 399 else f"t{398 - k}"
        nodes += [("Add", [value, other], [f"s{k}"])]
        value = f"s{k}"
        if kind == "means":
            nodes += [("Mul", [value, "half"], [f"m{k}"])]
            value = f"m{k}"
    proto = graph([*nodes, ("Tanh", [value], ["y"])], {"half": np.float32(0.5)})
    x = np.random.default_rng(0).standard_normal((3, D)).astype(np.float32)
    if kind == "means":  # which no module but an ensemble computes
        refuses(proto, r"\(Mul\): it is a mean inside too many others", 2**25)
        return
    net = from_onnx(proto)
    np.testing.assert_allclose(net.predict(x), outputs(proto, x)["y"], atol=1e-5)


def test_values_that_nothing_computes():
    refuses(graph([("Add", ["x", "later"], ["y"]), ("Relu", ["x"], ["later"])], {}), "before it")
    refuses(graph([("Add", ["x", "y"], ["y"])], {}), "before it")
    refuses(graph([("Relu", ["x"], ["z"]), ("Tanh", ["x"], ["z"])], {}, outs=("z",)), "already")
    refuses(graph([("Relu", ["x"], ["z"])], {}, outs=("q",)), "nothing computes 'q'")
    masks = graph([("Dropout", ["x"], ["z", "mask"]), ("Relu", ["mask"], ["y"])], {})
    refuses(masks, "nothing computes 'mask'")


def test_code_is_not_run():
    inner = helper.make_graph([], "inner", [], [])
    refuses(graph([("If", ["x"], ["y"], {"then_branch": inner})], {}), r"\(If\): gpunn has no")
    proto = graph([("Relu", ["x"], ["y"])], {})
    proto.functions.add(name="Relu", domain="")
    refuses(proto, "1 functions")
    mine = graph([("Relu", ["x"], ["y"], {"domain": "mine"})], {}, domains=["mine"])
    refuses(mine, r"\(mine\.Relu\)")


def test_inputs_and_versions():
    proto = graph([("Relu", ["x"], ["y"])], {})
    proto.graph.input.add().CopyFrom(helper.make_tensor_value_info("more", 1, ["N", 1]))
    refuses(proto, "2 inputs .'x', 'more'.")
    refuses(graph([("Relu", ["x"], ["y"])], {}, opset=8), "of version 8")
    refuses(graph([("Relu", ["x"], ["y"])], {}, opset=999), "of version 999")
    refuses(graph([("Relu", ["x"], ["y"])], {}, shape=("N",)), "1 axes")
    texts = graph([("Relu", ["x"], ["y"])], {})
    texts.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    refuses(texts, "no array of numbers")


def test_names_from_the_file_are_shortened_and_escaped():
    refuses(graph([("Erf\x1b[31m" * 99, ["x"], ["y\n" * 5000])], {}, outs=("y\n" * 5000,)), "Erf")


# constants in other files ----------------------------------------------------------------------


def outside(folder, **places):
    """Write a model with its weights in another file."""
    proto = graph([("MatMul", ["x", "w"], ["y"])], {"w": W * 2})
    tensor = proto.graph.initializer[0]
    (folder / "w.bin").write_bytes(b"1234" + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin", "offset": "4"} | places).items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_in_a_file_beside_it(tmp_path):
    for places in ({}, {"length": D * D * 4}):
        net = from_onnx(outside(tmp_path, **places))
        np.testing.assert_array_equal(net.weight.numpy(), W * 2)
    refuses((tmp_path / "net.onnx").read_bytes(), "only a file in the folder")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"location": "../w.bin"}, "only a file in the folder"),
        ({"location": "/etc/passwd"}, "only a file in the folder"),
        ({"location": "sub/w.bin"}, "only a file in the folder"),
        ({"location": ".."}, "cannot be read|only a file"),
        ({"location": "a\\w.bin"}, "only a file in the folder"),
        ({"location": ""}, "only a file in the folder"),
        ({"location": "link.bin"}, "symbolic link"),
        ({"location": "missing.bin"}, "regular file"),
        ({"offset": "8"}, "are not where it says"),
        ({"offset": "-4"}, "are not where it says"),
        ({"offset": "9" * 30}, "are not where it says"),
        ({"length": "8"}, "are not where it says"),
        ({"length": "x"}, "are not where it says"),
    ],
)
def test_files_elsewhere_are_not_read(places, words, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 999)
    (tmp_path / "link.bin").symlink_to(tmp_path / "secret")
    refuses(outside(tmp_path, **places), words)


def test_nothing_else_is_opened(tmp_path):
    opened = []
    path = outside(tmp_path)
    from_onnx(path)  # imports everything
    watching = True

    def note(event, args):
        if watching and event == "open" and not isinstance(args[0], int):
            opened.append(os.path.basename(os.fsdecode(args[0])))

    sys.addaudithook(note)
    from_onnx(path)
    watching = False
    assert {*opened} == {"net.onnx", "w.bin"}


def test_constants_of_other_kinds():
    for kind in (np.bool_, np.complex64):
        constant = numpy_helper.from_array(np.ones((D, D), kind), "w")
        proto = graph([("MatMul", ["x", "w"], ["y"])], {"w": W})
        proto.graph.initializer[0].CopyFrom(constant)
        refuses(proto, "no .* constant of numbers")
