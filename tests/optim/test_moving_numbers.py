"""Schedules of the momentum, the betas and the weight decay, read from the device."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.errors import ArgumentError
from gpunn.optim.schedules import Cosine, Linear, Schedule

pytestmark = pytest.mark.fast

X = np.random.default_rng(0).normal(size=(45, 6)).astype(np.float32)
T = X[:, :2] - X[:, 2:4]


class Rise(Schedule):
    """A momentum that rises along a line."""

    def factor(self, step, total):
        return 0.5 + 0.4 * step / total


MADE = {
    "sgd": lambda m, d: optim.SGD(lr=0.05, momentum=m, weight_decay=d),
    "nesterov": lambda m, d: optim.SGD(lr=0.05, momentum=m, nesterov=True, weight_decay=d),
    "rmsprop": lambda m, d: optim.RMSprop(lr=0.01, decay=m, weight_decay=d),
    "adam": lambda m, d: optim.Adam(lr=0.01, beta1=m, weight_decay=d),
    "adamw": lambda m, d: optim.AdamW(lr=0.01, beta2=m, weight_decay=d),
    "nadam": lambda m, d: optim.NAdam(lr=0.01, beta1=m, weight_decay=d),
    "radam": lambda m, d: optim.RAdam(lr=0.01, beta1=m, weight_decay=d),
    "lion": lambda m, d: optim.Lion(lr=0.01, beta1=m, weight_decay=d),
}


def network(device="cpu"):
    return nn.Sequential(
        nn.Linear(6, 5, "tanh", seed=1, device=device), nn.Linear(5, 2, seed=2, device=device)
    )


def fit(net, optimizer, epochs=4, **options):
    trainer = gn.Trainer(net, "squared_error", optimizer, seed=0, **options)
    trainer.fit(X, T, epochs=epochs, batch_size=10, shuffle=False, progress=False)
    return [p.numpy() for p in net.parameters()]


def attributes_of(optimizer):
    return [k for k, v in vars(optimizer).items() if isinstance(v, Schedule)]


def by_hand(net, optimizer, schedules, epochs=4):
    """Set every number by hand before each step."""
    device, step, total = net.device, 0, epochs * 5
    optimizer.bind(net.parameters())
    for _ in range(epochs):
        for at in range(0, len(X), 10):
            for name, schedule in schedules.items():
                setattr(optimizer, name, schedule.factor(step, total))
            x, t = (gn.tensor(a[at : at + 10], device=device) for a in (X, T))
            optimizer.zero_grad()
            gn.ops.squared_error(net(x), t).backward()
            optimizer.step()
            step += 1
    return [p.numpy() for p in net.parameters()]


@pytest.mark.parametrize("capture", ["auto", False])
@pytest.mark.parametrize("name", MADE)
def test_every_step_has_its_own_numbers(name, device, capture):
    found = fit(network(device), MADE[name](Rise(), Linear(20, 0.1)), capture=capture)
    optimizer = MADE[name](Rise(), Linear(20, 0.1))
    schedules = {k: getattr(optimizer, k) for k in attributes_of(optimizer)}
    assert len(schedules) == 2
    optimizer = MADE[name](0.5, 1.0)
    expected = by_hand(network(device), optimizer, schedules)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_killed_run_goes_on_at_its_numbers(tmp_path):
    whole = fit(network(), optim.SGD(lr=0.05, momentum=Rise()))

    class Stop(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            if epoch == 2:
                raise KeyboardInterrupt

    options = {"checkpoint": tmp_path}
    optimizer = optim.SGD(lr=0.05, momentum=Rise())
    trainer = gn.Trainer(network(), "squared_error", optimizer, seed=0, **options)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(
            X, T, epochs=4, batch_size=10, shuffle=False, progress=False, callbacks=[Stop()]
        )
    for ours, theirs in zip(
        fit(network(), optim.SGD(lr=0.05, momentum=Rise()), **options), whole, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_another_schedule_is_another_run(tmp_path):
    fit(network(), optim.SGD(lr=0.05, momentum=Rise()), checkpoint=tmp_path)
    with pytest.raises(gn.GpunnError, match="optimizer"):
        fit(network(), optim.SGD(lr=0.05, momentum=Linear(9, 0.9, 0.5)), checkpoint=tmp_path)


def test_steps_by_hand_move_the_numbers(device):
    net = network(device)
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=Rise())
    assert optimizer.number("momentum") == 0.5
    optimizer.move(5, 10)
    assert optimizer.number("momentum") == 0.7
    assert float(gn.backend(device).download(optimizer.device_numbers[0])) == np.float32(0.7)


def test_numbers_outside_their_range_are_named(device):
    with pytest.raises(ArgumentError, match=r"momentum=1.0.*momentum < 1"):
        fit(network(device), optim.SGD(lr=0.05, momentum=Cosine()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_move_on(copied):
    net = network()
    trainer = gn.Trainer(net, "squared_error", optim.SGD(lr=0.05, momentum=Rise()), seed=0)
    trainer.fit(X, T, epochs=1, batch_size=10, progress=False)
    twin = copied(trainer)
    for each in (trainer, twin):
        each.fit(X, T, epochs=1, batch_size=10, progress=False)
    for ours, theirs in zip(net.parameters(), twin.model.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_a_number_may_become_a_schedule_between_epochs(device):
    class Change(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            trainer.optimizer.momentum = Rise() if epoch == 1 else 0.3

    def run(capture):
        net = network(device)
        trainer = gn.Trainer(
            net, "squared_error", optim.SGD(lr=0.05, momentum=0.9), seed=0, capture=capture
        )
        trainer.fit(X, T, epochs=3, batch_size=10, progress=False, callbacks=[Change()])
        return [p.numpy() for p in net.parameters()]

    for ours, theirs in zip(run("auto"), run(False), strict=True):
        np.testing.assert_array_equal(ours, theirs)
