"""Factors of the learning rate and of the decay for single parameters."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.errors import ArgumentError

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
T = X[:, :2] - X[:, 2:4]

OPTIMIZERS = {
    "sgd": lambda lr=0.05: optim.SGD(lr=lr, momentum=0.9),
    "plain": lambda lr=0.05: optim.SGD(lr=lr),
    "adagrad": lambda lr=0.05: optim.AdaGrad(lr=lr),
    "rmsprop": lambda lr=0.05: optim.RMSprop(lr=lr),
    "adam": lambda lr=0.05: optim.Adam(lr=lr),
    "adamw": lambda lr=0.05: optim.AdamW(lr=lr, weight_decay=0.1),
}


def network(device, lr_factor=1.0, decay_factor=1.0, kind="float32"):
    net = nn.Sequential(
        nn.Linear(6, 5, "tanh", seed=1, dtype=kind, device=device),
        nn.Linear(5, 2, seed=2, dtype=kind, device=device),
    )
    for parameter in net.parameters():
        parameter.lr_factor, parameter.decay_factor = lr_factor, decay_factor
    return net


def fitted(net, optimizer, **options):
    trainer = gn.Trainer(net, "squared_error", optimizer, seed=0, **options)
    trainer.fit(X, T, epochs=3, batch_size=16, progress=False)
    return [p.numpy() for p in net.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_for_all_is_another_rate(device, name):
    found = fitted(network(device, 0.5, 2.0), OPTIMIZERS[name](0.1))
    expected = fitted(
        network(device),
        optim.AdamW(lr=0.05, weight_decay=0.2) if name == "adamw" else OPTIMIZERS[name](0.05),
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_with_factor_0_stays(device, name):
    net = network(device)
    net[0].weight.lr_factor = 0
    before = net[0].weight.numpy().copy()
    rest = net[0].bias.numpy().copy()
    fitted(net, OPTIMIZERS[name]())
    np.testing.assert_array_equal(net[0].weight.numpy(), before)
    assert not np.array_equal(net[0].bias.numpy(), rest)


def test_decay_of_one_parameter(device):
    net = network(device, decay_factor=0.0)
    net[1].weight.decay_factor = 3.0
    optimizer = optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    before = [p.numpy().copy() for p in net.parameters()]
    optimizer.zero_grad()
    (0.0 * net(gn.tensor(X, device=device)).sum()).backward()
    optimizer.step()
    for parameter, old in zip(net.parameters(), before, strict=True):
        shrunk = 1 - 0.1 * 0.5 * 3 if parameter is net[1].weight else 1
        np.testing.assert_allclose(parameter.numpy(), shrunk * old, rtol=1e-6)


def test_recorded_steps_and_numpy_alone_agree(device):
    def run(**options):
        net = network(device, 0.5)
        net[0].bias.lr_factor = 0.1
        return fitted(net, optim.AdamW(lr=0.05), **options)

    for ours, theirs in zip(run(capture="auto"), run(capture=False), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("capture", ["auto", False])
def test_a_change_between_epochs_counts(device, capture):
    class Freeze(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            if epoch == 2:
                self.kept = trainer.model[0].weight.numpy().copy()
                trainer.model[0].weight.lr_factor = 0.0

    net, freeze = network(device), Freeze()
    trainer = gn.Trainer(net, "squared_error", optim.Adam(), seed=0, capture=capture)
    trainer.fit(X, T, epochs=4, batch_size=16, progress=False, callbacks=[freeze])
    np.testing.assert_array_equal(net[0].weight.numpy(), freeze.kept)
    net[0].weight.lr_factor = 1.0
    trainer.fit(X, T, epochs=1, batch_size=16, progress=False)
    assert not np.array_equal(net[0].weight.numpy(), freeze.kept)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_keep_the_factors(copied):
    net = network("cpu", 0.5, 0.25)
    assert copied(net)[0].weight.lr_factor == 0.5
    assert copied(net)[0].weight.decay_factor == 0.25


def test_another_factor_is_another_run(tmp_path):
    fitted(network("cpu"), optim.Adam(), checkpoint=tmp_path)
    with pytest.raises(gn.GpunnError, match="model"):
        fitted(network("cpu", 0.5), optim.Adam(), checkpoint=tmp_path)


@pytest.mark.parametrize("name", ["lr_factor", "decay_factor"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), "2"])
def test_factors_are_checked(name, value):
    with pytest.raises(ArgumentError, match=name):
        nn.Parameter(np.zeros(3, np.float32), **{name: value})
