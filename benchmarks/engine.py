"""Time the engine alone: graphs of operations on one element, forward and backward."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.timing import Work, in_turn, spread

NODES = 100


def one_operation(x: Any) -> None:
    """Run one addition."""
    (x + 1.0).backward()


def long_chain(x: Any) -> None:
    """Run a chain of additions, each on the result of the one before."""
    y = x
    for _ in range(NODES):
        y = y + 1.0
    y.backward()


def fan_out(x: Any) -> None:
    """Run products of one tensor and add them up: as many products as additions."""
    sum(x * 2.0 for _ in range(NODES)).backward()


GRAPHS: dict[str, tuple[Callable[[Any], None], int]] = {
    "one operation": (one_operation, 1),
    "long chain": (long_chain, NODES),
    "fan-out": (fan_out, 2 * NODES),
}
"""The graphs, each with its number of nodes."""


def engine(settings: Settings) -> dict[str, Any]:
    """Measure the microseconds for each node, with their quartiles."""
    leaves: dict[str, Any] = {"gpunn": gn.tensor(np.ones(1, np.float32), requires_grad=True)}
    if importlib.util.find_spec("torch"):
        import torch

        leaves["PyTorch"] = torch.ones(1, requires_grad=True)
    found: dict[str, Any] = {}
    for name, (graph, nodes) in GRAPHS.items():
        works: dict[str, Work] = {
            who: lambda graph=graph, leaf=leaf: graph(leaf) for who, leaf in leaves.items()
        }
        for work in works.values():
            work()
        times = in_turn(works, 3 if settings.quick else 25)
        found[name] = {}
        for who, values in times.items():
            per_node = sorted(1e6 * value / nodes for value in values)
            found[name][who] = {
                "us_per_node": per_node[len(per_node) // 2],
                "quartiles": spread(per_node),
            }
    return found
