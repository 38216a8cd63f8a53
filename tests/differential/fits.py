"""Random fits that are recorded and eager, compiled and NumPy alone: the same bits, or close."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn, optim

ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "elu", "leaky_relu", "identity")
ACTIVATIONS += ("gelu_tanh", "relu6", "hardswish", "mish")
CLASSES = ("softmax_cross_entropy", "multiclass_hinge", "focal")
NUMBERS = ("squared_error", "huber", "absolute_error", "quantile_error", "half_squared_error")
IGNORED = -100
ROWS, D = 45, 4


def layers(rng: np.random.Generator, outputs: int) -> list[Any]:
    """Draw the layers of a network."""
    found: list[Any] = []
    width = D
    for _ in range(int(rng.integers(0, 4))):
        wide, seed = int(rng.integers(1, 9)), int(rng.integers(1000))
        name = str(rng.choice(ACTIVATIONS))
        found.append(nn.Linear(width, wide, name, bias=bool(rng.random() < 0.8), seed=seed))
        width = wide
        kind = rng.random()
        if kind < 0.25:
            found.append(nn.Dropout(float(rng.uniform(0.05, 0.7)), seed=seed))
        elif kind < 0.4:
            found.append(nn.BatchNorm(width))
        elif kind < 0.55:
            found.append(nn.LayerNorm(width))
        elif kind < 0.6:
            found.append(nn.RMSNorm(width))
        elif kind < 0.7:
            found.append(nn.Residual(nn.Linear(width, width, name, seed=seed + 1)))
    return [*found, nn.Linear(width, outputs, seed=7)]


def optimizer(rng: np.random.Generator) -> Any:
    """Draw an optimizer with settings of its own."""
    lr = float(10 ** rng.uniform(-3, -1.5))
    makers = [
        lambda: optim.SGD(lr=lr),
        lambda: optim.SGD(lr=lr, momentum=0.9, nesterov=bool(rng.random() < 0.5)),
        lambda: optim.Adam(lr=lr, beta1=float(rng.uniform(0.5, 0.95)), beta2=0.99),
        lambda: optim.AdamW(lr=lr, weight_decay=float(rng.uniform(0, 0.3))),
        lambda: optim.RMSprop(lr=lr),
        lambda: optim.AdaGrad(lr=lr),
    ]
    return makers[int(rng.integers(len(makers)))]()


def settings(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the other arguments of a trainer and of a fit."""
    trainer: dict[str, Any] = {"seed": int(rng.integers(100)), "on_nonfinite": "ignore"}
    if rng.random() < 0.4:
        trainer["regularizer"] = [optim.L2(1e-2), optim.L1(1e-3), optim.MaxNorm(1.0)][
            int(rng.integers(3))
        ]
    if rng.random() < 0.4:
        trainer["schedule"] = str(rng.choice(["cosine", "linear", "constant"]))
    if rng.random() < 0.3:
        trainer["clip_norm"] = float(rng.uniform(0.1, 2))
    fit = {
        "epochs": int(rng.integers(1, 4)),
        "batch_size": int(rng.choice([5, 7, 9, 16, 45, 64])),
        "shuffle": bool(rng.random() < 0.7),
        "sample_weight": rng.uniform(0.1, 2, ROWS) if rng.random() < 0.3 else None,
    }
    return {"trainer": trainer, "fit": fit}


def weighed(rng: np.random.Generator, loss: str, outputs: int) -> dict[str, Any]:
    """Draw the options of a loss of classes."""
    options: dict[str, Any] = {}
    if loss != "multiclass_hinge":
        if rng.random() < 0.4:
            options["weight"] = rng.uniform(0, 3, outputs).round(2) + 0.01
        if rng.random() < 0.4:
            options["ignore_index"] = IGNORED
    if loss == "softmax_cross_entropy" and rng.random() < 0.4:
        options["label_smoothing"] = 0.1
    return options


def trained(seed: int, device: str, capture: Any, alone: bool = False) -> dict[str, Any]:
    """Fit the network of a seed, and return its state and its losses."""
    rng = np.random.default_rng(seed)
    numbers = rng.random() < 0.5
    outputs = int(rng.integers(2, 4))
    loss = str(rng.choice(NUMBERS if numbers else CLASSES))
    x = rng.standard_normal((ROWS, D)).astype(np.float32)
    y = x[:, :1] @ np.ones((1, outputs), np.float32) if numbers else rng.integers(0, outputs, ROWS)
    options = {} if numbers else weighed(rng, loss, outputs)
    if "ignore_index" in options:
        y = np.where(rng.random(ROWS) < 0.3, IGNORED, y)
    b = gn.backend(device)
    with b.numpy_alone() if alone else nullcontext(), gn.device(device):
        net = nn.Sequential(*layers(rng, outputs))
        chosen, more = optimizer(rng), settings(rng)
        if not numbers and rng.random() < 0.3:
            more["fit"]["class_weight"] = "balanced"
        weighing = gn.ops.get_loss(loss, **options)
        trainer = gn.Trainer(net, weighing, chosen, capture=capture, **more["trainer"])
        history = trainer.fit(x, y, progress=False, **more["fit"])
        plain = np.array(isinstance(chosen, optim.SGD))
        return {**net.state_dict(), "losses": np.array(history["loss"]), "plain": plain}


def check(seed: int, device: str = "cpu") -> None:
    """Compare a recorded fit with an eager one, and compiled kernels with NumPy alone.

    Raises:
        AssertionError: the bits differ, or on NumPy alone more than the rounding.
    """
    recorded = trained(seed, device, "auto")
    eager = trained(seed, device, False)
    for name, value in recorded.items():
        np.testing.assert_array_equal(value, eager[name], err_msg=name)
    # Rules that divide by the size of a gradient make steps of its rounding where it is 0.
    if device == "cpu" and recorded["plain"] and np.isfinite(recorded["losses"]).all():
        alone = trained(seed, device, "auto", alone=True)
        first = alone["losses"][0], recorded["losses"][0]
        np.testing.assert_allclose(*first, rtol=1e-3, err_msg="losses of NumPy alone")
