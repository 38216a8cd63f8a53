"""What a training step costs on a device, counted on the stand-in."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.ops.reductions import all_finite, all_true
from tests.standin.backend import StandinBackend, standin_cupy


@pytest.fixture
def one_step():
    """Run warm steps of a network with 3 hidden layers, then count one."""
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")

    def count(**options):
        with gn.device("standin"):
            net = nn.Sequential(
                *(part for _ in range(3) for part in (nn.Linear(8, 8, "relu"), nn.Dropout(0.5))),
                nn.Linear(8, 4),
            )
        optimizer = gn.optim.Adam(net.parameters())
        step = gn.train.EagerStep(net, gn.ops.softmax_cross_entropy, optimizer, **options)
        x, y = (net.backend.upload(a) for a in (np.ones((4, 8), np.float32), np.arange(4)))
        for _ in range(2):
            step(x, y)
        with standin_cupy().counters.count() as found:
            step(x, y)
        return found

    return count


def test_launches_of_a_step(one_step):
    found = one_step()
    # forward and inputs without those of the output layer; weights; never the data's gradient
    assert found.matmuls == 3 + 2 + 4
    hidden = {
        "gpunn_relu_bias_dropout": 3,
        "gpunn_relu_grad_dropout": 2,
    }
    output = {}  # bias, and every gradient of one, come with the matrix products
    loss = {"classifier_loss": 1}  # and the gradient behind the last ReLU
    optimizer = {"gpunn_adam": 1}
    expected = sum(map(Counter, (hidden, output, loss, optimizer)), Counter())
    assert found.launches == expected


@pytest.fixture
def recorded(monkeypatch):
    """Return the launches of each graph that is recorded, in a list."""
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")
    found, record = [], StandinBackend.record

    def counted(self, work, pieces=1):
        def counting():
            with standin_cupy().counters.count() as one:
                kept = work()
            found.append(one)
            return kept

        return record(self, counting, pieces)

    monkeypatch.setattr(StandinBackend, "record", counted)
    return found


def network(*sizes):
    """Make a network with ReLU on the stand-in."""
    pairs = list(pairwise(sizes))
    kinds = ["relu"] * (len(pairs) - 1) + ["identity"]
    with gn.device("standin"):
        layers = (nn.Linear(*pair, kind) for pair, kind in zip(pairs, kinds, strict=True))
        return nn.Sequential(*layers)


def test_launches_of_a_recorded_fit(recorded):
    net = network(6, 8, 8, 4)
    x, y = np.ones((8 * 6, 6), np.float32), np.arange(8 * 6) % 4
    gn.Trainer(net).fit(x, y, epochs=2, batch_size=8, progress=False)
    (graph,) = recorded
    assert graph.matmuls == 4 * (2 + 1 + 3)
    each = {"gather_rows": 1, "classifier_loss": 1, "gpunn_relu_grad": 1, "gpunn_judged": 1}
    each |= {"gpunn_adam": 1}
    once = {"gpunn_window": 1, "gpunn_advance": 1}  # of a graph of four steps
    assert graph.launches == Counter({name: 4 * count for name, count in each.items()} | once)


def test_launches_of_a_recorded_fit_of_a_small_network(recorded):
    net = network(6, 8, 4)
    x, y = np.ones((8 * 6, 6), np.float32), np.arange(8 * 6) % 4
    gn.Trainer(net).fit(x, y, epochs=2, batch_size=8, progress=False)
    (graph,) = recorded
    assert not graph.matmuls
    once = {"gpunn_window": 1, "gpunn_advance": 1}
    assert graph.launches == {"gather_rows": 4, "network_step": 4} | once


@pytest.mark.parametrize("alone", [False, True], ids=["in one", "by operations"])
def test_launches_of_a_step_by_hand(alone, recorded, monkeypatch):
    net = network(6, 8, 4)
    if alone:
        monkeypatch.setattr(net.backend, "grid_blocks", 0)
    optimizer = gn.optim.Adam(net.parameters())
    step = gn.train.EagerStep(net, gn.ops.softmax_cross_entropy, optimizer)
    step = gn.train.CapturedStep(step)
    x, y = (net.backend.upload(a) for a in (np.ones((8, 6), np.float32), np.arange(8) % 4))
    for _ in range(3):
        step(x, y)
    (graph,) = recorded
    assert graph.matmuls == (1 + 2 if alone else 0)
    several = {"classifier_loss": 1, "gpunn_adam": 1}
    assert graph.launches == (several if alone else {"network_step": 1})


def test_launches_of_a_step_in_bfloat16():
    kind = pytest.importorskip("ml_dtypes").bfloat16
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")
    net = network(64, 64, 64, 64, 10)
    optimizer = gn.optim.Adam(net.parameters())
    step = gn.train.EagerStep(net, gn.ops.softmax_cross_entropy, optimizer)
    x, y = (net.backend.upload(a) for a in (np.ones((32, 64), kind), np.arange(32) % 10))
    with optimizer.bound.narrowed(kind):
        step(x, y)
        with standin_cupy().counters.count() as found:
            step(x, y)
    assert found.matmuls == 4 + 3 + 4
    # the output layer's weight is copied to rows of 16 bytes, and its bias is summed apart
    output = {"setitem": 1, "softmax_cross_entropy": 1, "gpunn_scaled": 1, "column_sums_wide": 1}
    assert found.launches == output | {"gpunn_relu_grad": 3, "gpunn_adam_narrow": 1}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 1.0},
        {"regularizer": gn.optim.ElasticNet(0.1)},
        {"regularizer": gn.optim.MaxNorm(1.0)},
    ],
    ids=["plain", "clipped", "elastic net", "max-norm"],
)
def test_a_step_copies_nothing_and_waits_for_nothing(one_step, options):
    found = one_step(**options)
    assert (found.host_to_device, found.device_to_host, found.synchronisations) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "launches"),
    [("softmax", 1), ("log_softmax", 1), ("layer_norm", 2), ("rms_norm", 2), ("batch_norm", 1)],
)
def test_launches_of_an_operation_and_of_its_backward(name, launches):
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")
    b = gn.backend("standin")
    x, *each = (b.upload(np.ones(shape, np.float32)) for shape in ((4, 8), (8,), (8,), (8,), (8,)))
    given = [x, *each[: 0 if "softmax" in name else 1 if name == "rms_norm" else 2]]
    running = {"running_mean": each[2], "running_variance": each[3]} if name == "batch_norm" else {}
    with standin_cupy().counters.count() as found:
        _, backward = getattr(gn.ops, name).vjp(b, *given, **running)
    assert found.launches == {name: 1}
    with standin_cupy().counters.count() as found:
        backward(x, (True,) * len(given))
    assert found.launches.total() == launches


@pytest.mark.parametrize(
    ("columns", "dtype", "passes"),
    [(12, "float32", 1), (150, "float32", 1), (64, "float64", 1), (65, "float64", 2)],
)
def test_a_row_of_layer_norm_that_fits_into_registers_is_read_once(columns, dtype, passes):
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")
    b = gn.backend("standin")
    x, *given = (b.upload(np.ones(s, dtype)) for s in ((4099, columns), (columns,), (columns,)))
    _, backward = gn.ops.layer_norm.vjp(b, x, *given)
    with standin_cupy().counters.count() as found:
        backward(x, (True,) * 3)
    names = ["layer_norm_grad_in_one"], ["layer_norm_grad", "layer_norm_grad_columns"]
    assert [n for n in found.launches if n.startswith("layer_norm")] == names[passes - 1]


def test_a_look_for_numbers_that_are_not_finite_is_one_launch_without_a_mask():
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")
    b = gn.backend("standin")
    x = b.upload(np.ones((64, 64), np.float32))
    for look, array in ((all_finite, x), (all_true, x > 0)):
        with standin_cupy().counters.count() as found:
            assert look(b, array)
        assert found.launches.total() == 1


def test_counting_right_answers_is_one_launch():
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")
    b = gn.backend("standin")
    scores, labels = b.upload(np.eye(3, dtype=np.float32)), b.upload(np.array([0, 1, 0]))
    hits = b.zeros((), np.int64)
    with standin_cupy().counters.count() as found:
        gn.ops.class_losses.correct(b, scores, labels, "argmax", hits)
    assert found.launches == {"correct": 1}
    assert b.download(hits) == 2
