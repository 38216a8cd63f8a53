"""One training step against its matrix products alone, on the CPU with one BLAS thread.

    python -m benchmarks.step_floor

Prints, for each network, the median time of a step, of its matrix products through NumPy ("the
floor"), and the median of the paired ratios. The two are timed in turn (A B A B ...) in one run.
"""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when NumPy is imported

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import gpunn as gn


@dataclass(frozen=True)
class Network:
    """A network and a batch: layer sizes, examples of a step, drop rate of the hidden layers."""

    name: str
    sizes: tuple[int, ...]
    batch: int
    rate: float = 0.0


NETWORKS = (
    Network("mnist-small", (784, 50, 10), 64),
    Network("mnist-mid", (784, 256, 256, 10), 128),
    Network("mnist-mid + dropout", (784, 256, 256, 10), 128, 0.5),
    Network("dropout-paper", (784, 1024, 1024, 1024, 10), 128, 0.5),
)


def training_step(
    network: Network, optimizer: gn.optim.Optimizer, device: str = "cpu"
) -> Callable[[], object]:
    """A whole step of gpunn on one batch."""
    rng = np.random.default_rng(0)
    gn.manual_seed(0)
    layers: list[gn.nn.Module] = []
    with gn.device(device):
        for d, h in zip(network.sizes[:-2], network.sizes[1:-1], strict=True):
            layers.append(gn.nn.Linear(d, h, activation="relu"))
            if network.rate:
                layers.append(gn.nn.Dropout(network.rate))
        model = gn.nn.Sequential(*layers, gn.nn.Linear(*network.sizes[-2:]))
    optimizer.bind(model.parameters())
    step = gn.train.EagerStep(model, gn.ops.softmax_cross_entropy, optimizer)
    b = model.backend
    x = b.upload(rng.standard_normal((network.batch, network.sizes[0]), dtype=np.float32))
    y = b.upload(rng.integers(0, network.sizes[-1], network.batch))
    return lambda: step(x, y)


def matrix_products(network: Network, device: str = "cpu") -> Callable[[], object]:
    """The step's matrix products alone, into arrays that are there already."""
    rng, b = np.random.default_rng(0), gn.backend(device)
    products = []
    for k, (d, h) in enumerate(zip(network.sizes[:-1], network.sizes[1:], strict=True)):
        x, w, gz = (
            b.upload(rng.standard_normal(shape, dtype=np.float32))
            for shape in ((network.batch, d), (d, h), (network.batch, h))
        )
        products += [(x, w, b.empty_like(gz)), (x.T, gz, b.empty_like(w))]
        if k:
            products.append((gz, w.T, b.empty_like(x)))

    def run() -> None:
        for left, right, out in products:
            b.xp.matmul(left, right, out=out)

    return run


def paired(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[float, ...]:
    """Median seconds of a and of b, and the median of their ratios, timed in turn."""
    repeats = max(1, int(0.05 / max(1e-6, _seconds(a, 3))))
    pairs = [(_seconds(a, repeats), _seconds(b, repeats)) for _ in range(rounds)]
    ratios = [first / second for first, second in pairs]
    return (
        *(statistics.median(column) for column in zip(*pairs, strict=True)),
        statistics.median(ratios),
    )


def _seconds(work: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    print(f"NumPy {np.__version__}, {os.environ['OPENBLAS_NUM_THREADS']} BLAS thread(s)")
    print(f"{'network':22}{'optimizer':>10}{'step (us)':>12}{'floor (us)':>12}{'ratio':>8}")
    for network in NETWORKS:
        for optimizer in (gn.optim.SGD(lr=0.01, momentum=0.9), gn.optim.Adam(lr=1e-3)):
            step, floor = training_step(network, optimizer), matrix_products(network)
            step_s, floor_s, ratio = paired(step, floor, rounds)
            name = type(optimizer).__name__
            print(
                f"{network.name:22}{name:>10}{1e6 * step_s:12.0f}{1e6 * floor_s:12.0f}{ratio:8.2f}"
            )


if __name__ == "__main__":
    main()
