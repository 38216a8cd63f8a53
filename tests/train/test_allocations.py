"""What training takes from the allocator, step after step, on the CPU: counted, not timed."""

from __future__ import annotations

import gc
import sys
import tracemalloc

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.backends.cpu.compiled import Native, find_compiler
from gpunn.ops import ACTIVATIONS, Activation
from gpunn.optim import OPTIMIZERS

BATCH, WIDTH = 128, 256
A_FEW_KILOBYTES = 12_000  # a hidden layer's array has 131,072 bytes, an update's chunk as many
OBJECTS = 12_000  # of Python's, which are the graph of an eager step


@pytest.fixture(params=["NumPy alone", "compiled"])
def kernels(request, monkeypatch):
    """Both kinds of kernels of the CPU."""
    native = None
    if request.param == "compiled":
        monkeypatch.setenv("GPUNN_COMPILED", "auto")
        found = find_compiler.__wrapped__()
        if not found.command:
            pytest.skip(found.why)
        native = Native(found)
    monkeypatch.setattr(gn.backend("cpu"), "_native", native)


@pytest.fixture(autouse=True)
def small_buffers():
    """NumPy's iterators work in buffers of 8192 elements, which are no arrays; here, of 512."""
    usual = np.setbufsize(512)
    yield
    np.setbufsize(usual)


@pytest.fixture(params=["eager", "captured"])
def mode(request):
    return request.param


def step_of(net, optimizer, mode, loss="softmax_cross_entropy"):
    rule = gn.optim.get_optimizer(optimizer, lr=1e-4)
    rule.bind(net.parameters())
    step = gn.train.EagerStep(net, gn.ops.LOSSES[loss], rule)
    return gn.train.CapturedStep(step) if mode == "captured" else step


def network(activation="relu"):
    return nn.Sequential(
        nn.Linear(100, WIDTH, activation),
        nn.Dropout(0.5),
        nn.Linear(WIDTH, WIDTH, activation),
        nn.Linear(WIDTH, 10),
    )


def peak_bytes(work):
    """The most that is taken at once while warm work is done, beyond what was taken before."""
    for _ in range(4):
        work()
    tracemalloc.start()
    try:
        work()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def memory():
    """Blocks of Python's allocator, in which every array has its head, and bytes of the pool."""
    return np.array([sys.getallocatedblocks(), gn.backend("cpu").memory_bytes()])


def batch(rng):
    x = rng.standard_normal((BATCH, 100), dtype=np.float32)
    return x, rng.integers(0, 10, BATCH)


def bound(mode):
    return A_FEW_KILOBYTES + (OBJECTS if mode == "eager" else 0)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_a_steady_step_allocates_no_array_of_any_size(optimizer, mode, kernels, rng):
    step, examples = step_of(network(), optimizer, mode), batch(rng)
    assert peak_bytes(lambda: step(*examples)) < bound(mode)


@pytest.mark.parametrize(
    "name", sorted(n for n, a in ACTIVATIONS.items() if isinstance(a, Activation))
)
def test_no_activation_allocates(name, mode, rng):
    if not ACTIVATIONS[name].differentiable:
        pytest.skip(f"{name} has no gradient to train with")
    step, examples = step_of(network(name), "sgd", mode), batch(rng)
    assert peak_bytes(lambda: step(*examples)) < bound(mode)


def test_an_array_would_be_seen():
    assert peak_bytes(lambda: np.ones((BATCH, 64), np.float32).sum()) > A_FEW_KILOBYTES


def test_memory_stays_flat_over_thousands_of_steps(mode, rng):
    """Without the garbage collector, which must have nothing to do."""
    net = nn.Sequential(nn.Linear(2, 8, "relu"), nn.Linear(8, 8, "relu"), nn.Linear(8, 2))
    step = step_of(net, "adam", mode)
    x, y = rng.standard_normal((32, 2), dtype=np.float32), rng.integers(0, 2, 32)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3_000):  # Python's free lists fill
            step(x, y)
        before = memory()
        for _ in range(3_000):
            step(x, y)
        blocks, pooled = memory() - before
    finally:
        gc.enable()
    assert abs(blocks) < 30  # of more than 300,000 that were taken
    assert pooled == 0
