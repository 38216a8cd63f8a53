"""The choices of the page and their formulas, read from the declarations."""

from __future__ import annotations

from typing import Any

from gpunn.explain.formulas import formula
from gpunn.ops.dropout import Rate
from gpunn.optim import Optimizer
from gpunn.playground.kernels import activations, losses, program
from gpunn.playground.sets import embedded, maps, ran

OPTIMIZERS = {
    "sgd": ("SGD", "gn.optim.SGD(lr={lr})"),
    "momentum": ("SGD, momentum 0.9", "gn.optim.SGD(lr={lr}, momentum=0.9)"),
    "nesterov": ("SGD, Nesterov 0.9", "gn.optim.SGD(lr={lr}, momentum=0.9, nesterov=True)"),
    "adam": ("Adam", "gn.optim.Adam(lr={lr})"),
    "adamw": ("AdamW", "gn.optim.AdamW(lr={lr})"),
    "nadam": ("NAdam", "gn.optim.NAdam(lr={lr})"),
    "radam": ("RAdam", "gn.optim.RAdam(lr={lr})"),
    "lion": ("Lion", "gn.optim.Lion(lr={lr})"),
    "adagrad": ("AdaGrad", "gn.optim.AdaGrad(lr={lr})"),
    "rmsprop": ("RMSprop", "gn.optim.RMSprop(lr={lr})"),
}
"""The optimizers: the name on the page, and the Python. LAMB is left out: it works on rows."""
RATES = ("0", "0.1", "0.2", "0.3", "0.5")


def optimizers() -> dict[str, Optimizer]:
    """Return the optimizers with any rate."""
    return {
        name: ran(f"made = {line.format(lr=0.01)}")["made"]
        for name, (_, line) in OPTIMIZERS.items()
    }


def catalogue() -> tuple[str, dict[str, Any]]:
    """Return the source of the kernels, and all that the page offers as JSON."""
    chosen = optimizers()
    source, loops, names = program(list(chosen.values()))
    kernels: dict[str, dict[str, Any]] = {name: {"run": k} for k, name in enumerate(names)}
    for name, loop in loops.items():
        kernels[name] |= {"slots": loop.slots, "nested": loop.nested, "body": loop.body}
    return source, {
        "version": ran("")["gn"].__version__,
        "kernels": kernels,
        "activations": {name: _activation(name) for name in activations()},
        "losses": {name: _loss(name) for name in losses()},
        "optimizers": {name: _optimizer(name, chosen[name]) for name in OPTIMIZERS},
        "rates": {rate: _rate(float(rate)) for rate in RATES},
        "linear": _linear(),
        "sets": embedded(),
        "maps": maps(),
    }


def _activation(name: str) -> dict[str, Any]:
    made = activations()[name]
    numbers = list(made.options.values())
    formulas = _formula(name, [(1, 1)])
    kinds = {"saves": made.saves, "gain": made.gain, "numbers": numbers}
    return {"name": name, **kinds, **formulas}


def _loss(name: str) -> dict[str, Any]:
    made = losses()[name]
    numbers = [limit.default for limit in made.limits.values()]
    signs = made.decides is None or made.labels == (-1, 1)
    kinds = {"weights": made.weights, "numbers": numbers, "signs": signs}
    kinds["classes"] = made.decides is not None
    return {"name": name, **kinds, **_formula(name, [(1, 1), (1, 1)])}


def _optimizer(name: str, made: Optimizer) -> dict[str, Any]:
    kernel = made.rule.kernels[made.decay_kind, False, False]
    title, line = OPTIMIZERS[name]
    numbers, states = made.numbers(), len(made.slots)
    found = {"title": title, "line": line, "kernel": kernel.name, "body": made.rule.formula}
    return found | {"numbers": numbers, "states": states, "lr": type(made)().lr}


def _rate(rate: float) -> dict[str, Any] | None:
    real = Rate.of(rate)
    found = {"width": real.width, "threshold": real.threshold, "scale": real.scale}
    return found if rate else None


def _linear() -> dict[str, Any]:
    shapes: list[tuple[int, ...]] = [(1, 2), (2, 2), (2,)]
    fed = formula("linear", {"feedback": ...}, shapes, (1, 2))
    return _formula("linear", shapes) | {"feedback": fed.backward[0]}


def _formula(op: str, shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    found = formula(op, {}, shapes, shapes[0])
    return {"forward": found.forward, "backward": found.backward}
