"""Networks of all modules that other formats can hold."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gpunn import nn
from gpunn.nn.observation import observe
from gpunn.ops import ACTIVATIONS

D = 5
BATCHES = (1, 7)


def randomized(net, seed=1):
    """Give every parameter and buffer numbers of its own, variances positive ones."""
    rng = np.random.default_rng(seed)
    state = {
        name: rng.uniform(0.5, 1.5, value.shape)
        if name.endswith(("variance", "scale"))
        else rng.standard_normal(value.shape) / max(1, len(value)) ** 0.5
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    return net


LAYERS = {
    "no bias": lambda: nn.Linear(D, 3, bias=False),
    "vanilla dropout": lambda: nn.VanillaDropout(0.3),
    "dropout": lambda: nn.Sequential(nn.Linear(D, 4, "relu"), nn.Dropout(0.5), nn.Linear(4, 2)),
    "standardize": lambda: nn.Standardize(np.ones(D), np.ones(D)),
    "standardize back": lambda: nn.Standardize(np.ones(D), np.ones(D), inverse=True),
    "layer norm": lambda: nn.LayerNorm(D, eps=0.1),
    "rms norm": lambda: nn.RMSNorm(D, eps=0.1),
    "rms norm with the default": lambda: nn.Sequential(nn.Linear(D, 9), nn.RMSNorm(9)),
    "codes": lambda: nn.Sequential(
        nn.Activate("hard_threshold"), nn.Embedding(2, 3, flatten=True), nn.Linear(3 * D, 2)
    ),
    "batch norm": lambda: nn.BatchNorm(D, eps=0.1),
    "robust scale": lambda: nn.RobustScale(np.ones(D), np.full(D, 2.0)),
    "scale": lambda: nn.Scale(D),
    "waves": lambda: nn.Sequential(nn.PeriodicEmbedding(2), nn.Linear(D + 6, 2)),
    "parametric": lambda: nn.Sequential(nn.Linear(D, 4), nn.ParametricActivation(4, "mish")),
    "mean": lambda: nn.Ensemble([nn.Linear(D, 2), nn.Linear(D, 2, "tanh")]),
    "mean chance": lambda: nn.Ensemble(
        [nn.Linear(D, 3), nn.Linear(D, 3)], "probabilities", temperature=1.5
    ),
    "levels": lambda: nn.Sequential(nn.OneHot([0] * (D - 2) + [2, 3]), nn.Linear(D + 2, 2)),
    "feedback": lambda: nn.FeedbackLinear(D, 3, "relu"),
    "random features": lambda: nn.Sequential(nn.RandomFeatures(D, 9, "tanh"), nn.Linear(9, 2)),
    "products and squares": lambda: nn.Sequential(nn.QuadraticFeatures(), nn.Linear(20, 2)),
    "products": lambda: nn.Sequential(nn.Linear(D, D), nn.QuadraticFeatures(squares=False)),
    "products of three": lambda: nn.Sequential(nn.PolynomialFeatures(D, 3), nn.Linear(55, 2)),
    "different factors": lambda: nn.PolynomialFeatures(D, 9, interaction_only=True),
    "difference": lambda: nn.Sequential(nn.Linear(D, 2), nn.DifferenceFeature()),
    "residual": lambda: nn.Residual(nn.Linear(D, D, "tanh")),
    "residual of a column": lambda: nn.Residual(nn.Linear(D, 1)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(D, 3)), "elu", nn.Linear(3, 1)),
    "graph": lambda: nn.Graph(
        {
            "a": (nn.Linear(D, 3, "relu"), ["x"]),
            "b": (nn.Linear(3, 3), ["a"]),
            "s": (nn.Sum(), ["a", "b", "a"]),
            "c": (nn.Concatenate(), ["s", "x", "b"]),
            "y": (nn.Linear(D + 6, 2), ["c"]),
            "unused": (nn.Linear(2, 2), ["y"]),
        },
        output="y",
    ),
}


def largest(net):
    """The size of the largest number inside: what rounding is relative to, as layers may shrink."""
    sizes = [1.0]
    with observe(lambda module, y: sizes.append(float(np.abs(y.data).max()))):
        net.predict(4 * np.ones((1, D)))
    return max(sizes)


def small_network(data, width=D):
    """A random network of up to four layers."""
    parts = []
    for _ in range(data.draw(st.integers(1, 4), "depth")):
        kind = data.draw(st.sampled_from(["linear", "residual", "norm", "batch", "act", "drop"]))
        activation = data.draw(st.sampled_from([*sorted(set(ACTIVATIONS) - {"hard_threshold"})]))
        if kind == "linear":
            out = data.draw(st.integers(1, 6), "width")
            parts.append(nn.Linear(width, out, activation, bias=data.draw(st.booleans())))
            width = out
        elif kind == "norm":  # with a large eps: that of a constant row amplifies rounding
            parts.append(data.draw(st.sampled_from([nn.LayerNorm, nn.RMSNorm]))(width, eps=0.1))
        elif kind == "batch":
            parts.append(nn.BatchNorm(width))
        else:
            parts.append(
                {
                    "residual": nn.Residual(nn.Linear(width, width, activation)),
                    "act": nn.Activate(activation),
                    "drop": nn.VanillaDropout(0.25),
                }[kind]
            )
    return randomized(nn.Sequential(*parts), data.draw(st.integers(0, 99), "seed"))
