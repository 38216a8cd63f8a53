"""Linear models, XOR and feature maps: the rows M1 to M11 of docs/lectures.md."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError
from gpunn.nn import constructed
from tests.lectures.fitting import fitted

XOR = gn.data.xor()


def separable(x, y):
    """Whether some w, b have (w x + b) s >= 1 for the signs s: a linear programme."""
    signs = np.where(np.asarray(y) > 0, 1.0, -1.0)[:, None]
    rows = np.hstack([np.asarray(x, float), np.ones((len(x), 1))]) * signs
    bounds = [(None, None)] * rows.shape[1]
    result = linprog(np.zeros(rows.shape[1]), -rows, -np.ones(len(rows)), bounds=bounds)
    return result.status == 0


# M1 to M3: linear models and rows of layers ------------------------------------------------------


def descended(net, loss, x, y, device, steps, lr):
    """Full-batch descent with momentum in float64; the coefficients."""
    optimizer = gn.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    x, y = net.backend.upload(x), net.backend.upload(y)
    for _ in range(steps):
        value = loss(net(x), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return net.weight.numpy(), net.bias.numpy()


def test_linear_regression_reaches_the_closed_form(device, rng):
    x, y = rng.standard_normal((40, 3)), rng.standard_normal((40, 1))
    net = nn.Linear(3, 1, dtype="float64", device=device, seed=0)
    w, b = descended(net, gn.ops.half_squared_error, x, y, device, 300, 0.2)
    expected = np.linalg.lstsq(np.hstack([x, np.ones((40, 1))]), y, rcond=None)[0]
    np.testing.assert_allclose(np.vstack([w, [b]]), expected, atol=1e-6)


def test_logistic_regression_reaches_the_optimum(device, rng):
    x = rng.standard_normal((60, 2))
    y = (x @ [1.0, -2.0] + rng.standard_normal(60) > 0.3).astype(float)

    def objective(v):
        z = x @ v[:2] + v[2]
        return np.mean(np.logaddexp(0, z) - y * z)

    expected = minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    net = nn.Linear(2, 1, dtype="float64", device=device, seed=0)
    loss = gn.ops.binary_cross_entropy_with_logits
    w, b = descended(net, loss, x, y[:, None], device, 600, 1.0)
    np.testing.assert_allclose([*w[:, 0], *b], expected, atol=1e-6)


def test_softmax_regression_reaches_the_optimum(device, rng):
    x = rng.standard_normal((60, 2))
    y = np.argmax(x @ rng.standard_normal((2, 3)) + rng.gumbel(size=(60, 3)), axis=1)

    def scores(v):
        return x @ v[:6].reshape(2, 3) + v[6:]

    def objective(v):
        z = scores(v)
        return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(60), y])

    v = minimize(objective, np.zeros(9), method="BFGS", options={"gtol": 1e-9}).x
    expected = scores(v) - scores(v).mean(1, keepdims=True)
    net = nn.Linear(2, 3, dtype="float64", device=device, seed=0)
    w, b = descended(net, gn.ops.softmax_cross_entropy, x, y, device, 800, 1.0)
    got = x @ w + b
    np.testing.assert_allclose(got - got.mean(1, keepdims=True), expected, atol=1e-5)


@pytest.mark.parametrize("sizes", [(4, 3), (4, 5, 3), (4, 5, 6, 3), (4, 5, 6, 5, 3)])
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu"])
def test_forward_is_the_formula_for_a_batch_and_for_one_example(sizes, name, device, rng):
    pairs = list(itertools.pairwise(sizes))
    kinds = [name] * (len(pairs) - 1) + ["identity"]
    options = {"dtype": "float64", "device": device}
    net = nn.Sequential(
        *(nn.Linear(d, h, kind, **options) for (d, h), kind in zip(pairs, kinds, strict=True))
    )
    formula = {
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "tanh": np.tanh,
        "relu": lambda z: z * (z > 0),
        "identity": lambda z: z,
    }
    x = rng.standard_normal((7, 4))
    columns = x.T  # the lectures write y = g(W x + b) with columns and W of (H, D)
    for layer, kind in zip(net.layers, kinds, strict=True):
        w, b = layer.weight.numpy().T, layer.bias.numpy()[:, None]
        columns = formula[kind](w @ columns + b)
    np.testing.assert_allclose(net.predict(x), columns.T, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(net.predict(x[:1]), columns.T[:1], rtol=1e-12, atol=1e-14)


def test_linear_layers_collapse_to_one(device, rng):
    options = {"dtype": "float64", "device": device}
    net = nn.Sequential(
        nn.Linear(4, 6, **options),
        nn.Linear(6, 5, bias=False, **options),
        nn.Linear(5, 3, **options),
    )
    for parameter in net.parameters():
        parameter.data += parameter.backend.upload(rng.standard_normal(parameter.shape))
    one = nn.collapse(net)
    x = rng.standard_normal((8, 4))
    np.testing.assert_allclose(one.predict(x), net.predict(x), rtol=1e-12, atol=1e-12)
    assert str(one.device) == device
    with pytest.raises(ArgumentError, match="linear layers only"):
        nn.collapse(nn.Sequential(nn.Linear(2, 2, "relu")))


# M4 to M8: XOR and the patterns ------------------------------------------------------------------


def test_no_line_separates_xor():
    assert not separable(XOR.x, XOR.y)
    grid = np.linspace(-2, 2, 41)
    w1, w2, b = (axis.ravel() for axis in np.meshgrid(grid, grid, grid))
    right = sum(
        ((w1 * x1 + w2 * x2 + b > 0) == bool(t)).astype(int)
        for (x1, x2), t in zip(XOR.x.tolist(), XOR.y.tolist(), strict=True)
    )
    assert right.max() == 3


def test_a_perceptron_never_gets_beyond_three_points_of_xor(device):
    assert fitted(nn.Linear(2, 2, seed=0), XOR, device=device) <= 0.75


def test_the_product_as_a_feature_makes_xor_separable(device):
    features = nn.QuadraticFeatures(squares=False)
    phi = features.predict(XOR.x)
    np.testing.assert_array_equal(phi, [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 1]])
    assert separable(phi, XOR.y)
    net = nn.Sequential(features, nn.Linear(3, 2, seed=0))
    assert fitted(net, XOR, device=device) == 1.0


def test_hand_wired_xor(device):
    net = constructed.xor(device=device)
    assert net.predict(XOR.x).ravel().tolist() == [0, 1, 1, 0]
    assert net[0].predict(XOR.x).T.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]  # OR, AND


def test_the_means_of_both_patterns_are_a_quarter_everywhere():
    data = gn.data.shifted_patterns()
    for label in (0, 1):
        assert (data.x[data.y == label].mean(axis=0) == 0.25).all()
    assert len({tuple(row) for row in data.x.tolist()}) == 32
    assert not separable(data.x, data.y)


def test_a_hidden_layer_tells_the_shifted_patterns_apart(device):
    data = gn.data.shifted_patterns()
    gn.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16, "relu"), nn.Linear(16, 2))
    assert fitted(net, data, epochs=150, lr=0.02, device=device) == 1.0


# M9 to M11: feature maps -------------------------------------------------------------------------


def band(rng, n=200):
    """Points of the plane, 1 where they are far from the diagonal."""
    x = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    gap = np.abs(x[:, 0] - x[:, 1])
    keep = np.abs(gap - 0.6) > 0.05
    return x[keep], (gap > 0.6).astype(np.int64)[keep]


def test_the_distance_from_the_diagonal_as_a_feature(device, rng):
    x, y = band(rng)
    phi = nn.Sequential(nn.DifferenceFeature(), nn.Linear(2, 1, device=device))
    np.testing.assert_allclose(
        phi[0](phi.backend.upload(x)).numpy(),
        np.stack([np.ones(len(x)), np.abs(x[:, 0] - x[:, 1])], axis=1),
    )
    assert not separable(x, y)
    assert separable(nn.DifferenceFeature().predict(x), y)


def test_two_sigmoid_units_make_the_same_surface(device, rng):
    x, y = band(rng)
    net = nn.Sequential(
        nn.Linear(2, 2, "sigmoid", dtype="float64", device=device),
        nn.Linear(2, 1, dtype="float64", device=device),
    )
    net[0].load_state_dict({"weight": np.array([[-5.0, 5], [5, -5]]), "bias": np.array([1.0, 1])})
    net[1].load_state_dict({"weight": np.ones((2, 1)), "bias": np.zeros(1)})
    x1, x2 = x.astype(float).T
    sigma = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731 - as the lecture writes it
    surface = sigma(-5 * x1 + 5 * x2 + 1) + sigma(5 * x1 - 5 * x2 + 1)
    got = net.predict(x)[:, 0]
    np.testing.assert_allclose(got, surface, rtol=1e-12)
    assert separable(got[:, None], y)  # a threshold on it cuts the band out


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_polynomial_expansion_has_each_product_once(d, device, rng):
    x = rng.standard_normal((6, d))
    features = nn.QuadraticFeatures()
    got = features(gn.tensor(x, device=device)).numpy()
    assert got.shape == (6, d + d * (d + 1) // 2)
    expected = [x[:, i] for i in range(d)]
    expected += [x[:, i] * x[:, j] for i in range(d) for j in range(i, d)]
    np.testing.assert_allclose(got, np.stack(expected, axis=1), rtol=1e-14)
    gn.gradcheck(features, gn.tensor(x, device=device))


def test_the_polynomial_expansion_is_scikit_learns(rng):
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="no scikit-learn")
    x = rng.standard_normal((5, 4))
    expected = preprocessing.PolynomialFeatures(2, include_bias=False).fit_transform(x)
    np.testing.assert_allclose(nn.QuadraticFeatures().predict(x), expected, rtol=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("interaction_only", [False, True])
def test_products_of_higher_degree_are_scikit_learns(degree, columns, interaction_only, device):
    """M10: the three dots of lecture 004, with their number (D + degree)! / (D! degree!) - 1."""
    theirs = pytest.importorskip("sklearn.preprocessing").PolynomialFeatures(
        degree, interaction_only=interaction_only, include_bias=False
    )
    x = np.random.default_rng(0).uniform(-2, 2, (6, columns))
    layer = nn.PolynomialFeatures(columns, degree, interaction_only=interaction_only)
    found = layer(gn.tensor(x, requires_grad=True, device=device))
    np.testing.assert_allclose(found.numpy(), theirs.fit_transform(x), rtol=1e-12)
    powers = [tuple(np.bincount(each, minlength=columns)) for each in layer.factors()]
    assert powers == [tuple(row) for row in theirs.powers_.tolist()]
    if not interaction_only:
        assert found.shape[1] == math.comb(columns + degree, degree) - 1
        gn.gradcheck(layer, gn.tensor(x[:2], device=device))


def test_more_random_features_make_data_more_separable():
    shares = []
    for count in (2, 10, 40, 160):
        accuracies = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            x, y = rng.standard_normal((60, 5)), rng.integers(0, 2, 60)
            net = nn.RandomFeatures(5, count, "tanh", seed=seed, dtype="float64")
            phi = np.hstack([net.predict(x.astype(np.float64)), np.ones((60, 1))])
            w = np.linalg.lstsq(phi, 2.0 * y - 1, rcond=None)[0]
            accuracies.append(np.mean((phi @ w > 0) == (y == 1)))
        shares.append(np.mean(accuracies))
    assert shares == sorted(shares)
    assert shares[0] < 0.75
    assert shares[-1] == 1.0


def test_random_features_are_the_same_everywhere_and_are_not_trained(device, rng):
    net = nn.RandomFeatures(3, 50, "tanh", deviation=2.0, seed=7, device=device)
    here = nn.RandomFeatures(3, 50, "tanh", deviation=2.0, seed=7, device="cpu")
    np.testing.assert_array_equal(net.weight.numpy(), here.weight.numpy())
    x = rng.standard_normal((4, 3)).astype(np.float32)
    np.testing.assert_allclose(net.predict(x), np.tanh(x @ here.weight.numpy()), rtol=1e-5)
    assert net.parameters() == []
    wide = nn.RandomFeatures(100, 100, deviation=3.0)
    assert wide.weight.numpy().std() == pytest.approx(3.0, rel=0.03)


def test_feature_maps_are_saved_with_their_networks(tmp_path, device, rng):
    gn.manual_seed(0)
    net = nn.Sequential(
        nn.QuadraticFeatures(squares=False),
        nn.RandomFeatures(3, 5, "tanh", deviation=0.5, seed=9),
        nn.FeedbackLinear(5, 2),
        nn.DifferenceFeature(),
    ).to(device)
    gn.save(net, tmp_path / "net.safetensors")
    again = gn.load(tmp_path / "net.safetensors")
    x = rng.standard_normal((4, 2)).astype(np.float32)
    np.testing.assert_allclose(again.predict(x), net.predict(x), rtol=1e-5, atol=1e-6)
    assert (again[0].squares, again[1].deviation, again[1].seed) == (False, 0.5, 9)
    with pytest.raises(ArgumentError, match="FeedbackLinear"):
        gn.interop.to_torch_state_dict(nn.Sequential(nn.FeedbackLinear(2, 2)))
