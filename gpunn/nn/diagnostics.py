"""Diagnostics of a network: dead units, and gradients that vanish or explode."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpunn.autograd import Tensor
from gpunn.errors import ArgumentError, GradientError
from gpunn.nn.containers import Sequential
from gpunn.nn.linear import Linear, unfused
from gpunn.nn.module import Module
from gpunn.ops import Activation, get_activation, identity
from gpunn.ops.elementwise import opened
from gpunn.typing import Array


class UnitReport(NamedTuple):
    """The behaviour of the units of a layer over a set of examples.

    Attributes:
        dead: (H,) booleans, True for units whose activation has the derivative 0 at every example,
            so that no gradient reaches their weights.
        slope: (H,) mean of the absolute derivative over the examples; near 0 for a saturated unit.
    """

    dead: np.ndarray[Any, np.dtype[np.bool_]]
    slope: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def fraction(self) -> float:
        """The fraction of the units that are dead."""
        return float(self.dead.mean())


def dead_units(model: Module, x: Array) -> dict[str, UnitReport]:
    """Find the units that pass no gradient at any of the examples, layer by layer.

    Args:
        model: the network. Activations of linear layers and `Activate` layers are examined.
        x: (N, D) examples on the device of the model, in its dtype.

    Returns:
        A report for each layer with an elementwise activation other than the identity, by the
        layer's name in `model.named_modules()`, first to last.

    Reference:
        Lectures 002 ("dead" ReLU) and 003 ("problematic if the bias is too large and negative").

    Example:
        >>> net = Sequential(Linear(1, 2, "relu", seed=0), Linear(2, 1, seed=1))
        >>> _ = net[0].load_state_dict({"weight": np.ones((1, 2)), "bias": np.array([0.0, -9.0])})
        >>> dead_units(net, np.ones((3, 1), np.float32))["0"].dead
        array([False,  True])
    """
    names = {id(module): name for name, module in model.named_modules()}
    reports: dict[str, UnitReport] = {}

    def look(layer: Module, z: Tensor, y: Tensor) -> None:
        activation, options = opened(get_activation(getattr(layer, "activation", identity)))
        if not isinstance(activation, Activation) or activation is identity:
            return
        b = z.backend
        slopes = b.zeros(z.shape, z.dtype)
        if activation.differentiable:
            _, backward = activation.vjp(b, z.data, **options)
            (slopes,) = backward(b.full(z.shape, 1.0, z.dtype), (True,))
        slopes = np.abs(b.download(slopes)).reshape(-1, z.shape[-1]).astype(np.float64)
        reports[names[id(layer)]] = UnitReport(~slopes.any(axis=0), slopes.mean(axis=0))

    with model.backend.current(), model.evaluating(), unfused(look):
        model(x if isinstance(x, Tensor) else Tensor(x))
    return reports


def gradient_norms(model: Module) -> dict[str, float]:
    """Return the Euclidean norm of the gradient of each weight, from the first layer to the last.

    If the norms shrink from layer to layer towards the input, the gradients vanish. If they grow,
    the gradients explode. Biases are left out.

    Raises:
        GradientError: no backward pass has run.

    Reference:
        Lecture 004 (vanishing and exploding gradients), lecture 003 ("problematic due to gradient
        signal").

    Example:
        >>> net = Sequential(Linear(1, 1, seed=0), Linear(1, 1, seed=1))
        >>> net(np.ones((1, 1), np.float32)).sum().backward()
        >>> list(gradient_norms(net))
        ['0.weight', '1.weight']
    """
    norms = {}
    for name, parameter in model.named_parameters():
        if not parameter.regularize:
            continue
        if parameter.grad is None:
            raise GradientError(
                f"got no gradient at {name}; expected one: call backward() of a loss first"
            )
        norms[name] = float(np.linalg.norm(parameter.backend.download(parameter.grad)))
    return norms


def collapse(model: Sequential) -> Linear:
    """Combine a sequence of linear layers without activations into one linear layer.

    W = W_1 W_2 ... and b = (b_1 W_2 + b_2) W_3 + ..., so several linear layers express no more than
    one. (The order is that of (D, H) weights; it is reversed for the lectures' column vectors.)

    Raises:
        ArgumentError: a layer is not linear, or has an activation.

    Reference:
        Lectures 001 and 003; lecture 001 prints W1 W2, which should be W2 W1.

    Example:
        >>> collapse(Sequential(Linear(5, 3), Linear(3, 2)))
        Linear(in_features=5, out_features=2, activation='identity', bias=True, dtype='float32')
    """
    weight = bias = None
    for layer in model.layers:
        if not isinstance(layer, Linear) or get_activation(layer.activation) is not identity:
            raise ArgumentError(
                f"got {layer!r} to collapse; expected linear layers only: leave out activations"
            )
        w = layer.weight.numpy().astype(np.float64)
        b = 0.0 if layer.bias is None else layer.bias.numpy().astype(np.float64)
        weight = w if weight is None else weight @ w
        bias = b if bias is None else bias @ w + b if np.ndim(bias) else b
    if weight is None:
        raise ArgumentError("got no layers to collapse; expected at least one: add a Linear layer")
    one = Linear(*weight.shape, dtype=model.dtype, device=model.device)
    one.load_state_dict({"weight": weight, "bias": np.zeros(weight.shape[1]) + bias})
    return one
