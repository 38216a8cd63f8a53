"""Losses and penalties: the rows L1 to L7 and R1 to R3 of docs/lectures.md."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops, optim


def gradient(loss, p, t, device, **options):
    """The value of a loss and its derivative by the predictions."""
    x = gn.tensor(np.asarray(p, float), requires_grad=True, device=device)
    value = loss(x, x.backend.upload(np.asarray(t)), **options)
    value.backward()
    return value.item(), x.backend.download(x.grad)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_squared_loss_with_and_without_a_half_and_its_reductions(device, rng):
    """L1: (f - y), 2 (g - y), and the sum that lecture 001's short network takes."""
    p, t = rng.standard_normal((2, 4, 3))
    for loss, factor in ((ops.half_squared_error, 1), (ops.squared_error, 2)):
        value, grad = gradient(loss, p, t, device, reduction="sum")
        assert value == pytest.approx(factor / 2 * np.square(p - t).sum(), rel=1e-14)
        np.testing.assert_allclose(grad, factor * (p - t), rtol=1e-14)
        value, grad = gradient(loss, p, t, device, reduction="mean")
        assert value == pytest.approx(factor / 2 * np.square(p - t).mean(), rel=1e-14)
        np.testing.assert_allclose(grad, factor * (p - t) / 12, rtol=1e-14)


def test_softmax_cross_entropy_and_its_closed_gradient(device, rng):
    """L2: log sum exp f - f_y; p_k - 1(y = k); shifting the scores changes nothing."""
    z, y = rng.standard_normal((5, 4)), np.array([0, 3, 1, 1, 2])
    value, grad = gradient(ops.softmax_cross_entropy, z, y, device, reduction="sum")
    assert value == pytest.approx((np.log(np.exp(z).sum(1)) - z[range(5), y]).sum(), rel=1e-14)
    np.testing.assert_allclose(grad, softmax(z) - np.eye(4)[y], atol=1e-15)
    one_hot = gradient(ops.softmax_cross_entropy, z, np.eye(4)[y], device, reduction="sum")
    assert one_hot[0] == pytest.approx(value, rel=1e-15)
    np.testing.assert_allclose(one_hot[1], grad, atol=1e-16)
    shifted = gradient(ops.softmax_cross_entropy, z + 100, y, device, reduction="sum")
    assert shifted[0] == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(shifted[1], grad, atol=1e-14)
    for far in (1e4, -1e4):
        assert np.isfinite(gradient(ops.softmax_cross_entropy, [[far, 0.0]], [0], device)[0])


def test_no_softmax_is_needed_to_predict(device, rng):
    """L3."""
    net = nn.Linear(4, 3, seed=0, device=device)
    with_softmax = nn.Sequential(net, "softmax")
    x = rng.standard_normal((50, 4)).astype(np.float32)
    np.testing.assert_array_equal(net.classify(x), with_softmax.classify(x))


def test_the_hinge_by_hand(device):
    """L4: scores 3.2, 5.1, -1.7 and the class 0: max(0, 2.9) + max(0, -3.9) = 2.9."""
    value, grad = gradient(ops.multiclass_hinge, [[3.2, 5.1, -1.7]], [0], device)
    assert value == pytest.approx(2.9, rel=1e-14)
    np.testing.assert_allclose(grad, [[-1, 1, 0]])
    value, _ = gradient(ops.multiclass_hinge, [[3.2, 5.1, -1.7]], [0], device, margin=6.0)
    assert value == pytest.approx(7.9 + 1.1, rel=1e-14)


def test_the_hinge_gradient_away_from_kinks(device, rng):
    s, y = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    gn.gradcheck(
        lambda s: ops.multiclass_hinge(s, s.backend.upload(y)), gn.tensor(s, device=device)
    )


def test_binary_cross_entropy_of_logits_and_of_probabilities(device, rng):
    """L5: equal to the softmax of two classes; finite at logits of 1e4."""
    z, y = rng.standard_normal((6, 1)), rng.integers(0, 2, (6, 1))
    value, grad = gradient(ops.binary_cross_entropy_with_logits, z, y, device)
    g = 1 / (1 + np.exp(-z))
    assert value == pytest.approx(-(y * np.log(g) + (1 - y) * np.log(1 - g)).mean(), rel=1e-13)
    np.testing.assert_allclose(grad, (g - y) / 6, rtol=1e-13)
    assert gradient(ops.binary_cross_entropy, g, y, device)[0] == pytest.approx(value, rel=1e-13)
    two = np.hstack([np.zeros((6, 1)), z])
    other, slopes = gradient(ops.softmax_cross_entropy, two, y[:, 0], device)
    assert other == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(slopes[:, 1:], grad, rtol=1e-12)
    far = gradient(ops.binary_cross_entropy_with_logits, [[1e4], [-1e4]], [[0], [1]], device)
    assert far[0] == 1e4
    np.testing.assert_array_equal(far[1], [[0.5], [-0.5]])


def test_the_perceptron_loss(device):
    """L6: max(0, -z t), delta = I(-z t > 0) (-t)."""
    z, t = np.array([2.0, -2.0, 2.0, -2.0]), np.array([1, 1, -1, -1])
    value, grad = gradient(ops.perceptron, z, t, device, reduction="sum")
    assert value == 4.0
    np.testing.assert_array_equal(grad, (-z * t > 0) * -t)


@pytest.mark.parametrize("name", ["separable", "xor"])
def test_after_enough_iterations_all_points_are_on_the_right_side(name, device):
    """L6, as lecture 004 says of a network: even if the data is not separable by a line."""
    data = gn.data.blobs(60, classes=2, seed=3) if name == "separable" else gn.data.xor()
    gn.manual_seed(2)
    net = nn.Sequential(nn.Linear(2, 8, "tanh", device=device), nn.Linear(8, 1, device=device))
    trainer = gn.Trainer(net, "perceptron", optim.SGD(lr=0.1))
    trainer.fit(data.x, 2 * data.y - 1, epochs=150, batch_size=len(data.x), progress=False)
    assert (trainer.classify(data.x) == 2 * data.y - 1).all()


def test_logistic_least_squares_and_its_error_signals(rng):
    """L7: ybar = y - t, zbar = ybar sigma'(z), wbar = zbar x, bbar = zbar."""
    w, x, b, t = rng.standard_normal(4)

    def forward(w, x, b, t):
        z = w * x + b
        y = ops.sigmoid(z)
        return {"z": z, "y": y, "L": (y - t) ** 2 / 2.0}

    steps = gn.explain.function(forward, w=w, x=x, b=b, t=t)
    y = 1 / (1 + np.exp(-(w * x + b)))
    assert steps["y"].grad == pytest.approx(y - t, rel=1e-13)
    assert steps["z"].grad == pytest.approx((y - t) * y * (1 - y), rel=1e-13)
    assert steps["w"].grad == pytest.approx((y - t) * y * (1 - y) * x, rel=1e-13)
    assert steps["b"].grad == pytest.approx((y - t) * y * (1 - y), rel=1e-13)


@pytest.mark.parametrize("batch", [10, 50, 200])
def test_a_penalty_does_not_depend_on_the_batch_size(batch, device):
    """R1: with loss 0 a step shrinks weights by 1 - 2 lr lambda, whatever the batch."""
    net = nn.Linear(2, 1, dtype="float64", seed=0, device=device)
    before = net.weight.numpy()
    bias = net.bias.numpy() + 1
    net.load_state_dict({"weight": before, "bias": bias})
    trainer = gn.Trainer(
        net, lambda y, t: (y * 0.0).sum(), optim.SGD(lr=0.1), regularizer=optim.L2(0.5)
    )
    x = np.ones((200, 2))
    trainer.fit(x, np.zeros((200, 1)), epochs=1, batch_size=batch, progress=False)
    steps = 200 // batch
    np.testing.assert_allclose(net.weight.numpy(), before * 0.9**steps, rtol=1e-12)
    np.testing.assert_array_equal(net.bias.numpy(), bias)


def test_a_stronger_penalty_gives_a_smoother_boundary():
    """R2: lambda = 0.001, 0.01, 0.1 on noisy circles: total variation and norm fall."""
    data = gn.data.circles(120, noise=0.25, seed=1)
    axis = np.linspace(-1.6, 1.6, 60)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)
    roughness, norms = [], []
    for strength in (0.001, 0.01, 0.1):
        gn.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 20, "relu"), nn.Linear(20, 2))
        trainer = gn.Trainer(net, optimizer=optim.Adam(lr=0.02), regularizer=optim.L2(strength))
        trainer.fit(data, epochs=300, batch_size=120, progress=False)
        scores = net.predict(grid)
        surface = (scores[:, 1] - scores[:, 0]).reshape(60, 60)
        roughness.append(sum(np.abs(np.diff(surface, axis=a)).sum() for a in (0, 1)))
        norms.append(sum(np.square(layer.weight.numpy()).sum() for layer in net.layers))
    for values in (roughness, norms):
        assert all(a > b for a, b in itertools.pairwise(values)), values
