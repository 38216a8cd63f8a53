"""SciPy's L-BFGS over the flat parameters of a training step."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import Backend
from gpunn.optim.flat import FlatParameters
from gpunn.sklearn.device_input import on_device
from gpunn.sparse import is_sparse, sparse_rows
from gpunn.train import EagerStep
from gpunn.typing import Array


class FlatObjective:
    """The loss of the whole data and its gradient, as a function of one vector on the host.

    Args:
        step: the training step. The vector contains its parameters, the weights first.
        arrays: the examples, their targets and, if there are any, their weights.
    """

    def __init__(self, step: EagerStep, arrays: tuple[Array, ...]) -> None:
        self.step, self.arrays = step, arrays
        self.flat: FlatParameters = step.optimizer.bound
        parts = [self.flat.parts[tensor] for tensor in self.flat.tensors]
        self._places = np.concatenate([np.arange(part.start, part.stop) for part in parts])
        self._host = np.zeros(self.flat.data.shape, self.flat.dtype)

    def start(self) -> np.ndarray[Any, Any]:
        """Return the present parameters."""
        return self._pick(self.flat.data)

    def take(self, vector: np.ndarray[Any, Any]) -> None:
        """Set the parameters to the content of a vector."""
        self._host[self._places] = vector
        self.flat.backend.write(self.flat.data, self._host)

    def __call__(self, vector: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        """Compute the loss and its gradient at these parameters."""
        b = self.flat.backend
        with b.current():
            self.take(vector)
            loss = self.step.gradients(*self.arrays)
            return float(b.download(loss)), self._pick(self.flat.grad)

    def _pick(self, flat: Array) -> np.ndarray[Any, Any]:
        host: np.ndarray[Any, Any] = self.flat.backend.download(flat)[self._places]
        return host.astype(np.float64, copy=False)


def minimize(objective: FlatObjective, **options: Any) -> Any:
    """Minimise with SciPy's L-BFGS-B, and set the parameters to the result.

    Args:
        objective: the function to minimise.
        options: options of SciPy's method.

    Returns:
        SciPy's result.
    """
    import scipy.optimize

    run: Any = scipy.optimize.minimize
    with np.errstate(over="ignore"):
        found = run(objective, objective.start(), method="L-BFGS-B", jac=True, options=options)
    objective.take(found.x)
    return found


def wide(b: Backend, values: Any) -> Array:
    """Move numbers to a device, as float64 unless they are integers.

    Sparse rows stay sparse on the CPU and become dense on a GPU.
    """
    if is_sparse(values):
        values = sparse_rows(values, np.float64)
        return values if b.on_host else b.upload(values.toarray())
    values = values if on_device(values) else b.upload(np.asarray(values))
    return values if values.dtype.kind in "iu" else values.astype(np.float64, copy=False)
