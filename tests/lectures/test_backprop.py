"""Backpropagation: the rows B1 to B5, B8, B10, B12 and B14 of docs/lectures.md."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops
from gpunn.autograd.engine import Leaf
from tests.opcases import CASES


def test_the_product_rule_of_one_node(rng):
    """B1: f = a b, L = 1/2 (y - f)^2: (f - y) b and a (f - y)."""
    a, b, y = rng.standard_normal(3)
    steps = gn.explain.function(lambda a, b: {"f": a * b, "L": 0.5 * (y - a * b) ** 2}, a=a, b=b)
    assert steps["a"].grad == pytest.approx((a * b - y) * b, rel=1e-14)
    assert steps["b"].grad == pytest.approx(a * (a * b - y), rel=1e-14)


def test_the_matrix_rule(device, rng):
    """B1: for A = B C, dL/dB = dL/dA C^T and dL/dC = B^T dL/dA."""
    b, c, ga = rng.standard_normal((3, 4)), rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
    left, right = (gn.tensor(v, requires_grad=True, device=device) for v in (b, c))
    a = left @ right
    a.backward(a.backend.upload(ga))
    np.testing.assert_allclose(a.backend.download(left.grad), ga @ c.T, rtol=1e-13)
    np.testing.assert_allclose(a.backend.download(right.grad), b.T @ ga, rtol=1e-13)


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_two_layers_as_lecture_000_writes_them(activation, rng):
    """B2: f = W2 h + b2, h = phi(W1 x + b1), columns."""
    net = nn.Sequential(
        nn.Linear(3, 4, activation, dtype="float64", seed=1),
        nn.Linear(4, 2, dtype="float64", seed=2),
    )
    x, y = rng.standard_normal((3, 1)), rng.standard_normal((2, 1))
    steps = gn.explain.network(net, x.T, y.T, reduction="sum")
    w1, w2 = net[0].W_col, net[1].W_col
    h = w1 @ x
    h = h * (h > 0) if activation == "relu" else h
    f = w2 @ h
    gh = w2.T @ (f - y)
    gz = (h > 0) * gh if activation == "relu" else gh
    np.testing.assert_allclose(steps["W2"].grad.T, (f - y) @ h.T, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(steps["W1"].grad.T, gz @ x.T, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(steps["b1"].grad[:, None], gz, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(steps["b2"].grad[:, None], f - y, rtol=1e-13)


def test_every_error_signal_of_the_mlp_of_lecture_003(device, rng):
    """B3: the scalar formulas, quantity by quantity, and the vectorised ones."""
    options = {"dtype": "float64", "device": device}
    net = nn.Sequential(
        nn.Linear(2, 3, "sigmoid", seed=1, **options), nn.Linear(3, 2, seed=2, **options)
    )
    x, t = rng.standard_normal(2), rng.standard_normal(2)
    steps = gn.explain.network(net, x, t[None], reduction="sum")
    w1, w2 = steps["W1"].value.T, steps["W2"].value.T  # w_ij of the lecture: to i, from j
    z = [sum(w1[i, j] * x[j] for j in range(2)) + steps["b1"].value[i] for i in range(3)]
    h = [1 / (1 + np.exp(-v)) for v in z]
    y = [sum(w2[k, i] * h[i] for i in range(3)) + steps["b2"].value[k] for k in range(2)]
    y_bar = [y[k] - t[k] for k in range(2)]
    h_bar = [sum(y_bar[k] * w2[k, i] for k in range(2)) for i in range(3)]
    z_bar = [h_bar[i] * h[i] * (1 - h[i]) for i in range(3)]
    expected = {
        "L": (1.0, sum(0.5 * (y[k] - t[k]) ** 2 for k in range(2))),
        "y": ([y_bar], [y]),
        "h1": ([h_bar], [h]),
        "z1": ([z_bar], [z]),
        "W2": (np.array([[y_bar[k] * h[i] for k in range(2)] for i in range(3)]), w2.T),
        "b2": (y_bar, steps["b2"].value),
        "W1": (np.array([[z_bar[i] * x[j] for i in range(3)] for j in range(2)]), w1.T),
        "b1": (z_bar, steps["b1"].value),
    }
    for name, (signal, value) in expected.items():
        np.testing.assert_allclose(steps[name].grad, signal, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(steps[name].value, value, rtol=1e-12, err_msg=name)


def test_softmax_regression_fans_out(rng):
    """B4: every z_l reaches the loss through all y_k; the paths add up to y - t."""
    x, w, b, t = (
        rng.standard_normal(3),
        rng.standard_normal((3, 4)),
        rng.standard_normal(4),
        np.eye(4)[2],
    )

    def forward(x, w, b):
        z = x.reshape(1, 3) @ w + b
        e = ops.exp(z)
        y = e / e.sum()
        return {"z": z, "e": e, "y": y, "L": -(ops.log(y) * t[None]).sum()}

    steps = gn.explain.function(forward, x=x, w=w, b=b)
    assert len(steps["e"].messages) == 2  # into the quotient and into the sum
    y = steps["y"].value
    np.testing.assert_allclose(steps["z"].grad, y - t, atol=1e-15)
    np.testing.assert_allclose(steps["w"].grad, np.outer(x, y - t), atol=1e-15)
    np.testing.assert_allclose(steps["b"].grad, (y - t)[0], atol=1e-15)


@pytest.mark.parametrize("name", [n for n in sorted(CASES) if CASES[n].differentiable])
def test_a_backward_pass_is_the_transposed_jacobian(name):
    """B5: J of shape (M, N), row by row from unit vectors and column by column by differences."""
    case = CASES[name]
    arrays = case.inputs()
    tensors = [gn.tensor(a, requires_grad=True) for a in arrays]
    y = case.call(*tensors)
    rows = []
    for unit in np.eye(y.size):
        for tensor in tensors:
            tensor.zero_grad()
        y.backward(unit.reshape(y.shape), retain_graph=True)
        rows.append(np.concatenate([t.grad.ravel() for t in tensors]))
    jacobian = np.array(rows)
    n = sum(a.size for a in arrays)
    assert jacobian.shape == (y.size, n)
    flat = np.concatenate([a.ravel() for a in arrays])

    def value(point):
        parts = np.split(point, np.cumsum([a.size for a in arrays])[:-1])
        with gn.no_grad():
            inputs = [gn.tensor(p.reshape(a.shape)) for p, a in zip(parts, arrays, strict=True)]
            return case.call(*inputs).numpy().ravel()

    columns = [(value(flat + e) - value(flat - e)) / 2e-6 for e in 1e-6 * np.eye(n)]
    np.testing.assert_allclose(jacobian, np.stack(columns, axis=1), rtol=1e-5, atol=1e-7)
    v = np.random.default_rng(0).standard_normal(y.size)
    for tensor in tensors:
        tensor.zero_grad()
    y.backward(v.reshape(y.shape))
    got = np.concatenate([t.grad.ravel() for t in tensors])
    np.testing.assert_allclose(got, jacobian.T @ v, rtol=1e-12, atol=1e-13)


def test_backward_comes_for_free_with_the_bits_of_the_hand_written_one(device, rng):
    """B8: the tape against the same products written by hand, bit for bit in float64."""
    x, w1, w2 = (
        rng.standard_normal((6, 4)),
        rng.standard_normal((4, 5)),
        rng.standard_normal((5, 2)),
    )
    y = rng.standard_normal((6, 2))
    b = gn.backend(device)
    t1, t2 = (gn.tensor(w, requires_grad=True, device=device) for w in (w1, w2))
    loss = ops.squared_error(ops.tanh(b.upload(x) @ t1) @ t2, b.upload(y), reduction="sum")
    loss.backward()
    dx, dw1, dw2, dy = (b.upload(v) for v in (x, w1, w2, y))
    h, tanh_back = ops.tanh.vjp(b, b.matmul(dx, dw1))
    out = b.matmul(h, dw2)
    gout = 2 * (out - dy)
    gh = b.matmul(gout, dw2.T)
    (gz,) = tanh_back(gh, (True,))
    for got, hand in ((t2.grad, b.matmul(h.T, gout)), (t1.grad, b.matmul(dx.T, gz))):
        np.testing.assert_array_equal(b.download(got), b.download(hand))


def test_the_matrix_formulation_is_the_loop_over_examples(device, rng):
    """B10: delta of a layer before is W (g' delta), dE/dW = a (g' delta)^T; a batch adds up."""
    options = {"dtype": "float64", "device": device}
    net = nn.Sequential(
        nn.Linear(3, 4, "tanh", seed=1, **options), nn.Linear(4, 2, seed=2, **options)
    )
    x, t = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    batch = gn.explain.network(net, x, t, reduction="sum")
    singles = [gn.explain.network(net, x[i], t[i : i + 1], reduction="sum") for i in range(5)]
    for name in ("W1", "b1", "W2", "b2"):
        total = sum(steps[name].grad for steps in singles)
        np.testing.assert_allclose(batch[name].grad, total, rtol=1e-12, atol=1e-14)
    one = singles[0]
    d2, z1 = one["y"].grad[0], one["z1"].value[0]
    d1 = one["W2"].value @ d2
    np.testing.assert_allclose(one["h1"].grad[0], d1, rtol=1e-13)
    np.testing.assert_allclose(
        one["W1"].grad, np.outer(x[0], (1 - np.tanh(z1) ** 2) * d1), rtol=1e-12
    )


NETS = {
    "over the root": lambda: nn.Sequential(
        nn.Linear(3, 5, "sigmoid", dtype="float64", seed=1),
        nn.RMSNorm(5, dtype="float64"),
        nn.Linear(5, 4, dtype="float64", seed=3),
    ),
    "linear": lambda: nn.Linear(3, 4, dtype="float64", seed=1),
    "deep": lambda: nn.Sequential(
        nn.Linear(3, 5, "tanh", dtype="float64", seed=1),
        nn.Linear(5, 5, "gelu", dtype="float64", seed=2),
        nn.Linear(5, 4, dtype="float64", seed=3),
    ),
    "residual": lambda: nn.Sequential(
        nn.Residual(nn.Linear(3, 3, "elu", dtype="float64", seed=1)),
        nn.Linear(3, 4, dtype="float64", seed=2),
    ),
    "random wiring": lambda: nn.wiring.wired(
        [(0, 1), (0, 2), (1, 3), (2, 3)], 3, 4, 4, "sigmoid", dtype="float64"
    ),
    "normalised": lambda: nn.Sequential(
        nn.Linear(3, 5, "sigmoid", dtype="float64", seed=1),
        nn.LayerNorm(5, dtype="float64"),
        nn.Linear(5, 4, dtype="float64", seed=3),
    ),
}


@pytest.mark.parametrize("loss", sorted(ops.LOSSES))
@pytest.mark.parametrize("net", NETS)
def test_any_loss_on_any_network(net, loss, rng):
    """B14: nothing has to be derived again when the loss or the network changes."""
    model = NETS[net]()
    if loss == "binary_cross_entropy":
        model = nn.Sequential(model, "sigmoid")
    x = rng.standard_normal((6, 3))
    rows = loss in ("softmax_cross_entropy", "multiclass_hinge", "focal")
    t = rng.integers(0, 4, 6) if rows else rng.integers(0, 2, (6, 4))
    t = t[:, :2] if loss == "gaussian_nll" else t  # the other outputs are variances
    t = 2 * t - 1 if loss in ("perceptron", "hinge") else t
    names, values = zip(*model.state_dict().items(), strict=True)
    places = {name: parameter for name, parameter in model.named_parameters()}

    def objective(*parameters):
        for name, value in zip(names, parameters, strict=True):
            places[name].data, places[name].node = value.data, value.node
        return ops.LOSSES[loss](model(gn.tensor(x)), t)

    gn.gradcheck(objective, *values, rtol=1e-5)


# C4: the backward pass of two hidden layers, slide by slide --------------------------------------

SLOPES = {
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)) / (1 + np.exp(z)),
    "relu": lambda z: (z > 0).astype(float),
}
VALUES = {"tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z)), "relu": lambda z: z * (z > 0)}


@pytest.mark.parametrize("f", SLOPES)
def test_the_backward_pass_of_two_hidden_layers_as_lecture_001_writes_it(f, device, rng):
    """Each downstream gradient is local times upstream, by the slides' sums over indices."""
    options = {"dtype": "float64", "device": device}
    first, second = nn.Linear(3, 4, f, seed=1, **options), nn.Linear(4, 5, f, seed=2, **options)
    net = nn.Sequential(first, second, nn.Linear(5, 1, seed=3, **options))
    for layer in net.layers:
        layer.bias.data[:] = layer.backend.upload(rng.standard_normal(layer.out_features))
    x, y = rng.standard_normal(3), rng.standard_normal()
    steps = gn.explain.network(net, x[None], np.array([[y]]), loss="squared_error")
    w1, b1, w2, b2 = (v.numpy().T for layer in (first, second) for v in (layer.weight, layer.bias))
    theta, c = net[2].weight.numpy()[:, 0], net[2].bias.numpy()[0]
    z1 = np.array([sum(w1[j, i] * x[i] for i in range(3)) + b1[j] for j in range(4)])
    h1 = VALUES[f](z1)
    z2 = np.array([sum(w2[j, i] * h1[i] for i in range(4)) + b2[j] for j in range(5)])
    h2 = VALUES[f](z2)
    prediction = sum(theta[j] * h2[j] for j in range(5)) + c
    loss = (prediction - y) ** 2

    upstream = 2 * (prediction - y)
    g_theta = np.array([h2[j] * upstream for j in range(5)])
    g_h2 = np.array([theta[j] * upstream for j in range(5)])
    slope1, slope2 = SLOPES[f](z1), SLOPES[f](z2)
    g_w2 = np.array([[slope2[j] * h1[i] * g_h2[j] for i in range(4)] for j in range(5)])
    g_b2 = np.array([slope2[j] * g_h2[j] for j in range(5)])
    g_h1 = np.array([sum(slope2[j] * w2[j, i] * g_h2[j] for j in range(5)) for i in range(4)])
    g_w1 = np.array([[slope1[i] * x[k] * g_h1[i] for k in range(3)] for i in range(4)])
    g_b1 = np.array([slope1[i] * g_h1[i] for i in range(4)])

    for name, value in (("z1", z1), ("h1", h1), ("z2", z2), ("h2", h2), ("y", prediction)):
        np.testing.assert_allclose(steps[name].value.ravel(), value, rtol=1e-12, err_msg=name)
    assert float(steps["L"].value) == pytest.approx(loss, rel=1e-12)
    gradients = {
        **{"y": upstream, "W3": g_theta, "b3": upstream, "h2": g_h2, "W2": g_w2.T, "b2": g_b2},
        **{"h1": g_h1, "W1": g_w1.T, "b1": g_b1, "z2": g_b2, "z1": g_b1},
    }
    for name, value in gradients.items():
        found = steps[name].grad.reshape(np.shape(value))
        np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-14, err_msg=name)


# C6: a single neuron and a linear regressor ------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_the_gradient_of_one_neuron_as_lecture_002_writes_it(activation, device, rng):
    """dL/dw = x * dg/dz * 2 (g - y), for g = w'x and for g = ReLU(w'x)."""
    for _ in range(6):
        layer = nn.Linear(4, 1, activation, bias=False, dtype="float64", device=device)
        w, x, y = rng.standard_normal((4, 1)), rng.standard_normal(4), rng.standard_normal()
        layer.load_state_dict({"weight": w})
        b = layer.backend
        loss = ops.squared_error(layer(b.upload(x[None])), b.upload(np.array([[y]])))
        loss.backward()
        z = float(x @ w[:, 0])
        g, slope = (z, 1.0) if activation == "identity" else (max(0.0, z), float(z > 0))
        expected = x * slope * 2 * (g - y)
        np.testing.assert_allclose(b.download(layer.weight.grad)[:, 0], expected, rtol=1e-12)


# B7: how often the engine itself works -----------------------------------------------------------


def units_on_the_tape(width, layers):
    """A network of single units, a tensor each; every unit reads all units of the layer before."""
    rng = np.random.default_rng(0)
    inputs = [gn.tensor(np.float64(v), requires_grad=True) for v in rng.standard_normal(width)]
    before = inputs
    for _ in range(layers - 1):
        terms = [[before[i] * float(rng.standard_normal()) for i in range(width)] for _ in before]
        before = [sum(row[1:], start=row[0]).tanh() for row in terms]
    return inputs, sum(before[1:], start=before[0])


def nodes_of(tensor):
    """Every node behind a tensor, and the number of paths from it to the leaves."""
    paths = {}

    def count(node):
        if node not in paths:
            parents = [p for p in getattr(node, "parents", ()) if p is not None]
            paths[node] = sum(map(count, parents)) if parents else 1
        return paths[node]

    return count(tensor.node), list(paths)


def test_the_engine_visits_each_node_once_however_many_paths_there_are():
    found = {}
    for layers in (3, 4, 5, 6):
        inputs, y = units_on_the_tape(3, layers)
        paths, nodes = nodes_of(y)
        visits = dict.fromkeys(nodes, 0)
        for node in nodes:
            if not isinstance(node, Leaf):

                def visited(gy, needs, node=node, real=node.backward, visits=visits):
                    visits[node] += 1
                    return real(gy, needs)

                node.backward = visited
        y.backward()
        inner = [node for node in nodes if not isinstance(node, Leaf)]
        assert [visits[node] for node in inner] == [1] * len(inner)
        assert all(tensor.grad is not None for tensor in inputs)
        found[layers] = paths, len(inner)
    for layers in (3, 4, 5):
        assert found[layers + 1][0] == 3 * found[layers][0]  # paths: a power of the width
    assert found[6][1] - found[5][1] == found[5][1] - found[4][1]  # visits: linear in the layers


def test_the_signal_behind_the_second_layer_is_computed_once_for_both_weights(launches):
    """Lecture 002, "reuse of computation": dL/dZ2 serves dL/dW2 and dL/dW1."""
    counts = {}
    for trained in ("W1", "W2", "both"):
        net = nn.Sequential(
            *(nn.Linear(4, 4, "sigmoid", bias=False, device="standin", seed=k) for k in range(2))
        )
        b = net.backend
        for layer, name in zip(net.layers, ("W1", "W2"), strict=True):
            if trained not in (name, "both"):
                layer.weight = gn.nn.Buffer(layer.weight.data)
        y = net(b.upload(np.ones((2, 4), np.float32))).sum()
        with launches() as found:
            y.backward()
        counts[trained] = found.launches.get("gpunn_sigmoid_grad", 0)
    assert counts == {"W2": 1, "W1": 2, "both": 2}  # and not 1 + 2
