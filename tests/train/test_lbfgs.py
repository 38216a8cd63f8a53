"""L-BFGS for any network."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize

import gpunn as gn
from gpunn import nn, optim
from gpunn.errors import ArgumentError, DataError, DivergenceError

pytestmark = pytest.mark.fast

X = np.random.default_rng(0).normal(size=(60, 5))
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def network(device="cpu", kind="float64"):
    return nn.Sequential(
        nn.Linear(5, 6, "tanh", seed=1, dtype=kind, device=device),
        nn.Linear(6, 2, seed=2, dtype=kind, device=device),
    )


def test_the_path_is_scipys_own(device):
    def loss(vector):
        w, b, v, c = np.split(vector, [30, 36, 48])
        w, v = w.reshape(5, 6), v.reshape(6, 2)
        h = np.tanh(X @ w + b)
        z = h @ v + c
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        dz = p.copy()
        dz[np.arange(60), Y] -= 1
        dz /= 60
        dh = dz @ v.T * (1 - h**2)
        parts = [X.T @ dh + 0.02 * w, dh.sum(0), h.T @ dz + 0.02 * v, dz.sum(0)]
        penalty = 0.01 * ((w**2).sum() + (v**2).sum())
        value = -np.log(p[np.arange(60), Y]).mean() + penalty
        return value, np.concatenate([part.ravel() for part in parts])

    net = network(device)
    start = np.concatenate([p.numpy().ravel() for p in net.parameters()])
    history = gn.train.minimize(net, X, Y, regularizer=optim.L2(0.01), max_iter=30)
    expected = scipy_minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 30, "gtol": 1e-5}
    )
    assert history.epochs == expected.nit
    np.testing.assert_allclose(history["loss"][-1], expected.fun, rtol=1e-7)
    assert history.stopped


def test_it_beats_plain_descent_on_small_data(device):
    net = network(device, "float32")
    history = gn.train.minimize(net, X.astype(np.float32), Y)
    assert history["loss"][-1] < 0.01
    assert (net.classify(X.astype(np.float32)) == Y).all()


def test_weights_frozen_layers_and_other_losses(device):
    net = network(device)
    net[0].requires_grad_(False)
    before = net[0].weight.numpy()
    weights = np.arange(60) % 2
    gn.train.minimize(net, X, Y, loss="multiclass_hinge", sample_weight=weights, max_iter=20)
    np.testing.assert_array_equal(net[0].weight.numpy(), before)
    twin = network(device)
    twin[0].requires_grad_(False)
    odd = weights == 1
    gn.train.minimize(twin, X[odd], Y[odd], loss="multiclass_hinge", max_iter=20)
    np.testing.assert_allclose(net[1].weight.numpy(), twin[1].weight.numpy(), rtol=1e-4)


def test_what_it_refuses():
    with pytest.raises(ArgumentError, match="dropout"):
        gn.train.minimize(nn.Sequential(nn.Linear(5, 2), nn.Dropout(0.5)), X, Y)
    with pytest.raises(ArgumentError, match="constraint"):
        gn.train.minimize(network(), X, Y, regularizer=optim.MaxNorm(1.0))
    with pytest.raises(DataError, match="expected finite"):
        gn.train.minimize(network(), np.full_like(X, np.nan), Y)
    net = network()
    net[1].weight.data[0, 0] = np.inf
    with pytest.raises(DivergenceError, match="at the start"):
        gn.train.minimize(net, X, Y)
