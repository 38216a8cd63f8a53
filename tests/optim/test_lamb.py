"""LAMB against its formula, with whole parameters."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim

pytestmark = pytest.mark.fast

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
T = X[:, :2] - X[:, 2:4]
LR, DECAY = 0.05, 0.1


def loss_of(net, device):
    x, t = (gn.tensor(a.astype("float64"), device=device) for a in (X, T))
    return gn.ops.squared_error(net(x), t)


def network(device, kind="float64"):
    return nn.Sequential(
        nn.Linear(6, 5, "tanh", seed=1, dtype=kind, device=device),
        nn.Linear(5, 2, seed=2, dtype=kind, device=device),
    )


def written_out(values, gradients, states, t, lr=LR, decay=DECAY):
    found = []
    for p, g, s in zip(values, gradients, states, strict=True):
        s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
        s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
        u = (s["m"] / (1 - 0.9**t)) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-6) + decay * p
        ours, theirs = np.linalg.norm(p), np.linalg.norm(u)
        found.append(p - lr * (ours / theirs if ours and theirs else 1) * u)
    return found


def test_steps_equal_the_formula(device):
    net = network(device)
    optimizer = optim.LAMB(net.parameters(), lr=LR, weight_decay=DECAY)
    values, states = [p.numpy() for p in net.parameters()], [{} for _ in net.parameters()]
    for t in range(1, 7):
        optimizer.zero_grad()
        loss_of(net, device).backward()
        gradients = [p.backend.download(p.grad) for p in net.parameters()]
        optimizer.step()
        values = written_out(values, gradients, states, t)
        for parameter, expected in zip(net.parameters(), values, strict=True):
            np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_recorded_steps_have_the_same_bits(device, precision):
    def run(capture):
        net = network(device, "float32")
        net[0].bias.lr_factor, net[0].weight.decay_factor = 0.5, 0.0
        options = {"capture": capture, "precision": precision, "clip_norm": 1.0, "seed": 0}
        trainer = gn.Trainer(net, "squared_error", optim.LAMB(lr=LR, weight_decay=0.1), **options)
        trainer.fit(X, T, epochs=4, batch_size=8, progress=False)
        return [p.numpy() for p in net.parameters()]

    if precision == "float16" and gn.backend(device).on_host:
        pytest.skip("half precision is for GPUs")
    for ours, theirs in zip(run("auto"), run(False), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_factors_count(device):
    net = network(device)
    net[0].weight.lr_factor, net[1].weight.lr_factor = 0.0, 2.0
    net[0].bias.data[...] = 0.5
    optimizer = optim.LAMB(net.parameters(), lr=LR, weight_decay=DECAY, decay_biases=False)
    before = [p.numpy() for p in net.parameters()]
    loss_of(net, device).backward()
    gradients = [p.backend.download(p.grad) for p in net.parameters()]
    optimizer.step()
    for k, parameter in enumerate(net.parameters()):
        rate, decay = (0, LR, 2 * LR, LR)[k], (DECAY, 0, DECAY, 0)[k]
        expected = written_out([before[k]], [gradients[k]], [{}], 1, rate, decay)[0]
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-10)
