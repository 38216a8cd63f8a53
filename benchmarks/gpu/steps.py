"""Microseconds of a training step, of its matrix products alone, and of other frameworks' step."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.gpu.contenders import contenders
from benchmarks.step_floor import NETWORKS, Network
from gpunn import nn, optim
from gpunn.backends import Backend
from gpunn.backends.base import precision_dtype

WIDE = Network("wide", (4096, 4096, 4096, 4096, 10), 8192)
CASES = (  # network, rule, dtype, whether compiled contenders run too (a minute each)
    (NETWORKS[0], "adam", "float32", True),
    (NETWORKS[0], "sgd", "float32", False),
    (NETWORKS[1], "adam", "float32", False),
    (NETWORKS[2], "adam", "float32", False),
    (NETWORKS[3], "adam", "float32", True),
    (WIDE, "adam", "bfloat16", False),
)
GOALS = {  # network -> (slower, faster, at least so many times)
    "mnist-small": (("torch_eager_us", "gpunn_captured_us", 10.0),),
    "dropout-paper": (
        ("torch_eager_us", "gpunn_captured_us", 5.0),
        ("torch_graphs_us", "gpunn_captured_us", 1.0),
    ),
    "wide": (("matrix_products_us", "gpunn_captured_us", 1 / 1.1),),
}


def steps(device: str, quick: bool) -> dict[str, Any]:
    """Every network: gpunn eager and captured, the floor, and whatever else is installed."""
    found: dict[str, Any] = {}
    b = gn.backend(device)
    for network, rule, dtype, compiled in CASES[:2] if quick else CASES:
        makers = {
            "gpunn_eager": lambda c=(network, rule, dtype): gpunn_step(*c, device, False),
            "matrix_products": lambda c=(network, dtype): products(*c, device),
        }
        if b.captures:
            makers["gpunn_captured"] = lambda c=(network, rule, dtype): gpunn_step(*c, device, True)
        makers |= dict(contenders(network, rule, device, dtype, compiled and not quick))
        work, failed = {}, {}
        for name, make in makers.items():
            try:
                work[name] = make()
                work[name]()
            except Exception:
                work.pop(name, None)
                failed[name] = traceback.format_exc(limit=3)
        numbers: dict[str, Any] = dict(in_turn(b, work, quick))
        numbers["failed"] = failed
        numbers["goals"] = [_goal(numbers, *goal) for goal in GOALS.get(network.name, ())]
        found[f"{network.name}, {rule}, {dtype}"] = numbers
    return found


def _goal(numbers: dict[str, Any], slower: str, faster: str, times: float) -> dict[str, Any]:
    if slower not in numbers or faster not in numbers:
        return {"goal": f"{slower} / {faster} >= {times:.2f}", "met": None}
    ratio = numbers[slower] / numbers[faster]
    return {"goal": f"{slower} / {faster} >= {times:.2f}", "got": ratio, "met": ratio >= times}


def gpunn_step(
    network: Network, rule: str, dtype: str, device: str, captured: bool
) -> Callable[[], Any]:
    """A step of gpunn on one batch that lies on the device."""
    gn.manual_seed(0)
    layers: list[nn.Module] = []
    with gn.device(device):
        for d, h in zip(network.sizes[:-2], network.sizes[1:-1], strict=True):
            layers.append(nn.Linear(d, h, activation="relu"))
            layers += [nn.Dropout(network.rate)] if network.rate else []
        model = nn.Sequential(*layers, nn.Linear(*network.sizes[-2:]))
    b = model.backend
    options = {"momentum": 0.9} if rule == "sgd" else {}
    optimizer = optim.get_optimizer(rule, lr=0.01, **options)
    optimizer.bind(model.parameters())
    inner = gn.train.EagerStep(model, gn.ops.softmax_cross_entropy, optimizer)
    step = gn.train.CapturedStep(inner) if captured else inner
    x, y = _batch(b, network)
    x = x.astype(precision_dtype(dtype), copy=False)

    narrowed = optimizer.bound.narrowed(precision_dtype(dtype))
    narrowed.__enter__()  # and never left: the step keeps it alive
    return lambda scope=narrowed: step(x, y)


def _batch(b: Backend, network: Network) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((network.batch, network.sizes[0]), dtype=np.float32)
    return b.upload(x), b.upload(rng.integers(0, network.sizes[-1], network.batch))


def products(network: Network, dtype: str, device: str) -> Callable[[], Any]:
    """The step's matrix products alone, through the backend, as one graph where it can."""
    rng, b = np.random.default_rng(0), gn.backend(device)
    kind = precision_dtype(dtype)
    pairs = []
    for k, (d, h) in enumerate(zip(network.sizes[:-1], network.sizes[1:], strict=True)):
        x, w, gz = (
            b.upload(rng.standard_normal(shape, dtype=np.float32)).astype(kind, copy=False)
            for shape in ((network.batch, d), (d, h), (network.batch, h))
        )
        gw = b.empty(w.shape, np.float32)
        pairs += [(x, w, b.empty_like(gz)), (x.T, gz, gw)]
        if k:
            pairs.append((gz, w.T, b.empty_like(x)))

    def work() -> Any:
        for left, right, out in pairs:
            b.matmul(left, right, out=out)
        return pairs  # which the graph keeps alive

    if not b.captures:
        return work
    with b.own_stream():
        work()
        graph = b.record(work)

    def run() -> None:
        with b.own_stream():
            graph.launch()

    return run


def in_turn(b: Backend, work: dict[str, Callable[[], Any]], quick: bool) -> dict[str, float]:
    """Median microseconds of each piece of work, all timed in turn in every round."""
    repeats = 3 if quick else 50
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_number in range(3 if quick else 12):
        for name, step in work.items():
            b.synchronize()
            start = time.perf_counter()
            for _ in range(repeats):
                result = step()
            getattr(result, "block_until_ready", b.synchronize)()  # JAX launches from its threads
            b.synchronize()
            if round_number:  # the first compiles and warms up
                times[name].append(1e6 * (time.perf_counter() - start) / repeats)
    return {f"{name}_us": statistics.median(values) for name, values in times.items()}


def epoch(device: str, quick: bool) -> dict[str, Any]:
    """Seconds of an epoch with MNIST's sizes, 784-256-256-10 and batch 128, data on the device."""
    n = 1024 if quick else 60_000
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 784), dtype=np.float32), rng.integers(0, 10, n)
    with gn.device(device):
        net = nn.Sequential(
            nn.Linear(784, 256, "relu"), nn.Linear(256, 256, "relu"), nn.Linear(256, 10)
        )
    history = gn.Trainer(net).fit(x, y, epochs=5, batch_size=128, progress=False)
    seconds = history["seconds"]
    best = statistics.median(seconds[1:])
    goal = {"goal": "an epoch of 60,000 examples in at most 0.040 s", "met": best <= 0.040}
    return {"seconds": seconds, "median": best, "examples": n, "goals": [goal]}
