"""A step that breaks leaves nothing behind, in "stop" and in "skip"."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import DivergenceError
from gpunn.optim import OPTIMIZERS
from gpunn.optim.factor import LossScale
from gpunn.optim.guard import Guard

pytestmark = pytest.mark.both_bodies

BATCH, BATCHES, BAD = 8, 12, 5
CAPTURES = [False, "auto"]


class Seen(nn.Module):
    """A module that keeps numbers of its own in buffers, one of them whole."""

    def __init__(self, b):
        self.largest = nn.parameter.Buffer(b.zeros((), np.float32))
        self.rows = nn.parameter.Buffer(b.zeros((), np.int64))

    def forward(self, x):
        b = x.backend
        if self.training:
            b.xp.maximum(self.largest.data, b.xp.max(x.data), out=self.largest.data)
            b.xp.add(self.rows.data, x.shape[0], out=self.rows.data)
        return x


def network(device):
    with gn.device(device):
        b = gn.backend(device)
        return nn.Sequential(
            nn.BatchNorm(4),
            nn.Linear(4, 6, "relu", seed=1),
            Seen(b),
            nn.Dropout(0.3, seed=5),
            nn.BatchNorm(6),
            nn.VanillaDropout(0.5, seed=6),
            nn.Linear(6, 1, seed=2),
        )


def data(bad):
    """Examples of which row 3 of batch BAD is broken, and those without that batch."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * BATCHES, 4), dtype=np.float32)
    t = rng.standard_normal((len(x), 2), dtype=np.float32) * np.array([1, 0], np.float32)
    kept = np.delete(np.arange(len(x)), np.s_[BAD * BATCH : (BAD + 1) * BATCH])
    clean = x[kept], t[kept]
    bad(x, t, BAD * BATCH + 3)
    return (x, t), clean


def loss(p, t):
    """The squared error of the first column; the second is a factor of the outputs."""
    return gn.ops.squared_error(p, t[:, :1]) + (p * t[:, 1:]).mean()


def target(x, t, row):
    t[row, 0] = 3e38


def gradient(x, t, row):
    t[row, 1] = 1e25  # the loss is finite, and the squares of its gradients are not


def feature(x, t, row):
    x[row, 1] = 3e38


def variance(x, t, row):
    x[row, 1] = 1e25  # its square is infinite, and 1 / sqrt(infinity) hides it in the loss


BREAKS = [target, gradient, feature, variance]


def state(trainer):
    found = {name: value.numpy() for name, value in trainer.model.state()}
    found |= {f"optimizer.{k}": v for k, v in trainer.optimizer.state_dict().items()}
    return found


def draws(trainer):
    return [stream.call for stream in trainer.model.streams()]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def fit(device, tables, capture, mode, optimizer="adam", **options):
    trainer = gn.Trainer(
        network(device),
        loss,
        optimizer,
        capture=capture,
        on_nonfinite=mode,
        regularizer=gn.optim.MaxNorm(0.4) + gn.optim.L2(1e-3),
        **options,
    )
    trainer.fit(*tables, epochs=1, batch_size=BATCH, shuffle=False, progress=False)
    return trainer


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("broken", BREAKS, ids=lambda f: f.__name__)
def test_a_skipped_step_leaves_the_state_of_a_run_without_it(broken, capture, device):
    whole, clean = data(broken)
    found = fit(device, whole, capture, "skip")
    expected = fit(device, clean, capture, "skip")
    assert_same(state(found), state(expected))
    assert draws(found) == draws(expected)
    assert all(np.isfinite(value).all() for value in state(found).values())


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_every_optimizer_skips_a_step_as_a_whole(optimizer):
    whole, clean = data(gradient)
    options = {"optimizer": optimizer}
    found = fit("cpu", whole, "auto", "skip", **options)
    assert_same(state(found), state(fit("cpu", clean, "auto", "skip", **options)))


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("broken", BREAKS, ids=lambda f: f.__name__)
def test_a_fit_that_stops_has_the_state_before_the_broken_step(broken, capture, device):
    whole, _ = data(broken)
    until = [table[: BAD * BATCH] for table in whole]
    expected = fit(device, until, capture, "stop")
    trainer = gn.Trainer(
        network(device),
        loss,
        capture=capture,
        regularizer=gn.optim.MaxNorm(0.4) + gn.optim.L2(1e-3),
    )
    words = "the gradient of parameter" if broken is gradient else "running|layer|loss itself"
    with pytest.raises(
        DivergenceError,
        match=rf"({words}).* \(step {BAD + 1} of epoch 1\)"
        if capture or device != "cpu"
        else words,
    ):
        trainer.fit(*whole, epochs=1, batch_size=BATCH, shuffle=False, progress=False)
    assert_same(state(trainer), state(expected))
    assert trainer.steps == BAD


def test_a_step_by_hand_that_raises_has_changed_nothing(device):
    (x, t), _ = data(variance)
    net = network(device)
    b = net.backend
    step = gn.train.EagerStep(net, loss, gn.optim.Adam(net.parameters()))
    good, bad = ([b.upload(a[k : k + BATCH]) for a in (x, t)] for k in (0, BAD * BATCH))
    step(*good)
    before = net.state_dict()
    if b.synchronous:
        with np.errstate(all="ignore"), pytest.raises(DivergenceError, match="running_variance"):
            step(*bad)
        assert_same(net.state_dict(), before)
    step(*good)
    assert all(np.isfinite(value).all() for value in net.state_dict().values())


def test_buffers_may_be_taken_by_another_step_and_written_in_between():
    (x, t), _ = data(target)
    net = network("cpu")
    good = x[:BATCH], t[:BATCH]
    optimizer = gn.optim.SGD(net.parameters())
    steps = [gn.train.EagerStep(net, loss, optimizer) for _ in range(2)]
    steps[0](*good)
    steps[1](*good)
    net[0].running_mean.data[...] = 7.0
    before = net.state_dict()
    with np.errstate(all="ignore"), pytest.raises(DivergenceError):
        steps[0](x[BAD * BATCH : (BAD + 1) * BATCH], t[BAD * BATCH : (BAD + 1) * BATCH])
    assert_same(net.state_dict(), before)


def test_a_loss_scale_stays_in_a_step_that_does_not_happen(device):
    b = gn.backend(device)
    with gn.device(device):
        net = nn.Linear(3, 2, seed=0)
    optimizer = gn.optim.SGD(net.parameters())
    scale = LossScale(b, start=8.0)
    b.write(optimizer.bound.grad, np.full(optimizer.bound.grad.shape, np.inf, np.float32))
    go = b.upload(np.array(0))
    assert not b.download(scale.factor(optimizer.bound, None, go))
    assert [float(v) for v in scale.state_dict().values()] == [8.0, 0.0]
    scale.factor(optimizer.bound, None)
    assert float(scale.state_dict()["scale"]) == 4.0


@pytest.mark.parametrize("capture", [False, True])
def test_a_step_by_hand_skips_as_a_fit_does(capture):
    def train(tables):
        net = network("cpu")
        optimizer = gn.optim.Adam(net.parameters())
        guard = Guard(net.backend, "skip", net.dtype)
        step = gn.train.EagerStep(net, loss, optimizer, guard=guard)
        step = gn.train.CapturedStep(step) if capture else step
        with np.errstate(all="ignore"):
            for start in range(0, len(tables[0]), BATCH):
                step(*(table[start : start + BATCH] for table in tables))
        return net, optimizer

    whole, clean = data(variance)
    (net, optimizer), (other, its) = train(whole), train(clean)
    assert_same(net.state_dict(), other.state_dict())
    assert_same(optimizer.state_dict(), its.state_dict())
    assert [s.call for s in net.streams()] == [s.call for s in other.streams()]


@pytest.mark.parametrize("capture", CAPTURES)
def test_large_gradients_of_float16_are_no_broken_step(capture):
    net = nn.Linear(4, 1, seed=0, dtype="float16")
    x, t = np.full((16, 4), 8.0, np.float16), np.full((16, 1), 60.0, np.float16)
    before = net.weight.numpy()
    trainer = gn.Trainer(net, "squared_error", gn.optim.SGD(lr=1e-4), capture=capture)
    trainer.fit(x, t, epochs=2, batch_size=4, progress=False)  # the norm is above 256
    assert np.isfinite(net.weight.numpy()).all()
    assert (net.weight.numpy() != before).all()
