"""The classes that outputs stand for, and the loss and accuracy of a model on data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn.backends import backend_of
from gpunn.data.feed import on_device
from gpunn.data.rows import RowTable
from gpunn.errors import ArgumentError, OutOfMemoryError
from gpunn.examples import BATCH_ROWS
from gpunn.nn import Module
from gpunn.nn.decisions import above, largest, shares
from gpunn.ops.class_losses import correct
from gpunn.ops.elementwise import opened, trait
from gpunn.ops.elementwise_losses import decision, masses, targets_checked
from gpunn.ops.reductions import ACCUMULATE
from gpunn.sparse import is_sparse
from gpunn.train.inputs import rows_check
from gpunn.train.metric import Metric
from gpunn.train.training import Training
from gpunn.typing import Array


def classes(scores: Array, loss: Callable[..., Any]) -> Array:
    """Return the classes of (N, ...) outputs; the outputs themselves if the loss has no classes.

    Raises:
        DataError: a score that decides is NaN or infinite.
    """
    how = decision(loss)
    if how is None:
        return scores
    if how == "argmax":
        return largest(scores)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    low, high = trait(loss, "labels", (0, 1))
    positive = above(scores, 0.5 if how == "half" else 0).astype("int64")
    return low + (high - low) * positive


def probabilities(outputs: Array, loss: Callable[..., Any]) -> Array:
    """Return (N, C) probabilities of classes for the outputs of a network, in float64.

    Raises:
        ArgumentError: the outputs of a network trained with this loss are no probabilities.
    """
    name = getattr(opened(loss)[0], "name", "")
    if name in ("softmax_cross_entropy", "focal"):
        return shares(outputs)
    if name == "binary_cross_entropy_with_logits":
        half = outputs.reshape(len(outputs), -1)[:, :1] / 2
        return shares(backend_of(half).xp.concatenate([-half, half], axis=1))
    if name == "binary_cross_entropy":
        p = outputs.reshape(len(outputs), -1)[:, :1].astype(np.float64)
        found: Array = backend_of(p).xp.concatenate([1 - p, p], axis=1)
        return found
    raise ArgumentError(
        f"got the loss {name or loss!r}, whose scores are no probabilities; expected "
        "softmax_cross_entropy, focal or a binary cross-entropy: use predict for the scores"
    )


def measured(
    metrics: Sequence[Metric],
    outputs: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
    loss: Callable[..., Any],
) -> dict[str, float]:
    """Compute metrics of the outputs of a network, on the host.

    Raises:
        ArgumentError: a metric is of probabilities, and the outputs of this loss are none.
    """
    how = decision(loss)
    if how == "argmax" and targets.ndim == 2:
        targets = targets.argmax(axis=1)
    elif targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        outputs = outputs[:, 0]
    if how is not None and targets.dtype.kind == "f" and (targets == np.rint(targets)).all():
        targets = targets.astype(np.int64)
    made: dict[str, Any] = {"outputs": outputs}
    found = {}
    for metric in metrics:
        of = metric.of if how is not None else "outputs"
        if of not in made:
            made[of] = (classes if of == "classes" else probabilities)(outputs, loss)
        if metric.two and of == "classes" and how == "argmax" and outputs.shape[1] > 2:
            raise ArgumentError(
                f"got the metric {metric.name!r} for {outputs.shape[1]} classes; expected two: use "
                f'"{metric.name}_macro"'
            )
        found[metric.name] = metric(targets, made[of])
    return found


def evaluate(
    model: Module,
    loss: Callable[..., Any],
    x: Array,
    y: Array,
    batch_size: int,
    metrics: Sequence[Metric] = (),
) -> dict[str, float]:
    """Compute the mean loss, for classifiers the accuracy, and the metrics of a model.

    The model runs in evaluation mode. Examples whose labels do not count are left out. Results are
    read from the device once, at the end; outputs only if there are metrics.

    Args:
        model: the model.
        loss: the loss of its outputs and the targets.
        x: (N, ...) examples, on the model's device or on the host.
        y: their targets, on the model's device or on the host; they are not checked again.
        batch_size: the number of examples at a time.
        metrics: more numbers, which are computed on the host from all outputs.

    Raises:
        OutOfMemoryError: the device has no room for a batch.
    """
    b, how, rows = model.backend, decision(loss), x.shape[0]
    check = rows_check(model, loss, x, y) if isinstance(x, RowTable) else None
    total, whole, ignored = (b.zeros((), np.float64) for _ in range(3))
    skips = opened(loss)[1].get("ignore_index") if len(y.shape) == 1 and how == "argmax" else None
    hits = b.zeros((), np.int64 if how == "argmax" else np.float64)
    kept: list[tuple[Any, Any]] = []
    try:
        with b.own_stream(), model.evaluating(), targets_checked():
            for start in range(0, rows, batch_size):
                part = slice(start, start + batch_size)
                xb, yb = x[part], y[part]
                if check is not None:
                    xb, yb = check(xb, yb)
                xb, yb = on_device(b, xb), on_device(b, yb)
                scores = model(xb)
                mass = masses(loss, b, yb)
                if mass is None:
                    b.launch(ACCUMULATE, loss(scores, yb).data, float(xb.shape[0]), out=total)
                else:
                    value = loss(scores, yb, reduction="sum").data
                    b.launch(ACCUMULATE, value, 1.0, out=total)
                    b.launch(ACCUMULATE, b.xp.sum(mass), 1.0, out=whole)
                if skips is not None:
                    skipped = b.xp.equal(yb, skips)
                    b.launch(ACCUMULATE, b.xp.sum(skipped, dtype=np.float64), 1.0, out=ignored)
                    yb = b.xp.where(skipped, -1, yb)  # no class
                if how is not None:
                    correct(b, scores.data, yb, how, hits)
                if metrics:
                    kept.append((b.download(scores.data), b.download(yb)))
    except MemoryError as error:
        raise OutOfMemoryError(
            f"got batches of {batch_size} rows to evaluate, for which {model.device} has no room "
            f"({error}); expected smaller ones: evaluate with a smaller batch_size"
        ) from error
    with np.errstate(invalid="ignore"):  # the mean of nothing is NaN
        each = b.download(whole) if mass is not None else np.float64(rows)
        numbers = {"loss": float(b.download(total) / each)}
        if how is not None:
            numbers["accuracy"] = float(b.download(hits) / (rows - b.download(ignored)))
    if metrics:
        outputs, targets = map(np.concatenate, zip(*kept, strict=True))
        if skips is not None:
            outputs, targets = outputs[targets >= 0], targets[targets >= 0]
        numbers |= measured(metrics, outputs, targets, loss)
    return numbers


def validated(
    training: Training, held_out: tuple[Array, Array] | None, batch_size: int
) -> dict[str, float]:
    """Evaluate a model on the validation data of a fit, if there is any.

    Args:
        training: the training.
        held_out: its validation data, checked, or None.
        batch_size: the examples of a step. More are evaluated at a time if they are on the device.
    """
    if held_out is None:
        return {}
    x = held_out[0]
    streamed = not isinstance(x, RowTable) and not is_sparse(x)
    streamed = streamed and backend_of(x) is not training.model.backend
    rows = batch_size if streamed else max(batch_size, BATCH_ROWS)
    scores = evaluate(training.model, training.loss, *held_out, rows, training.metrics)
    return {f"val_{name}": value for name, value in scores.items()}
