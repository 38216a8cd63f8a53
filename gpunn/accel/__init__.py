"""scikit-learn's perceptrons on gpunn in a script that nobody has changed.

    python -m gpunn.accel script.py [args]
    python -m gpunn.accel -m module [args]
    GPUNN_ACCEL=1 python -c "import gpunn; ..."
    %load_ext gpunn.accel

`patch` lets scikit-learn's own classes `MLPClassifier` and `MLPRegressor` train and predict with
gpunn's estimators. The classes stay the same objects, wherever they were imported before. Weights,
curves and predictions have scikit-learn's bits. What gpunn cannot do to the bit runs on
scikit-learn as before.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from gpunn.accel import processes
from gpunn.errors import MissingExtraError
from gpunn.guesses import missing

__all__ = ["load_ipython_extension", "patch", "unload_ipython_extension", "unpatch"]

SWITCH, VERBOSE = "GPUNN_ACCEL", "GPUNN_ACCEL_VERBOSE"
OFF = ("", "0", "false", "no", "off")


def is_set(name: str, default: str = "") -> bool:
    """Return whether an environment variable is set to anything but 0, false, no or off."""
    return os.environ.get(name, default).strip().lower() not in OFF


def patch(verbose: bool | None = None) -> None:
    """Let scikit-learn's MLPClassifier and MLPRegressor train and predict with gpunn.

    scikit-learn is not imported. If it is imported later, it is patched then. Processes that are
    started later by joblib or multiprocessing are patched, too.

    Args:
        verbose: whether to print to stderr what runs where, and why. None for the environment
            variable `GPUNN_ACCEL_VERBOSE`. The same lines are messages of the logger
            "gpunn.accel" of the level INFO.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise MissingExtraError("scikit-learn", "sklearn", "gpunn.accel")
    processes.turn_on(is_set(VERBOSE) if verbose is None else verbose)


def unpatch() -> None:
    """Let scikit-learn's estimators be scikit-learn's again. Fitted ones go on with their state."""
    processes.turn_off()


def patch_if_wanted() -> None:
    """Call `patch` if the environment variable `GPUNN_ACCEL` says so and scikit-learn is there."""
    if is_set(SWITCH) and find_spec("sklearn") is not None:
        patch()


def load_ipython_extension(ipython: Any) -> None:
    """Call `patch`, for `%load_ext gpunn.accel`."""
    patch()


def unload_ipython_extension(ipython: Any) -> None:
    """Call `unpatch`, for `%unload_ext gpunn.accel`."""
    unpatch()


def __getattr__(name: str) -> Any:
    raise missing("gpunn.accel", name, __all__)
