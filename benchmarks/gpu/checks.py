"""Check that gpunn runs on the GPU, that CPU and GPU agree, and that graphs and launches agree."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn, ops, optim
from gpunn.backends.dtypes import PRECISIONS
from gpunn.backends.random import Draw
from gpunn.benchmarks.gpu.command import run
from gpunn.benchmarks.machine import versions

STEPS, BATCH = 20, 32


def doctor(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the checks of `gpunn doctor`, and the installed versions."""
    for rung in gn.diagnose(device.partition(":")[0]).rungs:
        yield rung.name, {"ok": rung.ok, "detail": rung.detail}
    yield "versions", versions()
    b = gn.backend(device)
    yield "captures", b.why_no_capture() or "yes"


def data(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Generate examples and labels for 20 steps."""
    x = np.random.default_rng(0).standard_normal((STEPS * BATCH, 64))
    return x.astype(dtype), np.arange(STEPS * BATCH) % 10


def network(device: str, dtype: str) -> nn.Sequential:
    """Build a network with dropout, with the same weights on every device."""
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(64, 128, "relu", dtype=dtype),
            nn.Dropout(0.5),
            nn.Linear(128, 10, dtype=dtype),
        )


def parity(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the largest relative difference between 20 training steps on the CPU and the device."""
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
        yield dtype, {"largest_relative_difference": gap, "bound": bound, "holds": gap <= bound}
    draw = Draw((7, 2**63 + 1), 5)
    words = [(b := gn.backend(p)).download(b.random_words(10_000, draw)) for p in ("cpu", device)]
    yield "random_words_bit_equal", bool((words[0] == words[1]).all())


def capture(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield whether 20 steps give equal bits as graphs and as single launches."""
    b = gn.backend(device)
    if why := b.why_no_capture():
        yield "skipped", why
        return
    x, y = data("float32")
    for precision in PRECISIONS[:1] if b.on_host else PRECISIONS:
        weights, losses = [], []
        for captured in (True, False):
            net = network(device, "float32")
            trainer = gn.Trainer(
                net, schedule="cosine", clip_norm=1.0, capture=captured, precision=precision
            )
            losses.append(trainer.fit(x, y, epochs=2, batch_size=BATCH, progress=False)["loss"])
            weights.append(net.state_dict())
        same = all((weights[0][k] == weights[1][k]).all() for k in weights[0])
        yield precision, {"bit_equal": same and losses[0] == losses[1], "losses": losses}


def tests(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Run the GPU tests without skipping any, in parallel if pytest-xdist is installed."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda:0 or cupy_both_ways"]
    # -W default: a deprecation in another package must not fail the tests
    command += ["--require-gpu", "-p", "no:cacheprovider", "-p", "no:benchmark", "-W", "default"]
    command += ["--tb=short", "--maxfail=60"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(12, os.cpu_count() or 1))]
    returncode, lines = run([*command, *["--collect-only"] * tiny, "tests"], timeout_s=140)
    yield "returncode", returncode
    yield "summary", lines[-1:]
    yield "failures", [line for line in lines if line.startswith(("FAILED", "ERROR"))][:60]
    yield "words", [line for line in lines if line.startswith("E  ")][:120]


def sanitizer(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Run compute-sanitizer over some tests of the row kernels, if it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or not device.startswith("cuda"):
        yield "skipped", "compute-sanitizer is not installed, or this is no GPU"
        return
    chosen = "cuda and row_kernel and float32"
    command = [tool, "--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", "9"]
    command += [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    returncode, lines = run([*command, "tests/ops/test_row_kernels.py", "-k", chosen], timeout_s=25)
    yield "memcheck", {"returncode": returncode, "end": lines[-5:]}
