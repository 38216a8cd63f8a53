"""Model files that anyone may have written: refused in words, before they take memory."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, ModelFileError
from gpunn.interop import load_torch, save_torch
from gpunn.nn.architecture import MAX_MODULES
from gpunn.nn.module import type_name
from gpunn.storage.arrays import open_arrays
from gpunn.storage.state import check_state
from gpunn.storage.untrusted.bounded_json import BLOCK, MAX_DEPTH, MODEL, from_json
from gpunn.storage.untrusted.header import DTYPES
from gpunn.train import read_info
from tests.contents import unpack

pytestmark = pytest.mark.fast

LINEAR = {"module": "Linear", "config": {"in_features": 3, "out_features": 2}}


def write(path, header, data=b"", *, size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if size is None else size).to_bytes(8, "little") + text + data)
    return path


def model_file(path, architecture, arrays=None, streams="[]", info="{}", **metadata):
    """A model file with this architecture; arrays are name -> (code, shape, bytes)."""
    header, data = {}, b""
    for name, (code, shape, content) in (arrays or {}).items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": code, "shape": shape, "data_offsets": offsets}
        data += content
    if not isinstance(architecture, str):
        architecture = json.dumps(architecture)
    texts = {"architecture": architecture, "streams": streams, "info": info}
    header["__metadata__"] = {"format": "gpunn", "version": "1", **texts, **metadata}
    return write(path, header, data)


def weights(code="F32", shape=(3, 2)):
    size = DTYPES[code].itemsize
    return {
        "weight": (code, list(shape), bytes(size * shape[0] * shape[1])),
        "bias": (code, [shape[1]], bytes(size * shape[1])),
    }


def peak_bytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


# memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "config"),
    [
        ("Linear", {"in_features": 10**9, "out_features": 10**9}),
        ("Linear", {"in_features": 10**12, "out_features": 10**12}),
        ("Linear", {"in_features": 10**30, "out_features": 1}),
        ("LayerNorm", {"features": 10**10}),
        ("BatchNorm", {"features": 10**10}),
        ("RMSNorm", {"features": 10**10}),
        ("Embedding", {"num_embeddings": 10**9, "embedding_dim": 10**9}),
        ("Embedding", {"num_embeddings": 10**9, "embedding_dim": 9, "padding_idx": 3}),
    ],
)
def test_a_small_file_that_declares_a_huge_layer_takes_no_memory(module, config, path):
    gn.load(model_file(path, LINEAR, weights()))  # imports what it needs
    model_file(path, {"module": module, "config": config})
    assert path.stat().st_size < 400

    def attempt():
        with pytest.raises(ModelFileError, match="expected"):
            gn.load(path)

    assert peak_bytes(attempt) < 200_000


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_loading_takes_the_model_and_its_largest_array(dtype, path):
    net = nn.Sequential(nn.Linear(1000, 800, "relu", dtype=dtype), nn.BatchNorm(800, dtype=dtype))
    gn.save(net, path)
    save_torch(net, path.with_suffix(".torch"))
    assert peak_bytes(lambda: gn.load(path)) < 2 * path.stat().st_size + 300_000
    torch = path.with_suffix(".torch")
    assert peak_bytes(lambda: load_torch(net, torch)) < 1.1 * torch.stat().st_size + 300_000
    assert peak_bytes(lambda: read_info(path)) < 300_000


def test_shapes_are_compared_before_an_array_is_read(path):
    size = 2**40
    header = {"0.weight": {"dtype": "F32", "shape": [2**20, 2**18], "data_offsets": [0, size]}}
    header["0.bias"] = {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]}
    write(path, header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size + 4)  # a terabyte that takes no disk
    with pytest.raises(ModelFileError, match=r"expected \(1, 3\)"):
        load_torch(nn.Linear(3, 1), path)


# the header of safetensors -----------------------------------------------------------------------


def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"[]", "not an object"),
        (b'{"w": 1}', "not a dtype, a shape and offsets"),
        ({"w": entry(more=1)}, "not a dtype, a shape and offsets"),
        ({"w": entry("F128")}, "dtype 'F128', not one of F16"),
        ({"w": entry(["F32"])}, "not one of F16"),
        ({"w": entry(shape=[-1])}, "not a list of sizes"),
        ({"w": entry(shape=[1.0])}, "not a list of sizes"),
        ({"w": entry(shape=["1"])}, "not a list of sizes"),
        ({"w": entry(shape=[True])}, "not a list of sizes"),
        ({"w": entry(shape=[1] * 33)}, "not a list of sizes"),
        ({"w": entry(shape=[2])}, "in bytes"),
        ({"w": entry(offsets=[0])}, "in bytes"),
        ({"w": entry(offsets=[4, 8])}, "overlap other arrays or leave a gap"),
        ({"w": entry(), "v": entry()}, "overlap other arrays or leave a gap"),
        ({"w": entry(), "v": entry(offsets=[3, 7])}, "overlap other arrays or leave a gap"),
        ({}, "should end at byte"),
        ({"w": entry(), "v": entry(offsets=[4, 8])}, "should end at byte"),
        ({"w": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}, "which is too large"),
        ({"w": entry(), "__metadata__": []}, "not strings by name"),
        ({"w": entry(), "__metadata__": {"version": 1}}, "not strings by name"),
        (b'{"w": {}, "w": {}}', "the name 'w' twice"),
        (b'{"w": NaN}', "not finite"),
        (b'{"w": 1e999}', "not finite"),
        (b'{"w": "\xff"}', "utf-8"),
        (b"[" * 5000, "nested more than 128"),
        (b'{"w":' * 300 + b"1" + b"}" * 300, "nested more than 128"),
        (b"[" + b"0," * 2**18 + b"0]", "JSON of .* values"),
        (b'{"w": ' + b"1" * 5000 + b"}", "5000 digits"),
        ('{"w": 1}'.encode("utf-16"), "cannot be read"),
    ],
)
def test_headers_that_promise_what_is_not_there(header, words, path):
    write(path, header, b"1234")
    for call in (gn.load, read_info, lambda p: load_torch(nn.Linear(1, 1), p), unpack):
        with pytest.raises(ModelFileError, match=words):
            call(path)


def test_the_length_of_a_header_is_bounded(path):
    with pytest.raises(ModelFileError, match="should have 1099511627776 bytes"):
        read_info(write(path, b"{}", size=2**40))
    with pytest.raises(ModelFileError, match="more than 4194304"):
        read_info(write(path, b"{}" + b" " * MODEL.header_bytes))
    text = b'{"__metadata__": {}}'
    write(path, text + b" " * (MODEL.header_bytes - len(text)))
    assert unpack(path) == ({}, {})


@pytest.mark.parametrize("code", DTYPES)
def test_arrays_of_every_dtype(code, path):
    expected = np.array([[0, 1, 1]]).astype(DTYPES[code])
    offsets = (0, expected.nbytes)
    write(path, {"w": entry(code, (1, 3), offsets)}, expected.tobytes())
    found = unpack(path)[1]["w"]
    assert found.dtype == DTYPES[code]
    np.testing.assert_array_equal(found, expected)


def test_truth_values_are_0_and_1(path):
    with pytest.raises(ModelFileError, match="booleans"):
        unpack(write(path, {"w": entry("BOOL", (2,), (0, 2))}, b"\x01\x02"))


def test_a_file_that_shrinks_while_it_is_read_is_an_error(path):
    write(path, {"w": entry("F32", (1000,), (0, 4000))}, bytes(4000))
    with open_arrays(path) as file:
        os.truncate(path, 100)
        with pytest.raises(ModelFileError, match="became shorter"):
            np.asarray(file["w"])


def test_pickles_are_named_and_not_loaded(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Trap(), protocol))
        with pytest.raises(ModelFileError, match="may contain code"):
            gn.load(path)
    np.savez(tmp_path / "net.npz", np.array([Trap()], dtype=object))
    with pytest.raises(ModelFileError, match="may contain code"):
        gn.load(tmp_path / "net.npz")
    assert not (tmp_path / "trap").exists()


def test_a_header_whose_length_looks_like_a_pickle(path):
    for size in (0x280, 0x380, 0x480, 0x580):
        unpack(write(path, b"{}" + b" " * (size - 2)))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/stdin"):
        for call in (gn.load, read_info, lambda p: load_torch(nn.Linear(1, 1), p)):
            with pytest.raises(ModelFileError, match=r"cannot be read|bytes"):
                call(place)


# the architecture --------------------------------------------------------------------------------


def sequential(*layers):
    return {"module": "Sequential", "config": {"layers": list(layers)}}


def linear(**config):
    return {"module": "Linear", "config": LINEAR["config"] | config}


def nested(depth):
    spec = LINEAR
    for _ in range(depth):
        spec = {"module": "Residual", "config": {"inner": spec}}
    return spec


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (5, "5 is not a dict"),
        ("[]", "is not a dict"),
        ({"same": 0}, "a reference to module 0 after 0 complete modules"),
        (sequential({"same": -1}), "a reference to module -1"),
        (sequential(LINEAR, {"same": 1}), "a reference to module 1 after 1 complete module"),
        (sequential(LINEAR, {"same": "0"}), "unknown activation"),
        (sequential(LINEAR, {"same": True}), "unknown activation"),
        ({"module": "Linear"}, "expected a module and its config"),
        ({"module": "Linear", "config": []}, "expected a module and its config"),
        ({"module": "Teapot", "config": {}}, "'Teapot'.*expected one of.*Linear"),
        ({"module": "Module", "config": {}}, "unknown module 'Module'"),
        (linear(in_features=0), "in_features=0"),
        (linear(in_features=-3), "in_features=-3"),
        (linear(in_features="3"), "in_features='3'"),
        (linear(in_features=3.0), "in_features=3.0"),
        (linear(in_features=True), "in_features=True"),
        (linear(in_features=None), "in_features=None"),
        (linear(bias="yes"), "bias='yes'"),
        (linear(bias=1), "bias=1"),
        (linear(dtype="int32"), "int32"),
        (linear(activation="rleu"), "rleu.*relu"),
        (linear(activation=["relu"]), "unknown activation"),
        (linear(device="cuda:0"), "names a device"),
        (linear(teapot=1), "unexpected keyword"),
        (sequential(LINEAR, {"module": "Dropout", "config": {"rate": "0.5"}}), "rate='0.5'"),
        (sequential(LINEAR, {"module": "Dropout", "config": {"rate": 1.5}}), "rate=1.5"),
        ({"module": "LayerNorm", "config": {"features": 3, "eps": "0.1"}}, "eps='0.1'"),
        ({"module": "LayerNorm", "config": {"features": 3, "eps": -1}}, "eps=-1"),
        ({"module": "RMSNorm", "config": {"features": 3, "eps": "0.1"}}, "eps='0.1'"),
        ({"module": "RMSNorm", "config": {"features": 0}}, "features=0"),
        (
            {"module": "Embedding", "config": {"num_embeddings": 3, "embedding_dim": "2"}},
            "embedding_dim='2'",
        ),
        (
            {
                "module": "Embedding",
                "config": {"num_embeddings": 3, "embedding_dim": 2, "padding_idx": 3},
            },
            "padding_idx=3",
        ),
        ({"module": "LayerNorm", "config": {"features": "3"}}, "features='3'"),
        ({"module": "BatchNorm", "config": {"features": 3, "momentum": 2}}, "momentum=2"),
        ({"module": "Standardize", "config": {"mean": ["1"], "scale": [1]}}, "dtype <U1"),
        ({"module": "Standardize", "config": {"mean": [[1], 2], "scale": [1]}}, "ValueError"),
        ({"module": "Standardize", "config": {"mean": 1, "scale": [1]}}, "got mean"),
        ({"module": "Residual", "config": {"inner": 5}}, "unknown activation"),
        ({"module": "Sequential", "config": {"layers": LINEAR}}, "TypeError"),
        (
            {"module": "Sequential", "config": {"layers": {"relu": 1}}},
            "missing: none; unknown: bias",
        ),
        ({"module": "Graph", "config": {"nodes": [], "inputs": {}, "output": "y"}}, "AttributeErr"),
        ({"module": "Graph", "config": {"nodes": {}, "inputs": {}, "output": "y"}}, "0 nodes"),
        ('{"module": "Linear", "config": {"in_features": NaN}}', "not finite"),
        ('{"module": "Linear", "module": "Sum", "config": {}}', "the name 'module' twice"),
        (nested(MAX_DEPTH), "nested more than 128"),
        (sequential(*[{"module": "Sum", "config": {}}] * (MAX_MODULES + 1)), "more than 4096 mod"),
        (linear(in_features=4), r"with weight of shape \(3, 2\); expected \(4, 2\)"),
        (linear(bias=False), "unknown: bias"),
        (linear(dtype="float64"), "with weight of dtype float32; expected float64"),
        (sequential(LINEAR), r"missing: 0\.bias, 0\.weight; unknown: bias, weight"),
    ],
)
def test_architectures_that_are_none(architecture, words, path):
    model_file(path, architecture, weights())
    with pytest.raises(ModelFileError, match=words) as caught:
        gn.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("architecture", "prefix", "words"),
    [
        (linear(dtype="<f4"), "", "got '<f4' in Linear config, which stands for 'float32'"),
        (linear(seed=1), "", "in Linear config"),
        (linear(init="zeros"), "", "in Linear config"),
        (sequential("relu", LINEAR), "1.", "got 'relu' in Sequential config"),
        ({"module": "Sequential", "config": {"layers": [LINEAR], "x": 1}}, "0.", "in Sequential c"),
        ({"module": "Sequential", "config": {"layers": {"relu": 1}}}, None, "in Sequential config"),
        (
            {"module": "Residual", "config": {"inner": "relu"}},
            None,
            "got 'relu' in Residual config",
        ),
    ],
)
def test_a_model_says_of_itself_what_its_file_does(architecture, prefix, words, path):
    arrays = {f"{prefix}{name}": value for name, value in weights().items()}
    model_file(path, architecture, {} if prefix is None else arrays)
    with pytest.raises(ModelFileError, match=words):
        gn.load(path)


@pytest.mark.parametrize("dtype", ["0.5", "(1)f4", "f4,f4", "f4#", "", {"names": ["a"]}, 0, None])
def test_a_dtype_is_not_parsed_as_python(dtype, path, monkeypatch):
    parsed = []
    monkeypatch.setattr("ast.literal_eval", parsed.append)
    with pytest.raises(ModelFileError, match=r"dtype|in Linear config"):
        gn.load(model_file(path, linear(dtype=dtype), weights("F64")))
    assert not parsed


def test_what_a_file_leaves_out_is_a_default(path):
    net = gn.load(model_file(path, LINEAR, weights()))
    assert net.config() == LINEAR["config"] | {
        "activation": "identity",
        "bias": True,
        "dtype": "float32",
    }


def stream(**changes):
    return {"seed": 1, "stream": 0, "call": 0, "chosen": True} | changes


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ([], "got 0 random streams; expected 1"),
        ([stream(), stream()], "got 2 random streams"),
        ({}, "is not a list"),
        ([1], "expected .*seed"),
        ([{"seed": 1}], "expected .*seed"),
        ([stream(counter=1)], "expected .*seed"),
        ([stream(seed=-1)], "seed=-1"),
        ([stream(seed=2**64)], "seed=18446744073709551616"),
        ([stream(call=1.5)], "call=1.5"),
        ([stream(chosen="no")], "chosen='no'"),
        ([stream(call="a" * 3000)], "call='aaa.* [.]{3} .*aaa'; expected an integer"),
    ],
)
def test_streams_that_are_none(streams, words, path):
    spec = sequential(LINEAR, {"module": "Dropout", "config": {"rate": 0.5}})
    arrays = {f"0.{name}": value for name, value in weights().items()}
    with pytest.raises(ModelFileError, match=words) as caught:
        gn.load(model_file(path, spec, arrays, json.dumps(streams)))
    assert len(str(caught.value)) < 1000
    gn.load(model_file(path, spec, arrays, json.dumps([stream()])))


def test_an_info_is_a_dict_of_json(path):
    for info in ("[]", "1", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "", '"\\ud800"'):
        model_file(path, LINEAR, weights(), info=info)
        with pytest.raises(ModelFileError, match="whose info cannot be read"):
            read_info(path)
    for info in ({"a": np.nan}, {"a": object()}, {1: 2, "1": 3}, {"a": [0] * 2**18}):
        with pytest.raises(ArgumentError, match="an info that cannot be written"):
            gn.save(nn.Linear(1, 1), path, info=info)
    with pytest.raises(ArgumentError, match="more than 4194304"):
        gn.save(nn.Linear(1, 1), path, info={"a": " " * MODEL.header_bytes})


def test_what_would_not_load_is_not_written(path):
    net = nn.Linear(1, 1)
    for _ in range(70):
        net = nn.Residual(net)
    many = nn.Sequential(*[nn.Sum() for _ in range(MAX_MODULES + 1)])
    arrays = nn.Sequential(*[nn.BatchNorm(1) for _ in range(MAX_MODULES)])
    for model in (net, many, arrays):
        with pytest.raises(ArgumentError, match=r"nested more than|at most 4096|not be read again"):
            gn.save(model, path)
    assert not path.exists()


def test_brackets_are_counted_across_blocks():
    for length in range(BLOCK - 6, BLOCK + 3):
        for filling in ("a", "\\\\", '\\"', "é"):
            text = '["' + filling * (length // len(filling)) + " " * (length % len(filling)) + '"'
            assert len(from_json(text + ", [[1]], 2]")) == 3
            with pytest.raises(ValueError, match="128 deep"):
                from_json(text + "," + "[" * 128 + "]" * 128 + "]")


def test_values_in_texts_are_not_counted():
    text = json.dumps({"a": '[{,"\\' * 10**5, '"': "[" * 10**6})
    assert from_json(text)["a"] == '[{,"\\' * 10**5


# what goes on working ----------------------------------------------------------------------------


class Scaled(nn.Module):
    """A module of the user's, with an array that is no part of its state."""

    def __init__(self, size, power=1.0, seed=7):
        b = gn.backend()
        self.size, self.power = size, float(power)
        self.factor = nn.Parameter(b.full((size,), 2, np.float32))
        self.offset = gn.Tensor(b.full((size,), 3, np.float32))
        self.inner = nn.Linear(size, size, seed=seed)

    def forward(self, x):
        return self.inner(x) * self.factor + self.offset

    def config(self):
        return {"size": self.size, "power": str(self.power)}


def test_a_module_of_the_users_is_built_on_the_device(path, device, rng):
    net = nn.Sequential(Scaled(4).to("cpu"), nn.Linear(4, 2, seed=1))
    gn.save(net, path)
    again = gn.load(path, device=device)
    x = rng.standard_normal((3, 4), dtype=np.float32)
    np.testing.assert_allclose(again.predict(x), net.predict(x), rtol=1e-5, atol=1e-6)
    model_file(path, {"module": type_name(Scaled), "config": {"size": 10**9}})
    with pytest.raises(ModelFileError, match="missing: factor"):
        gn.load(path)
    model_file(path, {"module": type_name(Scaled), "config": {"size": 3, "power": "x"}})
    with pytest.raises(ModelFileError, match="ValueError: could not convert"):
        gn.load(path)


def test_nodes_may_have_the_names_that_files_use(path, rng):
    net = nn.Graph(
        {
            "same": (nn.Linear(3, 3, seed=0), ["x"]),
            "module": (nn.Linear(3, 3, seed=1), ["same"]),
            "config": (nn.Graph({"module": ("tanh", ["x"]), "config": ("elu", ["module"])}), ["x"]),
            "y": (nn.Sum(), ["module", "config"]),
        }
    )
    lone = nn.Graph({"same": (nn.Linear(3, 3, seed=2), ["x"])})
    x = rng.standard_normal((2, 3), dtype=np.float32)
    for model in (net, lone):
        gn.save(model, path)
        np.testing.assert_array_equal(gn.load(path).predict(x), model.predict(x))


class Same(nn.Module):
    def __init__(self, options):
        self.options = options

    def config(self):
        return {"options": self.options}


@pytest.mark.parametrize(
    "options", [{"same": 3}, {"module": "a", "config": {}}, [{"a": {"same": 0}}], {1: 2}]
)
def test_a_config_that_reads_like_a_module_is_not_written(options, path):
    with pytest.raises(ArgumentError, match="got a config with"):
        gn.save(Same(options), path)
    gn.save(Same({"same": "x", "y": [1]}), path)
    assert gn.load(path).options == {"same": "x", "y": [1]}


def test_loading_uses_no_seed_up(path):
    gn.save(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), path)
    gn.manual_seed(0)
    expected = nn.Linear(2, 2).weight.numpy()
    gn.manual_seed(0)
    gn.load(path)
    np.testing.assert_array_equal(nn.Linear(2, 2).weight.numpy(), expected)


def test_the_outline_is_no_device_that_has_a_name():
    with pytest.raises(ValueError, match="unknown device 'outline'"):
        gn.device("outline").__enter__()
    assert gn.backend().kind == "cpu"


@pytest.mark.parametrize(
    "value", [["a", "b"], np.array(["a", "b"]), np.array([1j, 2]), np.array([True, False]), None]
)
def test_a_state_holds_arrays_of_real_numbers(value):
    net = nn.Linear(1, 2, seed=0)
    before = net.state_dict()
    with pytest.raises(ModelFileError, match="with bias of"):
        net.load_state_dict(before | {"weight": before["weight"] + 1, "bias": value})
    np.testing.assert_array_equal(net.weight.numpy(), before["weight"])


def test_many_names_are_not_all_in_the_message():
    found = {f"layer {k}": np.zeros(1) for k in range(1000)}
    with pytest.raises(ModelFileError, match="and 976 more") as caught:
        check_state(found, {"a\x1b[31m": np.zeros(1)}, exact=True)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500
