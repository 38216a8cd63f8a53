"""Models written in other languages compute there what they compute here."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpunn import nn
from gpunn.autograd import OPS
from gpunn.backends.cpu.compiled import find_compiler
from gpunn.backends.kernel import KERNELS
from gpunn.errors import ArgumentError, OutputError, ShapeError, UnknownNameError
from gpunn.interop import to_source
from gpunn.interop.source import TARGETS
from gpunn.interop.source.described import Described
from gpunn.interop.source.language import formula
from gpunn.interop.source.program import Program
from gpunn.ops import ACTIVATIONS, Activation, exp
from gpunn.ops.elementwise import Option
from tests.netcases import LAYERS, D, largest, randomized, small_network
from tests.sourcecases import NAMES, RUN, SUFFIX, done, outputs, rows, rows_c, tool

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NaN and infinity


def assert_agrees(net, target, folder, x, tolerance=1e-6, least=0.0):
    expected = net.predict(x).astype(np.float64)
    found = outputs(net, target, folder, x)
    assert found.shape == expected.shape
    scale = max(np.abs(expected).max(), least)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def test_every_module_has_a_form():
    from gpunn.interop.source.layers import LAYERS as known

    public = [m for m in vars(nn).values() if isinstance(m, type) and issubclass(m, nn.Module)]
    assert {m.__name__ for m in public if m.forward not in known} == {"Module"}


def test_what_onnx_exports_has_a_form():
    from gpunn.interop import onnx_activations, onnx_layers
    from gpunn.interop.source import layers

    assert set(onnx_layers.LAYERS) <= set(layers.LAYERS)
    assert set(TARGETS) == {*RUN, "html", "webassembly"}  # these are written from the others
    for function in onnx_activations.ACTIVATIONS:
        for target in RUN:
            assert to_source(nn.Sequential(nn.Linear(2, 2), function), target=target)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, target, tmp_path):
    net = randomized(nn.Sequential(nn.Linear(D, 6, activation), nn.Linear(6, 6), activation))
    assert_agrees(net, target, tmp_path, rows())


def test_variables_with_the_names_of_formulas(target, tmp_path):
    """The body of an activation may have a variable that is named like a function of the file."""
    names = sorted(set(ACTIVATIONS) - {"hard_threshold"})
    nodes = {"n": (nn.Sequential(nn.RMSNorm(D, eps=0.1), nn.LayerNorm(D, eps=0.1)), ["x"])}
    nodes |= {name: (nn.Activate(name), ["n"]) for name in names}
    nodes["y"] = (nn.Concatenate(), names)
    assert_agrees(randomized(nn.Graph(nodes)), target, tmp_path, rows())


@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer, target, tmp_path):
    net = randomized(nn.Sequential(LAYERS[layer]()))
    assert_agrees(net, target, tmp_path, rows(), least=largest(net) / 10)


# bits and hard numbers --------------------------------------------------------------------------

EXPONENTIALS = {"waves", "mean chance", "random features", "mean", "residual", "nested"}
EXACT_LAYERS = sorted(set(LAYERS) - EXPONENTIALS)
EXACT_ACTIVATIONS = ["relu", "relu_right", "leaky_relu", "identity", "hard_threshold", "relu6"]
EXACT = pytest.mark.parametrize("exact", ["c", "javascript"])


@pytest.fixture
def fused():
    """Skips where predictions are not computed by compiled kernels with fused products."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not find_compiler().command or " fma " not in flags:
        pytest.skip("without a compiler or fused products, predictions have other bits")


def one_by_one(net, x):
    return np.concatenate([net.predict(x[k : k + 1]) for k in range(len(x))])


@EXACT
@pytest.mark.parametrize("activation", EXACT_ACTIVATIONS)
@pytest.mark.usefixtures("fused")
def test_the_bits_of_predict(activation, exact, tmp_path):
    net = nn.Sequential(nn.Linear(700, 130, activation), nn.Linear(130, 33, activation))
    x = rows(width=700)
    expected = one_by_one(randomized(net), x)
    assert outputs(net, exact, tmp_path, x).astype(np.float32).tobytes() == expected.tobytes()


@EXACT
@pytest.mark.parametrize("layer", EXACT_LAYERS)
@pytest.mark.usefixtures("fused")
def test_the_bits_of_layers(layer, exact, tmp_path):
    net, x = randomized(nn.Sequential(LAYERS[layer]())), rows()
    if layer == "parametric":  # it has exponentials
        assert_agrees(net, exact, tmp_path, x)
    else:
        found = outputs(net, exact, tmp_path, x).astype(np.float32)
        assert found.tobytes() == one_by_one(net, x).tobytes()


@EXACT
@pytest.mark.usefixtures("fused")
def test_the_bits_of_long_rows(exact, tmp_path):
    """Sums of a row have 16 parts, in blocks of 256."""
    net, x = randomized(nn.Sequential(nn.LayerNorm(700), nn.RMSNorm(700))), rows(width=700)
    found = outputs(net, exact, tmp_path, x).astype(np.float32)
    assert found.tobytes() == one_by_one(net, x).tobytes()


def test_a_long_row_of_layer_norm(target, tmp_path):
    net = randomized(nn.LayerNorm(700))
    x = 1e4 + rows(width=700)
    assert_agrees(net, target, tmp_path, x, 1e-5)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, exp], ids=str)
def test_hard_numbers(activation, target, tmp_path):
    numbers = [0.0, -0.0, 1e-40, 1e-3, 2.0, 30.0, 88.0, 104.0, 800.0, 1e4, 3e38, np.inf]
    x = np.array([[v] for v in (*numbers, *(-v for v in numbers), np.nan)], np.float32)
    net = nn.Activate(activation)
    with np.errstate(all="ignore"):
        expected = net.predict(x)
    found = outputs(net, target, tmp_path, x)
    tiny = np.finfo(np.float32).tiny
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=2e-6, atol=100 * tiny)


def test_float64(target, tmp_path):
    net = randomized(nn.Sequential(nn.Linear(D, 6, "gelu", dtype="float64"), "softmax"))
    x = rows().astype(np.float64)
    to_source(net, tmp_path / f"net.{SUFFIX[target]}")
    options = {"kind": np.float64} if target == "c" else {}
    found = RUN[target](tmp_path, "net", x, **options)
    np.testing.assert_allclose(found, net.predict(x), rtol=0, atol=1e-14)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_small_networks(target, tmp_path_factory, data):
    net = small_network(data)
    folder = tmp_path_factory.mktemp("net")
    assert_agrees(net, target, folder, rows(3), 2e-6, least=largest(net))


def test_numbers_overflow_as_in_float32(target, tmp_path):
    x = np.array([[1e20, 2.0], [-1e20, 1e20], [1e-30, 1e-30], [3e38, 3e38]], np.float32)
    for net in (nn.QuadraticFeatures(), nn.Sum(), nn.LayerNorm(2)):
        found = outputs(net, target, tmp_path, x).astype(np.float32)
        np.testing.assert_allclose(found, one_by_one(net, x), rtol=1e-6)


HARD = [0.0, -0.0, 1.0, -3.0, 1e-3, 1e-40, -1e-45, 1e19, -3e38, np.inf, -np.inf, np.nan]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_hard_rows_of_small_networks(target, tmp_path_factory, data):
    """Where predict gives NaN or an infinity, so do the files."""
    first = randomized(LAYERS[data.draw(st.sampled_from(sorted(LAYERS)), "first")]())
    width = first.predict(np.ones((1, D))).shape[1]
    net = nn.Sequential(first, *small_network(data, width).layers)
    hard = HARD
    if target == "python":  # it adds up in float64, so a product of -3e38 does not overflow there
        hard = [-1e37 if each == -3e38 else each for each in HARD]
    cells = st.lists(st.sampled_from(hard), min_size=D, max_size=D)
    x = np.array(data.draw(st.lists(cells, min_size=1, max_size=4), "rows"), np.float32)
    expected = one_by_one(net, x)
    found = outputs(net, target, tmp_path_factory.mktemp("net"), x).astype(np.float32)
    sizes = [1.0, *(abs(each) for each in x.ravel() if np.isfinite(each))]
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(found[np.isinf(expected)], expected[np.isinf(expected)])
    atol = 1e-4 * max(*sizes, largest(net))
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-4, atol=atol)


def test_values_share_memory_only_when_it_is_free(tmp_path):
    nodes = {"a": (nn.Linear(D, 4, "relu"), ["x"]), "b": (nn.Linear(4, 4, "relu"), ["a"])}
    for k in range(6):
        nodes[f"c{k}"] = (nn.Sum(), ["b" if k == 0 else f"c{k - 1}", "a"])
        nodes[f"d{k}"] = (nn.Linear(4, 4, "relu"), [f"c{k}"])
    nodes["y"] = (nn.Concatenate(), ["a", "d0", "d1", "d2", "d3", "d4", "d5", "x"])
    assert_agrees(randomized(nn.Graph(nodes)), "c", tmp_path, rows())
    deep = nn.Sequential(*(nn.Linear(8, 8, "relu") for _ in range(20)))
    assert "static float s[16];" in to_source(deep, target="c")


# the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["c99", "c11", "gnu17", "c++11", "c++20"])
def test_strict_compilers_take_the_header(language, tmp_path):
    net = randomized(nn.Sequential(LAYERS["waves"](), nn.Linear(2, 3, "mish"), "softmax"))
    to_source(net, tmp_path / "net.h", classes=NAMES, columns=D)
    found = rows_c(tmp_path, "net", rows(), language=language)
    np.testing.assert_allclose(found, net.predict(rows()), atol=1e-6)


def test_float16_and_a_network_that_does_nothing(target, tmp_path):
    net = nn.Sequential(nn.Linear(D, 6, "gelu", dtype="float16"), nn.Linear(6, 2, dtype="float16"))
    assert_agrees(randomized(net), target, tmp_path, rows(), 1e-2)
    np.testing.assert_array_equal(outputs(nn.Dropout(0.5), target, tmp_path, rows()), rows())


@pytest.fixture
def activation():
    """Declares activations, which are forgotten after the test."""
    before = [(names, set(names)) for names in (ACTIVATIONS, OPS, KERNELS)]
    unused = {"grad_numpy": lambda gy, y, gx: gx.fill(0), "grad_cuda": "gx = T(0);"}
    yield lambda name, **bodies: Activation(name, f"{name}.", **{**unused, **bodies})
    for names, known in before:
        for key in set(names) - known:
            del names[key]


def test_an_activation_of_your_own(activation, target, tmp_path):
    softsign = activation(
        "softsign_in_a_test",
        numpy=lambda x, slope, y: np.divide(x, 1 + slope * np.abs(x), out=y),
        cuda="T part = T(1); part = part + slope * abs(x); y = x / part;",
        grad_numpy=lambda gy, y, slope, gx: gx.fill(0),
        options={"slope": Option(1.0)},
    )
    net = nn.Sequential(nn.Linear(D, 4, partial(softsign, slope=2.5)), nn.Linear(4, 2))
    assert_agrees(randomized(net), target, tmp_path, rows())


def test_activations_with_the_names_of_other_functions(activation, target, tmp_path):
    names = ("larger", "exp_of_difference", "product", "class", "largest", "predict", "one")
    twice = [
        activation(name, numpy=lambda x, y: np.add(x, x, out=y), cuda="y = x + x;")
        for name in names
    ]
    net = nn.Sequential(nn.Linear(D, 4), *twice, "softmax")
    assert_agrees(randomized(net), target, tmp_path, rows(), 1e-5)


def test_truth_values_are_numbers(activation, target, tmp_path):
    def body(x, y):
        np.copyto(y, np.where(x != 0, (x < 1) - 1.0 * (x > 0), 2) + (x > 0))

    mine = activation(
        "truth_in_a_test",
        numpy=body,
        cuda="bool some = x; T above = x > T(0); y = some ? -above + (x < T(1)) : 2; "
        "T sign = above == T(1); y = y + (sign == (x > T(0)) ? sign : -sign);",
    )
    x = np.array([[-2.0, 0, 0.25, 1, 3]], np.float32)
    assert_agrees(nn.Activate(mine), target, tmp_path, x)


def test_what_has_no_form_is_refused_by_name(tmp_path):
    class Mine(nn.Module):
        def forward(self, x):
            return x

    path = tmp_path / "net.h"
    with pytest.raises(ArgumentError, match="got a Mine at 1, which has no form"):
        to_source(nn.Sequential(nn.Linear(2, 2), Mine()), path)
    with pytest.raises(ArgumentError, match=r"activation <function .* at 0, which has no formula"):
        to_source(nn.Sequential(nn.Linear(2, 2, lambda x: x * 2)), path)
    with pytest.raises(ShapeError, match="got 3 columns at 1, which takes 4"):
        to_source(nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2)), path)
    with pytest.raises(ArgumentError, match="any number of columns; expected a known number"):
        to_source(nn.Activate("relu"), path)
    with pytest.raises(ArgumentError, match="takes any number of columns"):
        to_source(nn.Sequential(nn.QuadraticFeatures(), nn.Linear(20, 2)), path)
    with pytest.raises(ArgumentError, match=r"got \['a'\] for 2 outputs|got classes=\['a'\]"):
        to_source(nn.Linear(2, 2), path, classes=["a"])
    with pytest.raises(ArgumentError, match="different name"):
        to_source(nn.Linear(2, 2), path, classes=["a", "a"])
    with pytest.raises(ShapeError, match="got 3 columns at the top, which takes 2"):
        to_source(nn.Linear(2, 2), path, features=["a", "b", "c"])
    with pytest.raises(ArgumentError, match="got 3 names of columns for a model of 2"):
        to_source(nn.Linear(2, 2), path, features=["a", "b", "c"], columns=2)
    with pytest.raises(ArgumentError, match="expected a file that ends in"):
        to_source(nn.Linear(2, 2), tmp_path / "net.txt")
    with pytest.raises(UnknownNameError, match="python"):
        to_source(nn.Linear(2, 2), target="pyton")
    with pytest.raises(ArgumentError, match="got a str to export"):
        to_source("net", path)
    broken = nn.Linear(2, 2)
    broken.load_state_dict({"weight": np.full((2, 2), np.nan), "bias": np.zeros(2)})
    with pytest.raises(ArgumentError, match=r"weight with a number that is not finite"):
        to_source(broken, path)
    assert not path.exists()
    with pytest.raises(OutputError):
        to_source(nn.Linear(2, 2), tmp_path / "missing" / "net.h")


@pytest.mark.parametrize(
    "body",
    [
        "for (int k = 0; k < 3; ++k) y = x;",
        "y = x[0];",
        "y = unknown(x);",
        "y = other;",
        "x = y;",
        "y = 1 / 2;",
        "y = x;}",
        "y = (x;",
    ],
)
def test_bodies_beyond_the_language_are_refused(body, target):
    def written():
        program = Program(np.float32, 2)
        program.finish(program.call(formula("mine", "x", body), program.input))
        return TARGETS[target](Described("net", program))

    with pytest.raises(ArgumentError, match="CUDA body"):
        written()


KINDS = {"c": ("float", "double"), "javascript": ("float", "double"), "python": ("double",)}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("target", "kind"), [(t, k) for t in RUN for k in KINDS[t]])
def test_expressions_keep_their_order(seed, target, kind, tmp_path):
    """Random expressions have the value that C++ gives them, whatever binds more than what."""
    rng = np.random.default_rng(seed)

    def expression(depth):
        if depth == 0:
            return str(rng.choice(["x", "T(2.5)", "T(-0.5)", "T(3)"]))
        a, b, c = (expression(depth - 1) for _ in range(3))
        kinds = [f"{a} {s} {b}" for s in "+-*"] + [f"-({a})", f"abs({a})", f"T({a} < {b})"]
        kinds += [f"{a} * ({b} < {c})", f"(({a} < {b}) == {c})", f"({a} < {b}) != ({b} < {c})"]
        kinds += [f"({a} <= {b} && !({b} > {c}) || {a} != {a} ? {b} : {c})", f"({a}) - ({b} - {c})"]
        return f"({rng.choice(kinds)})" if rng.random() < 0.4 else str(rng.choice(kinds))

    bodies = [expression(3) for _ in range(12)]
    dtype = np.dtype({"float": np.float32, "double": np.float64}[kind])
    program = Program(dtype, 1)
    values = [
        program.call(formula(f"f{k}", "x", f"y = {b};"), program.input)
        for k, b in enumerate(bodies)
    ]
    program.finish(program.join(values))
    (tmp_path / f"net.{SUFFIX[target]}").write_text(TARGETS[target](Described("net", program)))
    x = np.array([[-1.5], [0.0], [0.75], [4.1]], dtype)
    found = RUN[target](tmp_path, "net", x, **({"kind": dtype} if target == "c" else {}))
    lines = "".join(f"y[{k}] = {body};\n" for k, body in enumerate(bodies))
    main = (
        f"#include <cmath>\n#include <cstdio>\nusing std::abs; typedef {kind} T;\n"
        "int main() { T x, y[12];\nwhile (fread(&x, sizeof x, 1, stdin) == 1) {\n"
        f"{lines} fwrite(y, sizeof y, 1, stdout); }} }}\n"
    )
    source = tmp_path / "plain.cpp"
    source.write_text(main)
    done(
        [tool("g++"), "-ffp-contract=off", str(source), "-o", str(tmp_path / "plain")],
        tmp_path,
        b"",
    )
    expected = np.frombuffer(done([tmp_path / "plain"], tmp_path, x.tobytes()), dtype).reshape(
        4, 12
    )
    np.testing.assert_array_equal(found, expected)
