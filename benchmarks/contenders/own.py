"""A training step of gpunn, and the matrix products that every step needs."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpunn as gn
from gpunn.backends.dtypes import precision_dtype
from gpunn.benchmarks.networks import LR, MOMENTUM, Network
from gpunn.benchmarks.timing import Work
from gpunn.distributed import ALONE
from gpunn.train.steps.sharded import ShardedStep


def gpunn_step(
    network: Network,
    rule: str,
    device: str = "cpu",
    dtype: str = "float32",
    captured: bool = True,
    shards: int = 1,
) -> Work:
    """Build a step of gpunn on one batch that is on the device, in shards if there are several."""
    gn.manual_seed(0)
    layers: list[gn.nn.Module] = []
    with gn.device(device):
        for d, h in network.hidden:
            layers.append(gn.nn.Linear(d, h, activation=network.activation))
            layers += [gn.nn.Dropout(network.rate)] if network.rate else []
        model = gn.nn.Sequential(*layers, gn.nn.Linear(*network.layers[-1]))
    b = model.backend
    options = {"momentum": MOMENTUM} if rule == "sgd" else {}
    optimizer = gn.optim.get_optimizer(rule, lr=LR, **options)
    optimizer.bind(model.parameters())
    kind = gn.train.EagerStep if shards == 1 else ShardedStep
    eager = kind(model, gn.ops.LOSSES[network.loss], optimizer)
    if isinstance(eager, ShardedStep):
        eager.divide(shards, ALONE)
    step = gn.train.CapturedStep(eager) if captured else eager
    x, y = map(b.upload, network.examples())
    x = x.astype(precision_dtype(dtype), copy=False)
    narrowed = optimizer.bound.narrowed(precision_dtype(dtype))
    narrowed.__enter__()  # never left, because the step needs it as long as it lives
    return lambda scope=narrowed: step(x, y)


def matrix_products(network: Network, device: str = "cpu", dtype: str = "float32") -> Work:
    """Build a function of the step's matrix products alone, which allocates nothing."""
    rng, b = np.random.default_rng(0), gn.backend(device)
    kind = precision_dtype(dtype)
    products: list[tuple[Any, Any, Any]] = []
    for k, (d, h) in enumerate(network.layers):
        x, w, gz = (
            b.upload(rng.standard_normal(shape, dtype=np.float32)).astype(kind, copy=False)
            for shape in ((network.batch, d), (d, h), (network.batch, h))
        )
        products += [(x, w, b.empty_like(gz)), (x.T, gz, b.empty(w.shape, np.float32))]
        if k:
            products.append((gz, w.T, b.empty_like(x)))
    matmul = np.matmul if b.on_host else b.matmul

    def work() -> Any:
        for left, right, out in products:
            matmul(left, right, out=out)
        return products  # the graph keeps these arrays alive

    if b.on_host or b.why_no_capture():
        return work
    with b.own_stream():
        work()
        graph = b.record(work)

    def run() -> None:
        with b.own_stream():
            graph.launch()

    return run
