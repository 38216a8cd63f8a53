"""What makes a loss of a declaration: reduction, checks, the operation and its kernels.

`reduction` is explicit: "mean" over the individual losses (the default), "sum", or "none". For an
elementwise loss an individual loss is an element's, as in PyTorch and scikit-learn; for a row loss
it is a row's. Targets get no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunn.autograd import Op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise
from gpunn.errors import DataError, GradientError, ShapeError, lookup
from gpunn.ops.reductions import total
from gpunn.typing import Array

LOSSES: dict[str, Op] = {}
"""Every loss that can be named by a string."""

REDUCTIONS = dict.fromkeys(("mean", "sum", "none"))

SCALED = Elementwise(
    "scaled",
    "g, x, T scale -> y",
    numpy=lambda g, x, scale, y: np.multiply(x, g * scale, out=y),
    cuda="y = g * x * scale;",
)


def reduced(b: Backend, losses: Array, reduction: str) -> tuple[Array, float]:
    """The reduced loss, and the factor by which the reduction scales every gradient."""
    lookup("reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return losses, 1.0
    if not losses.size:
        raise DataError("got a loss over no examples; expected at least one: check the batch")
    if reduction == "sum":
        return total(b, losses), 1.0
    if losses.dtype == "float16":  # the sum may be too large for it, the mean is not
        return total(b, losses.astype("float32") / losses.size).astype("float16"), 1 / losses.size
    y = total(b, losses)
    y /= losses.size
    return y, 1.0 / losses.size


def no_target_gradient(name: str, needs: Any) -> None:
    """Raise where a gradient of the targets is wanted."""
    if needs[1]:
        raise GradientError(
            f"got targets with requires_grad=True in {name}; expected constants: pass "
            "target.detach()"
        )


class Domain(NamedTuple):
    """Which numbers a loss is made for: in words, as a test, and what to do with others."""

    words: str
    holds: Callable[[Array], Array]
    remedy: str


ZERO_TO_ONE = Domain(
    "numbers from 0 to 1",
    lambda t: (t >= 0) & (t <= 1),
    "name the classes 0 and 1; use half_squared_error for other numbers",
)
SIGNS = Domain("-1 and +1", lambda t: abs(t) == 1, "use 2 * y - 1 for classes 0 and 1")
PROBABILITIES = Domain(
    "probabilities from 0 to 1",
    lambda p: ~((p < 0) | (p > 1)),  # NaN passes: the loss itself reports it
    "end the network in a sigmoid, or use binary_cross_entropy_with_logits",
)


class ElementwiseLoss(Op):
    """A loss of pairs (prediction p, target t), with its kernels.

    Where numbers can be read without waiting for the device, every call checks that targets (and
    predictions, for probabilities) are what the loss is made for; elsewhere `check_targets` does.

    Attributes:
        targets: what targets are, in words, and the test of it; None for any numbers.
        predictions: the same of predictions.
    """

    def __init__(
        self,
        name: str,
        doc: str,
        *,
        numpy: Callable[..., Any],
        cuda: str,
        grad_numpy: Callable[..., Any],
        grad_cuda: str,
        targets: Domain | None = None,
        predictions: Domain | None = None,
    ) -> None:
        self.targets, self.predictions = targets, predictions
        self.kernel = Elementwise(name, "p, t -> l", numpy, cuda)
        self.grad_kernel = Elementwise(
            f"{name}_grad", "gl, p, t, T scale -> gp", _scaled(grad_numpy), grad_cuda
        )

        def vjp(b: Backend, p: Array, t: Array, *, reduction: str = "mean") -> tuple[Any, Backward]:
            t = as_prediction(b, name, p, t)
            if b.synchronous:
                self.check_targets(t)
                _check_domain(f"predictions in {name}", p, predictions)
            y, scale = reduced(b, b.launch(self.kernel, p, t), reduction)

            def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
                no_target_gradient(name, needs)
                return b.launch(self.grad_kernel, gl, p, t, scale), None

            return y, backward

        vjp.__doc__ = doc
        super().__init__(vjp, name)
        LOSSES[name] = self

    def check_targets(self, t: Array) -> None:
        """Raise unless the loss is made for these targets; waits for the device.

        Raises:
            DataError: a target of another kind.
        """
        _check_domain(f"targets in {self.name}", t, self.targets)


def _check_domain(what: str, values: Array, domain: Domain | None) -> None:
    if domain is None or bool(domain.holds(values).all()):
        return
    wrong = values[~domain.holds(values)]
    raise DataError(
        f"got {float(wrong.reshape(-1)[0])} among the {what}; expected {domain.words}: "
        f"{domain.remedy}"
    )


def _scaled(slope: Callable[..., Any]) -> Callable[..., Any]:
    def body(gl: Array, p: Array, t: Array, scale: float, gp: Array) -> None:
        slope(p, t, gp)
        np.multiply(gp, gl * scale, out=gp)

    return body


def as_prediction(b: Backend, name: str, p: Array, t: Any) -> Array:
    """The targets with the shape and dtype of the predictions; (N,) stands for (N, 1)."""
    if t.shape != p.shape and (*t.shape, 1) == p.shape:
        t = t.reshape(p.shape)
    if t.shape != p.shape:
        raise ShapeError(
            f"got predictions of shape {p.shape} and targets of shape {t.shape} in {name}; "
            "expected the same shape: reshape the targets"
        )
    return t if t.dtype == p.dtype else t.astype(p.dtype)  # integers and booleans are exact


def get_loss(loss: str | Callable[..., Any]) -> Callable[..., Any]:
    """The loss of a registered name; a callable is returned as it is.

    Raises:
        UnknownNameError: no such name; the message lists the known ones.
    """
    return loss if callable(loss) else lookup("loss", loss, LOSSES)
