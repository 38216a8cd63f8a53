"""What decides a computation is listed by name, and no change of it passes unnoticed."""

from __future__ import annotations

import collections
import functools
import random
import threading

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.fingerprint import Fingerprint

FACTOR = 1.0


def reads_a_global(x):
    return x * FACTOR


class Holder:
    shared = 1.0

    def __init__(self, **parts):
        vars(self).update(parts)

    def method(self, x):
        return x


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1.0


def closure(value):
    held = [value]

    def loss(x, by=2.0, *, more=None):
        return x * held[0] * by

    return loss, held


def changed(root, change):
    """Whether a change is seen both in passing and by a new fingerprint."""
    before = Fingerprint({"root": root})
    still = Fingerprint({"root": root})
    assert before.difference(still) == ""
    change()
    quick, deep = before.unchanged(), before.difference(Fingerprint({"root": root}))
    assert not quick
    return deep


def network():
    return nn.Sequential(nn.Linear(2, 3, "relu", seed=0), nn.Dropout(0.5, seed=1))


@pytest.mark.parametrize(
    ("root", "change"),
    [
        (lambda: Holder(a=1.0), lambda r: setattr(r, "a", 2.0)),
        (lambda: Holder(a=0.0), lambda r: setattr(r, "a", -0.0)),
        (lambda: Holder(a=1), lambda r: setattr(r, "a", True)),
        (lambda: Holder(a=2.0), lambda r: setattr(r, "a", np.float64(2.0))),
        (lambda: Holder(a=1), lambda r: setattr(r, "b", 2)),
        (lambda: Holder(a=1, b=2), lambda r: delattr(r, "b")),
        (lambda: Holder(a={"k": [1, 2]}), lambda r: r.a["k"].append(3)),
        (lambda: Holder(a={"k": [1, 2]}), lambda r: r.a.update(k=5)),
        (lambda: Holder(a={1, 2}), lambda r: r.a.add(3)),
        (lambda: Holder(a=collections.deque([1])), lambda r: r.a.append(3)),
        (lambda: Holder(a=np.zeros(3)), lambda r: r.a.__setitem__(1, 5.0)),
        (lambda: Holder(a=np.zeros(300)), lambda r: r.a.__setitem__(1, 5.0)),
        (lambda: Holder(a=np.array([{}])), lambda r: r.a[0].update(k=5)),
        (lambda: Holder(a=Holder(b=(Holder(c=1),))), lambda r: setattr(r.a.b[0], "c", 2)),
        (lambda: Holder(a=1).method, lambda r: setattr(r.__self__, "a", 2)),
        (lambda: functools.partial(max, Holder(a=1)), lambda r: setattr(r.args[0], "a", 2)),
        (lambda: functools.partial(max, key=1), lambda r: r.keywords.update(key=2)),
        (lambda: Slotted(), lambda r: setattr(r, "a", 2.0)),
        (lambda: closure(1.0)[0], lambda r: r.__closure__[0].cell_contents.append(2)),
        (lambda: closure(1.0)[0], lambda r: setattr(r.__closure__[0], "cell_contents", [2])),
        (lambda: closure(1.0)[0], lambda r: setattr(r, "__defaults__", (3.0,))),
        (lambda: closure(1.0)[0], lambda r: setattr(r, "__kwdefaults__", {"more": 1})),
        (lambda: closure(1.0)[0], lambda r: setattr(r, "scale", 1)),
        (lambda: lambda x: x, lambda r: setattr(r, "__code__", (lambda x: 2 * x).__code__)),
        (lambda: Holder(a=np.random.default_rng(0)), lambda r: r.a.random()),
        (lambda: Holder(a=random.Random(0)), lambda r: r.a.random()),
        (network, lambda r: setattr(r.layers[1], "rate", 0.25)),
        (network, lambda r: setattr(r.layers[1].stream, "seed", 5)),
        (network, lambda r: r.layers.append(nn.Linear(3, 2, seed=1))),
        (network, lambda r: r.layers.__setitem__(0, nn.Linear(2, 3, "relu", seed=0))),
        (network, lambda r: setattr(r.layers[0].weight, "data", r.layers[0].weight.data.copy())),
        (network, lambda r: r.eval()),
        (network, lambda r: setattr(r, "cfg", {"a": 1})),
        (lambda: gn.optim.Adam(), lambda r: setattr(r, "beta1", 0.5)),
        (
            lambda: gn.optim.L2(0.1) + gn.optim.L1(0.1),
            lambda r: setattr(r.parts[1], "l1", 0.5),
        ),
        (lambda: Holder(t=gn.tensor([1.0])), lambda r: setattr(r.t, "data", np.array([2.0]))),
        (lambda: Holder(t=gn.tensor([1.0])), lambda r: r.t.data.fill(2.0)),
    ],
)
def test_a_change_is_seen(root, change):
    root = root()
    assert changed(root, lambda: change(root))


def test_globals_and_class_attributes_count(monkeypatch):
    assert changed(reads_a_global, lambda: monkeypatch.setitem(globals(), "FACTOR", 2.0))
    assert changed(Holder(), lambda: monkeypatch.setattr(Holder, "shared", 2.0))


def test_values_have_names():
    values = Fingerprint({"loss": Holder(scale=2.0), "model": network()}).values
    assert values["loss.scale"] == ("float", (2.0).hex())
    assert values["model.layers.1.stream.seed"] == ("int", 1)
    assert "model.layers.1.stream.call" not in values


def test_parameters_may_move_and_streams_be_drawn_from():
    net = network()
    before = Fingerprint({"net": net})
    net.layers[0].weight.data.fill(2.0)
    net.layers[1].stream.draw()
    net.train()
    assert before.unchanged() or not before.difference(Fingerprint({"net": net}))


def test_what_nobody_can_look_at_is_named():
    found = Fingerprint({"root": Holder(lock=threading.Lock())})
    assert found.opaque == "root.lock"
    assert Fingerprint({"root": Holder(noise=iter([1, 2]))}).restless == "root.noise"
    assert not Fingerprint({"root": network()}).opaque


def test_cycles_and_shared_parts_end():
    one = Holder()
    one.me, one.other = one, [one]
    assert not Fingerprint({"root": one}).opaque


def test_too_much_is_not_looked_through(monkeypatch):
    monkeypatch.setattr("gpunn.fingerprint.walk.MOST", 100)
    assert Fingerprint({"root": [[k] for k in range(200)]}).opaque
