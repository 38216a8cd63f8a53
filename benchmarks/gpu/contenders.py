"""The same training step in other frameworks: PyTorch (eager, compiled, with graphs) and JAX."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.step_floor import Network

Step = Callable[[], Any]


def contenders(network: Network, rule: str, device: str, dtype: str, compiled: bool) -> Any:
    """(name, function that makes the step) of every framework that is installed."""
    if importlib.util.find_spec("torch"):
        yield "torch_eager", lambda: torch_step(network, rule, device, dtype)
        if compiled:
            for name, mode in (("torch_compile", "default"), ("torch_graphs", "reduce-overhead")):
                yield name, lambda m=mode: torch_step(network, rule, device, dtype, m)
    if importlib.util.find_spec("jax") and device != "cpu":
        yield "jax_jit", lambda: jax_step(network, rule, dtype)


def torch_step(
    network: Network, rule: str, device: str, dtype: str = "float32", mode: str = ""
) -> Step:
    """PyTorch's step; `mode` is one of torch.compile's, or empty for eager."""
    import torch

    place = torch.device(device)
    layers: list[Any] = []
    for d, h in zip(network.sizes[:-2], network.sizes[1:-1], strict=True):
        layers += [torch.nn.Linear(d, h), torch.nn.ReLU()]
        layers += [torch.nn.Dropout(network.rate)] if network.rate else []
    model = torch.nn.Sequential(*layers, torch.nn.Linear(*network.sizes[-2:])).to(place)
    on_gpu = place.type == "cuda"
    if rule == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=on_gpu, capturable=on_gpu)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x = torch.randn(network.batch, network.sizes[0], device=place)
    y = torch.randint(0, network.sizes[-1], (network.batch,), device=place)

    def forward_backward() -> Any:
        with torch.autocast(place.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    work = torch.compile(forward_backward, mode=mode) if mode else forward_backward
    update = torch.compile(optimizer.step, mode=mode) if mode else optimizer.step

    def step() -> None:
        if mode:
            torch.compiler.cudagraph_mark_step_begin()
        work()
        update()
        optimizer.zero_grad(set_to_none=not mode)

    return step


def jax_step(network: Network, rule: str, dtype: str = "float32") -> Step:
    """JAX's step, compiled, with its parameters donated; what it returns can be waited for."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or it takes most of the GPU
    import jax
    import jax.numpy as jnp

    key = jax.random.PRNGKey(0)
    weights = [
        (jax.random.normal(key, (d, h)) * (2 / d) ** 0.5, jnp.zeros(h))
        for d, h in zip(network.sizes[:-1], network.sizes[1:], strict=True)
    ]
    x = jax.random.normal(key, (network.batch, network.sizes[0]))
    y = jax.random.randint(key, (network.batch,), 0, network.sizes[-1])
    kind = jnp.dtype(dtype)

    @jax.default_matmul_precision("highest")  # float32 in full, as the others; else it is TF32
    def loss(weights: Any, key: Any) -> Any:
        h = x.astype(kind)
        for k, (w, bias) in enumerate(weights):
            h = h @ w.astype(kind) + bias.astype(kind)
            if k < len(weights) - 1:
                h = jax.nn.relu(h)
                if network.rate:
                    key, now = jax.random.split(key)
                    keep = jax.random.bernoulli(now, 1 - network.rate, h.shape)
                    h = jnp.where(keep, h / (1 - network.rate), 0)
        scores = jax.nn.log_softmax(h.astype(jnp.float32))
        return -scores[jnp.arange(len(y)), y].mean()

    def adam(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        scale = 0.01 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return p - scale * m / (jnp.sqrt(v) + 1e-8), m, v

    def sgd(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
        m = 0.9 * m + g
        return p - 0.01 * m, m, v

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train(weights: Any, m: Any, v: Any, t: Any, key: Any) -> Any:
        grads = jax.grad(loss)(weights, key)
        update = {"adam": adam, "sgd": sgd}[rule]
        moved = jax.tree.map(lambda *a: update(*a, t), weights, grads, m, v)
        parts = [jax.tree.map(lambda a, k=k: a[k], moved, is_leaf=_is_triple) for k in range(3)]
        return (*parts, t + 1, jax.random.split(key)[0])

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, jax.tree.map(jnp.zeros_like, weights), jnp.float32(1), key)]

    def step() -> Any:
        state[0] = train(*state[0])
        return state[0][3]

    return step


def _is_triple(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3
