"""Time a step in 8 shards, on one thread and on two, against an ordinary step and other libraries.

    OMP_NUM_THREADS=2 python -m benchmarks.shards --out shards.json

All contenders take turns in one run. "efficiency" is the time of the ordinary step on one thread
divided by twice the time on two threads. PyTorch and JAX have two threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpunn.backends.cpu.blas import one_thread
from gpunn.backends.cpu.threads import num_threads
from gpunn.benchmarks.contenders.jax_step import jax_step
from gpunn.benchmarks.contenders.own import gpunn_step
from gpunn.benchmarks.contenders.table import Contender
from gpunn.benchmarks.contenders.torch_step import torch_step
from gpunn.benchmarks.machine import machine, versions
from gpunn.benchmarks.networks import NETWORKS, Network
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.steps import ready, wait
from gpunn.benchmarks.timing import Work, in_turn, times_faster

SHARDS, THREADS, ROWS = 8, 2, 512
ORDINARY = "ordinary, 1 thread"
OTHERS = {
    "PyTorch": Contender(torch_step, "torch"),
    "PyTorch fused": Contender(lambda n, rule: torch_step(n, rule, fused=True), "torch"),
    "JAX jit": Contender(jax_step, "jax"),
}


def in_shards(network: Network, threads: int) -> Work:
    """Build a step of gpunn in shards, which so many threads repeat."""
    with num_threads(threads):
        return ready(gpunn_step(network, "adam", shards=SHARDS))


def measure(network: Network, rounds: int) -> dict[str, Any]:
    """Time all contenders on a network in turn."""
    works = {ORDINARY: ready(gpunn_step(network, "adam"))}
    works |= {f"{SHARDS} shards, {n} threads": in_shards(network, n) for n in (1, THREADS)}
    for name, other in OTHERS.items():
        if not other.why_not(network):
            works[name] = ready(other.make(network, "adam"))
    times = in_turn(works, rounds, 0.2, wait, 1.0)
    one, two = (f"{SHARDS} shards, {n} threads" for n in (1, THREADS))
    found = {name: 1e3 * statistics.median(each) for name, each in times.items()}
    return {
        "ms": found,
        "cost of shards": times_faster(times, ORDINARY, one),
        "two threads to one": times_faster(times, two, one),
        "efficiency": times_faster(times, two, ORDINARY) / THREADS,
        "against": {name: times_faster(times, two, name) for name in works if name in OTHERS},
    }


def main() -> None:
    """Measure and print all networks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=21)
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(Settings()), "versions": versions()}
    for name in ("mnist-mid", "dropout-paper"):
        network = replace(NETWORKS[name], batch=ROWS)
        with one_thread():
            found[f"{name}, {ROWS} rows"] = row = measure(network, asked.rounds)
        print(name, json.dumps(row, indent=1), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
