"""Does the GPU compute what the CPU computes, and a graph what single launches compute?"""

from __future__ import annotations

import shutil
import sys
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn, ops, optim
from gpunn.backends.base import PRECISIONS
from gpunn.backends.random import Draw
from gpunn.benchmarks.gpu.command import run

STEPS, BATCH = 20, 32


def data(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Examples and labels for 20 steps."""
    x = np.random.default_rng(0).standard_normal((STEPS * BATCH, 64))
    return x.astype(dtype), np.arange(STEPS * BATCH) % 10


def network(device: str, dtype: str) -> nn.Sequential:
    """A network with dropout, the same weights on every device."""
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(64, 128, "relu", dtype=dtype),
            nn.Dropout(0.5),
            nn.Linear(128, 10, dtype=dtype),
        )


def parity(device: str, quick: bool) -> dict[str, Any]:
    """20 training steps on the CPU and on the device: the largest relative difference."""
    found: dict[str, Any] = {}
    for dtype, bound in (("float64", 1e-10), ("float32", 1e-5)):
        x, y = data(dtype)
        losses = []
        for place in ("cpu", device):
            net = network(place, dtype)
            rule = optim.Adam(net.parameters())
            step = gn.train.EagerStep(net, ops.softmax_cross_entropy, rule, clip_norm=5.0)
            b = net.backend
            parts = [slice(i, i + BATCH) for i in range(0, len(x), BATCH)]
            losses.append([float(b.download(step(b.upload(x[p]), b.upload(y[p])))) for p in parts])
        gap = float(np.max(np.abs(np.subtract(losses[0], losses[1])) / np.abs(losses[0])))
        found[dtype] = {"largest_relative_difference": gap, "bound": bound, "holds": gap <= bound}
    draw = Draw((7, 2**63 + 1), 5)
    words = [(b := gn.backend(p)).download(b.random_words(10_000, draw)) for p in ("cpu", device)]
    found["random_words_bit_equal"] = bool((words[0] == words[1]).all())
    return found


def capture(device: str, quick: bool) -> dict[str, Any]:
    """20 steps with a schedule and dropout, as graphs and as single launches: equal bits?"""
    b = gn.backend(device)
    if why := b.why_no_capture():
        return {"skipped": why}
    x, y = data("float32")
    found: dict[str, Any] = {}
    for precision in PRECISIONS[:1] if b.synchronous else PRECISIONS:
        weights, losses = [], []
        for captured in (True, False):
            net = network(device, "float32")
            trainer = gn.Trainer(
                net, schedule="cosine", clip_norm=1.0, capture=captured, precision=precision
            )
            losses.append(trainer.fit(x, y, epochs=2, batch_size=BATCH, progress=False)["loss"])
            weights.append(net.state_dict())
        same = all((weights[0][k] == weights[1][k]).all() for k in weights[0])
        found[precision] = {"bit_equal": same and losses[0] == losses[1], "losses": losses}
    return found


def sanitizer(device: str, quick: bool) -> dict[str, Any]:
    """compute-sanitizer over the tests of the row kernels, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or not device.startswith("cuda"):
        return {"skipped": "compute-sanitizer is not installed, or this is no GPU"}
    found = {}
    tests = [sys.executable, "-m", "pytest", "-q", "-x", "tests/ops", "-k", "cuda and row_kernel"]
    for check in ("memcheck", "racecheck", "synccheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", *tests]
        returncode, lines = run(command, timeout_s=150)
        found[check] = {"returncode": returncode, "end": lines[-3:]}
    return found
