"""The training step of a small network in one launch: on the stand-in, and on a GPU."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.autograd import OPS
from gpunn.backends.kernel import KERNELS
from gpunn.errors import DeviceUnavailableError, GradientError
from gpunn.ops import ACTIVATIONS, Activation
from gpunn.ops.elementwise import Option
from gpunn.optim.guard import Guard
from gpunn.optim.optimizer import OPTIMIZERS
from gpunn.optim.schedules import Linear
from gpunn.train.steps.network import MOST_BLOCKS, MOST_CLASSES, MOST_OUTPUTS, blocks_for
from tests.ops.test_planted_bugs import BUGS, mutants
from tests.standin.backend import StandinBackend
from tests.standin.compiler import build
from tests.standin.host_kernel import ORDERS, HostRawKernel, all_orders

CROSS_ENTROPY = gn.ops.softmax_cross_entropy
SHAPES = {  # rows, features, hidden units, classes
    "one block": (5, 3, 7, 2),
    "lecture": (64, 784, 50, 10),
    "ragged": (41, 70, 33, 5),
    "few features": (200, 2, 40, 3),
    "all that fits": (64, 100, 128, 16),  # in float32
    "one of each": (1, 1, 1, 1),
}
OPTIONS = {
    "plain": {},
    "dropout": {"rate": 0.5, "activation": "tanh"},
    "dropout of 16 bits": {"rate": 0.3},
    "from x": {"activation": "gelu", "optimizer": "sgd", "momentum": 0.9},
    "numbers": {"activation": partial(gn.ops.leaky_relu, slope=0.3), "optimizer": "rmsprop"},
    "decay": {"optimizer": "adamw", "weight_decay": 0.1, "decay_biases": False},
    "a schedule": {"optimizer": "adam", "beta1": Linear(start=0.9, end=0.5)},
    "guard": {"guarded": True},
    "guard and dropout": {"guarded": True, "rate": 0.25, "optimizer": "nadam"},
    "loss": {"loss": partial(CROSS_ENTROPY, label_smoothing=0.1, reduction="sum")},
    "float64": {"kind": np.float64},
}
STEPS = [(s, n) for s in SHAPES for n in OPTIONS if (s, n) != ("all that fits", "float64")]


@pytest.fixture
def small(cuda_device):
    """Make a step of a small network, and batches for it."""

    def make(
        shape=(11, 6, 9, 4),
        *,
        rate=0.0,
        activation="relu",
        optimizer="adam",
        loss=CROSS_ENTROPY,
        kind=np.float32,
        guarded=False,
        step=(),
        **options,
    ):
        rows, features, hidden, classes = shape
        with gn.device(cuda_device):
            layers = [nn.Linear(features, hidden, activation, seed=0, dtype=kind)]
            layers += [nn.Dropout(rate, seed=1)] * bool(rate)
            net = nn.Sequential(*layers, nn.Linear(hidden, classes, seed=2, dtype=kind)).train()
        b, rng = net.backend, np.random.default_rng(3)
        if optimizer not in ("sgd", "lamb"):  # a small eps magnifies the rounding of gradients
            options = {"eps": 1e-2, **options}
        own = OPTIMIZERS[optimizer](net.parameters(), lr=0.01, **options)
        guard = Guard(b, "skip", own.bound.dtype) if guarded else None
        found = gn.train.EagerStep(net, loss, own, guard=guard, **dict(step))
        x = rng.standard_normal((3, rows, features)).astype(kind)
        batches = [(b.upload(v), b.upload(rng.integers(0, classes, rows))) for v in x]
        return found, batches

    return make


@pytest.fixture
def launched(cuda_device, monkeypatch):
    """Return the launches of kernels whose blocks wait, in a list."""
    b = gn.backend(cuda_device)
    found, launch = [], b.launch_grid

    def noted(*args):
        found.append(args)
        launch(*args)

    monkeypatch.setattr(b, "launch_grid", noted)
    return found


def result(step, batches):
    """Everything that some steps leave."""
    b, optimizer = step.optimizer.bound.backend, step.optimizer
    losses = [b.download(step(*batch)).copy() for batch in batches]
    flat = optimizer.bound
    numbers = [b.download(array) for array in (flat.data, flat.grad, *optimizer.state)]
    counts = [optimizer.device_step]
    counts += [] if step.factor.guard is None else step.factor.guard.state()
    used = np.concatenate([np.arange(part.start, part.stop) for part in flat.parts.values()])
    return [*losses, *(a[used] for a in numbers), *map(b.download, counts)]


@pytest.mark.parametrize(("shape", "name"), STEPS)
def test_the_numbers_are_those_of_the_operations(shape, name, small, launched, monkeypatch):
    step, batches = small(SHAPES[shape], **OPTIONS[name])
    found = result(step, batches)
    assert len(launched) == len(batches)
    step, batches = small(SHAPES[shape], **OPTIONS[name])
    monkeypatch.setattr(step.optimizer.bound.backend, "grid_blocks", 0)
    expected = result(step, batches)
    assert len(launched) == len(batches)
    for one, several in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, several, rtol=2e-4, atol=3e-6)


@pytest.fixture
def own():
    """An activation of a user's own, with names that the kernel has, too, and with the index."""
    before = [(names, set(names)) for names in (ACTIVATIONS, OPS, KERNELS)]

    def forward(x, times, y):
        np.multiply(x, np.where(np.arange(x.size).reshape(x.shape) % 2, times, 1), out=y)

    def backward(gy, y, times, gx):
        forward(gy, times, gx)

    yield Activation(
        "own_of_a_test",
        "y = x, or times x where the index is odd.",
        numpy=forward,
        cuda="const T room = i % 2 ? times : T(1); y = x * room;",
        grad_numpy=backward,
        grad_cuda="const T at = i % 2 ? times : T(1); gx = gy * at;",
        options={"times": Option(1.0)},
    )
    for names, known in before:
        for key in set(names) - known:
            del names[key]


def test_an_activation_of_your_own_is_in_it(own, small, launched, monkeypatch):
    found = []
    for blocks in (25, 0):
        step, batches = small(activation=partial(own, times=3.0), rate=0.5)
        monkeypatch.setattr(step.optimizer.bound.backend, "grid_blocks", blocks)
        found.append(result(step, batches))
    assert len(launched) == len(batches)
    for one, several in zip(*found, strict=True):
        np.testing.assert_allclose(one, several, rtol=2e-4, atol=3e-6)


def test_the_bits_are_the_same_every_time_and_in_every_order_of_threads_and_blocks(small):
    if small()[0].optimizer.bound.backend.kind == "cuda":
        pytest.skip("only the stand-in chooses the order of threads")
    found = []
    for _ in range(2):
        step, batches = small((20, 70, 9, 4), rate=0.5, guarded=True)
        with all_orders():
            found.append(result(step, batches))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_and_the_count_of_steps_are_as_usual(small):
    step, batches = small()
    step(*batches[0])
    for parameter in step.model.parameters():
        assert np.abs(parameter.backend.download(parameter.grad)).max() > 0
    assert int(step.optimizer.device_step) == 1


def test_a_fit_learns_as_with_operations(cuda_device, launched, monkeypatch):
    b = gn.backend(cuda_device)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((130, 12)).astype(np.float32)
    y = (x[:, :4].argmax(1)).astype(np.int64)
    losses, counts = [], []
    for blocks in (b.grid_blocks, 0):
        monkeypatch.setattr(b, "grid_blocks", blocks)
        net = nn.Sequential(
            nn.Linear(12, 20, "relu", seed=0), nn.Dropout(0.2), nn.Linear(20, 4, seed=1)
        )
        trainer = gn.Trainer(
            net, "softmax_cross_entropy", "adam", lr=0.01, device=cuda_device, seed=0
        )
        losses.append(trainer.fit(x, y, epochs=8, batch_size=32)["loss"])
        counts.append(len(launched))
    assert counts[0] == counts[1] > 0
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert losses[0][-1] < 0.6 * losses[0][0]


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_a_guard_judges_loss_and_gradients(mode, small, launched):
    step, batches = small(guarded=True, rate=0.5)
    guard = step.factor.guard
    guard.mode = mode
    b, flat = guard.backend, step.optimizer.bound
    step(*batches[0])
    before = b.download(flat.data)
    x, y = batches[1]
    x[:, 0] = 1e25  # the loss stays finite; the squares of the gradients do not
    step(x, y)
    assert len(launched) == 2
    np.testing.assert_array_equal(b.download(flat.data), before)
    assert [int(a) for a in (guard.go, guard.first, guard.count)] == [0, 2, 1]
    assert int(step.optimizer.device_step) == 1
    step(*batches[2])
    assert int(guard.go) == (mode == "skip")
    assert int(step.optimizer.device_step) == 1 + (mode == "skip")


def own_activation(x):
    return x * 2


SEVERAL = {
    "a weight of an example": lambda make: make(),
    "clipped": lambda make: make(step={"clip_norm": 1.0}),
    "penalty": lambda make: make(step={"regularizer": gn.optim.L2(0.1)}),
    "another loss": lambda make: make(loss=gn.ops.multiclass_hinge),
    "weights of labels": lambda make: make(loss=partial(CROSS_ENTROPY, ignore_index=1)),
    "an optimizer of another kind": lambda make: make(optimizer="lamb"),
    "many classes": lambda make: make((5, 3, 4, MOST_CLASSES + 1)),
    "many hidden units": lambda make: make((5, 3, 129, 2)),
    "many hidden units in float64": lambda make: make((5, 3, 65, 2), kind=np.float64),
    "large batch": lambda make: make((MOST_OUTPUTS // 64 + 1, 3, 64, 2)),
    "many features": lambda make: make((5, 32 * MOST_BLOCKS + 1, 3, 2)),
    "float16": lambda make: make(kind=np.float16),
    "no derivative": lambda make: make(activation="hard_threshold"),
    "a function": lambda make: make(activation=own_activation),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_other_steps_take_several_launches(name, small, launched):
    step, batches = SEVERAL[name](small)
    weights = [step.model.backend.upload(np.ones(11, np.float32))] if "example" in name else []
    try:
        step(*batches[0], *weights)
    except GradientError:
        assert name == "no derivative"
    assert not launched


def test_layers_that_are_frozen_or_trained_elsewhere_take_several_launches(small, launched):
    step, batches = small()
    step.model[0].bias.requires_grad = False
    step(*batches[0])
    assert not launched
    net = step.model
    for parameter in net.parameters():
        parameter.requires_grad = True
    own = gn.optim.Adam(net[1].parameters())
    gn.train.EagerStep(net, CROSS_ENTROPY, own)(*batches[0])
    assert not launched


def test_the_blocks_depend_on_the_shapes_and_all_run_at_once(device):
    b, labels = gn.backend(device), np.zeros(64, np.int64)
    count = partial(blocks_for, b, "float32", (64, 784), labels, (50, 10))
    assert count() == (25 if b.grid_blocks >= 25 else 0)
    kept, b.grid_blocks = b.grid_blocks, 25
    try:
        assert count() == 25
        b.grid_blocks = 24
        assert count() == 0
    finally:
        b.grid_blocks = kept


# planted bugs ------------------------------------------------------------------------------------

OWN_BUGS = {r"meet\(counts, \d\);": "__syncthreads();", r"__syncwarp\(\);": ";"}
EQUIVALENT = {
    "compute_row, line 39: __syncwarp();": "the shuffles of the next row wait for all lanes, too",
    "row_fold, line 9: __syncthreads();": "the thread that uses the sum is the one that left it",
    "store_of, line 2: if (at >= h.columns) return;": "the logits of a row are never in packs",
}
"""Planted bugs that change nothing, with the reason."""


@pytest.fixture
def launch(small, monkeypatch):
    """Return the second launch of a step on the stand-in: kernel, blocks and arguments."""

    def record(*args, **options):
        step, batches = small(*args, **options)
        b, found = step.optimizer.bound.backend, []
        if not isinstance(b, StandinBackend):
            pytest.skip("bugs are planted on the stand-in")
        run = b.launch_grid

        def noted(kernel, blocks, dtype, *given):
            copies = [a if b.device_of(a) is None else b.download(a).copy() for a in given]
            found.append((kernel, blocks, copies))
            run(kernel, blocks, dtype, *given)

        monkeypatch.setattr(b, "launch_grid", noted)
        result(step, batches[:2])
        kernel, blocks, given = found[1]
        return kernel, blocks, [np.int32(a) if type(a) is int else a for a in given]

    return record


def run(text, blocks, given, orders=ORDERS, counts=(0, 0, 0)):
    """Run a text of the kernel, and return its arrays."""
    arrays = [a.copy() if isinstance(a, np.ndarray) else a for a in given]
    arrays.append(np.array(counts, np.uint32))
    with np.errstate(all="ignore"):
        HostRawKernel(text, "network_step")((blocks,), (256,), arrays, orders=orders)
    return [a for a in arrays if isinstance(a, np.ndarray)]


def flaw(text, blocks, given, expected):
    """What is wrong with a text: what the stand-in says, or that the numbers differ; else None."""
    try:
        found = run(text, blocks, given)
    except RuntimeError as error:
        return str(error)
    # some of the space is not used, and stays NaN
    close = partial(np.allclose, rtol=3e-5, atol=3e-5, equal_nan=True)
    same = all(map(close, found, expected))
    return None if same else "the result differs"


def test_every_planted_bug_is_noticed(launch):
    loss = partial(CROSS_ENTROPY, label_smoothing=0.1)
    cases = [launch((41, 70, 33, 16), rate=0.3, guarded=True, loss=loss), launch((41, 70, 33, 4))]
    missed = []
    for kernel, _, given in cases:
        text, blocks = kernel.source("float32", kernel.held(4, 1)), 3  # 14 rows for 8 warps
        expected = run(text, blocks, given)
        assert flaw(text, blocks, given, expected) is None
        planted = list(mutants(kernel, BUGS | OWN_BUGS, text))
        assert len(planted) > 25
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sources = [HostRawKernel(mutant.text, "network_step").source() for mutant in planted]
            list(pool.map(lambda source: build(source, "network_step"), sources))
        missed.append({m.place for m in planted if flaw(m.text, blocks, given, expected) is None})
    assert set.intersection(*missed) == set(EQUIVALENT)


def test_a_wait_in_vain_ends_and_is_told(launch):
    kernel, blocks, given = launch((41, 70, 33, 5))
    text = kernel.source("float32", kernel.held(4, 1))
    text = text.replace("PATIENCE = 1 << 23", "PATIENCE = 99")
    away = text.replace("  meet(counts, 2);", "  if (blockIdx.x == 1) return;\n  meet(counts, 2);")
    assert text != away
    p, loss, counts = 2, 5, -1
    found = run(away, blocks, given, ORDERS[:1])
    assert np.isnan(found[loss])
    assert found[counts][2] == 1
    again = run(text, blocks, given, ORDERS[:1], found[counts])  # no block waits any more
    assert np.isnan(again[loss])
    np.testing.assert_array_equal(again[p], given[p])
    assert not np.isnan(run(text, blocks, given)[loss])


def test_a_fit_whose_blocks_waited_in_vain_ends_with_the_reason(cuda_device):
    b = gn.backend(cuda_device)
    net = nn.Sequential(nn.Linear(40, 5, "relu", seed=0), nn.Linear(5, 3, seed=1))
    trainer = gn.Trainer(net, "softmax_cross_entropy", device=cuda_device)
    x, y = np.ones((64, 40), np.float32), np.arange(64) % 3
    b._launcher.space("counts")[2] = 1
    with pytest.raises(DeviceUnavailableError, match="waited for each other in vain"):
        trainer.fit(x, y, epochs=1, batch_size=16)
    trainer.fit(x, y, epochs=1, batch_size=16)


def test_more_blocks_than_run_at_once_are_refused_by_the_stand_in(launch):
    kernel, _, given = launch()
    with pytest.raises(RuntimeError, match="133 blocks wait for each other, and 132 run"):
        run(kernel.source("float32"), 133, given)
