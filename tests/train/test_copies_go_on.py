"""A copy or a pickle of a training goes on with the bits of the original, whatever has state."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.nn.parameter import Buffer
from gpunn.optim import OPTIMIZERS
from gpunn.optim.schedules import SCHEDULES
from gpunn.train import CapturedStep, EagerStep, EarlyStopping

RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 5), dtype=np.float32)
Y = RNG.integers(0, 3, 90)

HOWS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda parts: pickle.loads(pickle.dumps(parts)),
    "twice": lambda parts: copy.deepcopy(pickle.loads(pickle.dumps(parts))),
}


class Counting(nn.Module):
    """A module with a buffer that every training pass changes."""

    def __init__(self):
        self.passes = Buffer(gn.backend("cpu").zeros((2,), np.float32))

    def forward(self, x):
        if self.training:
            b = self.passes.backend
            b.xp.add(self.passes.data, 1, out=self.passes.data)
        return x


def network(device="cpu"):
    with gn.device(device):
        return nn.Sequential(
            nn.BatchNorm(5),
            nn.Linear(5, 8, "relu", seed=1),
            nn.Dropout(0.4),
            nn.VanillaDropout(0.2, seed=3),
            nn.BatchNorm(8),
            nn.Linear(8, 3, seed=2),
        )


def state(model, optimizer):
    found = {**model.state_dict(), **{f"o.{k}": v for k, v in optimizer.state_dict().items()}}
    return found | {f"stream {k}": (s.seed, s.call) for k, s in enumerate(model.streams())}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def fit(trainer, epochs=2, callbacks=()):
    return trainer.fit(X, Y, epochs=epochs, batch_size=16, progress=False, callbacks=callbacks)


CHOICES = [
    *({"optimizer": name} for name in sorted(OPTIMIZERS)),
    *({"schedule": name} for name in sorted(SCHEDULES)),
    {"regularizer": optim.L2(1e-3) + optim.MaxNorm(0.5), "clip_norm": 0.1},
    {"on_nonfinite": "skip", "capture": False},
    {"loss": gn.ops.get_loss("softmax_cross_entropy", reduction="mean"), "seed": 7},
]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "options", CHOICES, ids=lambda options: "-".join(map(str, options.values()))[:40]
)
def test_a_copied_trainer_trains_on(options, how, device):
    trainer = gn.Trainer(network(device), **options)
    fit(trainer)
    other = HOWS[how](trainer)
    for _ in range(2):
        first, second = fit(trainer), fit(other)
        assert first["loss"] == second["loss"]
        assert first["lr"] == second["lr"]
    assert_same(state(other.model, other.optimizer), state(trainer.model, trainer.optimizer))
    assert vars(other.position) == vars(trainer.position)


def test_a_copied_trainer_trains_on_with_callbacks_and_own_buffers():
    trainer = gn.Trainer(nn.Sequential(Counting(), nn.Linear(5, 3, seed=1)))
    stopping = EarlyStopping("loss", patience=2, min_delta=0.05)
    fit(trainer, callbacks=[stopping])
    other, its = copy.deepcopy((trainer, stopping))
    fit(trainer, epochs=6, callbacks=[stopping])
    fit(other, epochs=6, callbacks=[its])
    assert its.best == stopping.best
    assert_same(state(other.model, other.optimizer), state(trainer.model, trainer.optimizer))


def by_hand(model, optimizer, steps):
    loss = gn.ops.softmax_cross_entropy
    for k in range(steps):
        rows = slice(16 * k % 80, 16 * k % 80 + 16)
        optimizer.zero_grad()
        loss(model(X[rows]), Y[rows]).backward()
        optimizer.step()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_copy_of_a_model_and_its_optimizer_trains_on(name, how):
    model = network().train()
    optimizer = optim.get_optimizer(name)
    optimizer.bind(model.parameters())
    by_hand(model, optimizer, 5)
    for parts in ((model, optimizer), {"o": optimizer, "m": model}):
        copied = HOWS[how](parts)
        other, its = copied if isinstance(copied, tuple) else (copied["m"], copied["o"])
        live, own = HOWS[how]((model, optimizer))
        by_hand(live, own, 4)
        by_hand(other, its, 4)
        assert_same(state(other, its), state(live, own))
    by_hand(model, optimizer, 4)
    assert_same(state(other, its), state(model, optimizer))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("step", [EagerStep, lambda *parts: CapturedStep(EagerStep(*parts))])
def test_a_step_by_hand_takes_a_copied_model_and_optimizer(step, how):
    model, optimizer = network().train(), optim.Adam()
    optimizer.bind(model.parameters())
    first = step(model, gn.ops.softmax_cross_entropy, optimizer)
    for _ in range(4):
        first(X[:16], Y[:16])
    other, its = HOWS[how]((model, optimizer))
    second = step(other, gn.ops.softmax_cross_entropy, its)
    for _ in range(4):
        assert float(first(X[:16], Y[:16])) == float(second(X[:16], Y[:16]))
    assert_same(state(other, its), state(model, optimizer))


def test_an_optimizer_of_some_parameters_is_copied_with_its_model():
    model = network().train()
    optimizer = optim.Adam(model[5].parameters())
    by_hand(model, optimizer, 3)
    other, its = copy.deepcopy((model, optimizer))
    by_hand(model, optimizer, 3)
    by_hand(other, its, 3)
    assert_same(state(other, its), state(model, optimizer))
    np.testing.assert_array_equal(other[1].weight.numpy(), network()[1].weight.numpy())


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("epoch", [2, 3])
def test_a_copy_that_a_callback_made_has_the_rate_without_the_schedule(epoch, schedule, how):
    class Copying(gn.train.Callback):
        def on_epoch_end(self, trainer, number, history):
            if number == epoch:
                self.copy = HOWS[how](trainer)

    copying = Copying()
    given = optim.schedules.Step(2) if schedule == "step" else schedule
    trainer = gn.Trainer(network(), optimizer=optim.Adam(lr=0.02), schedule=given)
    fit = {"batch_size": 30, "progress": False}
    trainer.fit(X, Y, epochs=3, callbacks=[copying], **fit)
    assert copying.copy.optimizer.lr == 0.02
    if epoch == 3:
        for each in (trainer, copying.copy):
            each.fit(X, Y, epochs=2, **fit)
        assert_same(
            state(copying.copy.model, copying.copy.optimizer),
            state(trainer.model, trainer.optimizer),
        )


def test_a_copy_that_a_callback_made_keeps_a_rate_that_was_written():
    class Writing(gn.train.Callback):
        def on_epoch_end(self, trainer, number, history):
            trainer.optimizer.lr *= 0.5
            self.copy = copy.deepcopy(trainer)

    writing = Writing()
    trainer = gn.Trainer(network(), optimizer=optim.Adam(lr=0.02), schedule="linear")
    trainer.fit(X, Y, epochs=1, batch_size=30, callbacks=[writing], progress=False)
    assert writing.copy.optimizer.lr == trainer.optimizer.lr == pytest.approx(0.01)
