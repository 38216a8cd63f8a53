"""Callbacks, which act before a fit, after each epoch and at the end."""

from gpunn.train.callbacks.base import Callback, check_callbacks
from gpunn.train.callbacks.best import EarlyStopping, KeepBest, ReduceOnPlateau
from gpunn.train.callbacks.logs import CSVLog, MLflow, TensorBoard, WandB

__all__ = [
    "CSVLog",
    "Callback",
    "EarlyStopping",
    "KeepBest",
    "MLflow",
    "ReduceOnPlateau",
    "TensorBoard",
    "WandB",
    "check_callbacks",
]
