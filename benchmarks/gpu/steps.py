"""Time a training step, its matrix products alone, and the steps of other frameworks."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn
from gpunn.backends import Backend
from gpunn.benchmarks.contenders.jax_step import jax_step
from gpunn.benchmarks.contenders.own import gpunn_step, matrix_products
from gpunn.benchmarks.contenders.torch_step import torch_graph_step, torch_step
from gpunn.benchmarks.gpu.command import ROOT
from gpunn.benchmarks.networks import NETWORKS, Network
from gpunn.benchmarks.timing import in_turn

WIDE = Network("wide", (4096, 4096, 4096, 4096, 10), 8192)
CASES = (  # network, rule, dtype
    (NETWORKS["mnist-small"], "adam", "float32"),
    (NETWORKS["dropout-paper"], "adam", "float32"),
    (WIDE, "adam", "bfloat16"),
    (NETWORKS["mnist-mid + dropout"], "adam", "float32"),
    (NETWORKS["mnist-small"], "sgd", "float32"),
)
GOALS = {  # network -> (slower, faster, the least ratio of their times)
    "mnist-small": (("torch_eager_us", "gpunn_captured_us", 10.0),),
    "dropout-paper": (
        ("torch_eager_us", "gpunn_captured_us", 3.0),
        ("torch_graph_us", "gpunn_captured_us", 1.0),
    ),
    "wide": (("matrix_products_us", "gpunn_captured_us", 1 / 1.15),),
}


def steps(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the times of gpunn, of the matrix products and of PyTorch for every network."""
    b = gn.backend(device)
    for case in CASES[:1] if tiny else CASES:
        network, rule, dtype = case
        makers: dict[str, Any] = {
            "matrix_products": partial(matrix_products, network, device, dtype),
            "gpunn_eager": partial(gpunn_step, network, rule, device, dtype, captured=False),
        }
        if not b.why_no_capture():
            makers["gpunn_captured"] = partial(gpunn_step, network, rule, device, dtype)
        if importlib.util.find_spec("torch"):
            makers["torch_eager"] = partial(torch_step, network, rule, device, dtype)
            if device.startswith("cuda"):
                makers["torch_graph"] = partial(torch_graph_step, network, rule, device, dtype)
        yield _timed(b, case, makers, tiny)


def jax(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the times of JAX's compiled step and of gpunn's, for the networks with goals."""
    if not importlib.util.find_spec("jax") or not device.startswith("cuda"):
        yield "skipped", "JAX is not installed, or this is no GPU"
        return
    for case in CASES[:2]:
        network, rule, dtype = case
        makers = {
            "gpunn_captured": partial(gpunn_step, network, rule, device, dtype),
            "jax_jit": partial(jax_step, network, rule, dtype),
        }
        yield _timed(gn.backend(device), case, makers, tiny)


def compiled(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the times of PyTorch's compiled steps and of gpunn's. Each compiles for a minute."""
    if not importlib.util.find_spec("torch") or not device.startswith("cuda"):
        yield "skipped", "PyTorch is not installed, or this is no GPU"
        return
    for case in CASES[:2]:
        makers: dict[str, Any] = {"gpunn_captured": partial(gpunn_step, *case[:2], device, case[2])}
        for name, mode in (("torch_compile", "default"), ("torch_reduce", "reduce-overhead")):
            makers[name] = partial(torch_step, *case[:2], device, case[2], mode)
        yield _timed(gn.backend(device), case, makers, tiny)


def _timed(
    b: Backend, case: tuple[Network, str, str], makers: dict[str, Any], tiny: bool
) -> tuple[str, dict[str, Any]]:
    """Time the step of each contender in turn, and check the goals."""
    network, rule, dtype = case
    work, failed = {}, {}
    for name, make in makers.items():
        try:
            work[name] = make()
            for _ in range(4):  # compiles, records and warms up
                _wait(b, work[name]())
        except Exception as error:
            work.pop(name, None)
            failed[name] = f"{type(error).__name__}: {error}".replace(str(ROOT), ".")[:300]
    times = in_turn(work, 3 if tiny else 12, wait=lambda result: _wait(b, result))
    numbers: dict[str, Any] = {
        f"{name}_us": 1e6 * statistics.median(values) for name, values in times.items()
    }
    numbers["failed"] = failed
    numbers["goals"] = [_goal(numbers, *goal) for goal in GOALS.get(network.name, ())]
    return f"{network.name}, {rule}, {dtype}", numbers


def _goal(numbers: dict[str, Any], slower: str, faster: str, times: float) -> dict[str, Any]:
    if slower not in numbers or faster not in numbers:
        return {"goal": f"{slower} / {faster} >= {times:.2f}", "met": None}
    ratio = numbers[slower] / numbers[faster]
    return {"goal": f"{slower} / {faster} >= {times:.2f}", "got": ratio, "met": ratio >= times}


def _wait(b: Backend, result: Any) -> None:
    """Wait for the device, and for JAX, which launches from its own threads."""
    getattr(result, "block_until_ready", b.synchronize)()
    b.synchronize()


def epoch(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the seconds of an epoch of MNIST's size, 784-256-256-10, batch 128, on the device."""
    n = 1024 if tiny else 60_000
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 784), dtype=np.float32), rng.integers(0, 10, n)
    with gn.device(device):
        net = nn.Sequential(
            nn.Linear(784, 256, "relu"), nn.Linear(256, 256, "relu"), nn.Linear(256, 10)
        )
    history = gn.Trainer(net).fit(x, y, epochs=5, batch_size=128, progress=False)
    seconds = history["seconds"]
    best = statistics.median(seconds[1:])
    yield "seconds_per_epoch", seconds
    yield "median", best
    yield "examples", n
    yield "goals", [{"goal": "60,000 examples in at most 0.040 s", "met": best <= 0.040}]
