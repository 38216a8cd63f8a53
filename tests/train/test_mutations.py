"""Whatever is changed between epochs, or between calls: a recorded step does what is asked now."""

from __future__ import annotations

import functools
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn as gn
from gpunn import nn, optim
from gpunn.autograd import Tensor
from gpunn.backends.capture import State
from gpunn.backends.random import RandomStream
from gpunn.nn.observation import observe
from gpunn.train.steps.repeated import Repeated
from gpunn.train.trainer import Training

EPOCHS, BATCH, WEIGHT = 4, 8, 1.0


class Loss:
    """A loss with state in attributes, containers and objects."""

    floor = 0.0

    def __init__(self):
        self.scale, self.extra = 1.0, {"shift": 0.5, "powers": [1.0, 2.0]}
        self.steps = np.array([0.25, 0.75])

    def __call__(self, p, t):
        e = gn.ops.squared_error(p, t) * self.scale + self.extra["shift"] * self.floor
        return e * self.extra["powers"][1] * (float(self.steps.sum()) + self.extra["powers"][0])


class Scaled(nn.Module):
    """A module with numbers in a dict and in an object."""

    def __init__(self):
        self.cfg, self.helper = {"a": 1.0, "deep": [0.5]}, Loss()

    def forward(self, x):
        return x * self.cfg["a"] * self.cfg["deep"][0] * self.helper.scale


def world():
    """A model, a loss, a regulariser and an optimizer, the same at every call."""
    net = nn.Sequential(
        nn.Linear(5, 6, "tanh", seed=1), nn.Dropout(0.5, seed=3), Scaled(), nn.Linear(6, 1, seed=2)
    )
    penalty = optim.L2(1e-3) + optim.L1(1e-4) + optim.MaxNorm(2.0)
    return net, Loss(), penalty, optim.SGD(lr=0.05, momentum=0.9)


def places(value, seen):
    """Every number that can be reached and set: (container, key, how it is set)."""
    if isinstance(value, Tensor | np.ndarray | str) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        items, put = list(value.items()), dict.__setitem__
    elif isinstance(value, list):
        items, put = list(enumerate(value)), list.__setitem__
    elif isinstance(value, tuple):
        items, put = list(enumerate(value)), None
    elif hasattr(value, "__dict__") and not isinstance(value, gn.autograd.Op):
        items, put = list(vars(value).items()), setattr
    else:
        return
    for key, inner in items:
        hidden = str(key).startswith("_") or (isinstance(value, RandomStream) and key == "chosen")
        if type(inner) in (float, int) and put is not None and not hidden:
            yield value, key, put
        elif not hidden and key not in ("flat", "state"):
            yield from places(inner, seen)


def mutate(roots, choice, factor):
    """Change one of the numbers, found by its place in the list of all."""
    found = list(places(list(roots), set()))
    container, key, put = found[choice % len(found)]
    old = vars(container)[key] if put is setattr else container[key]
    put(container, key, old + 1 if type(old) is int else old * factor)


DATA = np.random.default_rng(0)
X = DATA.normal(size=(48, 5)).astype(np.float32)
T = X[:, :1] * 2


class Change(gn.train.Callback):
    """Calls a function after an epoch."""

    def __init__(self, change, epoch=2):
        self.change, self.epoch = change, epoch

    def on_epoch_end(self, trainer, epoch, history):
        if epoch == self.epoch:
            self.change(trainer)


def fit(capture, change, parts=None, **options):
    net, loss, penalty, optimizer = parts or world()
    trainer = gn.Trainer(
        net, loss, optimizer, regularizer=penalty, capture=capture, seed=0, **options
    )
    history = trainer.fit(
        X, T, epochs=EPOCHS, batch_size=BATCH, progress=False, callbacks=[Change(change)]
    )
    calls = [(s.seed, s.stream, s.call) for s in net.streams()]
    return history["loss"], {k: v.tobytes() for k, v in net.state_dict().items()}, calls


changes = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from([0.5, -0.25, 0.0, -0.0])), min_size=1, max_size=3
)


def apply(roots, chosen):
    for choice, factor in chosen:
        mutate(roots, choice, factor)


@settings(max_examples=40, deadline=None)
@given(changes)
def test_a_random_change_between_epochs(chosen):
    found = []
    for capture in ("auto", False):
        parts = world()
        with np.errstate(all="ignore"):
            try:
                found.append(fit(capture, lambda _, parts=parts: apply(parts, chosen), parts))
            except gn.GpunnError as error:
                found.append(type(error))
    assert found[0] == found[1]


def by_hand(captured, chosen, weights=None):
    """Losses of steps by hand, with changes between the calls."""
    net, loss, penalty, optimizer = world()
    optimizer.bind(net.parameters())
    step = eager = gn.train.EagerStep(net, loss, optimizer, penalty, clip_norm=1.0)
    if captured:
        step = gn.train.CapturedStep(eager)
    losses = []
    for number in range(14):
        part = slice(8 * (number % 3), 8 * (number % 3) + 8)
        with np.errstate(all="ignore"):
            losses.append(np.array(step(X[part], T[part])).tobytes())
        for when, choice, factor in chosen:
            if when == number:
                mutate((net, loss, penalty, optimizer, eager.factor), choice, factor)
    return losses, {k: v.tobytes() for k, v in net.state_dict().items()}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 200), st.sampled_from([0.5, -0.25, -0.0])),
        min_size=1,
        max_size=3,
    )
)
def test_a_random_change_between_calls(chosen):
    found = []
    for captured in (True, False):
        try:
            found.append(by_hand(captured, chosen))
        except gn.GpunnError as error:
            found.append(type(error))
    assert found[0] == found[1]


@pytest.fixture
def recordings(monkeypatch):
    """What repeats the steps of each fit."""
    made, make = [], Repeated._captured

    def spied(self):
        made.append(make(self))
        return made[-1]

    monkeypatch.setattr(Repeated, "_captured", spied)
    return made


def stream(trainer):
    return trainer.model.layers[1].stream


LASTING = {
    "the loss": lambda t: setattr(t.loss, "scale", 0.0),
    "the class of the loss": lambda t: setattr(Loss, "floor", 1.0),
    "a dict of the loss": lambda t: t.loss.extra.update(shift=3.0),
    "an array of the loss": lambda t: t.loss.steps.fill(0.1),
    "a part of the regulariser": lambda t: setattr(t.regularizer.parts[0], "l2", 1.0),
    "an option of the optimizer": lambda t: setattr(t.optimizer, "momentum", 0.1),
    "a dict of a module": lambda t: t.model.layers[2].cfg.update(a=0.5),
    "an object of a module": lambda t: setattr(t.model.layers[2].helper, "scale", 0.5),
    "the seed of a dropout layer": lambda t: setattr(stream(t), "seed", 99),
    "the rate of a dropout layer": lambda t: setattr(t.model.layers[1], "rate", 0.25),
    "a layer": lambda t: t.model.layers.__setitem__(2, nn.Activate("tanh")),
    "nothing": lambda t: None,
}


@pytest.mark.parametrize("what", LASTING)
def test_a_change_is_recorded_anew(what, recordings, monkeypatch, caplog):
    monkeypatch.setattr(Loss, "floor", 0.0)
    with caplog.at_level(logging.WARNING, "gpunn"):
        captured = fit("auto", LASTING[what])
        monkeypatch.setattr(Loss, "floor", 0.0)
        assert captured == fit(False, LASTING[what])
    assert not caplog.records
    (recording,) = recordings
    assert recording.state is State.PROVED
    repeated = 6 * EPOCHS - (2 if what == "nothing" else 4)  # the first two of a recording are not
    assert recording.repeated == repeated


def reading(values):
    weight = values[0]
    return lambda p, t: gn.ops.squared_error(p, t) * (weight * values[1] * WEIGHT)


@pytest.mark.parametrize("what", ["closure", "global", "partial", "method"])
def test_functions_with_state(what, recordings, monkeypatch):
    found = []
    for capture in ("auto", False):
        monkeypatch.setitem(globals(), "WEIGHT", 1.0)
        values, held = [1.0, 1.0], Loss()
        loss = reading(values)
        change = lambda _, values=values: values.__setitem__(1, 0.5)  # noqa: E731
        if what == "global":
            change = lambda _: globals().update(WEIGHT=0.5)  # noqa: E731
        elif what == "partial":
            loss = functools.partial(held)
        elif what == "method":
            loss = held.__call__
        if what in ("partial", "method"):
            change = lambda _, held=held: setattr(held, "scale", 0.5)  # noqa: E731
        net, _, penalty, optimizer = world()
        found.append(fit(capture, change, (net, loss, penalty, optimizer)))
    assert found[0] == found[1]
    assert recordings[0].repeated == 6 * EPOCHS - 4


class Late:
    """A loss that counts its own calls, on which it depends later."""

    calls = 0

    def __call__(self, p, t):
        self.calls += 1
        return gn.ops.squared_error(p, t) * (1.0 if self.calls <= 14 else 0.0)


class Counting(nn.Module):
    """A module whose state a step changes."""

    def __init__(self):
        self.mean = 0.0

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1
        return x * (1.0 + self.mean)


class Drawing(nn.Module):
    """A module that draws from NumPy's own generator."""

    def forward(self, x):
        return x * float(np.random.standard_normal())  # noqa: NPY002


class Stepping:
    """A loss that reads an iterator."""

    def __init__(self):
        self.scales = iter([1.0] * 14 + [0.0] * 100)

    def __call__(self, p, t):
        return gn.ops.squared_error(p, t) * next(self.scales)


@pytest.mark.parametrize("kind", [Late, Counting, Drawing, Stepping])
def test_state_that_a_step_changes_is_refused_once(kind, recordings, caplog):
    found = []
    for capture in ("auto", False):
        np.random.seed(0)  # noqa: NPY002
        net, loss, penalty, optimizer = world()
        if issubclass(kind, nn.Module):
            net.layers[2] = kind()
        else:
            loss = kind()
        with caplog.at_level(logging.WARNING, "gpunn"):
            found.append(fit(capture, lambda _: None, (net, loss, penalty, optimizer)))
    assert found[0] == found[1]
    assert [r.getMessage().count("without captured steps") for r in caplog.records] == [1]
    assert recordings[0].state is State.REFUSED
    assert recordings[0].repeated == 0


def test_a_forward_pass_runs_once_a_step_until_it_is_repeated():
    calls = []
    parts = world()

    def look(module, y):
        if module is parts[0]:
            calls.append(type(y.data))

    with observe(look):
        fit("auto", lambda _: None, parts)
    assert calls == [np.ndarray] * 3  # as usual, recorded, and beside the first repetition


def test_the_step_by_hand_takes_weights():
    found = []
    for captured in (True, False):
        net = nn.Linear(5, 1, seed=0)
        step = gn.train.EagerStep(net, gn.ops.squared_error, optim.Adam(net.parameters()))
        step = gn.train.CapturedStep(step) if captured else step
        weights = np.linspace(0, 1, 8, dtype=np.float32)
        found.append([float(step(X[:8], T[:8], weights * k)) for k in range(1, 6)])
    assert found[0] == found[1]


def test_training_is_what_callbacks_get():
    seen = []
    fit(False, seen.append)
    assert isinstance(seen[0], Training)


@pytest.mark.parametrize("place", ["dropout", "optimizer", "module"])
def test_a_fit_follows_what_is_written_past_setattr(place):
    def change(trainer):
        found = {"dropout": trainer.model[1], "optimizer": trainer.optimizer}.get(place)
        names = {"dropout": "rate", "optimizer": "momentum", "module": "cfg"}
        vars(found or trainer.model[2])[names[place]] = 0.25 if found else {"a": 2.0, "deep": [0.5]}

    assert fit("auto", change) == fit(False, change)
    assert fit("auto", change) != fit("auto", lambda trainer: None)
