"""L-BFGS for any network: SciPy's method over the flat parameters of a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.arguments import check_kind, count, in_range
from gpunn.autograd import Tensor
from gpunn.backends.floating import unwarned
from gpunn.errors import ArgumentError, DivergenceError
from gpunn.nn import Module
from gpunn.ops import get_loss
from gpunn.ops.elementwise_losses import targets_checked
from gpunn.optim import SGD, Regularizer
from gpunn.optim.flat import FlatParameters
from gpunn.optim.regularizers import constrains
from gpunn.train.curves import History
from gpunn.train.inputs import hint, training_arrays, training_weights
from gpunn.train.steps.step import EagerStep
from gpunn.typing import Array, DeviceLike


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


def minimized(objective: FlatObjective, **options: Any) -> Any:
    """Minimise with SciPy's L-BFGS-B, and set the parameters to the result.

    Args:
        objective: the function to minimise.
        options: options of SciPy's method; `callback` is called after each iteration.

    Returns:
        SciPy's result.
    """
    import scipy.optimize

    run: Any = scipy.optimize.minimize
    after = {"callback": options.pop("callback", None)}
    start = objective.start()
    with unwarned():
        found = run(objective, start, method="L-BFGS-B", jac=True, options=options, **after)
    objective.take(found.x)
    return found


def minimize(
    model: Module,
    x: Any,
    y: Any = None,
    *,
    loss: str | Callable[..., Tensor] = "softmax_cross_entropy",
    sample_weight: Any = None,
    regularizer: Regularizer | None = None,
    max_iter: int = 200,
    tol: float = 1e-5,
    memory: int = 10,
    device: DeviceLike = None,
) -> History:
    """Train a network on all examples at once with L-BFGS.

    It suits small data without noise. The loss must be the same each time, so there is no dropout.
    Frozen parameters stay as they are.

    Args:
        model: the network.
        x: (N, D) numbers, or a `Dataset`, as in `Trainer.fit`.
        y: the targets, as in `Trainer.fit`.
        loss: a registered name, or a function of outputs and targets that returns one number.
        sample_weight: (N,) numbers of at least 0.
        regularizer: a penalty on the weights.
        max_iter: the most iterations. Each computes the gradient about once.
        tol: the largest element of the gradient at which the training ends.
        memory: the number of steps that the method remembers.
        device: the device to train on; None for the model's.

    Returns:
        The curve "loss", with the penalty, after each iteration. `stopped` says why it ended.

    Raises:
        ArgumentError: the network has dropout, or the regularizer is a constraint.
        DataError, ShapeError: as in `Trainer.fit`.
        DivergenceError: the loss is NaN or infinite at the start. Nothing is changed.

    Reference:
        Liu and Nocedal (1989), with SciPy's L-BFGS-B.

    Example:
        >>> import numpy as np
        >>> from gpunn import nn
        >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        >>> net = nn.Sequential(nn.Linear(2, 4, "tanh", seed=1), nn.Linear(4, 2, seed=2))
        >>> history = minimize(net, x, np.array([0, 1, 1, 0]))
        >>> net.classify(x).tolist()
        [0, 1, 1, 0]
    """
    check_kind("model", model, Module, "a network such as nn.Sequential(...)")
    max_iter, memory = count("max_iter", max_iter), count("memory", memory)
    tol, compute = in_range("tol", tol, 0.0), get_loss(loss)
    if model.streams():
        raise ArgumentError(
            "got a network with dropout for L-BFGS; expected one whose loss is the same each time: "
            "leave out dropout, or use Trainer"
        )
    if constrains(regularizer):
        raise ArgumentError(
            "got a constraint for L-BFGS; expected a penalty such as optim.L2(1e-4), or none"
        )
    if device is not None:
        model.to(device)
    b, history = model.backend, History(device=model.backend.describe())
    with b.current(), b.own_stream(), targets_checked(), np.errstate(all="ignore"):
        arrays = training_arrays(model, compute, x, y, "x")
        hint(model, compute, *arrays)
        weights = () if sample_weight is None else (training_weights(arrays[0], sample_weight),)
        model.train()
        step = EagerStep(model, compute, SGD(model.parameters()), regularizer, stops=False)
        objective = FlatObjective(step, (*arrays, *weights))
        first = float(b.download(step.gradients(*arrays, *weights)))
        if not np.isfinite(first):
            raise DivergenceError(
                f"got a loss of {first} at the start of L-BFGS; expected a finite one: look for "
                "huge numbers in the data and the initial weights"
            )
        found = minimized(
            objective,
            maxiter=max_iter,
            maxfun=20 * max_iter,
            gtol=tol,
            maxcor=memory,
            callback=lambda intermediate_result: history.append({"loss": intermediate_result.fun}),
        )
    history.stopped = str(found.message)
    return history
