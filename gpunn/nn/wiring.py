"""Random wirings, and networks that are wired like them.

A wiring of n nodes is a list of edges (i, j) with i < j, so it has no cycle. The edges of an
undirected random graph point from the lower node to the higher one, as in the paper.

Reference:
    Xie, Kirillov, Girshick and He (2019), "Exploring randomly wired neural networks for image
    recognition"; lecture 001.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gpunn.arguments import count
from gpunn.backends.random import RandomStream, uniform
from gpunn.errors import ArgumentError
from gpunn.nn.containers import Graph, Sum
from gpunn.nn.linear import Linear
from gpunn.nn.module import Module

WIRING_STREAM = 2**62 + 5
Edges = list[tuple[int, int]]


def _probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ArgumentError(f"got p={p!r}; expected a probability, 0 <= p <= 1")
    return float(p)


def _numbers(count: int, seed: int) -> Any:
    """Return an iterator of uniform numbers in [0, 1), the same on every machine."""
    return iter(uniform((count,), RandomStream(seed).seed, WIRING_STREAM).tolist())


def erdos_renyi(n: int, p: float, seed: int = 0) -> Edges:
    """Join every pair of nodes with probability p.

    Args:
        n: the number of nodes, at least 1.
        p: the probability of an edge.
        seed: 64-bit seed.

    Raises:
        ArgumentError: an argument is outside its range.

    Reference:
        Erdős and Rényi (1959); Gilbert (1959).

    Example:
        >>> len(erdos_renyi(5, 1.0))
        10
    """
    pairs = list(itertools.combinations(range(count("n", n)), 2))
    p, numbers = _probability(p), _numbers(len(pairs), seed)
    return [pair for pair in pairs if next(numbers) < p]


def watts_strogatz(n: int, k: int, p: float, seed: int = 0) -> Edges:
    """Join each node of a ring to its k nearest nodes, and move each edge with probability p.

    Args:
        n: the number of nodes, above k.
        k: the number of neighbours on the ring, even, at least 2.
        p: the probability that an edge gets another, uniformly chosen end.
        seed: 64-bit seed.

    Returns:
        n k / 2 edges.

    Raises:
        ArgumentError: an argument is outside its range.

    Reference:
        Watts and Strogatz (1998), Nature 393.

    Example:
        >>> watts_strogatz(4, 2, 0.0)
        [(0, 1), (0, 3), (1, 2), (2, 3)]
    """
    n, p = count("n", n), _probability(p)
    if k < 2 or k % 2 or k >= n:
        raise ArgumentError(f"got k={k!r} for {n} nodes; expected an even number, 2 <= k < n")
    edges = {_edge(i, (i + step) % n) for step in range(1, k // 2 + 1) for i in range(n)}
    numbers = _numbers(n * k, seed)
    for step in range(1, k // 2 + 1):
        for i in range(n):
            old = _edge(i, (i + step) % n)
            free = [j for j in range(n) if j != i and _edge(i, j) not in edges]
            if next(numbers) < p and free and old in edges:
                edges.remove(old)
                edges.add(_edge(i, free[int(next(numbers) * len(free))]))
    return sorted(edges)


def barabasi_albert(n: int, m: int, seed: int = 0) -> Edges:
    """Add nodes one by one, joining each to m earlier nodes, more likely to those with many edges.

    Args:
        n: the number of nodes, above m.
        m: the number of edges of a new node, at least 1.
        seed: 64-bit seed.

    Returns:
        m (n - m) edges.

    Raises:
        ArgumentError: an argument is outside its range.

    Reference:
        Barabási and Albert (1999), Science 286.

    Example:
        >>> barabasi_albert(3, 1)[0]
        (0, 1)
    """
    n, m = count("n", n), count("m", m)
    if m >= n:
        raise ArgumentError(f"got m={m} for {n} nodes; expected 1 <= m < n")
    edges: Edges = []
    ends = list(range(m))  # later, a node is listed once for each of its edges
    numbers = _numbers(64 * n * m, seed)
    for node in range(m, n):
        chosen: set[int] = set()
        while len(chosen) < m:
            number = next(numbers, None)
            if number is None:  # almost impossible: fall back to the oldest nodes
                chosen.update(range(m))
                break
            chosen.add(ends[int(number * len(ends))])
        edges += [(old, node) for old in sorted(chosen)]
        ends += [*chosen, *[node] * m]
    return sorted(edges)


def _edge(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def wired(
    edges: Sequence[tuple[int, int]],
    in_features: int,
    width: int,
    out_features: int,
    activation: str = "relu",
    **options: Any,
) -> Graph:
    """Build a network with a layer of `width` units at each node of a wiring.

    A node adds up the outputs that arrive over its edges and applies its layer. A node without
    incoming edges applies its layer to the input of the network. The outputs of the nodes without
    outgoing edges are added up and passed to the output layer.

    Args:
        edges: pairs (i, j) with i < j; only nodes with an edge exist.
        in_features: D, the number of inputs of the network.
        width: the number of units of a node.
        out_features: the number of outputs of the network.
        activation: the activation of the nodes; the output is linear.
        options: `dtype` and `device` of the layers.

    Raises:
        ArgumentError: there are no edges, or an edge does not have i < j.

    Example:
        >>> net = wired([(0, 1), (0, 2), (1, 2)], in_features=4, width=8, out_features=3)
        >>> list(net.inputs)
        ['0', '1', 'in 2', '2', 'y']
    """
    if not edges or any(not 0 <= i < j for i, j in edges):
        raise ArgumentError(
            f"got edges {list(edges)[:3]}...; expected pairs (i, j) with 0 <= i < j"
        )
    nodes: dict[str, tuple[Module, Sequence[str]]] = {}

    def joined(name: str, sources: list[str]) -> str:
        if len(sources) == 1:
            return sources[0]
        nodes[name] = (Sum(), sources)
        return name

    for node in sorted({end for edge in edges for end in edge}):
        sources = [str(i) for i, j in sorted(edges) if j == node]
        size = width if sources else in_features
        source = joined(f"in {node}", sources) if sources else "x"
        nodes[str(node)] = (Linear(size, width, activation, **options), [source])
    sinks = sorted({j for _, j in edges} - {i for i, _ in edges})
    source = joined("sum", [str(node) for node in sinks])
    nodes["y"] = (Linear(width, out_features, **options), [source])
    return Graph(nodes)
