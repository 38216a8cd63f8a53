"""The data sets and the feature maps of the playground, as lines of Python.

The page shows these lines. The build runs the same lines, and puts their points into the page.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import numpy as np

from gpunn.nn import PolynomialFeatures, QuadraticFeatures, RandomFeatures

SEEDS = (0, 1, 2)
"""The draws of each data set that the page can show."""


class DataLines(NamedTuple):
    """A data set.

    Attributes:
        title: its name on the page.
        lines: Python that sets x (N, D) and y (N,), with {noise} and {seed}.
        noises: the values of {noise} that the page offers.
        window: the part of the plane that the page shows, in both directions; or, for numbers as
            targets, the part of x and the part of y.
        task: "classes" for y of 0 and 1, "numbers" for any.
        exact: the lines for the noise 0; None for the same lines.
    """

    title: str
    lines: str
    noises: tuple[float, ...]
    window: tuple[float, float, float, float]
    task: str = "classes"
    exact: str | None = None


SQUARE = (-1.4, 1.4, -1.4, 1.4)
SETS = {
    "xor": DataLines(
        "XOR",
        "four = gn.data.xor()\n"
        "noise = np.random.default_rng({seed}).standard_normal((300, 2))\n"
        "x, y = np.tile(four.x, (75, 1)) + {noise} * noise, np.tile(four.y, 75)",
        (0.0, 0.05, 0.1, 0.15, 0.2),
        (-0.5, 1.5, -0.5, 1.5),
        exact="data = gn.data.xor()\nx, y = data.x, data.y",
    ),
    "circle": DataLines(
        "Circle",
        "data = gn.data.circles(300, noise={noise}, seed={seed})\nx, y = data.x, data.y",
        (0.0, 0.05, 0.1, 0.15, 0.2),
        SQUARE,
    ),
    "spiral": DataLines(
        "Spiral",
        "data = gn.data.spirals(300, classes=2, noise={noise}, seed={seed})\nx, y = data.x, data.y",
        (0.0, 0.1, 0.2, 0.3, 0.4),
        SQUARE,
    ),
    "gauss": DataLines(
        "Gauss",
        "data = gn.data.blobs(300, classes=2, spread={noise}, seed={seed})\n"
        "x, y = data.x / 10, data.y",
        (1.0, 2.0, 3.0, 4.0, 5.0),
        SQUARE,
    ),
    "bumps": DataLines(
        "Bumps",
        "x = np.linspace(-2, 2, 300)[:, None]\n"
        "noise = np.random.default_rng({seed}).standard_normal(300)\n"
        "y = np.sin(3 * x[:, 0]) + x[:, 0] / 2 + {noise} * noise",
        (0.0, 0.1, 0.2, 0.3, 0.4),
        (-2.2, 2.2, -2.2, 2.2),
        task="numbers",
    ),
    "patterns": DataLines(
        "Shifted patterns",
        "data = gn.data.shifted_patterns()\nx, y = data.x, data.y",
        (0.0,),
        (0.0, 1.0, 0.0, 1.0),
    ),
}

MAPS = {
    "plain": ("x1, x2", ""),
    "cross": ("with x1 x2", "gn.nn.QuadraticFeatures(squares=False)"),
    "quadratic": ("with squares", "gn.nn.QuadraticFeatures()"),
    "cubic": ("up to cubes", "gn.nn.PolynomialFeatures(2, degree=3)"),
    "difference": ("1, |x1 - x2|", "gn.nn.DifferenceFeature()"),
    "random": ("16 random", 'gn.nn.RandomFeatures(2, 16, "relu", deviation=2.0, seed=0)'),
}
"""The feature maps of two features: the name on the page, and the Python of the layer."""


def ran(lines: str) -> dict[str, Any]:
    """Run lines of the page, and return what they define."""
    names: dict[str, Any] = {}
    exec(f"import numpy as np\nimport gpunn as gn\n{lines}", names)
    return names


def points(lines: DataLines, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x (N, D) and y (N,) in float32."""
    source = lines.exact if lines.exact is not None and noise == 0 else lines.lines
    names = ran(source.format(noise=noise, seed=seed))
    return names["x"].astype(np.float32), names["y"].astype(np.float32)


def embedded() -> dict[str, Any]:
    """Return the data sets with their points, as JSON."""
    found = {}
    for name, lines in SETS.items():
        alone = lines.noises == (0.0,)
        drawn = {
            f"{noise} {seed}": _packed(*points(lines, noise, seed))
            for noise in lines.noises
            for seed in (SEEDS[:1] if alone else SEEDS)
        }
        found[name] = {**lines._asdict(), "points": drawn}
    return found


def maps() -> dict[str, Any]:
    """Return the feature maps as JSON: the products as lists of factors, random weights as bits."""
    found = {}
    for name, (title, layer) in MAPS.items():
        made: dict[str, Any] = {"title": title, "layer": layer, "size": 2}
        if layer:
            module = ran(f"layer = {layer}")["layer"]
            made["size"] = module(np.zeros((1, 2), np.float32)).shape[1]
            if isinstance(module, RandomFeatures):
                made["weight"] = _base64(module.weight.numpy())
            elif isinstance(module, QuadraticFeatures):
                skip = not module.squares
                module = PolynomialFeatures(2, interaction_only=skip)
            if isinstance(module, PolynomialFeatures):
                made["factors"] = module.factors()
        found[name] = made
    return found


def _packed(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return {"rows": len(x), "inputs": x.shape[1], "x": _base64(x), "y": _base64(y)}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
