"""Averages of the parameters: EMA and SWA."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.errors import ArgumentError

pytestmark = pytest.mark.fast

X = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
T = X[:, :2] - X[:, 2:4]


def network(device="cpu"):
    return nn.Sequential(
        nn.Linear(6, 5, "tanh", seed=1, device=device), nn.Linear(5, 2, seed=2, device=device)
    )


def numbers(net):
    return [p.numpy().astype(np.float64) for p in net.parameters()]


def steps(device, epochs):
    """The parameters after every step of a fit without an average."""
    found = []
    net = network(device)
    trainer = gn.Trainer(net, "squared_error", optim.SGD(lr=0.1), seed=0, capture=False)
    apply = trainer.optimizer.step

    def step(factor=None):
        apply(factor)
        found.append(numbers(net))

    trainer.optimizer.step = step
    trainer.fit(X, T, epochs=epochs, batch_size=10, progress=False)
    return found


def ema(path, decay=0.8):
    mean = path[0]
    for now in path[1:]:
        mean = [decay * m + (1 - decay) * p for m, p in zip(mean, now, strict=True)]
    return mean


def swa(path, start=7, every=2):
    chosen = path[start - 1 :: every] or path[-1:]
    return [np.mean(parts, axis=0) for parts in zip(*chosen, strict=True)]


KINDS = {"ema": (optim.EMA(0.8), ema), "swa": (optim.SWA(7, 2), swa)}


@pytest.mark.parametrize("capture", ["auto", False])
@pytest.mark.parametrize("name", KINDS)
def test_a_fit_ends_with_the_average(name, device, capture):
    average, written_out = KINDS[name]
    path, seen = steps(device, 4), []

    class Look(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            seen.append((numbers(trainer.model), history["val_loss"][-1]))

    net = network(device)
    trainer = gn.Trainer(
        net, "squared_error", optim.SGD(lr=0.1), seed=0, average=average, capture=capture
    )
    trainer.fit(
        X, T, epochs=4, batch_size=10, validation=(X, T), callbacks=[Look()], progress=False
    )
    for epoch, (found, loss) in enumerate(seen, start=1):
        for ours, expected in zip(found, written_out(path[: 5 * epoch]), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-6)
        twin = network(device)
        for parameter, value in zip(twin.parameters(), found, strict=True):
            parameter.data[...] = parameter.backend.upload(value.astype(np.float32))
        expected = gn.Trainer(twin, "squared_error").evaluate(X, T)["loss"]
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for ours, theirs in zip(numbers(net), seen[-1][0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shards", [None, 2])
def test_a_killed_run_goes_on_with_its_average(tmp_path, shards):
    def run(folder=None, callbacks=()):
        net = network()
        options = {"average": optim.EMA(0.8), "checkpoint": folder, "shards": shards}
        trainer = gn.Trainer(net, "squared_error", "adam", seed=0, **options)
        trainer.fit(X, T, epochs=4, batch_size=10, callbacks=list(callbacks), progress=False)
        return numbers(net)

    class Stop(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            if epoch == 3:
                raise KeyboardInterrupt

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [Stop()])
    for _ in range(2):  # the second time the fit is over
        for ours, theirs in zip(run(tmp_path), whole, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_another_average_is_another_run(tmp_path):
    def run(average):
        trainer = gn.Trainer(
            network(), "squared_error", seed=0, average=average, checkpoint=tmp_path
        )
        trainer.fit(X, T, epochs=1, progress=False)

    run(optim.EMA(0.8))
    with pytest.raises(gn.GpunnError, match="average"):
        run(optim.EMA(0.9))


def test_skipped_steps_do_not_count(device):
    x = X.copy()
    x[3] = np.finfo(np.float32).max

    def run(average):
        net = network(device)
        trainer = gn.Trainer(
            net, "squared_error", "adam", seed=0, average=average, on_nonfinite="skip"
        )
        trainer.fit(x, T, epochs=2, batch_size=10, progress=False)
        return numbers(net)

    for values in run(optim.EMA(0.5)):
        assert np.isfinite(values).all()


def test_copies_have_averages_of_their_own():
    net = network()
    trainer = gn.Trainer(net, "squared_error", "adam", seed=0, average=optim.EMA(0.8))
    trainer.fit(X, T, epochs=1, batch_size=10, progress=False)
    twin = copy.deepcopy(trainer)
    for each in (twin, trainer):
        each.fit(X, T, epochs=1, batch_size=10, progress=False)
    for ours, theirs in zip(numbers(twin.model), numbers(net), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_no_average():
    with pytest.raises(ArgumentError, match="average"):
        gn.Trainer(network(), average=0.999)
    with pytest.raises(ArgumentError, match="decay"):
        optim.EMA(1.0)
    with pytest.raises(ArgumentError, match="start"):
        optim.SWA(0)
