"""A training step of JAX, compiled as a whole."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from gpunn.benchmarks.networks import LR, MOMENTUM, Network
from gpunn.benchmarks.timing import Work


def jax_step(network: Network, rule: str, dtype: str = "float32") -> Work:
    """Build JAX's step, with donated parameters. Wait for the array that it returns."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most GPU memory
    import jax
    import jax.numpy as jnp

    key = jax.random.PRNGKey(0)
    weights = [
        (jax.random.normal(key, (d, h)) * (2 / d) ** 0.5, jnp.zeros(h)) for d, h in network.layers
    ]
    x, y = map(jnp.asarray, network.examples())
    loss = _loss(network, x, y, jnp.dtype(dtype))

    def adam(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        scale = LR * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return p - scale * m / (jnp.sqrt(v) + 1e-8), m, v

    def sgd(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
        m = MOMENTUM * m + g
        return p - LR * m, m, v

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train(weights: Any, m: Any, v: Any, t: Any, key: Any) -> Any:
        grads = jax.grad(loss)(weights, key)
        update: Any = {"adam": adam, "sgd": sgd}[rule]
        moved = jax.tree.map(lambda *a: update(*a, t), weights, grads, m, v)
        parts = [jax.tree.map(lambda a, k=k: a[k], moved, is_leaf=_is_triple) for k in range(3)]
        return (*parts, t + 1, jax.random.split(key)[0])

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, jax.tree.map(jnp.zeros_like, weights), jnp.float32(1), key)]

    def step() -> Any:
        state[0] = train(*state[0])
        return state[0][3]

    return step


def _loss(network: Network, x: Any, y: Any, kind: Any) -> Any:
    """Return the loss as a function of weights and a key."""
    import jax
    import jax.numpy as jnp

    activate = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[network.activation]

    @jax.default_matmul_precision("highest")  # full float32 as in the others, not TF32
    def loss(weights: Any, key: Any) -> Any:
        h = x.astype(kind)
        for k, (w, bias) in enumerate(weights):
            h = h @ w.astype(kind) + bias.astype(kind)
            if k < len(weights) - 1:
                h = activate(h)
                if network.rate:
                    key, now = jax.random.split(key)
                    keep = jax.random.bernoulli(now, 1 - network.rate, h.shape)
                    h = jnp.where(keep, h / (1 - network.rate), 0)
        if not network.classifies:
            return jnp.mean((h.astype(jnp.float32) - y) ** 2)
        scores = jax.nn.log_softmax(h.astype(jnp.float32))
        return -scores[jnp.arange(len(y)), y].mean()

    return loss


def _is_triple(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3
