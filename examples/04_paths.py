"""The sum over all paths against backpropagation: exponential against linear time.

Lecture 004: the chain rule as a sum over paths gives the same derivative, but the number of paths
is multiplied by the width with every layer. Backpropagation visits each edge once.
"""

import time

import numpy as np
from lesson import run

import gpunn as gn


def count(width, layers):
    """Return the number of paths from one unit of the first layer to the last, and of all edges."""
    return width ** (layers - 1), (layers - 1) * width**2


def by_paths(weights, slopes, unit, layer=0):
    """Return d(sum of the last layer) / d(unit of a layer), by adding one path after another."""
    if layer == len(weights):
        return 1.0
    ways = enumerate(weights[layer][unit])
    return sum(w * slopes[layer][j] * by_paths(weights, slopes, j, layer + 1) for j, w in ways)


def by_backprop(weights, x):
    """Return the same derivative for all units of the first layer at once, by backpropagation."""
    leaf = gn.tensor(x[None], requires_grad=True)
    a = leaf
    for w in weights:
        a = gn.ops.tanh(a @ gn.tensor(w))
    a.sum().backward()
    return leaf.backend.download(leaf.grad)[0]


def both(width, layers, seed=0):
    """Return the derivatives both ways, and the seconds that each took."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((width, width)) / width**0.5 for _ in range(layers - 1)]
    a, slopes = rng.standard_normal(width), []
    x = a
    for w in weights:
        a = np.tanh(a @ w)
        slopes.append(1 - a**2)
    start = time.perf_counter()
    paths = np.array([by_paths([w.tolist() for w in weights], slopes, i) for i in range(width)])
    middle = time.perf_counter()
    tape = by_backprop(weights, x)
    return paths, tape, middle - start, time.perf_counter() - middle


def main(short):
    paths, edges = count(50, 5)
    print(f"width 50, 5 layers: {paths:,} paths from one unit, {edges:,} edges in all")
    depths, width = list(range(2, 6 if short else 8)), 5
    both(width, 2)
    naive, tape = [], []
    for layers in depths:
        one, other, seconds, fast = both(width, layers)
        naive, tape = [*naive, seconds], [*tape, fast]
        print(
            f"{layers} layers: paths {seconds:9.5f} s, tape {fast:.5f} s, "
            f"largest difference {np.abs(one - other).max():.1e}"
        )
    growth = (naive[-1] / naive[0]) ** (1 / (len(depths) - 1))
    print(f"one more layer multiplies the time of the paths by {growth:.1f}; the width is {width}")
    curves = {"all paths": (depths, naive), "backpropagation": (depths, tape)}
    labels = {"xlabel": "layers", "ylabel": "seconds", "scale": "log"}
    return gn.plot.series(curves, title=f"Time of one gradient, width {width}", **labels).figure


if __name__ == "__main__":
    run(main)
