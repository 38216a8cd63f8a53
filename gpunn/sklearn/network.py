"""The network of an estimator, and its weights as `coefs_` and `intercepts_`."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
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

    On the CPU the layers compute with the arrays of the attributes themselves, so a change of one
    is a change of the other. A GPU has copies. The attributes are read-only then, so that a change
    which the copies would miss is an error. The same holds for attributes of another dtype.

    Args:
        b: the backend.
        dtype: the dtype to compute in.
        coefs: the (D, H) weight of each layer. An array that must be copied is replaced in the
            list by a read-only view.
        intercepts: the (H,) bias of each layer, likewise.
        activations: the name of each hidden layer's activation.
        rates: the dropout rate of the features, then of each hidden layer; None for no dropout.

    Attributes:
        backend: the backend of the layers.
        dtype: the dtype of the layers.
        activations: the name of each hidden layer's activation.
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
        self.backend, self.dtype, self.activations = b, np.dtype(dtype), tuple(activations)
        self.rates = tuple(rates or ())
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
        self._parameters = [
            *[layer.weight for layer in self.layers],
            *[layer.bias for layer in self.layers if layer.bias is not None],
        ]
        for values, parameters in (
            (coefs, self._parameters[: len(coefs)]),
            (intercepts, self._parameters[len(coefs) :]),
        ):
            for k, parameter in enumerate(parameters):
                parameter.data, values[k] = self._adopted(values[k], dtype)
        self._held = [*coefs, *intercepts]

    def suits(self, coefs: Weights, activations: Sequence[str]) -> bool:
        """Return whether the network has the shapes of these weights, and these activations."""
        shapes = [layer.weight.shape for layer in self.layers]
        return shapes == [w.shape for w in coefs] and self.activations == tuple(activations)

    def holds(self, coefs: Weights, intercepts: Weights, activations: Sequence[str]) -> bool:
        """Return whether the layers compute with exactly these arrays, and these activations."""
        given = (*coefs, *intercepts)
        same = len(given) == len(self._held) and all(map(is_, given, self._held))
        return same and self.activations == tuple(activations)

    def take(self, coefs: Weights, intercepts: Weights) -> None:
        """Copy these arrays into the layers of a training, except those that they hold already."""
        b, given = self.backend, [*coefs, *intercepts]
        for parameter, held, value in zip(self._parameters, self._held, given, strict=True):
            if value is not held:
                with b.current():
                    b.write(parameter.data, value.astype(parameter.dtype, copy=False))

    def show(self) -> tuple[Weights, Weights]:
        """Return the weights and biases: on the CPU the layers' arrays, on a GPU host copies."""
        b = self.backend
        values = [parameter.data for parameter in self._parameters]
        if not b.on_host:
            values = [_read_only(b.download(value)) for value in values]
        self._held, count = values, len(self.layers)
        return values[:count], values[count:]

    def _adopted(self, value: Array, dtype: DType) -> tuple[Array, Array]:
        """Return an attribute's array for the layers, and as it is to be shown."""
        if self.backend.on_host and value.dtype == dtype:
            return np.asarray(value), value
        with self.backend.current():
            return self.backend.upload(value.astype(dtype, copy=False)), _read_only(value)

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
        return model.predict(narrowed(x, self.dtype), batch_size=rows)


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def activated(z: Array, out_activation: str) -> Array:
    """Apply the output activation to (N, K) numbers."""
    b = backend_of(z)
    with b.current():
        y: Any = OUTPUTS[out_activation](b, z)
    return y
