"""The network of an estimator, and its weights as `coefs_` and `intercepts_`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn import ops
from gpunn.autograd import Op
from gpunn.backends import Backend, backend_of
from gpunn.examples import BATCH_ROWS
from gpunn.nn import Dropout, Linear, Module, Sequential
from gpunn.sklearn.arithmetic import EXPIT, softmax
from gpunn.sklearn.device_input import narrowed
from gpunn.typing import Array, DType

Weights = list[np.ndarray]

OUTPUTS = {
    "identity": lambda b, z: z,
    "softmax": lambda b, z: softmax(z) if _is_exact(b, z.dtype) else ops.softmax.vjp(b, z)[0],
    "exp": lambda b, z: b.xp.exp(z),
    "logistic": lambda b, z: sigmoid(b, z.dtype).vjp(b, z)[0],
}


def sigmoid(b: Backend, dtype: DType) -> Op:
    """Return the sigmoid. For float64 on the CPU it has the same bits as scikit-learn's."""
    return EXPIT if _is_exact(b, dtype) else ops.sigmoid


def _is_exact(b: Backend, dtype: DType) -> bool:
    """Return whether results have the same bits as scikit-learn's."""
    return b.on_host and np.dtype(dtype) == np.float64


class Network:
    """Linear layers whose weights are shown as scikit-learn's attributes.

    On the CPU, a coefficient array and the layer's weight share their memory, so a change of one
    changes the other. On a GPU they are copies.

    Args:
        b: the backend.
        dtype: the dtype to compute in.
        coefs: the (D, H) weight of each layer.
        intercepts: the (H,) bias of each layer.
        activations: the name of each hidden layer's activation.
        rates: the dropout rate of the features, then of each hidden layer; None for no dropout.
    """

    def __init__(
        self,
        b: Backend,
        dtype: DType,
        coefs: Weights,
        intercepts: Weights,
        activations: Sequence[str],
        rates: Sequence[float] | None = None,
    ) -> None:
        known = {"logistic": sigmoid(b, dtype)}
        names = [known.get(name, name) for name in activations]
        self.layers = [
            Linear(w.shape[0], w.shape[1], name, init="zeros", dtype=dtype, device=b.device)
            for w, name in zip(coefs, [*names, "identity"], strict=True)
        ]
        modules: list[Module] = []
        for rate, layer in zip(rates or [0.0] * len(self.layers), self.layers, strict=True):
            modules += [Dropout(rate), layer] if rate else [layer]
        self.model = Sequential(*modules)
        self.take(coefs, intercepts)

    @property
    def backend(self) -> Backend:
        """The backend of the layers."""
        return self.model.backend

    def take(self, coefs: Weights, intercepts: Weights) -> None:
        """Copy these arrays into the layers, except those that are the layers' own."""
        b = self.backend
        for layer, w, bias in zip(self.layers, coefs, intercepts, strict=True):
            assert layer.bias is not None
            for parameter, value in ((layer.weight, w), (layer.bias, bias)):
                if parameter.data is not value:
                    with b.current():
                        b.write(parameter.data, value.astype(parameter.dtype, copy=False))

    def show(self) -> tuple[Weights, Weights]:
        """Return the weights and biases: on the CPU the layers' arrays, on a GPU host copies."""
        b = self.backend
        weights = [layer.weight.data for layer in self.layers]
        biases = [layer.bias.data for layer in self.layers if layer.bias is not None]
        if b.on_host:
            return weights, biases
        return [b.download(w) for w in weights], [b.download(bias) for bias in biases]

    def outputs(self, x: Array, out_activation: str) -> Array:
        """Compute the (N, K) outputs for (N, D) examples, after the output activation."""
        z = self._run(self.model, x)
        return activated(z, out_activation)

    def hidden(self, x: Array, layer: int) -> Array:
        """Compute the (N, H) activations of a hidden layer."""
        return self._run(Sequential(*self.layers[: layer + 1]), x)

    def _run(self, model: Module, x: Array) -> Array:
        # On the CPU all rows are in one product, as in scikit-learn, to give the same bits.
        rows = max(1, x.shape[0]) if self.backend.on_host else BATCH_ROWS
        return model.predict(narrowed(x, self.model.dtype), batch_size=rows)


def activated(z: Array, out_activation: str) -> Array:
    """Apply the output activation to (N, K) numbers."""
    b = backend_of(z)
    with b.current():
        y: Any = OUTPUTS[out_activation](b, z)
    return y
