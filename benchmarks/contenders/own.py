"""gpunn's training step, and the matrix products that no step can do without."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpunn as gn
from gpunn.backends.dtypes import precision_dtype
from gpunn.benchmarks.networks import LR, MOMENTUM, Network
from gpunn.benchmarks.timing import Work


def gpunn_step(
    network: Network,
    rule: str,
    device: str = "cpu",
    dtype: str = "float32",
    captured: bool = True,
) -> Work:
    """A step of gpunn on one batch that lies on the device."""
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
    eager = gn.train.EagerStep(model, gn.ops.LOSSES[network.loss], optimizer)
    step = gn.train.CapturedStep(eager) if captured else eager
    x, y = map(b.upload, network.examples())
    x = x.astype(precision_dtype(dtype), copy=False)
    narrowed = optimizer.bound.narrowed(precision_dtype(dtype))
    narrowed.__enter__()  # and never left: the step keeps it alive
    return lambda scope=narrowed: step(x, y)


def matrix_products(network: Network, device: str = "cpu", dtype: str = "float32") -> Work:
    """The step's products alone, into arrays that are there; a GPU's as one graph."""
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
        return products  # which a graph keeps alive

    if b.on_host or b.why_no_capture():
        return work
    with b.own_stream():
        work()
        graph = b.record(work)

    def run() -> None:
        with b.own_stream():
            graph.launch()

    return run
