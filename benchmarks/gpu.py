"""Everything that only a machine with a GPU can show, in one command and one JSON file.

    python -m benchmarks.gpu

Runs the GPU tests (a skip is a failure), holds training on the GPU against the CPU, and times
kernels, steps and an epoch, beside PyTorch where it is installed. A part that fails is recorded
with its reason and does not stop the others. `--device cpu --quick` tries the script itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.step_floor import NETWORKS, Network, matrix_products, training_step
from gpunn import nn, ops, optim
from gpunn.backends import Backend, RandomStream
from gpunn.backends.random import Draw

RESULTS = Path(__file__).parent / "results"
STEP_NETWORKS = (
    *NETWORKS,
    Network("wide", (1024, 4096, 4096, 10), 1024),
)


def run_tests(device: str, quick: bool) -> dict[str, Any]:
    """The GPU tests, none of them skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", "--require-gpu", "tests"]
    if quick:
        command = [*command[:-2], "--collect-only", "tests"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"returncode": done.returncode, "summary": lines[-1:], "failed": failed[:40]}


def parity(device: str, quick: bool) -> dict[str, Any]:
    """20 training steps on the CPU and on the device: the largest relative difference."""
    found: dict[str, Any] = {}
    x, y = np.random.default_rng(0).standard_normal((640, 64)), np.arange(640) % 10
    for dtype, bound in (("float64", 1e-10), ("float32", 1e-5)):
        losses = []
        for place in ("cpu", device):
            gn.manual_seed(0)
            with gn.device(place):
                net = nn.Sequential(
                    nn.Linear(64, 128, "relu", dtype=dtype),
                    nn.Dropout(0.5),
                    nn.Linear(128, 10, dtype=dtype),
                )
            step = gn.train.EagerStep(
                net, ops.softmax_cross_entropy, optim.Adam(net.parameters()), clip_norm=5.0
            )
            b = net.backend
            data = [
                (b.upload(x[i : i + 32].astype(dtype)), b.upload(y[i : i + 32]))
                for i in range(0, 640, 32)
            ]
            losses.append([float(b.download(step(xb, yb))) for xb, yb in data])
        gap = float(np.max(np.abs(np.subtract(*losses)) / np.abs(losses[0])))
        found[dtype] = {"largest_relative_difference": gap, "bound": bound, "holds": gap <= bound}
    words = [
        (b := gn.backend(place)).download(b.random_words(10_000, Draw((7, 2**63 + 1), 5)))
        for place in ("cpu", device)
    ]
    found["random_words_bit_equal"] = bool((words[0] == words[1]).all())
    return found


def kernels(device: str, quick: bool) -> dict[str, Any]:
    """GB/s of the elementwise kernels, and per cent of a copy of the same size."""
    b = gn.backend(device)
    rows, width = (64, 1024) if quick else (16_384, 1024)  # 64 MiB of float32
    rng = np.random.default_rng(0)
    x = b.upload(rng.standard_normal((rows, width), dtype=np.float32))
    gy, out = b.full(x.shape, 1, np.float32), b.empty_like(x)
    bias = b.full((width,), 0, np.float32)
    bits = ops.Rate.of(0.5)
    words = b.random_words(bits.word_count(x.size), Draw((1, 2), 3))
    dropped = (words, *bits, bits.scale)
    copy = _bandwidth(b, 2 * x.nbytes, lambda: b.launch(ops.identity.kernel, x, out=out), quick)
    found: dict[str, Any] = {"copy": {"gb_per_s": copy, "percent_of_copy": 100.0}}

    def measure(name: str, size_bytes: int, work: Callable[[], Any]) -> None:
        speed = _bandwidth(b, size_bytes, work, quick)
        found[name] = {"gb_per_s": speed, "percent_of_copy": 100 * speed / copy}

    for name, activation in sorted(ops.ACTIVATIONS.items()):
        if not isinstance(activation, ops.Activation):
            continue
        options = tuple(activation.options.values())
        two = (x, out) if activation.saves == "x" else x
        measure(
            f"{name}_bias",
            (3 if activation.saves == "x" else 2) * x.nbytes,
            lambda a=activation, o=options, two=two: b.launch(a.bias_kernel, bias, *o, out=two),
        )
        measure(
            f"{name}_grad_dropout",
            3 * x.nbytes,
            lambda a=activation, o=options: b.launch(
                a.grad_dropout_kernel, gy, x, *o, *dropped, out=out
            ),
        )
    for name in sorted(optim.OPTIMIZERS):
        rule = optim.get_optimizer(name)
        w = gn.tensor(np.ones(x.size, np.float32), requires_grad=True, device=device)
        rule.bind([w])
        w.sum().backward()
        measure(f"update_{name}", (3 + 2 * len(rule.slots)) * x.nbytes, rule.step)
    labels = b.upload(rng.integers(0, width, rows))
    z = gn.tensor(rng.standard_normal((rows, width), dtype=np.float32), device=device)
    measure("softmax_cross_entropy", 2 * x.nbytes, lambda: ops.softmax_cross_entropy(z, labels))
    draw = RandomStream(1).draw()
    t = gn.tensor(np.ones(x.shape, np.float32), device=device)
    measure("dropout_with_its_bits", 2 * x.nbytes, lambda: ops.dropout(t, rate=0.5, draw=draw))
    return found


def _bandwidth(b: Backend, size_bytes: int, work: Callable[[], Any], quick: bool) -> float:
    """GB/s: bytes read and written by one call, over the median of several timings."""
    repeats = 2 if quick else 20

    def several() -> None:
        for _ in range(repeats):
            work()

    several()
    times_ms = [b.time_ms(several) / repeats for _ in range(3 if quick else 7)]
    return size_bytes / statistics.median(times_ms) / 1e6


def steps(device: str, quick: bool) -> dict[str, Any]:
    """Microseconds of a training step, of its matrix products alone, and of PyTorch's step."""
    found: dict[str, Any] = {}
    for network in STEP_NETWORKS[:2] if quick else STEP_NETWORKS:
        for name in ("sgd", "adam"):
            work = {
                "gpunn_eager": training_step(network, optim.get_optimizer(name, lr=0.01), device),
                "matrix_products": matrix_products(network, device),
            }
            if importlib.util.find_spec("torch"):
                work["torch_eager"] = _torch_step(network, name, device)
            found[f"{network.name}, {name}"] = _in_turn(gn.backend(device), work, quick)
    return found


def _in_turn(b: Backend, work: dict[str, Callable[[], Any]], quick: bool) -> dict[str, float]:
    """Median microseconds of each piece of work, all timed in turn in every round."""
    repeats = 3 if quick else 50
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_number in range(3 if quick else 12):
        for name, step in work.items():
            b.synchronize()
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            b.synchronize()
            if round_number:  # the first compiles and warms up
                times[name].append(1e6 * (time.perf_counter() - start) / repeats)
    return {f"{name}_us": statistics.median(values) for name, values in times.items()}


def _torch_step(network: Network, optimizer: str, device: str) -> Callable[[], Any]:
    import torch

    place = torch.device(device)
    layers: list[Any] = []
    for d, h in zip(network.sizes[:-2], network.sizes[1:-1], strict=True):
        layers += [torch.nn.Linear(d, h), torch.nn.ReLU()]
        layers += [torch.nn.Dropout(network.rate)] if network.rate else []
    model = torch.nn.Sequential(*layers, torch.nn.Linear(*network.sizes[-2:])).to(place)
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    rule = make(model.parameters(), lr=0.01)
    x = torch.randn(network.batch, network.sizes[0], device=place)
    y = torch.randint(0, network.sizes[-1], (network.batch,), device=place)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        rule.zero_grad()
        loss.backward()
        rule.step()

    return step


def epoch(device: str, quick: bool) -> dict[str, Any]:
    """Seconds of an epoch with MNIST's sizes, 784-256-256-10 and batch 128, data on the device."""
    n = 1024 if quick else 60_000
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 784), dtype=np.float32), rng.integers(0, 10, n)
    with gn.device(device):
        net = nn.Sequential(
            nn.Linear(784, 256, "relu"), nn.Linear(256, 256, "relu"), nn.Linear(256, 10)
        )
    history = gn.Trainer(net).fit(x, y, epochs=4, batch_size=128, progress=False)
    return {"seconds": history["seconds"][1:], "first": history["seconds"][0], "examples": n}


PARTS = {"tests": run_tests, "parity": parity, "kernels": kernels, "steps": steps, "epoch": epoch}


def versions() -> dict[str, str]:
    """What was installed."""
    found = {"python": platform.python_version(), "gpunn": gn.__version__}
    for name in ("numpy", "cupy", "cupy-cuda12x", "cupy-cuda13x", "torch", "jax"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--output", type=Path, help="JSON file; by default under results/")
    options = parser.parse_args()
    name = gn.backend(options.device).describe()
    print(f"{options.device}: {name}", flush=True)
    record: dict[str, Any] = {"device": name, "versions": versions(), "quick": options.quick}
    for part in options.parts:
        start = time.perf_counter()
        try:
            record[part] = PARTS[part](options.device, options.quick)
        except Exception:
            record[part] = {"failed": traceback.format_exc()}
        seconds = time.perf_counter() - start
        print(f"\n== {part} ({seconds:.1f} s)\n{json.dumps(record[part], indent=1)}", flush=True)
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    path = options.output or RESULTS / f"{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
