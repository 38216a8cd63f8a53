"""How gradients and errors move: through depth and time, and from step to step of training."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops

# C8: vanishing and exploding gradients -----------------------------------------------------------


def norms(activation, gain, layers=12, width=40):
    """The norm of the gradient of each hidden layer's weights, absolute."""
    gn.manual_seed(0)
    hidden = [nn.Linear(width, width, activation, init="he_normal") for _ in range(layers)]
    for layer in hidden:
        layer.weight.data *= gain
    net = nn.Sequential(*hidden, nn.Linear(width, 1))
    x = np.random.default_rng(0).standard_normal((64, width)).astype(np.float32)
    net(gn.tensor(x)).sum().backward()
    return np.array(list(nn.gradient_norms(net).values()))[:layers]


def test_gradients_explode_and_vanish_in_absolute_norms():
    """The ratio of first to last layer is the same for ReLUs of any gain; the norms are not."""
    plain, wild, small = norms("relu", 1.0), norms("relu", 3.0), norms("relu", 1 / 3)
    for found, gain in ((wild, 3.0), (small, 1 / 3)):
        assert found[0] / plain[0] == pytest.approx(gain**11, rel=0.01)
        assert found[0] / found[-1] == pytest.approx(plain[0] / plain[-1], rel=0.01)
    assert wild[0] > 1e4 * plain[0] > 1e8 * small[0]
    sigmoid = norms("sigmoid", 1.0)
    assert (np.diff(np.log(sigmoid)) > 0.5).all()  # each layer back, the norm shrinks
    assert sigmoid[0] < 1e-4 * sigmoid[-1]


def unrolled(recurrent, x, steps, h):
    """The state after T steps of h = g(W h + x), with the same layer in each step."""
    for _ in range(steps):
        h = recurrent(h) + x
    return h


@pytest.mark.parametrize("gain", [0.8, 1.0, 1.25])
def test_a_linear_recurrent_network_multiplies_the_gradient_in_each_step(gain, device):
    """d h_T / d h_0 = W^T: with W = gain * rotation its norm is gain^T, vanishing or exploding."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    recurrent = nn.Linear(5, 5, bias=False, dtype="float64", device=device)
    recurrent.load_state_dict({"weight": gain * turn})
    b = recurrent.backend
    for steps in (1, 10, 60):
        start = gn.tensor(np.ones((1, 5)), requires_grad=True, device=device)
        unrolled(recurrent, b.upload(np.zeros((1, 5))), steps, start).backward(
            b.upload(np.eye(1, 5))
        )
        norm = np.linalg.norm(b.download(start.grad))
        assert norm == pytest.approx(gain**steps, rel=1e-9)


def test_the_shared_weights_of_a_recurrent_network_get_the_sum_over_all_steps(device, rng):
    """The tape adds what every step contributes; differences of the loss agree."""
    recurrent = nn.Linear(3, 3, "tanh", dtype="float64", seed=0, device=device)
    b = recurrent.backend
    x, start = rng.standard_normal((2, 1, 3))

    def loss(w):
        recurrent.load_state_dict({"weight": w, "bias": np.zeros(3)})
        return (unrolled(recurrent, b.upload(x), 7, gn.tensor(start, device=device)) ** 2).sum()

    w, step = rng.standard_normal((3, 3)) * 0.5, 1e-6
    loss(w).backward()
    found = b.download(recurrent.weight.grad)
    for place in np.ndindex(3, 3):
        ends = []
        for sign in (1, -1):
            moved = w.copy()
            moved[place] += sign * step
            ends.append(loss(moved).item())
        assert found[place] == pytest.approx((ends[0] - ends[1]) / 2 / step, rel=1e-6, abs=1e-8)


def test_a_tanh_recurrent_network_forgets_its_beginning():
    recurrent = nn.Linear(20, 20, "tanh", bias=False, dtype="float64", seed=0)
    recurrent.weight.data *= 0.6
    sizes = []
    for steps in (1, 10, 40):
        start = gn.tensor(np.full((1, 20), 0.1), requires_grad=True)
        x = np.random.default_rng(1).standard_normal((1, 20))
        unrolled(recurrent, x, steps, start).sum().backward()
        sizes.append(np.linalg.norm(start.grad))
    assert sizes[0] > 30 * sizes[1] > 30 * 1e3 * sizes[2]


# C6: single points, and the learning rate --------------------------------------------------------


def test_descent_on_single_points_visits_them_in_the_order_that_is_given(device):
    """Lecture 002: pick a point, evaluate its gradient, update; the order decides the result."""
    x = np.array([[1.0], [-2.0], [0.5]])
    y = np.array([[2.0], [1.0], [-1.0]])
    orders = [[2, 0, 1], [1, 1, 1], [0, 2, 1]]  # the second picks one point three times
    for order in orders:
        net = nn.Linear(1, 1, bias=False, dtype="float64", device=device)
        net.load_state_dict({"weight": np.array([[0.7]])})
        step = gn.train.EagerStep(net, ops.squared_error, gn.optim.SGD(net.parameters(), lr=0.1))
        w = 0.7
        for k in order:
            b = net.backend
            step(b.upload(x[k : k + 1]), b.upload(y[k : k + 1]))
            w -= 0.1 * 2 * (w * x[k, 0] - y[k, 0]) * x[k, 0]
            assert net.weight.numpy().item() == pytest.approx(w, rel=1e-13)


def test_a_fit_of_batches_of_one_shows_its_order():
    """The order of an epoch is that of `shuffle`, so the path of the weights can be repeated."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 1)), rng.standard_normal((8, 1))
    orders = [rng.permutation(8) for _ in range(3)]
    net = nn.Linear(1, 1, bias=False, dtype="float64")
    net.load_state_dict({"weight": np.zeros((1, 1))})
    trainer = gn.Trainer(net, "squared_error", gn.optim.SGD(lr=0.05))
    fit = {"epochs": 3, "batch_size": 1, "progress": False}
    trainer.fit(x, y, shuffle=lambda epoch, rows: orders[epoch - 1], **fit)
    w = 0.0
    for order in orders:
        for k in order:
            w -= 0.05 * 2 * (w * x[k, 0] - y[k, 0]) * x[k, 0]
    assert net.weight.numpy().item() == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize(
    ("rate", "what"), [(0.05, "slow"), (0.5, "exact"), (0.9, "swings"), (1.1, "grows")]
)
def test_the_learning_rate_decides_how_the_error_moves(rate, what):
    """Lecture 004, "a learning rate that needs to be set": the error is times 1 - 2 gamma."""
    net = nn.Linear(1, 1, bias=False, dtype="float64")
    net.load_state_dict({"weight": np.array([[3.0]])})
    trainer = gn.Trainer(net, "squared_error", gn.optim.SGD(lr=rate))
    path = [3.0]
    for _ in range(12):
        trainer.fit(np.ones((1, 1)), np.ones((1, 1)), epochs=1, batch_size=1, progress=False)
        path.append(net.weight.numpy().item())
    errors = np.array(path) - 1
    np.testing.assert_allclose(errors, 2 * (1 - 2 * rate) ** np.arange(13), atol=1e-12)
    signs = np.sign(errors[:5]).tolist()
    assert signs == {"exact": [1, 0, 0, 0, 0], "slow": [1] * 5}.get(what, [1, -1, 1, -1, 1])
    assert (abs(errors[-1]) > 2) == (what == "grows")


# deep linear networks (lecture 003) --------------------------------------------------------------


def test_a_deep_linear_network_expresses_no_more_but_learns_otherwise():
    """Lecture 003: W3 W2 W1 is one matrix. From small weights, its strong directions come first.

    The time that a direction of strength s takes to be learned falls with s; one layer learns all
    directions at once, at the same rate.
    """
    strengths = np.array([4.0, 2.0, 1.0])
    x, target = np.eye(3), np.diag(strengths)
    crossed = {}
    for depth in (1, 3):
        layers = [nn.Linear(3, 3, bias=False, dtype="float64") for _ in range(depth)]
        for layer in layers:
            start = (1e-3) ** (1 / depth)
            layer.load_state_dict({"weight": start * np.eye(3)})
        net = nn.Sequential(*layers)
        trainer = gn.Trainer(net, "half_squared_error", gn.optim.SGD(lr=0.03))
        half = np.full(3, np.inf)
        for epoch in range(1500):
            trainer.fit(x, target, epochs=1, batch_size=3, shuffle=False, progress=False)
            learned = np.diag(net.predict(x)) / strengths
            half[(learned > 0.5) & np.isinf(half)] = epoch
            if np.isfinite(half).all():
                break
        crossed[depth] = half
        one = nn.collapse(net) if depth > 1 else net[0]
        np.testing.assert_allclose(one.predict(x), net.predict(x), atol=1e-12)
    assert np.ptp(crossed[1]) <= 1
    assert crossed[3][0] * 1.5 < crossed[3][1] < crossed[3][2] / 1.5
