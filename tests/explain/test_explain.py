"""The step-by-step view: every printed formula is evaluated and must give the printed numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, ShapeError, UnknownNameError
from gpunn.explain.steps import barred

pytestmark = pytest.mark.fast


def sum_to(g, shape):
    """A gradient summed over the axes that broadcasting added or stretched."""
    while np.ndim(g) > len(shape):
        g = np.sum(g, 0)
    for axis, n in enumerate(shape):
        if n == 1 and g.shape[axis] != 1:
            g = np.sum(g, axis, keepdims=True)
    return g


def put(g, index, shape):
    """An array of zeros with g in a part of it."""
    whole = np.zeros(shape)
    whole[index] = g
    return whole


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z)
    return e / e.sum(-1, keepdims=True)


WORDS = {
    **{
        name: getattr(np, name)
        for name in ("sin", "cos", "exp", "log", "sqrt", "sign", "maximum", "minimum", "mean")
    },
    "sum": np.sum,
    "abs": np.abs,
    "sum_to": sum_to,
    "put": put,
    "slice": slice,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "one_hot": lambda t: t if np.ndim(t) == 2 else np.eye(3)[t],
    "tanh": np.tanh,
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "elu_prime": lambda z: np.where(z > 0, 1, np.exp(z)),
}


def evaluate(steps, **more):
    """Check each formula of a computation against its number; returns how many there were."""
    names = dict(WORDS) | more
    names |= {name: q.value for name, q in steps.items()}
    names |= {barred(name): q.grad for name, q in steps.items() if q.grad is not None}
    count = 0
    for name, q in steps.items():
        for formula, number in ((q.formula, q.value), (q.grad_formula, q.grad)):
            if formula:
                got = eval(formula, {"__builtins__": {}}, names)
                np.testing.assert_allclose(got, number, rtol=1e-11, atol=1e-13, err_msg=name)
                count += 1
        if q.grad is not None:
            assert q.grad.shape == q.value.shape
    return count


A, P = np.array([[0.5, -1.0, 2.0], [1.5, 0.2, -0.3]]), np.array([[0.3, 0.9, 0.5]])
LABELS = np.array([2, 0])
OPS = {
    "add": lambda a, p: a + p,
    "subtract": lambda a, p: p - a,
    "multiply": lambda a, p: a * p,
    "divide": lambda a, p: a / p,
    "divide/same": lambda a, p: a / (a * a + 3.0),
    "negative": lambda a, p: -a,
    "power": lambda a, p: p**3 * a,
    "exp": lambda a, p: gn.ops.exp(a * p),
    "sin": lambda a, p: gn.ops.sin(a) * p,
    "cos": lambda a, p: gn.ops.cos(a) * p,
    "log": lambda a, p: gn.ops.log(p) * a,
    "sqrt": lambda a, p: gn.ops.sqrt(p) * a,
    "abs": lambda a, p: abs(a),
    "matmul": lambda a, p: a.T @ a,
    "numbers": lambda a, p: 2.0 - a / 3.0,
    "reshape": lambda a, p: a.reshape(3, 2),
    "part": lambda a, p: a[1:, 0] * p[:, 1],
    "part/integer": lambda a, p: a[1, 2] * p,
    "fan-out": lambda a, p: a * a + gn.ops.exp(a) * a,
    "sigmoid": lambda a, p: gn.ops.sigmoid(a),
    "tanh": lambda a, p: gn.ops.tanh(a),
    "relu": lambda a, p: gn.ops.relu(a),
    "relu_right": lambda a, p: gn.ops.relu_right(a),
    "elu": lambda a, p: gn.ops.elu(a),
    "softmax": lambda a, p: gn.ops.softmax(a) * p,
    "log_softmax": lambda a, p: gn.ops.log_softmax(a) * p,
    "relu6": lambda a, p: gn.ops.relu6(a * 4.0),
    "hardswish": lambda a, p: gn.ops.hardswish(a * 2.0),
}
LOSSES = {
    "squared_error": np.ones((2, 3)),
    "half_squared_error": np.ones((2, 3)),
    "perceptron": np.array([[1, -1, 1], [-1, 1, 1]]),
    "binary_cross_entropy_with_logits": np.array([[1, 0, 1], [0, 1, 1]]),
    "kullback_leibler": np.array([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1]]),
    "softmax_cross_entropy": LABELS,
}


@pytest.mark.parametrize("name", OPS)
def test_formulas_of_operations(name, device):
    def forward(a, p):
        y = OPS[name](a, p)
        return {"y": y, "L": (y * y).sum()}

    steps = gn.explain.function(forward, a=A, p=P, device=device)
    assert evaluate(steps) >= 5


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_formulas_of_losses(name, reduction, device):
    def forward(a, t):
        loss = gn.autograd.OPS[name](a, t, reduction=reduction)
        return {"l": loss, "L": (loss * 2.0).sum()}

    steps = gn.explain.function(forward, a=A, t=LOSSES[name], device=device, constants=("t",))
    assert evaluate(steps) == 7
    assert steps["t"].grad is None


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 0.2}, {"weight": [1.0, 2.0, 0.5]}, {"ignore_index": 2}]
)
def test_a_loss_with_options_has_no_formula_that_leaves_them_out(options):
    steps = gn.explain.function(
        lambda a, t: gn.ops.softmax_cross_entropy(a, t, **options),
        a=A,
        t=LABELS,
        constants=("t",),
    )
    whole = [q.formula for q in steps.values() if q.formula]
    assert len(whole) == 1
    assert whole[0].startswith("softmax_cross_entropy(a, t, ")
    assert next(iter(options)) in whole[0]


def test_probabilities_have_a_formula_too():
    steps = gn.explain.function(
        lambda p, t: gn.ops.binary_cross_entropy(p, t), p=P, t=np.array([[1, 0, 1]])
    )
    assert evaluate(steps) == 3


@pytest.mark.parametrize("loss", ["half_squared_error", "squared_error", "softmax_cross_entropy"])
@pytest.mark.parametrize("examples", [1, 4])
def test_every_quantity_of_a_network(loss, examples, device, rng):
    gn.manual_seed(0)
    options = {"dtype": "float64", "device": device}
    net = nn.Sequential(
        nn.Linear(2, 5, "sigmoid", **options),
        nn.Linear(5, 4, "relu", bias=False, **options),
        nn.Linear(4, 3, **options),
    )
    x, t = rng.standard_normal((examples, 2)), rng.standard_normal((examples, 3))
    t = rng.integers(0, 3, examples) if loss == "softmax_cross_entropy" else t
    steps = gn.explain.network(net, x, t, loss)
    assert list(steps) == [
        *("x", "W1", "b1", "W2", "W3", "b3", "t"), *("z1", "h1", "z2", "h2", "y", "L"),
    ]  # fmt: skip
    assert evaluate(steps) == 6 + 11
    assert all(p.grad is None for p in net.parameters())
    y = net(net.backend.upload(x))
    gn.ops.get_loss(loss)(y, net.backend.upload(t)).backward()
    for name, parameter in zip(("W1", "b1", "W2", "W3", "b3"), net.parameters(), strict=True):
        grad = parameter.backend.download(parameter.grad)
        np.testing.assert_allclose(steps[name].grad, grad, rtol=1e-12, atol=1e-15)


def test_feedback_weights_are_named(rng):
    net = nn.Sequential(
        nn.Linear(2, 3, "tanh", dtype="float64"), nn.FeedbackLinear(3, 1, dtype="float64")
    )
    steps = gn.explain.network(net, rng.standard_normal((1, 2)), np.ones((1, 1)))
    assert "feedback" in steps["h1"].grad_formula
    assert evaluate(steps, feedback=net[1].feedback.numpy()) > 8


def test_messages_add_up_to_the_error_signal():
    def forward(t):
        x, y = gn.ops.exp(t), t * t
        return {"x": x, "y": y, "f": y + gn.ops.exp(x * y)}

    steps = gn.explain.function(forward, t=0.3)
    assert set(steps["t"].messages) == {"x", "y"}
    for q in steps.values():
        if q.messages:
            np.testing.assert_allclose(sum(q.messages.values()), q.grad, rtol=1e-14)
    assert steps["v1"].parents == ("x", "y")


def test_the_text_reads_forward_and_backward():
    f, a, b = barred("f"), barred("a"), barred("b")
    assert str(gn.explain.function(lambda a, b: {"f": a * b}, a=3.0, b=2.0)).splitlines() == [
        "forward",
        "  a           3.",
        "  b           2.",
        "  f = a * b   6.",
        "backward",
        f"  {f} = 1       1.",
        f"  {a} = {f} * b   2.",
        f"  {b} = {f} * a   3.",
    ]


def test_the_backward_list_ends_a_layer_before_the_next_begins():
    net = nn.Sequential(nn.Linear(2, 3, "sigmoid"), nn.Linear(3, 1))
    text = str(gn.explain.network(net, np.ones(2), np.ones((1, 1)))).split("backward\n")[1]
    names = [line.split(" = ")[0].strip() for line in text.splitlines()]
    assert names == [barred(n) for n in ("L", "y", "W2", "b2", "h1", "z1", "W1", "b1")]


def test_a_table_for_notebooks():
    steps = gn.explain.function(lambda a, b: {"f": a * b, "L": abs(a * b)}, a=3.0, b=2.0)
    table = steps._repr_html_()
    assert table.count("<tr>") == 1 + len(steps)
    assert len(re.findall(r"<t[dh]>", table)) == 5 * (1 + len(steps))
    for q in steps.values():
        assert f"<b>{q.name}</b>" in table
    odd = gn.explain.function(lambda a: {"<f>": a * 1.0}, a=1.0)
    assert "&lt;f&gt;" in odd._repr_html_()
    assert "<f>" not in odd._repr_html_()


def test_the_graph_in_graphviz_language():
    steps = gn.explain.function(lambda a, b: {"f": a * b + a}, a=3.0, b=2.0)
    dot = steps.dot()
    edges = set(re.findall(r'"(\w+)" -> "(\w+)";', dot))
    assert edges == {("a", "v1"), ("b", "v1"), ("v1", "f"), ("a", "f")}
    assert dot.count("label=") == 4
    assert dot.count("{") == dot.count("}") == 1
    assert '"a" [label="a\\n3.\\n' in dot


def test_constants_and_integers_get_no_error_signal():
    steps = gn.explain.function(
        lambda w, x, n: (w * x).sum() + gn.ops.softmax_cross_entropy(w * x, n),
        w=A,
        x=A,
        n=LABELS,
        constants=("x",),
    )
    assert steps["w"].grad is not None
    assert steps["x"].grad is None
    assert steps["n"].grad is None


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gn.explain.function(lambda a: a * 2.0, a=np.ones(3)), ShapeError, "one number"),
        (lambda: gn.explain.function(lambda a: gn.tensor(1.0), a=1.0), ArgumentError, "no input"),
        (lambda: gn.explain.function(lambda a: {"a": a * 2.0}, a=1.0), ArgumentError, "'a'"),
        (lambda: gn.explain.function(lambda a: a * 2.0, a=1.0)["b"], UnknownNameError, "L, a"),
    ],
)
def test_what_cannot_be_explained_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_nothing_is_recorded_outside_the_block():
    seen = []
    with gn.autograd.recorded(lambda *call: seen.append(call[0])):
        gn.ops.relu(gn.tensor([1.0]))
    gn.ops.exp(gn.tensor([1.0]))
    assert seen == ["relu"]
