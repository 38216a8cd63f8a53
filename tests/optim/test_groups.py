"""Groups of parameters, weight decay without biases, and frozen parameters."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.errors import ArgumentError

pytestmark = pytest.mark.fast

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
T = X[:, :2] - X[:, 2:4]


def network(device="cpu"):
    return nn.Sequential(
        nn.Linear(6, 5, "tanh", seed=1, device=device), nn.Linear(5, 2, seed=2, device=device)
    )


def numbers(net):
    return [p.numpy() for p in net.parameters()]


def fit(net, optimizer, epochs=3, **options):
    trainer = gn.Trainer(net, "squared_error", optimizer, seed=0, **options)
    trainer.fit(X, T, epochs=epochs, batch_size=16, progress=False)
    return trainer


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def differ(ours, theirs):
    return [not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)]


# groups -------------------------------------------------------------------------------------------


def test_groups_are_factors(device):
    grouped, written = network(device), network(device)
    fit(
        grouped,
        optim.AdamW(
            [
                {"params": grouped[0].parameters(), "lr": 0.02},
                {"params": [grouped[1].weight], "weight_decay": 0.05},
                {"params": grouped[1].bias, "lr": 0.005, "weight_decay": 0},
            ],
            lr=0.01,
            weight_decay=0.1,
        ),
    )
    for parameter in written[0].parameters():
        parameter.lr_factor = 2.0
    written[1].weight.decay_factor = 0.5
    written[1].bias.lr_factor, written[1].bias.decay_factor = 0.5, 0.0
    fit(written, optim.AdamW(lr=0.01, weight_decay=0.1))
    same(numbers(grouped), numbers(written))


def test_the_decay_of_groups_alone():
    net = network()
    groups = [
        {"params": net[0].parameters(), "weight_decay": 0.2},
        {"params": [net[1].weight], "weight_decay": 0.1},
        {"params": [net[1].bias]},
    ]
    optimizer = optim.SGD(groups, lr=0.1)
    assert optimizer.weight_decay == 0.2
    assert [p.decay_factor for p in net.parameters()] == [1, 1, 0.5, 0]


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({}, "got a group of parameters with nothing"),
        ({"params": [], "momentum": 0.9}, "params, momentum"),
        ({"params": [], "lr": -1}, "lr"),
        ({"params": gn.tensor([1.0], requires_grad=True), "lr": 0.1}, "got a group of Tensor"),
    ],
)
def test_wrong_groups(group, words):
    with pytest.raises(ArgumentError, match=words):
        optim.SGD([group])


def test_a_group_needs_a_base():
    with pytest.raises(ArgumentError, match="multiple"):
        optim.SGD([{"params": network().parameters(), "lr": 0.1}], lr=0.0)


# biases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_biases_need_not_decay(name, device):
    def decayed(**options):
        net = network(device)
        for parameter in net.parameters():
            parameter.data[...] = 0.5
        optimizer = optim.get_optimizer(name, lr=0.1, weight_decay=0.5, **options)
        optimizer.bind(net.parameters())
        before = numbers(net)
        (0.0 * net(gn.tensor(X, device=device)).sum()).backward()
        optimizer.step()
        return differ(numbers(net), before)

    assert decayed() == [True] * 4
    assert decayed(decay_biases=False) == [True, False, True, False]


def test_trainer_takes_the_decay_of_any_optimizer():
    for name in optim.OPTIMIZERS:
        trainer = gn.Trainer(network(), "squared_error", name, weight_decay=0.1)
        assert trainer.optimizer.weight_decay == 0.1


# frozen parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", ["auto", False])
@pytest.mark.parametrize("shards", [None, 2])
def test_a_frozen_layer_stays(device, capture, shards):
    net = network(device)
    net[0].requires_grad_(False)
    before = numbers(net)
    options = {"regularizer": optim.L2(0.1) + optim.MaxNorm(0.5), "clip_norm": 1.0}
    fit(net, optim.AdamW(lr=0.05), capture=capture, shards=shards, **options)
    assert differ(numbers(net), before) == [False, False, True, True]
    net[0].requires_grad_(True)
    before = numbers(net)
    fit(net, "adam", capture=capture, shards=shards)
    assert differ(numbers(net), before) == [True] * 4


def test_the_rest_trains_as_if_the_frozen_layer_were_data(device):
    net, head = network(device), network(device)[1]
    hidden = net[0](gn.tensor(X, device=device)).numpy()
    net[0].requires_grad_(False)
    fit(net, optim.SGD(lr=0.05, momentum=0.9))
    trainer = gn.Trainer(head, "squared_error", optim.SGD(lr=0.05, momentum=0.9), seed=0)
    trainer.fit(hidden, T, epochs=3, batch_size=16, progress=False)
    for ours, theirs in zip(numbers(net[1]), numbers(head), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_the_state_of_frozen_parameters_stays(device):
    net = network(device)
    optimizer = optim.Adam(net.parameters(), lr=0.05)

    def step():
        optimizer.zero_grad()
        x, t = (gn.tensor(a, device=device) for a in (X, T))
        gn.ops.squared_error(net(x), t).backward()
        optimizer.step()

    step()
    part = optimizer.bound.parts[net[0].weight]
    before = optimizer.state_dict()["squares"][part]
    net[0].weight.requires_grad = False
    step()
    np.testing.assert_array_equal(optimizer.state_dict()["squares"][part], before)
    net[0].weight.requires_grad = True
    step()
    assert not np.array_equal(optimizer.state_dict()["squares"][part], before)


@pytest.mark.parametrize("capture", ["auto", False])
def test_a_layer_is_freed_between_epochs(device, capture):
    class Thaw(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            if epoch == 2:
                self.then = numbers(trainer.model)
                trainer.model[0].requires_grad_(True)

    net, thaw = network(device), Thaw()
    net[0].requires_grad_(False)
    start = numbers(net)
    trainer = gn.Trainer(net, "squared_error", "adam", seed=0, capture=capture)
    trainer.fit(X, T, epochs=4, batch_size=16, progress=False, callbacks=[thaw])
    assert differ(thaw.then, start) == [False, False, True, True]
    assert differ(numbers(net), thaw.then) == [True] * 4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_stay_frozen(copied):
    net = network()
    net[0].weight.requires_grad = False
    twin = copied(net)
    assert [p.requires_grad for p in twin.parameters()] == [False, True, True, True]
    fit(twin, "adam")
    np.testing.assert_array_equal(twin[0].weight.numpy(), net[0].weight.numpy())


def test_a_frozen_layer_is_another_run(tmp_path):
    fit(network(), "adam", checkpoint=tmp_path)
    net = network()
    net[0].requires_grad_(False)
    with pytest.raises(gn.GpunnError, match="model"):
        fit(net, "adam", checkpoint=tmp_path)


@pytest.mark.parametrize("wanted", [0, None, "no"])
def test_only_a_flag_freezes(wanted):
    with pytest.raises(ArgumentError, match="requires_grad"):
        network()[0].weight.requires_grad = wanted
