"""Measure every kernel in GB/s, and in per cent of a copy of the same size on the same device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import ops, optim
from gpunn.backends import Backend
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.compiled import find_compiler
from gpunn.backends.random import Draw
from gpunn.benchmarks.settings import Settings
from gpunn.ops.dropout import Rate
from gpunn.ops.gather import gather_rows
from gpunn.ops.reductions import column_sums
from gpunn.optim.factor import global_norm

REPEATS = 20
CPU_ROWS = 16_384  # arrays of 64 MiB, so that work in place does not stay in an L3 cache
GOAL_PERCENT = 85.0


class Bandwidth:
    """A meter of bandwidth. On a GPU it captures many launches, so that the host costs no time.

    Args:
        b: the backend.
        quick: whether to measure only briefly.
    """

    def __init__(self, b: Backend, quick: bool) -> None:
        self.backend, self.repeats = b, 2 if quick else 4 if b.synchronous else REPEATS
        self.rounds = 3 if quick else 7
        self.found: dict[str, Any] = {}

    def measure(self, name: str, size_bytes: int, work: Callable[[], Any]) -> float:
        """Measure GB/s: the bytes that one call must read and write, over the median time."""
        b = self.backend

        def several() -> list[Any]:
            return [work() for _ in range(self.repeats)]

        with b.own_stream():
            work()
            eager = b.synchronous or b.why_no_capture()
            run = several if eager else b.record(several).launch
            run()
            times_ms = [_time_ms(b, run) / self.repeats for _ in range(self.rounds)]
        speed = size_bytes / statistics.median(times_ms) / 1e6
        copy = self.found["copy"]["gb_per_s"] if self.found else speed
        percent = 100 * speed / copy
        self.found[name] = {"gb_per_s": speed, "percent_of_copy": percent}
        return speed


def _time_ms(b: Backend, work: Callable[[], Any]) -> float:
    """Time `work()` in milliseconds: by the clock on the CPU, between two events on a GPU."""
    if b.synchronous:
        start_s = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start_s)
    with b.current():
        start, end = b.xp.cuda.Event(), b.xp.cuda.Event()
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(b.xp.cuda.get_elapsed_time(start, end))


def kernels(settings: Settings) -> dict[str, Any]:
    """Measure kernels on the CPU, NumPy alone and compiled, on arrays too large for caches."""
    b = gn.backend("cpu")
    assert isinstance(b, NumpyBackend)
    with b.numpy_alone():
        found = {"NumPy alone": bandwidths("cpu", settings.quick, rows=CPU_ROWS)}
    if find_compiler().command:
        found["compiled"] = bandwidths("cpu", settings.quick, rows=CPU_ROWS)
    return found


def bandwidths(device: str, quick: bool, rows: int = 65_536) -> dict[str, Any]:
    """Measure elementwise kernels, updates and row kernels on arrays of `rows` times 4 KiB."""
    b = gn.backend(device)
    rows, width = (64 if quick else rows), 1024
    rng = np.random.default_rng(0)
    x = b.upload(rng.standard_normal((rows, width), dtype=np.float32))
    gy, out, other = b.full(x.shape, 1, np.float32), b.empty_like(x), b.empty_like(x)
    bandwidth = Bandwidth(b, quick)
    bandwidth.measure("copy", 2 * x.nbytes, lambda: out.__setitem__(..., x))
    bias = b.full((width,), 0, np.float32)
    bits = Rate.of(0.5)
    words = b.random_words(bits.word_count(x.size), Draw((1, 2), 3))
    dropped = (words, *bits, bits.scale)
    for name, activation in sorted(ops.ACTIVATIONS.items()):
        if not isinstance(activation, ops.Activation):
            continue
        options = tuple(activation.options.values())
        saves_x = activation.saves == "x"
        bandwidth.measure(
            f"{name}_bias",
            (3 if saves_x else 2) * x.nbytes,
            lambda a=activation, o=options, two=(other, out) if saves_x else other: b.launch(
                a.bias_kernel, bias, *o, out=two
            ),
        )
        bandwidth.measure(
            f"{name}_grad_dropout",
            3 * x.nbytes,
            lambda a=activation, o=options: b.launch(
                a.grad_dropout_kernel, gy, x, *o, *dropped, out=out
            ),
        )
    _updates(b, x, bandwidth)
    _rows(b, x, bandwidth)
    return bandwidth.found | {"goal_percent": GOAL_PERCENT, "missed": _missed(bandwidth.found)}


def _updates(b: Backend, x: Any, bandwidth: Bandwidth) -> None:
    for name in sorted(optim.OPTIMIZERS):
        rule = optim.get_optimizer(name)
        w = gn.tensor(np.ones(x.size, np.float32), requires_grad=True, device=b.device)
        rule.bind([w])
        w.sum().backward()
        bandwidth.measure(f"update_{name}", (3 + 2 * len(rule.slots)) * x.nbytes, rule.step)
        if name == "sgd":
            bandwidth.measure("norm", x.nbytes, lambda flat=rule.bound: global_norm(flat))


def _rows(b: Backend, x: Any, bandwidth: Bandwidth) -> None:
    rows, width = x.shape
    rng = np.random.default_rng(1)
    labels = b.upload(rng.integers(0, width, rows))
    order = b.upload(rng.permutation(rows))
    z = gn.Tensor(x)
    gamma, beta = (b.full((width,), v, np.float32) for v in (1, 0))
    gy = b.full(x.shape, 1, np.float32)
    _, backward = ops.layer_norm.vjp(b, x, gamma, beta)
    rms_backward = ops.rms_norm.vjp(b, x, gamma)[1]
    sums = b.empty((width,), np.float32)
    work: dict[str, tuple[int, Callable[[], Any]]] = {
        "softmax_cross_entropy": (2, lambda: ops.softmax_cross_entropy(z, labels)),
        "softmax": (2, lambda: ops.softmax(z)),
        "layer_norm": (2, lambda: ops.layer_norm.vjp(b, x, gamma, beta)[0]),
        "layer_norm_grad": (3, lambda: backward(gy, (True, True, True))),
        "rms_norm": (2, lambda: ops.rms_norm.vjp(b, x, gamma)[0]),
        "rms_norm_grad": (3, lambda: rms_backward(gy, (True, True))),
        "column_sums": (1, lambda: column_sums(b, x, out=sums)),
        "gather_rows": (2, lambda: gather_rows(b, x, order)),
        "dropout_words": (0, lambda: b.random_words(x.size // 64, Draw((1, 2), 3))),
    }
    for name, (passes, call) in work.items():
        bandwidth.measure(name, passes * x.nbytes or x.size // 8, call)


def _missed(found: dict[str, Any]) -> list[str]:
    return [
        f"{name} {numbers['percent_of_copy']:.0f} %"
        for name, numbers in found.items()
        if numbers["percent_of_copy"] < GOAL_PERCENT
    ]
