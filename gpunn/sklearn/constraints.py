"""The allowed values of the parameters. scikit-learn checks them with its own messages."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import Any

from sklearn.utils._param_validation import Interval, StrOptions

from gpunn.backends import Device
from gpunn.backends.dtypes import PRECISIONS
from gpunn.ops import ACTIVATIONS, Activation
from gpunn.optim import OPTIMIZERS, SCHEDULES, Optimizer, Schedule

HIDDEN = {name for name, a in ACTIVATIONS.items() if isinstance(a, Activation) and a.differentiable}
"""The names of activations for hidden layers: elementwise, and with a gradient."""

CLASSIFIER_LOSSES = {"log_loss", "hinge"}
REGRESSOR_LOSSES = {"squared_error", "poisson", "absolute_error", "huber", "quantile"}

COMMON: dict[str, list[Any]] = {
    "activation": [StrOptions(HIDDEN), list, tuple],
    "device": [str, Device, None],
    "precision": [StrOptions(set(PRECISIONS))],
    "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
    "input_dropout": [Interval(Real, 0, 1, closed="left")],
    "l1": [Interval(Real, 0, None, closed="left")],
    "l2": [Interval(Real, 0, None, closed="left")],
    "max_norm": [Interval(Real, 0, None, closed="neither"), None],
    "optimizer": [StrOptions(set(OPTIMIZERS)), Optimizer, None],
    "schedule": [StrOptions(set(SCHEDULES)), Schedule, None],
    "callbacks": [list, tuple, None],
    "validation_curve": ["boolean"],
    "keep_optimizer": ["boolean"],
    "transform_layer": [Integral],
    "progress_bar": ["boolean"],
    "checkpoint": [str, Path, None],
}
CLASSIFIER = {
    **COMMON,
    "loss": [StrOptions(CLASSIFIER_LOSSES)],
    "class_weight": [dict, StrOptions({"balanced"}), None],
}
REGRESSOR = {
    **COMMON,
    "loss": [StrOptions(REGRESSOR_LOSSES)],
    "quantile": [Interval(Real, 0, 1, closed="neither")],
    "huber_delta": [Interval(Real, 0, None, closed="neither")],
}
