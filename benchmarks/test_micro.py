"""Time small pieces by pytest-benchmark on every usable device: `pytest benchmarks`."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import ops
from gpunn.backends import RandomStream
from gpunn.benchmarks.engine import GRAPHS
from gpunn.ops.linear import Dropped

DEVICES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not gn.diagnose(name).usable, reason=f"{name}: {gn.diagnose(name).reason}"
        ),
    )
    for name in ("cpu", "cuda")
]
SHAPE = (128, 1024)


@pytest.fixture(params=DEVICES)
def backend(request):
    return gn.backend(request.param)


def timed(benchmark, backend, work):
    """Time `work`, including the wait for the device."""

    def run():
        work()
        backend.synchronize()

    benchmark(run)


def test_copy_as_the_yardstick(benchmark, backend):
    x, y = backend.full(SHAPE, 1, np.float32), backend.full(SHAPE, 0, np.float32)
    timed(benchmark, backend, lambda: backend.launch(ops.identity.kernel, x, out=y))


@pytest.mark.parametrize("name", sorted(set(ops.ACTIVATIONS) - {"softmax"}))
def test_bias_and_activation(benchmark, backend, name):
    activation = ops.get_activation(name)
    rng = np.random.default_rng(0)
    z = backend.upload(rng.standard_normal(SHAPE, dtype=np.float32))
    y, bias = backend.empty_like(z), backend.full(SHAPE[1:], 0, np.float32)
    out = (z, y) if activation.saves == "x" else z
    options = activation.options.values()
    timed(
        benchmark,
        backend,
        lambda: backend.launch(activation.bias_kernel, bias, *options, out=out),
    )


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.3])
def test_dropout(benchmark, backend, rate):
    x, draw = gn.tensor(np.ones(SHAPE, np.float32), device=backend.device), RandomStream(0).draw()
    timed(benchmark, backend, lambda: ops.dropout(x, rate=rate, draw=draw))


@pytest.mark.parametrize("optimizer", sorted(gn.optim.OPTIMIZERS))
def test_update_of_a_million_parameters(benchmark, backend, optimizer):
    w = gn.tensor(np.ones(2**20, np.float32), requires_grad=True, device=backend.device)
    rule = gn.optim.get_optimizer(optimizer)
    rule.bind([w])
    w.sum().backward()
    timed(benchmark, backend, rule.step)


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_of_small_operations(benchmark, backend, graph):
    x = gn.tensor(np.ones(1, np.float32), requires_grad=True, device=backend.device)
    timed(benchmark, backend, lambda: GRAPHS[graph][0](x))


def test_hidden_layer_with_dropout_forward_and_backward(benchmark, backend):
    rng = np.random.default_rng(0)
    x, w = (
        gn.tensor(rng.standard_normal(shape, dtype=np.float32), True, device=backend.device)
        for shape in (SHAPE, (SHAPE[1], 256))
    )
    bias = gn.tensor(np.zeros(256, np.float32), True, device=backend.device)
    gy = backend.full((SHAPE[0], 256), 1, np.float32)
    dropped = Dropped(0.5, RandomStream(0).draw())

    def layer():
        ops.linear(x, w, bias, activation=ops.relu, dropout=dropped).backward(gy)

    timed(benchmark, backend, layer)
