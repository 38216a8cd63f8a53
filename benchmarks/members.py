"""Time K networks that train together against K fits one after another, and against PyTorch.

    python -m benchmarks.members --out members.json

The data are 4,096 rows of 20 numbers with ten classes, in batches of 128; Adam; 8 epochs. "In turn"
are K fits one after another. "On threads" are the same fits on worker threads, with the same bits.
PyTorch trains K networks as batched products (`torch.baddbmm`), in one eager step for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.distributed import fit_together

ROWS, COLUMNS, CLASSES, BATCH, EPOCHS = 4096, 20, 10, 128, 8


def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return examples and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    return x, rng.integers(0, CLASSES, ROWS)


def trainer_of(seed: int, width: int) -> gn.Trainer:
    """Return the trainer of one network."""
    sizes = (COLUMNS, width, width, CLASSES)
    layers = [
        gn.nn.Linear(d, h, "relu" if h != CLASSES else "identity", seed=seed + k)
        for k, (d, h) in enumerate(pairwise(sizes))
    ]
    return gn.Trainer(gn.nn.Sequential(*layers), optimizer="adam", seed=seed)


def in_turn(count: int, width: int, threads: int) -> Callable[[], Any]:
    """Return a function that trains K networks, some at the same time."""
    x, y = data()

    def work() -> Any:
        trainers = [trainer_of(100 * k, width) for k in range(count)]
        return fit_together(trainers, x, y, threads=threads, epochs=EPOCHS, batch_size=BATCH)

    return work


def torch_batched(count: int, width: int, threads: int) -> Callable[[], Any]:
    """Return a function that trains K networks of PyTorch with batched products."""
    import torch

    x, y = map(torch.from_numpy, data())

    def work() -> Any:
        torch.set_num_threads(threads)
        sizes = (COLUMNS, width, width, CLASSES)
        pairs = list(pairwise(sizes))
        weights = [
            (torch.randn(count, d, h) * (2 / d) ** 0.5).requires_grad_(True) for d, h in pairs
        ]
        biases = [torch.zeros(count, 1, h, requires_grad=True) for _, h in pairs]
        optimizer = torch.optim.Adam([*weights, *biases], lr=1e-3)
        for _ in range(EPOCHS):
            order = torch.stack([torch.randperm(ROWS) for _ in range(count)])
            for start in range(0, ROWS, BATCH):
                rows = order[:, start : start + BATCH]
                z = x[rows]
                for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                    z = torch.baddbmm(bias, z, weight)
                    z = torch.relu(z) if k < 2 else z
                loss = torch.nn.functional.cross_entropy(
                    z.reshape(-1, CLASSES), y[rows].reshape(-1), reduction="sum"
                )
                optimizer.zero_grad()
                (loss / BATCH).backward()
                optimizer.step()
        return weights

    return work


def seconds(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def starts() -> dict[str, float]:
    """Time fits of two steps: the first of its shapes, and the median of later ones."""
    x, y = data()
    options: dict[str, Any] = {"epochs": 1, "batch_size": BATCH, "progress": False}
    times = [seconds(lambda: trainer_of(0, 64).fit(x[:256], y[:256], **options)) for _ in range(31)]
    return {"first_ms": 1e3 * times[0], "later_ms": 1e3 * statistics.median(times[1:])}


def main() -> None:
    """Measure and print all cases."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found: dict[str, Any] = {"start of a fit": starts()}
    print(json.dumps(found), flush=True)
    most = min(2, os.cpu_count() or 1)
    for count in (5, 16):
        for width in (64, 256):
            work = {f"gpunn, {n} threads": in_turn(count, width, n) for n in range(1, most + 1)}
            work |= {f"PyTorch, {n}": torch_batched(count, width, n) for n in range(1, most + 1)}
            times: dict[str, list[float]] = {name: [] for name in work}
            for _ in range(asked.rounds):
                for name, each in work.items():
                    times[name].append(seconds(each))
            found[f"{count} x {width}"] = {n: statistics.median(t) for n, t in times.items()}
            print(f"{count} x {width}", json.dumps(found[f"{count} x {width}"]), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
