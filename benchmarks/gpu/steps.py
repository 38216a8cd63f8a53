"""Microseconds of a training step, of its matrix products alone, and of other frameworks' step."""

from __future__ import annotations

import importlib.util
import statistics
import traceback
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn
from gpunn.backends import Backend
from gpunn.benchmarks.contenders.jax_step import jax_step
from gpunn.benchmarks.contenders.own import gpunn_step, matrix_products
from gpunn.benchmarks.contenders.torch_step import torch_step
from gpunn.benchmarks.networks import NETWORKS, Network
from gpunn.benchmarks.timing import in_turn

WIDE = Network("wide", (4096, 4096, 4096, 4096, 10), 8192)
CASES = (  # network, rule, dtype, whether compiled contenders run too (a minute each)
    (NETWORKS["mnist-small"], "adam", "float32", True),
    (NETWORKS["mnist-small"], "sgd", "float32", False),
    (NETWORKS["mnist-mid"], "adam", "float32", False),
    (NETWORKS["mnist-mid + dropout"], "adam", "float32", False),
    (NETWORKS["dropout-paper"], "adam", "float32", True),
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
        makers: dict[str, Any] = {
            "gpunn_eager": lambda c=(network, rule, device, dtype): gpunn_step(*c, captured=False),
            "matrix_products": lambda c=(network, device, dtype): matrix_products(*c),
        }
        if b.captures:
            makers["gpunn_captured"] = lambda c=(network, rule, device, dtype): gpunn_step(*c)
        makers |= dict(contenders(network, rule, device, dtype, compiled and not quick))
        work, failed = {}, {}
        for name, make in makers.items():
            try:
                work[name] = make()
                for _ in range(4):  # compiled, recorded, warm
                    _wait(b, work[name]())
            except Exception:
                work.pop(name, None)
                failed[name] = traceback.format_exc(limit=3)
        times = in_turn(work, 3 if quick else 12, wait=lambda result: _wait(b, result))
        numbers: dict[str, Any] = {
            f"{name}_us": 1e6 * statistics.median(values) for name, values in times.items()
        }
        numbers["failed"] = failed
        numbers["goals"] = [_goal(numbers, *goal) for goal in GOALS.get(network.name, ())]
        found[f"{network.name}, {rule}, {dtype}"] = numbers
    return found


def _goal(numbers: dict[str, Any], slower: str, faster: str, times: float) -> dict[str, Any]:
    if slower not in numbers or faster not in numbers:
        return {"goal": f"{slower} / {faster} >= {times:.2f}", "met": None}
    ratio = numbers[slower] / numbers[faster]
    return {"goal": f"{slower} / {faster} >= {times:.2f}", "got": ratio, "met": ratio >= times}


def contenders(network: Network, rule: str, device: str, dtype: str, compiled: bool) -> Any:
    """(name, function that makes the step) of every framework that is installed."""
    if importlib.util.find_spec("torch"):
        yield "torch_eager", lambda: torch_step(network, rule, device, dtype)
        if compiled:
            for name, mode in (("torch_compile", "default"), ("torch_graphs", "reduce-overhead")):
                yield name, lambda m=mode: torch_step(network, rule, device, dtype, m)
    if importlib.util.find_spec("jax") and device != "cpu":
        yield "jax_jit", lambda: jax_step(network, rule, dtype)


def _wait(b: Backend, result: Any) -> None:
    """Wait for the device; JAX launches from its threads."""
    getattr(result, "block_until_ready", b.synchronize)()
    b.synchronize()


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
