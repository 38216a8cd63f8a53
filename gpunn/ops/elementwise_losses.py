"""The base of all losses, and elementwise losses built from their formulas.

The argument `reduction` is "mean" over the individual losses (the default), "sum" or "none". An
elementwise loss has one individual loss for each element, as in PyTorch and scikit-learn, and
`reduction="batchmean"`, the sum over a row and the mean over rows. A row loss has one for each
row. Targets get no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from gpunn.arguments import lookup
from gpunn.autograd import Op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, computed
from gpunn.errors import DTypeError, GradientError, ShapeError
from gpunn.names import at_home_of, home_of
from gpunn.ops.domains import SIGNS, Domain, check_domain
from gpunn.ops.elementwise import Option, check_floats, chosen, configured, opened, trait
from gpunn.ops.loss_reduction import Reduction
from gpunn.ops.weights import ignored_label, weights_for, written
from gpunn.typing import Array

LOSSES: dict[str, Op] = {}
"""The losses that a string can name."""

TARGETS = (1,)
"""The positions of the targets among the arguments of a loss."""

DECISIONS = {rule: rule for rule in ("argmax", "sign", "half")}
"""The rules by which outputs become classes."""

Function = TypeVar("Function", bound=Callable[..., Any])


def no_target_gradient(name: str, needs: Any) -> None:
    """Raise `GradientError` if the targets require a gradient."""
    if needs[1]:
        raise GradientError(
            f"got targets with requires_grad=True in {name}; expected constants: pass "
            "target.detach()"
        )


class Loss(Op):
    """An operation that compares predictions with targets, registered under a name.

    The attributes say what the outputs of a network trained with the loss mean. A user's own
    function can have the first two; see `decides`.

    Attributes:
        decides: how outputs become classes: "argmax", "sign" or "half"; None for regression.
        labels: the two classes of "sign" and "half", the negative one first.
        pairs: whether each predicted number has one number as its target.
        limits: the numbers in the formula that a caller may choose, with their intervals.
        weights: the names of the options that are weights of classes or elements.
        ignores: whether it has the option `ignore_index`.
    """

    any_float = TARGETS
    decides: str | None = None
    labels: tuple[int, int] = (0, 1)
    pairs = False
    limits: Mapping[str, Option] = MappingProxyType({})
    weights: tuple[str, ...] = ()
    ignores = False

    def __init__(
        self, vjp: Callable[..., tuple[Any, Backward]], name: str, home: str | None = None
    ) -> None:
        super().__init__(vjp, name, home)
        LOSSES[name] = self

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Check options, and return them with weights as numbers that a checkpoint can name.

        Raises:
            UnknownNameError: the loss has no such option.
            ArgumentError: a number is outside its interval.
        """
        known = [*self.limits, *self.weights, *(["ignore_index"] * self.ignores), "reduction"]
        for option in options:
            lookup(f"option of {self.name}", option, dict.fromkeys(known))
        chosen(self.name, self.limits, {k: v for k, v in options.items() if k in self.limits})
        if "ignore_index" in options:
            ignored_label(self.name, options["ignore_index"])
        return {k: written(self.name, k, v) if k in self.weights else v for k, v in options.items()}

    def masses(self, b: Backend, t: Array, options: Mapping[str, Any]) -> Array | None:
        """Return what each example counts in the mean; None if all of them count the same.

        Args:
            b: the backend of the targets.
            t: the targets.
            options: the options that were chosen.

        Returns:
            (N,) numbers of at least 0.
        """
        return None


_trusted: ContextVar[bool] = ContextVar("gpunn_trusted_targets", default=False)


@contextmanager
def targets_checked() -> Iterator[None]:
    """Skip the targets' checks of losses inside the block, because the data was checked before."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def must_check(b: Backend) -> bool:
    """Return whether a loss must check its targets.

    It must if they can be read without waiting for a device, unless `targets_checked` is open.
    """
    return b.synchronous and not _trusted.get()


def masses(loss: Callable[..., Any], b: Backend, targets: Array) -> Array | None:
    """Return what each example counts in the mean of a loss; None if all of them count the same.

    Args:
        loss: a loss, with its options.
        b: the backend of the targets.
        targets: (N, ...) targets.

    Returns:
        (N,) numbers of at least 0.
    """
    function, options = opened(loss)
    if not isinstance(function, Loss) or options.get("reduction", "mean") != "mean":
        return None
    return function.masses(b, targets, options)


def decision(loss: Callable[..., Any]) -> str | None:
    """Return the rule by which the outputs of a network trained with a loss become classes.

    Returns:
        "argmax" for the largest score of a row; "sign" for a number above 0; "half" for a number
        above 1/2; None for a regression.

    Raises:
        UnknownNameError: the loss names another rule.
    """
    rule: str | None = trait(loss, "decides", None)
    return rule if rule is None else lookup("decision rule", rule, DECISIONS)


def decides(rule: str, labels: tuple[int, int] = (0, 1)) -> Callable[[Function], Function]:
    """Mark a loss function of your own with the rule by which outputs become classes.

    A `Trainer` then reports accuracy, predicts classes and checks labels.

    Args:
        rule: "argmax" for one score per class. "sign" or "half" for two classes and one number,
            which means the positive class above 0 or above 1/2.
        labels: the two classes of "sign" and "half", the negative one first.

    Raises:
        UnknownNameError: there is no such rule.

    Example:
        >>> import gpunn as gn
        >>> @decides("argmax")
        ... def smoothed(scores, y, reduction="mean"):
        ...     sharp = gn.ops.softmax_cross_entropy(scores, y, reduction=reduction)
        ...     return sharp + 0.01 * (scores * scores).mean()
    """
    lookup("decision rule", rule, DECISIONS)

    def mark(loss: Function) -> Function:
        loss.decides, loss.labels = rule, labels  # type: ignore[attr-defined]
        return loss

    return mark


class ElementwiseLoss(Loss):
    """A loss of pairs (prediction p, target t), with its kernels.

    On the CPU, every call checks that the loss accepts the targets and the predictions. On a GPU,
    a check would wait for the device: call `check_targets` once instead.

    Attributes:
        targets: the targets that the loss accepts; None for any numbers.
        predictions: the predictions that the loss accepts; None for any numbers.
    """

    pairs = True

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
        options: dict[str, Option] | None = None,
        weights: tuple[str, ...] = (),
        decides: str | None = None,
        widens: bool = True,
    ) -> None:
        self.targets, self.predictions, self.decides = targets, predictions, decides
        self.labels = (-1, 1) if targets is SIGNS else (0, 1)
        self.limits = limits = dict(options or {})
        self.weights = weights
        self.options: dict[str, Any] = {option: limit.default for option, limit in limits.items()}
        self.options |= dict.fromkeys(weights, None)
        extra = "".join(f", {option}" for option in weights)
        extra += "".join(f", {limit.type} {option}" for option, limit in limits.items())
        self.kernel = Elementwise(
            name,
            f"p, t, float64 count, T scale{extra} -> l, gp, sum total",
            numpy=_with_gradient(numpy, grad_numpy),
            cuda=f"{cuda} total = l; {grad_cuda} gp = gp * scale;",
            once="total = T(total / count);",
            numpy_once=_divide_total,
            widens=widens,
        )

        def vjp(
            b: Backend, p: Array, t: Array, *, reduction: str = "mean", **given: Any
        ) -> tuple[Any, Backward]:
            each = {option: given.pop(option, None) for option in weights}
            numbers = chosen(name, limits, given)
            check_floats(name, p)
            t = as_prediction(b, name, p, t)
            if must_check(b):
                self.check_targets(t, **given)
            if b.synchronous:
                check_domain(f"predictions in {name}", p, predictions)
            rows = len(p) if p.ndim else 1
            how = Reduction.of(reduction, p.size, p.dtype, rows=rows)
            kind = computed(p.dtype)
            out = (b.empty(p.shape, kind), b.empty_like(p), b.empty((), kind))
            arrays = [weights_for(b, name, k, v, p.shape, kind) for k, v in each.items()]
            numbers = (how.divisor, how.scale, *arrays, *numbers)
            losses, gp, total = b.launch(self.kernel, p, t, *numbers, out=out)

            def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
                no_target_gradient(name, needs)
                return how.gradient(b, gl, gp), None

            return how.of_losses(losses, total), backward

        vjp.__doc__ = doc
        super().__init__(vjp, name, home_of(numpy))

    def check_targets(self, t: Array, **options: Any) -> None:
        """Check that the loss accepts the targets. On a GPU this waits for the device.

        Args:
            t: the targets.
            options: the options of the loss.

        Raises:
            DataError: the loss does not accept one of the targets.
        """
        if self.targets is not None and not options.get(self.targets.unless):
            check_domain(f"targets in {self.name}", t, self.targets)


def _with_gradient(value: Callable[..., Any], slope: Callable[..., Any]) -> Callable[..., Any]:
    """Build one NumPy body that computes the losses, their sum and their gradients."""

    @at_home_of(value)
    def body(p: Array, t: Array, count: int, scale: float, *rest: Any) -> None:
        *options, losses, gp, total = rest
        value(p, t, *options, losses)
        total.fill(total[()] + np.add.reduce(losses, axis=None))
        slope(p, t, *options, gp)
        if scale != 1:
            np.multiply(gp, scale, out=gp)

    return body


def _divide_total(p: Array, t: Array, count: int, *rest: Any) -> None:
    rest[-1].fill(rest[-1][()] / count)


def as_prediction(b: Backend, name: str, p: Array, t: Any) -> Array:
    """Return the targets in the shape and dtype of the predictions; (N,) may stand for (N, 1)."""
    if t.shape != p.shape and (*t.shape, 1) == p.shape:
        t = t.reshape(p.shape)
    if t.shape != p.shape:
        raise ShapeError(
            f"got predictions of shape {p.shape} and targets of shape {t.shape} in {name}; "
            "expected the same shape: reshape the targets"
        )
    if t.dtype in (p.dtype, computed(p.dtype)):  # float16 predictions may keep float32 targets
        return t
    if np.dtype(t.dtype).kind == "f":
        raise DTypeError(
            f"got predictions of {p.dtype} and targets of {t.dtype} in {name}; expected one dtype: "
            f"use astype({str(p.dtype)!r}); gpunn promotes no dtype by itself"
        )
    return b.cast(t, p.dtype)  # integers and booleans are exact


def get_loss(loss: str | Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return the loss of a registered name, or the function that was passed, with its options.

    Args:
        loss: a registered name, or a function of outputs and targets.
        options: numbers of the formula, for example `delta=2.0` of "huber", or weights of classes.
            With options, the result is a `functools.partial`, which trainers treat like the loss
            itself.

    Raises:
        UnknownNameError: no such name or option; the message lists the known ones.
        ArgumentError: an option is outside its interval.

    Example:
        >>> float(get_loss("huber", delta=2.0)(np.array([[5.0]]), np.array([[0.0]])))
        8.0
    """
    if not callable(loss):
        loss = lookup("loss", loss, LOSSES)
    return configured(loss, options)
