"""Translation of an estimator's parameters to gpunn's objects."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import compute_class_weight, compute_sample_weight

from gpunn import ops
from gpunn.arguments import lookup
from gpunn.backends import Backend
from gpunn.errors import ArgumentError, DTypeError
from gpunn.ops.dropout import Rate
from gpunn.ops.elementwise_losses import decision
from gpunn.optim import (
    L1,
    L2,
    MaxNorm,
    Optimizer,
    Regularizer,
    get_optimizer,
)
from gpunn.sklearn.arithmetic import SGD, Adam, SummedL2
from gpunn.sklearn.constraints import HIDDEN
from gpunn.sklearn.losses import LOGISTIC, REGRESSION, SOFTMAX, SummedLoss
from gpunn.sparse import is_sparse
from gpunn.typing import Array, DType


def _for_each_layer(found: Any, name: str, value: Any) -> list[Any]:
    """Return a list with one value per hidden layer."""
    count = len(found.coefs_) - 1
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ArgumentError(
            f"got {name}={value!r} for {count} hidden layers; expected one for each, or a single "
            "one for all"
        )
    return list(value)


def hidden_activations(found: Any) -> list[str]:
    """Return the name of each hidden layer's activation.

    Raises:
        ArgumentError: the number of names differs from that of hidden layers.
        UnknownNameError: a name is not that of an activation for hidden layers.
    """
    names = _for_each_layer(found, "activation", found.activation)
    known = {name: name for name in HIDDEN}
    return [lookup("activation", name, known) for name in names]


def dropout_rates(found: Any) -> tuple[float, ...]:
    """Return the dropout rate of the features, then those of the hidden layers.

    Raises:
        ArgumentError: a rate is outside [0, 1), or their number differs from that of hidden layers.
    """
    rates = (found.input_dropout, *_for_each_layer(found, "dropout", found.dropout))
    for rate in rates:
        Rate.of(rate)
    return rates


def penalty(found: Any) -> SummedL2:
    """Make scikit-learn's penalty, with gpunn's further penalties and constraint."""
    more: list[Regularizer] = []
    if found.l1:
        more.append(L1(found.l1))
    if found.l2:
        more.append(L2(found.l2))
    if found.max_norm is not None:
        more.append(MaxNorm(found.max_norm))
    return SummedL2(found.alpha, *more)


def update_rule(found: Any) -> Optimizer:
    """Make a new optimizer: the one that the user chose, or that of the solver."""
    if isinstance(found.optimizer, str):
        return get_optimizer(found.optimizer, lr=found.learning_rate_init)
    if found.optimizer is not None:
        chosen: Optimizer = deepcopy(found.optimizer)
        return chosen
    rate = found.learning_rate_init
    if found.solver == "sgd":
        return SGD(None, rate, found.momentum, found.nesterovs_momentum)
    return Adam(None, rate, found.beta_1, found.beta_2, found.epsilon)


def loss_function(found: Any) -> SummedLoss:
    """Return the loss. If scikit-learn has it, it uses scikit-learn's arithmetic."""
    if found.loss == "hinge":
        base = ops.multiclass_hinge if one_of_many(found) else ops.hinge
        return SummedLoss(base)
    if found.loss == "absolute_error":
        return SummedLoss(ops.absolute_error, mean_of_outputs=True)
    if found.loss == "huber":
        return SummedLoss(ops.huber, mean_of_outputs=True, delta=found.huber_delta)
    if found.loss == "quantile":
        return SummedLoss(ops.quantile_error, mean_of_outputs=True, quantile=found.quantile)
    if is_classifier(found):
        return SOFTMAX if found.out_activation_ == "softmax" else LOGISTIC
    return REGRESSION[found.loss, found.out_activation_]


def settle_output(found: Any) -> None:
    """Set the output activation that the present loss needs, if the loss was changed after a fit.

    A regressor that changes between scikit-learn's own losses keeps its outputs, as scikit-learn's
    does.
    """
    if is_classifier(found):
        known = "softmax" if one_of_many(found) else "logistic"
        found.out_activation_ = "identity" if found.loss == "hinge" else known
    elif found.loss not in ("squared_error", "poisson"):
        found.out_activation_ = "identity"


def has_scores(found: Any) -> bool:
    """Return whether a classifier's outputs are scores, and not probabilities.

    The fit decides. Before a fit, it is the loss.
    """
    fitted = getattr(found, "out_activation_", None)
    return bool(found.loss == "hinge" if fitted is None else fitted == "identity")


def one_of_many(found: Any) -> bool:
    """Return whether the outputs are scores of classes, and the largest one decides."""
    return bool(is_classifier(found) and found._label_binarizer.y_type_ == "multiclass")


def targets(found: Any, y: Array, b: Backend, dtype: DType) -> Array:
    """Convert the (N, K) targets to the form that the loss takes."""
    loss = loss_function(found)
    if decision(loss.base) == "argmax" and not loss.is_exact(b, dtype):
        return y.argmax(axis=1)
    return 2 * y.astype(dtype) - 1 if found.loss == "hinge" else y.astype(dtype)


def check_depth(found: Any, layer_units: Sequence[int]) -> None:
    """Check that a fit that goes on has as many layers as the weights that it goes on from.

    Raises:
        ArgumentError: `hidden_layer_sizes` was given more or fewer layers after a fit.
    """
    if len(layer_units) != len(found.coefs_) + 1:
        raise ArgumentError(
            f"got hidden_layer_sizes={found.hidden_layer_sizes!r} for a network with "
            f"{len(found.coefs_) - 1} hidden layers, which is trained further; expected as many: "
            "set warm_start=False and call fit to start again"
        )


def check_on_disk(found: Any) -> None:
    """Check that an estimator can fit rows on disk.

    Raises:
        ArgumentError: it stops early, or its solver is "lbfgs".
    """
    if found.early_stopping:
        raise ArgumentError(
            "got early_stopping=True for rows on disk; expected False: hold rows out with "
            "rows.split, and stop by a callback"
        )
    if found.solver == "lbfgs":
        raise ArgumentError(
            'got solver="lbfgs" for rows on disk, which it needs all at once; expected "adam" or '
            '"sgd"'
        )


def check_targets(y: Any) -> None:
    """Check that the targets of a regressor are an array of numbers.

    Raises:
        DTypeError: they are text, dates or a sparse matrix.
    """
    if is_sparse(y):
        raise DTypeError(
            f"got targets as a {type(y).__name__}; expected a dense array: pass y.toarray()"
        )
    if y.dtype.kind in "SUMm":
        raise DTypeError(
            f"got targets of dtype {y.dtype}; expected numbers: convert them with "
            "y.astype(float), or use MLPClassifier for classes"
        )


def example_weights(found: Any, y: Array, sample_weight: Any, incremental: bool) -> Any:
    """Compute the weights of examples from `class_weight` and `sample_weight`.

    Args:
        found: the estimator.
        y: (N, K) indicators of the classes.
        sample_weight: (N,) weights, or None.
        incremental: whether these are only a part of the examples.

    Returns:
        (N,) weights, or None if all examples have the same weight.

    Raises:
        ValueError: class_weight is "balanced", and these are only a part of the examples.
    """
    wanted = getattr(found, "class_weight", None)
    if wanted is None:
        return sample_weight
    if incremental and wanted == "balanced":
        raise ValueError(
            "class_weight 'balanced' is not supported for partial_fit: pass the weights that "
            "sklearn.utils.class_weight.compute_class_weight gives for all of the data"
        )
    labels: Any = y.astype(int)
    if found._label_binarizer.y_type_ == "multiclass":
        labels = found.classes_[y.argmax(axis=1)]
    elif y.shape[1] == 1:
        labels = found.classes_[labels[:, 0]]
    if isinstance(wanted, dict) and labels.ndim == 1:  # a part may lack a class that is named
        classes = found.classes_
        by_class = compute_class_weight(wanted, classes=classes, y=labels)[
            np.searchsorted(classes, labels)
        ]
    else:
        by_class = compute_sample_weight(wanted, labels)
    return by_class if sample_weight is None else np.asarray(sample_weight) * by_class


def refuse_with_lbfgs(found: Any, rates: Sequence[float]) -> None:
    """Check that no option is set that the solver "lbfgs" does not support.

    Raises:
        ArgumentError: such an option is set.
    """
    asked = {
        "dropout": any(rates),
        "max_norm": found.max_norm is not None,
        "optimizer": found.optimizer is not None,
        "schedule": found.schedule is not None,
        "callbacks": bool(found.callbacks),
        "checkpoint": found.checkpoint is not None,
        "precision": found.precision != "float32",
    }
    wrong = [name for name, holds in asked.items() if holds]
    if wrong:
        raise ArgumentError(
            f'got {" and ".join(wrong)} with solver="lbfgs"; expected solver="adam" or "sgd": '
            "L-BFGS needs the same loss at every call, and it chooses its own steps"
        )
