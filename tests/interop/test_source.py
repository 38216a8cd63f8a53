"""Models written in other languages compute there what they compute here."""

from __future__ import annotations

import json
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
from gpunn.errors import ArgumentError, MissingExtraError, OutputError, ShapeError, UnknownNameError
from gpunn.interop import round_to_int8, to_source
from gpunn.interop.source import TARGETS
from gpunn.interop.source.described import Described
from gpunn.interop.source.language import formula
from gpunn.interop.source.program import Program
from gpunn.ops import ACTIVATIONS, Activation, exp
from gpunn.ops.elementwise import Option
from tests.netcases import LAYERS, D, largest, randomized, small_network
from tests.sourcecases import (
    RUN,
    SUFFIX,
    compiled,
    done,
    rows_c,
    rows_javascript,
    rows_python,
    tool,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NaN and infinity


@pytest.fixture(params=sorted(RUN))
def target(request):
    return request.param


def outputs(net, target, folder, x, **options):
    to_source(net, folder / f"net.{SUFFIX[target]}", columns=x.shape[1], **options)
    return RUN[target](folder, "net", x)


def rows(n=20, width=D, seed=2):
    return (2 * np.random.default_rng(seed).standard_normal((n, width))).astype(np.float32)


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


@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer, target, tmp_path):
    net = randomized(nn.Sequential(LAYERS[layer]()))
    assert_agrees(net, target, tmp_path, rows(), least=largest(net) / 10)


# bits and hard numbers --------------------------------------------------------------------------

EXACT_LAYERS = sorted(set(LAYERS) - {"waves", "mean chance", "random features"})
EXACT_ACTIVATIONS = ["relu", "relu_right", "leaky_relu", "identity", "hard_threshold"]


@pytest.fixture
def fused():
    """Skips where predictions are not computed by compiled kernels with fused products."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not find_compiler().command or " fma " not in flags:
        pytest.skip("without a compiler or fused products, predictions have other bits")


def one_by_one(net, x):
    return np.concatenate([net.predict(x[k : k + 1]) for k in range(len(x))])


@pytest.mark.parametrize("activation", EXACT_ACTIVATIONS)
@pytest.mark.usefixtures("fused")
def test_the_bits_of_predict_in_c(activation, tmp_path):
    net = nn.Sequential(nn.Linear(700, 130, activation), nn.Linear(130, 33, activation))
    x = rows(width=700)
    expected = one_by_one(randomized(net), x)
    assert outputs(net, "c", tmp_path, x).tobytes() == expected.tobytes()


@pytest.mark.parametrize("layer", EXACT_LAYERS)
@pytest.mark.usefixtures("fused")
def test_the_bits_of_layers_in_c(layer, tmp_path):
    net, x = randomized(nn.Sequential(LAYERS[layer]())), rows()
    if layer in ("mean", "parametric", "residual", "nested"):  # they have exponentials
        assert_agrees(net, "c", tmp_path, x)
    else:
        assert outputs(net, "c", tmp_path, x).tobytes() == one_by_one(net, x).tobytes()


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


def test_values_share_memory_only_when_it_is_free(tmp_path):
    nodes = {"a": (nn.Linear(D, 4, "relu"), ["x"]), "b": (nn.Linear(4, 4, "relu"), ["a"])}
    for k in range(6):
        nodes[f"c{k}"] = (nn.Sum(), ["b" if k == 0 else f"c{k - 1}", "a"])
        nodes[f"d{k}"] = (nn.Linear(4, 4, "relu"), [f"c{k}"])
    nodes["y"] = (nn.Concatenate(), ["a", "d0", "d1", "d2", "d3", "d4", "d5", "x"])
    assert_agrees(randomized(nn.Graph(nodes)), "c", tmp_path, rows())
    deep = nn.Sequential(*(nn.Linear(8, 8, "relu") for _ in range(20)))
    assert "static float s[16];" in to_source(deep, target="c")


# classes ----------------------------------------------------------------------------------------

NAMES = ['a "quoted" name', "back\\slash", "élm ??/ </script> */"]
CLASSES_C = """
#include <stdio.h>
#include "net.h"
int main(void) {
  float x[NET_INPUTS], y[NET_OUTPUTS];
  while (fread(x, sizeof x, 1, stdin) == 1) {
    net_predict(x, y);
    puts(net_class_name(net_class(y)));
  }
  return 0;
}
"""


def called(target, folder, x):
    """The class of each row; None if there is none."""
    if target == "c":
        text = done([compiled(folder, CLASSES_C)], folder, x.tobytes()).decode()
        return [line or None for line in text.split("\n")[:-1]]
    return {"javascript": rows_javascript, "python": rows_python}[target](
        folder, "net", x, "classify"
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
    x = x[[0, 3]] if target == "javascript" else x
    expected = [NAMES[0], NAMES[1]] if target == "javascript" else [NAMES[0], None, None, NAMES[1]]
    assert called(target, tmp_path, x) == expected


# the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["c99", "c11", "gnu17", "c++11", "c++20"])
def test_strict_compilers_take_the_header(language, tmp_path):
    net = randomized(nn.Sequential(LAYERS["waves"](), nn.Linear(2, 3, "mish"), "softmax"))
    to_source(net, tmp_path / "net.h", classes=NAMES, columns=D)
    found = rows_c(tmp_path, "net", rows(), language=language)
    np.testing.assert_allclose(found, net.predict(rows()), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["*/", "/* x", "a //", "a??/", "\\", "line\nend", '"""', "\udc80", "*//"]
)
def test_any_name_of_a_column_and_a_class(name, target, tmp_path):
    net = randomized(nn.Linear(2, 2))
    path = tmp_path / f"net.{SUFFIX[target]}"
    to_source(net, path, classes=[name, "other"], features=[name, "other"])
    x = rows(width=2)
    np.testing.assert_allclose(RUN[target](tmp_path, "net", x), net.predict(x), atol=1e-6)
    if target != "c":
        found = called(target, tmp_path, x)
        assert found == [[name, "other"][k] for k in net.predict(x).argmax(1)]


def test_float16_and_a_network_that_does_nothing(target, tmp_path):
    net = nn.Sequential(nn.Linear(D, 6, "gelu", dtype="float16"), nn.Linear(6, 2, dtype="float16"))
    assert_agrees(randomized(net), target, tmp_path, rows(), 1e-2)
    np.testing.assert_array_equal(outputs(nn.Dropout(0.5), target, tmp_path, rows()), rows())


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


def test_an_activation_of_your_own(target, tmp_path):
    name = "softsign_in_a_test"
    try:
        softsign = Activation(
            name,
            "y = x / (1 + slope |x|).",
            numpy=lambda x, slope, y: np.divide(x, 1 + slope * np.abs(x), out=y),
            cuda="T part = T(1); part = part + slope * abs(x); y = x / part;",
            grad_numpy=lambda gy, y, slope, gx: gx.fill(0),
            grad_cuda="gx = T(0);",
            options={"slope": Option(1.0)},
        )
        net = nn.Sequential(nn.Linear(D, 4, partial(softsign, slope=2.5)), nn.Linear(4, 2))
        assert_agrees(randomized(net), target, tmp_path, rows())
    finally:
        for names in (ACTIVATIONS, OPS, KERNELS):
            for key in [key for key in names if key.startswith(name)]:
                del names[key]


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


@pytest.mark.parametrize("seed", range(6))
def test_expressions_keep_their_order(seed, target, tmp_path):
    """Random expressions have the value that C++ gives them, whatever binds more than what."""
    rng = np.random.default_rng(seed)

    def expression(depth):
        if depth == 0:
            return str(rng.choice(["x", "T(2.5)", "T(-0.5)", "T(3)"]))
        a, b, c = (expression(depth - 1) for _ in range(3))
        kinds = [f"{a} {s} {b}" for s in "+-*"] + [f"-({a})", f"abs({a})", f"T({a} < {b})"]
        kinds += [f"({a} <= {b} && !({b} > {c}) || {a} != {a} ? {b} : {c})", f"({a}) - ({b} - {c})"]
        return f"({rng.choice(kinds)})" if rng.random() < 0.4 else str(rng.choice(kinds))

    bodies = [expression(3) for _ in range(12)]
    program = Program(np.float64, 1)
    values = [
        program.call(formula(f"f{k}", "x", f"y = {b};"), program.input)
        for k, b in enumerate(bodies)
    ]
    program.finish(program.join(values))
    (tmp_path / f"net.{SUFFIX[target]}").write_text(TARGETS[target](Described("net", program)))
    x = np.array([[-1.5], [0.0], [0.75], [4.0]])
    found = RUN[target](tmp_path, "net", x, **({"kind": np.float64} if target == "c" else {}))
    lines = "".join(f"y[{k}] = {body};\n" for k, body in enumerate(bodies))
    main = (
        "#include <cmath>\n#include <cstdio>\nusing std::abs; typedef double T;\nint main() { T x, "
        f"y[12];\nwhile (fread(&x, 8, 1, stdin) == 1) {{ {lines} fwrite(y, 8, 12, stdout); }} }}\n"
    )
    source = tmp_path / "plain.cpp"
    source.write_text(main)
    done(
        [tool("g++"), "-ffp-contract=off", str(source), "-o", str(tmp_path / "plain")],
        tmp_path,
        b"",
    )
    expected = np.frombuffer(done([tmp_path / "plain"], tmp_path, x.tobytes())).reshape(4, 12)
    np.testing.assert_array_equal(found, expected)


# a page, and WebAssembly ------------------------------------------------------------------------

BROWSER = """
const text = require("fs").readFileSync("net.html", "utf-8");
const made = (tag) => ({
  tag, textContent: "", children: [], value: "0", listeners: {},
  replaceChildren(...each) { this.textContent = ""; this.children = each; },
  insertRow() { const row = made("tr"); this.children.push(row); return row; },
  insertCell() { const cell = made("td"); this.children.push(cell); return cell; },
  addEventListener(name, f) { this.listeners[name] = f; },
});
const known = { row: made("form"), answer: made("div") };
known.row.elements = {};
for (const [, name] of text.matchAll(/<(?:input|textarea) name="(\\w+)"/g))
  known.row.elements[name] = made("input");
globalThis.document = { createElement: made, getElementById: (name) => known[name] };
(0, eval)(text.match(/<script>([^]*)<\\/script>/)[1]);
const told = (e) => e.textContent || e.children.map(told).join("|");
const first = told(known.answer);
const values = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const names = Object.keys(known.row.elements);
if (names.length === 1 && values.length > 1) known.row.elements[names[0]].value = values.join(", ");
else names.forEach((name, k) => { known.row.elements[name].value = String(values[k]); });
known.row.listeners.input();
console.log(JSON.stringify([first, told(known.answer)]));
"""


@pytest.mark.parametrize("width", [3, 150])
@pytest.mark.parametrize("stem", ["net", "form", "table", "answer"])
def test_a_page_predicts(width, stem, tmp_path):
    net = randomized(nn.Sequential(nn.Linear(width, 3), "tanh", nn.Linear(3, 3)))
    x = rows(1, width)
    features = [f'"<b>" & {k}' for k in range(width)]
    text = to_source(net, tmp_path / f"{stem}.html", classes=NAMES, features=features)
    assert "<b>" not in text
    assert text.count("</script>") == 1
    (tmp_path / "net.html").write_text(text)
    (tmp_path / "browser.js").write_text(BROWSER)
    given = str(x[0].tolist()).encode()
    first, then = json.loads(done([tool("node"), "browser.js"], tmp_path, given))
    scores = net.predict(x)[0].astype(np.float64)
    powers = np.exp(scores - scores.max())
    order, shares = np.argsort(-scores), 100 * powers / powers.sum()
    lines = "|".join(f"{NAMES[k]}|{shares[k]:.1f} %" for k in order)
    assert then == f"{NAMES[order[0]]}|{lines}"
    assert first != then
    numbers = to_source(net, target="html")
    (tmp_path / "net.html").write_text(numbers)
    _, then = json.loads(done([tool("node"), "browser.js"], tmp_path, given))
    found = [float(each) for each in then.split("|")[1::2]]
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_weights_in_eight_bits(layer, tmp_path):
    """The header computes what a copy with rounded weights computes."""
    net, x = randomized(nn.Sequential(LAYERS[layer]())), rows()
    rounded = round_to_int8(net)
    to_source(net, tmp_path / "net.h", columns=D, weights="int8")
    expected = rounded.predict(x)
    found = rows_c(tmp_path, "net", x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * max(1, abs(expected).max()))


def test_a_header_in_eight_bits_is_small_and_its_error_is_that_of_rounding(tmp_path):
    net = nn.Sequential(nn.Linear(64, 100, "relu", seed=1), nn.Linear(100, 10, seed=2))
    net[0].weight.data[:, 3] = 0  # a unit without weights
    floats, small = to_source(net, target="c"), to_source(net, target="c", weights="int8")
    assert len(small) < len(floats) / 2.5
    rounded = round_to_int8(net)
    for layer, exact in zip(rounded.layers, net.layers, strict=True):
        apart = np.abs(layer.weight.numpy() - exact.weight.numpy())
        assert (apart <= np.abs(exact.weight.numpy()).max(axis=0) / 127 / 2 * 1.0001).all()
    assert np.abs(rounded.predict(rows(width=64)) - net.predict(rows(width=64))).max() < 0.1
    with pytest.raises(ArgumentError, match="expected one of c, webassembly"):
        to_source(net, target="python", weights="int8")
    with pytest.raises(UnknownNameError, match="float, int8"):
        to_source(net, target="c", weights="int4")


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
