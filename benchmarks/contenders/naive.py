"""A training step written by hand in NumPy, without regard for speed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.benchmarks.networks import LR, MOMENTUM, Network
from gpunn.benchmarks.timing import Work

Arrays = list[Any]


def naive_step(network: Network, rule: str) -> Work:
    """Build a step of forward, loss, backward and update, in which every line allocates."""
    rng = np.random.default_rng(0)
    x, y = network.examples()
    weights: Arrays = []
    for d, h in network.layers:
        weights.append(rng.standard_normal((d, h), dtype=np.float32) * np.float32((2 / d) ** 0.5))
        weights.append(np.zeros(h, np.float32))
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    steps = [0]

    def step() -> float:
        inputs, masks = [x], []
        for k in range(0, len(weights) - 2, 2):
            h = activate(network, inputs[-1] @ weights[k] + weights[k + 1])
            masks.append(kept(network, rng, h.shape))
            inputs.append(h if masks[-1] is None else h * masks[-1])
        loss, g = loss_and_gradient(network, inputs[-1] @ weights[-2] + weights[-1], y)
        gradients: Arrays = []
        for k in range(len(weights) - 2, -1, -2):
            gradients = [inputs[k // 2].T @ g, g.sum(axis=0), *gradients]
            if k:
                g = g @ weights[k].T
                h = inputs[k // 2]
                g = g if masks[k // 2 - 1] is None else g * masks[k // 2 - 1]
                g = g * (h > 0) if network.activation == "relu" else g * h * (1 - h)
        steps[0] += 1
        update(rule, weights, gradients, first, second, steps[0])
        return loss

    return step


def activate(network: Network, z: Any) -> Any:
    """Return the activation of z."""
    return np.maximum(z, 0) if network.activation == "relu" else 1 / (1 + np.exp(-z))


def kept(network: Network, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Return the factors of inverted dropout, or None."""
    if not network.rate:
        return None
    keep = rng.random(shape, dtype=np.float32) >= network.rate
    return keep * np.float32(1 / (1 - network.rate))


def loss_and_gradient(network: Network, z: Any, y: Any) -> tuple[float, Any]:
    """Return the mean loss and its gradient."""
    if not network.classifies:
        return float(np.mean((z - y) ** 2)), 2 * (z - y) / np.float32(z.size)
    rows = np.arange(len(y))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    g = p.copy()
    g[rows, y] -= 1
    return float(-np.log(p[rows, y]).mean()), g / np.float32(len(y))


def update(rule: str, weights: Arrays, gradients: Arrays, m: Arrays, v: Arrays, t: int) -> None:
    """Update the weights by SGD with momentum or by Adam, one array after another."""
    for k, g in enumerate(gradients):
        if rule == "sgd":
            m[k] = MOMENTUM * m[k] + g
            weights[k] = weights[k] - LR * m[k]
            continue
        m[k] = 0.9 * m[k] + 0.1 * g
        v[k] = 0.999 * v[k] + 0.001 * g**2
        m_hat, v_hat = m[k] / (1 - 0.9**t), v[k] / (1 - 0.999**t)
        weights[k] = weights[k] - LR * m_hat / (np.sqrt(v_hat) + 1e-8)
