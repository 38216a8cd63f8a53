"""What networks learn, and how: convexity, compact representations, depth, networks at work."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import gpunn as gn
from gpunn import nn, ops
from tests.examples.loading import example

# C1: convexity -----------------------------------------------------------------------------------

PENALTIES = {"none": lambda w: 0.0, "L1": lambda w: np.abs(w).sum(), "L2": lambda w: (w**2).sum()}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "multiclass_hinge"])
def test_linear_scores_are_convex_in_w(loss, penalty, device):
    """The midpoint inequality on random pairs, and second differences along random lines."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)), rng.integers(0, 3, 30)
    b = gn.backend(device)
    rows, labels, function = b.upload(x), b.upload(y), ops.get_loss(loss)

    def objective(w):
        scores = ops.matmul(gn.tensor(rows), gn.tensor(b.upload(w)))
        return function(scores, labels).item() + 0.05 * PENALTIES[penalty](w)

    for _ in range(40):
        v, w = 3 * rng.standard_normal((2, 4, 3))
        ends = objective(v), objective(w)
        middle = objective((v + w) / 2)
        assert middle <= (ends[0] + ends[1]) / 2 + 1e-12
        line = [objective(v + t * (w - v)) for t in np.linspace(-1, 2, 13)]
        assert np.diff(line, 2).min() > -1e-12


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "multiclass_hinge"])
def test_a_network_is_not_convex(loss):
    """A network and the same with its hidden units in another order; half way, the loss is more."""
    lesson = example("25_convexity")
    x, y = lesson.noisy_xor()
    for seed in range(3):
        net = lesson.network(seed)
        lesson.trained(net, x, y, 200)
        here = net.state_dict()
        curve = lesson.along(net, here, lesson.mirrored(here), x, y, ops.get_loss(loss))
        assert curve[0] == pytest.approx(curve[-1], rel=1e-12)
        assert curve[20] > curve[0] + 0.2


def test_seeds_end_in_different_minima_of_a_network_only():
    lesson = example("25_convexity")
    x, y = lesson.noisy_xor()
    linear = [lesson.trained(lesson.linear(seed), x, y, 400) for seed in range(4)]
    net = [lesson.trained(lesson.network(seed), x, y, 400) for seed in range(4)]
    assert np.ptp(linear) < 1e-6
    assert np.ptp(net) > 0.01


def test_gradient_descent_reaches_the_closed_form_of_a_convex_problem(device):
    """Ridge regression: (X'X / n + lambda I) w = X'y / n, from any start."""
    rng = np.random.default_rng(1)
    x, y, penalty = rng.standard_normal((40, 3)), rng.standard_normal((40, 1)), 0.2
    exact = np.linalg.solve(x.T @ x / 40 + penalty * np.eye(3), x.T @ y / 40)
    for seed in range(3):
        net = nn.Linear(3, 1, bias=False, dtype="float64", seed=seed, device=device)
        decay = gn.optim.L2(penalty / 2)
        trainer = gn.Trainer(net, "half_squared_error", gn.optim.SGD(lr=0.3), regularizer=decay)
        trainer.fit(x, y, epochs=200, batch_size=40, progress=False)
        np.testing.assert_allclose(net.weight.numpy() / exact, 1, atol=1e-6)


# C10: Fisher's discriminant and the SVM ----------------------------------------------------------


def two_clouds():
    rng = np.random.default_rng(3)
    mix = np.array([[1.5, 0.4], [-0.3, 0.7]])
    x = (
        np.vstack(
            [rng.standard_normal((40, 2)), rng.standard_normal((25, 2)) + np.array([1.5, 2.0])]
        )
        @ mix
    )
    return x, np.repeat([0, 1], [40, 25])


def test_fishers_discriminant_is_a_linear_network_with_squared_error():
    """S_w^-1 (m_1 - m_0) is the direction of least squares on targets n / n_1 and -n / n_0."""
    x, y = two_clouds()
    means = [x[y == k].mean(axis=0) for k in (0, 1)]
    within = sum((x[y == k] - means[k]).T @ (x[y == k] - means[k]) for k in (0, 1))
    fisher = np.linalg.solve(within, means[1] - means[0])
    targets = np.where(y == 1, 65 / 25, -65 / 40)[:, None]
    net = nn.Linear(2, 1, dtype="float64", seed=0)
    trainer = gn.Trainer(net, "half_squared_error", gn.optim.SGD(lr=0.15))
    trainer.fit(x, targets, epochs=3000, batch_size=65, progress=False)
    found = net.weight.numpy()[:, 0]
    cosine = found @ fisher / np.linalg.norm(found) / np.linalg.norm(fisher)
    assert cosine == pytest.approx(1, abs=1e-9)
    rotated = np.array([[0.0, -1.0], [1.0, 0.0]]) @ fisher  # any other direction separates less
    between = [(v @ (means[1] - means[0])) ** 2 / (v @ within @ v) for v in (fisher, rotated)]
    assert between[0] > 3 * between[1]


def test_the_svms_quadratic_programme_is_a_linear_network_with_the_hinge_loss():
    """min |w|^2 / 2 + C sum xi, t (w x + b) >= 1 - xi, xi >= 0; the network has lambda |w|^2."""
    x, y = two_clouds()
    t, n, penalty = 2.0 * y - 1, len(y), 0.05
    cost = 1 / (2 * penalty * n)

    def constraint(v):
        return t * (x @ v[:2] + v[2]) - 1 + v[3:]

    jacobian = np.hstack([t[:, None] * x, t[:, None], np.eye(n)])
    found = minimize(
        lambda v: v[:2] @ v[:2] / 2 + cost * v[3:].sum(),
        np.r_[np.zeros(3), np.ones(n)],
        jac=lambda v: np.r_[v[:2], 0, np.full(n, cost)],
        bounds=[(None, None)] * 3 + [(0, None)] * n,
        constraints={"type": "ineq", "fun": constraint, "jac": lambda v: jacobian},
        method="SLSQP",
        options={"maxiter": 200, "ftol": 1e-12},
    )
    assert found.success
    net = nn.Linear(2, 1, dtype="float64", seed=0)
    trainer = gn.Trainer(
        net,
        "hinge",
        gn.optim.Adam(lr=0.02),
        regularizer=gn.optim.L2(penalty),
        schedule="linear",
    )
    trainer.fit(x, t[:, None], epochs=3000, batch_size=n, progress=False)
    w, bias = net.weight.numpy()[:, 0], net.bias.numpy()[0]
    np.testing.assert_allclose([*w, bias], found.x[:3], atol=5e-3)
    margins = t * (x @ w + bias)
    on_or_inside = t * (x @ found.x[:2] + found.x[2]) < 1 + 1e-6  # the support vectors
    np.testing.assert_array_equal(margins < 1 + 1e-2, on_or_inside)


# C2: compact representations ---------------------------------------------------------------------


def test_eight_learned_units_beat_a_thousand_fixed_features():
    lesson = example("23_compact_representations")
    train, test = lesson.points(3000, 0), lesson.points(3000, 1)
    learned = [lesson.learned(8, seed, train, test, 60) for seed in range(3)]
    random = [lesson.random(1024, seed, train, test) for seed in range(3)]
    count, products = lesson.polynomial(3, train, test)
    assert count == 285
    assert max(learned) < 0.12
    assert min(random) > 2 * max(learned)
    assert products > 1.6 * max(learned)


# C3: depth and overfitting -----------------------------------------------------------------------


def test_capacity_overfits_and_lambda_is_the_cure():
    """Differences on held-out points, paired by seed: their mean, by more than two deviations."""
    lesson = example("24_depth_and_overfitting")
    seeds = range(8)

    def runs(*setting):
        return np.array([lesson.errors(*setting, seed) for seed in seeds]).T

    def more(a, b):
        gap = a - b
        return gap.mean() > 2 * gap.std(ddof=1) / len(gap) ** 0.5

    tiny, small, deep = runs(3, 1, 0.0), runs(6, 1, 0.0), runs(20, 3, 0.0)
    large, cured = runs(100, 2, 0.0), runs(100, 2, 3e-3)
    assert more(tiny[0], small[0])  # more units, then more layers: a smaller training error
    assert more(small[0], deep[0])
    assert deep[0].max() == 0.0
    assert more(deep[1], small[1])  # but a larger error on new points
    assert more(large[1], cured[1])  # a stronger lambda in the large network,
    assert more(tiny[1], cured[1])  # and not a network that is too small
    assert cured[1].mean() < small[1].mean() + 0.01


# C5: a network at work ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["circles", "spirals"])
def test_all_points_end_on_the_right_side_although_no_line_separates_them(name):
    lesson = example("22_network_at_work")
    points = lesson.data(True)[name]
    assert lesson.by_a_line(points) >= 5
    for seed in range(5):
        found = list(lesson.at_work(points, seed, (0, 10, 100, 300)))
        wrong = [count for _, count, _, _ in found]
        losses = [loss for _, _, loss, _ in found]
        assert wrong[0] > 10
        assert wrong[-1] == 0
        assert losses[-1] == 0.0
        assert losses == sorted(losses, reverse=True)
