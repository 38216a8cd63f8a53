"""What lines separate, what folding makes separable, and what one hidden layer can express."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

import gpunn as gn
from gpunn import nn
from gpunn.nn import constructed
from tests.examples.loading import example


def separable(x, y):
    """Whether a hyperplane separates the classes: is there w, b with t (w x + b) >= 1?"""
    t = np.where(np.asarray(y) == 1, 1.0, -1.0)
    rows = -t[:, None] * np.hstack([x, np.ones((len(x), 1))])
    found = linprog(np.zeros(rows.shape[1]), rows, -np.ones(len(x)), bounds=[(None, None)] * 3)
    return found.status == 0


# C7: space warping -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_linear_map_does_not_make_points_separable_and_the_fold_does(seed, device):
    """Lecture 001: the same points before, after W x and after ReLU(W x), by a linear programme."""
    lesson = example("08_folding")
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (150, 2))
    turn = rng.uniform(0, 2 * np.pi)
    w = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    w = w @ np.diag(rng.uniform(0.5, 2, 2)) @ np.array([[1.0, 0.5], [-0.4, 1.0]])
    side = x @ w
    keep = (np.abs(side) > 0.05).all(axis=1)
    x, y = x[keep], (side[keep] > 0).any(axis=1).astype(int)
    assert {*y.tolist()} == {0, 1}
    linear = nn.Linear(2, 2, bias=False, dtype="float64", device=device)
    folds = nn.Linear(2, 2, "relu", bias=False, dtype="float64", device=device)
    for layer in (linear, folds):
        layer.load_state_dict({"weight": w})
    assert not separable(x, y)
    assert not separable(linear.predict(x), y)
    assert separable(folds.predict(x), y)
    points, labels = lesson.cross(200)  # the example's own points
    assert not separable(points.astype(float), labels)


def test_each_quadrant_of_w_x_goes_to_its_part(device):
    """A stays, B collapses onto one axis, D onto the other, C onto the origin."""
    folds = nn.Linear(2, 2, "relu", bias=False, dtype="float64", device=device)
    w = np.array([[1.0, -0.5], [0.3, 2.0]])
    folds.load_state_dict({"weight": w})
    z = np.random.default_rng(0).standard_normal((400, 2))
    h = folds.predict(z @ np.linalg.inv(w))  # the points whose W x is z
    expected = {
        (True, True): lambda z: z,
        (False, True): lambda z: z * [0, 1],
        (False, False): lambda z: z * [0, 0],
        (True, False): lambda z: z * [1, 0],
    }
    for signs, part in expected.items():
        chosen = ((z > 0) == signs).all(axis=1)
        assert chosen.sum() > 50
        np.testing.assert_allclose(h[chosen], part(z[chosen]), atol=1e-12)


# half-spaces and convex sets (lecture 003) -------------------------------------------------------


def test_half_spaces_are_convex_and_xors_segments_cross():
    """If both ends are in a half-space, so is every point between: for any linear unit."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        unit = nn.Linear(2, 1, dtype="float64", seed=seed)
        unit.bias.data[:] = rng.standard_normal(1)
        a, b = 2 * rng.standard_normal((2, 50, 2))
        t = rng.uniform(0, 1, (50, 1))
        ends = unit.predict(a) > 0, unit.predict(b) > 0
        between = unit.predict(t * a + (1 - t) * b) > 0
        for wanted in (True, False):
            same = (ends[0] == wanted) & (ends[1] == wanted)
            assert (between[same] == wanted).all()
    four = gn.data.xor()
    middles = [four.x[four.y == label].mean(axis=0) for label in (0, 1)]
    np.testing.assert_array_equal(middles, [[0.5, 0.5], [0.5, 0.5]])
    assert not separable(four.x.astype(float), four.y)


# C11: universality in more dimensions and with other nonlinearities ------------------------------


def towers(function, cells, activation, sharp):
    """A network R^2 -> R^M: an indicator per cell from four steps, then a threshold, as in Nielsen.

    The first layer has the steps x > k / cells of both axes; a unit of the second is on where all
    four steps of its cell agree; the last layer has the values at the centres.
    """
    edges = np.arange(cells + 1) / cells
    w1 = np.kron(np.eye(2), np.ones((1, cells + 1))) * sharp
    b1 = -sharp * np.tile(edges, 2)
    columns, values = [], []
    for i, j in itertools.product(range(cells), repeat=2):
        column = np.zeros(2 * (cells + 1))
        column[[i, cells + 1 + j]] = 1
        column[[i + 1, cells + 1 + j + 1]] = -1
        columns.append(column)
        values.append(function((i + 0.5) / cells, (j + 0.5) / cells))
    w2, w3 = np.array(columns).T * sharp, np.atleast_2d(np.array(values, float))
    w3 = w3.reshape(len(columns), -1)
    net = nn.Sequential(
        nn.Linear(2, w1.shape[1], activation, dtype="float64"),
        nn.Linear(w1.shape[1], w2.shape[1], activation, dtype="float64"),
        nn.Linear(w2.shape[1], w3.shape[1], bias=False, dtype="float64"),
    )
    state = {"0.weight": w1, "0.bias": b1, "1.weight": w2, "2.weight": w3}
    net.load_state_dict(state | {"1.bias": np.full(w2.shape[1], -1.5 * sharp)})
    return net


def surface(a, b):
    """A continuous function R^2 -> R^2."""
    return np.sin(4 * a) * b, (a - b) ** 2


@pytest.mark.parametrize(("activation", "sharp"), [("sigmoid", 4000.0), ("hard_threshold", 1.0)])
def test_towers_approximate_a_function_from_r2_to_r2(activation, sharp):
    rng = np.random.default_rng(0)
    errors = []
    for cells in (5, 10, 20, 40):
        x = rng.uniform(0, 1, (500, 2))
        inside = (np.abs(x * cells - np.round(x * cells)) > 0.01).all(axis=1)  # not on an edge
        found = towers(surface, cells, activation, sharp).predict(x)
        gap = np.abs(found - np.stack(surface(*x.T), axis=1))
        errors.append(gap[inside].max())
    for coarse, fine in itertools.pairwise(errors):
        assert 1.4 < coarse / fine < 2.8  # like 1 / cells
    assert errors[-1] < 0.07


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu", "elu", "leaky_relu"])
def test_other_nonlinearities_learn_a_function_of_three_variables(activation):
    """What universality does not promise: here training finds the approximation, too."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (400, 3)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1], np.sin(3 * x[:, 2])], axis=1)
    gn.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 60, activation), nn.Linear(60, 2))
    trainer = gn.Trainer(net, "squared_error", gn.optim.Adam(lr=0.02), schedule="cosine", seed=0)
    trainer.fit(x, y, epochs=150, batch_size=50, progress=False)
    fresh = rng.uniform(-0.9, 0.9, (400, 3)).astype(np.float32)
    wanted = np.stack([fresh[:, 0] * fresh[:, 1], np.sin(3 * fresh[:, 2])], axis=1)
    assert np.sqrt(np.mean((net.predict(fresh) - wanted) ** 2)) < 0.1


def test_smooth_units_without_a_nonlinearity_approximate_nothing():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (400, 3)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:2]).astype(np.float32)
    net = nn.Sequential(nn.Linear(3, 60, "identity", seed=0), nn.Linear(60, 1, seed=1))
    trainer = gn.Trainer(net, "squared_error", gn.optim.Adam(lr=0.02), seed=0)
    trainer.fit(x, y, epochs=60, batch_size=50, progress=False)
    assert trainer.evaluate(x, y)["loss"] > 0.9 * np.var(y)


@pytest.mark.parametrize("left", [1, -1])
def test_a_relu_is_flipped_by_the_sign_of_its_weight(left):
    """Lecture 001: "flip left / right based on sign of w_i", and a gap between bumps stays flat."""
    layer = nn.Linear(1, 1, "relu", dtype="float64")
    layer.load_state_dict({"weight": np.array([[float(left)]]), "bias": np.zeros(1)})
    x = np.linspace(-1, 1, 21)[:, None]
    np.testing.assert_array_equal(layer.predict(x), np.maximum(0, left * x))
    two = [constructed.relu_bump(a, a + 0.5, 0.1) for a in (0.0, 2.0)]
    gap = np.linspace(0.7, 1.8, 50)[:, None]
    np.testing.assert_allclose(sum(net.predict(gap) for net in two), 0, atol=1e-12)
