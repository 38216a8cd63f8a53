"""Checks of the data of a fit, and its conversion to the model's device and dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import numpy as np

from gpunn.arguments import fitting
from gpunn.backends import Backend, as_array, backend, backend_of
from gpunn.data.batchfeed import BatchSource, source_of
from gpunn.data.checks import check_finite, check_labels, check_lengths
from gpunn.data.dataset import Dataset
from gpunn.data.rows import Rows, RowTable
from gpunn.errors import ArgumentError, DataError, DeviceMismatchError, DTypeError, ShapeError
from gpunn.examples import rows_of
from gpunn.frames import from_frame
from gpunn.log import logger
from gpunn.nn import BatchNorm, Embedding, LayerNorm, Module, RMSNorm, RobustScale, Standardize
from gpunn.ops.elementwise import opened, trait
from gpunn.ops.elementwise_losses import ElementwiseLoss, decision
from gpunn.ops.reductions import all_finite
from gpunn.sparse import is_sparse, sparse_rows
from gpunn.train.training import Training
from gpunn.typing import Array, DType

SHARE_FOR_DATA = 0.8  # the share of a device's free memory that data may take


def too_large(b: Backend, size_bytes: int) -> bool:
    """Return whether data of that size would leave a device too little room to compute."""
    return size_bytes > SHARE_FOR_DATA * b.free_bytes()


def pair(validation: tuple[Any, Any] | Dataset | Rows) -> tuple[Any, Any]:
    """Return the examples and targets of validation data.

    Raises:
        ArgumentError: `validation` is neither a pair nor a `Dataset`.
    """
    if isinstance(validation, Rows):
        return validation, None
    if isinstance(validation, Dataset):
        return validation.x, validation.y
    if not isinstance(validation, tuple) or len(validation) != 2:
        raise ArgumentError(
            f"got validation of type {type(validation).__name__}; expected a pair (x, y) or a "
            "Dataset: pass validation=(x_test, y_test)"
        )
    return validation


def _check_finite(b: Backend, name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not all_finite(b, array):
        check_finite(name, b.download(array))


def training_arrays(
    model: Module, loss: Callable[..., Any], x: Any, y: Any, name: str
) -> tuple[Array, Array]:
    """Check examples and targets, and convert them to the model's device and dtype.

    If the device has no room for host arrays, they are converted but stay on the host.

    Args:
        model: the model that will be trained or evaluated.
        loss: the loss of its outputs and the targets.
        x: (N, ...) numbers, an array or a frame of pandas or Polars; or a `Dataset`.
        y: the targets; None if `x` is a `Dataset`.
        name: the name of the examples in messages.

    Raises:
        DataError, ShapeError, DTypeError, DeviceMismatchError: see `Trainer.fit`.
    """
    if isinstance(x, Rows):
        if y is not None:
            raise ArgumentError(f"got rows with targets as {name}, and targets; expected one")
        return x.x, x.y
    if isinstance(x, RowTable) and isinstance(y, RowTable):
        return x, y
    if isinstance(x, RowTable) or isinstance(y, RowTable):
        raise ArgumentError(
            f"got {name} and their targets, of which only one is on disk; expected the rows that "
            "gn.data.open_rows returns, or rows.x and rows.y"
        )
    if isinstance(x, Dataset):
        x, y = x.x, x.y
    if y is None:
        raise DataError(f"got {name} without targets; expected both: pass x and y")
    x, y = rows_of(x, name), rows_of(y, f"the targets of {name}")
    if is_sparse(x):
        return _sparse_inputs(model, loss, x, y, name)
    check_lengths(x, y)
    b = model.backend
    if too_large(b, x.size * model.dtype.itemsize + y.size * max(y.dtype.itemsize, 4)):
        host = backend_of(x)
        if host.on_host and backend_of(y) is host:
            b = host
            logger.warning(
                "streaming %s from the host: %s has no room for its %.1f GiB",
                name,
                model.device,
                x.size * model.dtype.itemsize / 2**30,
            )
    x, y = _moved(b, x, name), _moved(b, y, f"the targets of {name}")
    x = b.xp.ascontiguousarray(_in_dtype(b, name, x, model.dtype))
    _check_finite(b, name, x)
    return x, _targets(b, model, loss, x, y, name)


def rows_check(
    model: Module, loss: Callable[..., Any], x: RowTable, y: RowTable
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return a function that checks rows that were read, and converts them on the host.

    Args:
        model: the model that will be trained.
        loss: the loss of its outputs and the targets.
        x: the examples; the first one is read.
        y: their targets.
    """
    host, first = backend("cpu"), _in_dtype(backend("cpu"), "x", x[:1], model.dtype)
    outputs = number_of_outputs(model, loss, first) if decision(loss) == "argmax" else 0

    def check(rows: Array, targets: Array) -> tuple[Array, Array]:
        rows = host.xp.ascontiguousarray(_in_dtype(host, "x", rows, model.dtype))
        _check_finite(host, "x", rows)
        return rows, _targets(host, model, loss, rows, targets, "x", outputs)

    return check


SCALE_IS_FINE = (Standardize, RobustScale, BatchNorm, LayerNorm, RMSNorm, Embedding)
"""Layers that scale, and one that takes codes."""
LARGE, LOOKED_AT = 100.0, 1000
"""Numbers that a network learns slowly from, and the rows that are looked at."""
_told: WeakSet[Module] = WeakSet()


def hint(model: Module, loss: Callable[..., Any], x: Array, y: Array) -> None:
    """Log one line, once for each model, if the data are of a scale that a network learns badly.

    Args:
        model: the model; one with a layer of `SCALE_IS_FINE` is left alone.
        loss: its loss.
        x: (N, ...) examples that `training_arrays` returned. On a GPU nothing is looked at.
        y: their targets.
    """
    if isinstance(x, RowTable):
        x, y = x[:LOOKED_AT], y[:LOOKED_AT]
    if is_sparse(x) or not backend_of(x).on_host or model in _told:
        return
    if any(isinstance(module, SCALE_IS_FINE) for module in model.modules()):
        return
    found = [("x", x, "put gn.nn.Standardize.fit(x) before the network")]
    if decision(loss) is None and y.dtype.kind == "f":
        found.append(("targets", y, "scale them, or see gn.nn.Standardize(..., inverse=True)"))
    for name, array, remedy in found:
        size = float(np.abs(array[:LOOKED_AT]).max())
        if size > LARGE:
            _told.add(model)
            logger.warning(
                "%s of a size up to %.4g: networks learn best from numbers around 1: %s",
                name,
                size,
                remedy,
            )
            return


def _sparse_inputs(
    model: Module, loss: Callable[..., Any], x: Any, y: Array, name: str
) -> tuple[Any, Array]:
    """Check sparse examples and their targets, and return them on the host; `x` becomes CSR."""
    if x.ndim != 2 or y.ndim == 0 or x.shape[0] != len(y) or not x.shape[0]:
        raise ShapeError(
            f"got {name} of shape {x.shape} and targets of shape {y.shape}; expected a row for "
            "each example, and at least one"
        )
    host = backend("cpu")
    y = _moved(host, y, f"the targets of {name}")
    x = sparse_rows(x, model.dtype)
    _check_finite(host, name, x.data)
    return x, _targets(host, model, loss, x, y, name)


def _targets(
    b: Backend,
    model: Module,
    loss: Callable[..., Any],
    x: Array,
    y: Array,
    name: str,
    outputs: int = 0,
) -> Array:
    """Check targets and convert them for the loss, to integer labels or the model's dtype.

    The number of outputs of the model is found from `x` if it is 0.
    """
    how = decision(loss)
    if how == "argmax" and y.ndim == 2 and y.shape[1] == 1:
        raise ShapeError(
            f"got targets of {name} of shape {y.shape}; expected (N,) labels or (N, C) one-hot "
            "rows: use y.ravel()"
        )
    if how == "argmax" and y.ndim == 1:
        _check_counted(b.download(y), outputs or number_of_outputs(model, loss, x), loss)
        return b.xp.ascontiguousarray(y.astype(np.int64, copy=False))
    if y.dtype.kind == "f" or trait(loss, "pairs", False):
        y = _in_dtype(b, f"the targets of {name}", y, model.dtype)
    y = b.xp.ascontiguousarray(y)  # a user's own loss gets integers unchanged
    _check_finite(b, f"the targets of {name}", y)
    function, options = opened(loss)
    if isinstance(function, ElementwiseLoss):
        function.check_targets(y, **options)
    elif (check := trait(loss, "check_targets", None)) is not None:
        check(y)
    return y


def _check_counted(y: np.ndarray[Any, Any], classes: int, loss: Callable[..., Any]) -> None:
    """Check the labels that are not those to ignore."""
    ignored = opened(loss)[1].get("ignore_index")
    check_labels(y if ignored is None else np.where(y == ignored, 0, y), classes)


def training_weights(x: Array, weights: Any, *, signed: bool = False) -> Array:
    """Check the weights of examples, and convert them to the device and dtype of the examples.

    Args:
        x: (N, ...) examples as `training_arrays` returns them; rows on disk have no weights.
        weights: (N,) numbers of at least 0.
        signed: whether weights may also be negative, or all 0.

    Raises:
        ShapeError: there is not one number for each example.
        DTypeError: the weights are not real numbers.
        DataError: a weight is NaN or infinite, or without `signed` negative, or all are 0.
    """
    if isinstance(x, RowTable):
        raise ArgumentError(
            "got sample_weight for rows on disk; expected none: repeat the rows that weigh more"
        )
    b = backend("cpu") if is_sparse(x) else backend_of(x)
    weights = _moved(b, as_array(from_frame(weights, "sample_weight")), "sample_weight")
    if weights.dtype.kind not in "fiub":
        raise DTypeError(
            f"got sample_weight of dtype {weights.dtype}; expected real numbers: convert it with "
            "astype"
        )
    if weights.shape != x.shape[:1]:
        raise ShapeError(
            f"got sample_weight of shape {weights.shape} for {x.shape[0]} examples; expected "
            f"{x.shape[:1]}: one number for each example"
        )
    weights = b.xp.ascontiguousarray(_in_dtype(b, "sample_weight", weights, x.dtype))
    _check_finite(b, "sample_weight", weights)
    numbers = b.download(weights)
    if not signed and ((numbers < 0).any() or not (numbers > 0).any()):
        raise DataError(
            "got a sample_weight below 0, or nothing but zeros; expected numbers of at least 0, "
            "and one above 0: leave out examples that must not count"
        )
    return weights


def _in_dtype(b: Backend, name: str, array: Array, dtype: DType) -> Array:
    """Return an array in the dtype of a model. On the host, a number that does not fit is named."""
    return fitting(name, array, dtype) if b.on_host else array.astype(dtype, copy=False)


def _moved(b: Backend, array: Array, name: str) -> Array:
    here = backend_of(array)
    if here is b:
        return array
    if not here.on_host:
        raise DeviceMismatchError(
            f"got {name} on {here.device} and a model on {b.device}; expected one device: "
            f"pass device={str(here.device)!r} to Trainer, or move the data yourself"
        )
    return b.upload(array)


def number_of_outputs(model: Module, loss: Callable[..., Any], x: Array) -> int:
    """Run the model on one example and return the number of its outputs."""
    with model.evaluating():
        one = x[:1].toarray() if is_sparse(x) else x[:1]
        one = model.backend.upload(one) if isinstance(one, np.ndarray) else one
        shape = model(one).shape
    if len(shape) != 2:
        raise ShapeError(f"got outputs of shape {shape}; expected (N, C) scores for {loss}")
    return shape[1]


def batches_of(
    training: Training, x: Any, y: Any, steps: int | None, weights: tuple[Any, Any], drop_last: bool
) -> BatchSource | None:
    """Return the batches that a fit was given in place of examples; None for examples.

    Args:
        training: the training.
        x, y, steps, drop_last: the arguments of the fit.
        weights: its arguments sample_weight and class_weight.

    Raises:
        ArgumentError: the fit has an option that needs all examples, or one for batches only.
    """
    source = source_of(x, y, steps)
    if source is None:
        return None
    wrong = {
        "sample_weight": weights[0] is not None,
        "class_weight": weights[1] is not None,
        "drop_last=True": drop_last,
        "a group of workers": training.group.size > 1,
        "checkpoint": training.checkpoints is not None and not source.begins_anew,
    }
    if any(wrong.values()):
        name = next(name for name, is_wrong in wrong.items() if is_wrong)
        what = "iterable that can begin anew" if name == "checkpoint" else "arrays x and y"
        raise ArgumentError(
            f"got {name} with batches from a {type(source.batches).__name__}; expected {what}, or "
            "batches of (x, y, weights) for weights"
        )
    return source


def batch_check(training: Training) -> Callable[..., tuple[Array, ...]]:
    """Return a function that checks a batch, (x, y) or (x, y, weights), and moves it."""

    def check(x: Any, y: Any, *weights: Any) -> tuple[Array, ...]:
        x, y = training_arrays(training.model, training.loss, x, y, "a batch")
        given = tuple(training_weights(x, each) for each in weights)
        return (training.precision.narrow(training.model.backend, x), y, *given)

    return check
