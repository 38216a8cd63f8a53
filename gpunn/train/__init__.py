"""Training: the loop, its steps, its callbacks and its history, and models as files."""

from typing import Any

from gpunn.guesses import missing
from gpunn.nn.model_file import load, read_info, save
from gpunn.train.callbacks import (
    Callback,
    CSVLog,
    EarlyStopping,
    KeepBest,
    MLflow,
    ReduceOnPlateau,
    TensorBoard,
    WandB,
)
from gpunn.train.curves import History
from gpunn.train.lbfgs import minimize
from gpunn.train.metric import METRICS, Metric
from gpunn.train.steps.by_hand import CapturedStep
from gpunn.train.steps.step import EagerStep
from gpunn.train.trainer import Trainer
from gpunn.train.training import Position, Training

__all__ = [
    "METRICS",
    "CSVLog",
    "Callback",
    "CapturedStep",
    "EagerStep",
    "EarlyStopping",
    "History",
    "KeepBest",
    "MLflow",
    "Metric",
    "Position",
    "ReduceOnPlateau",
    "TensorBoard",
    "Trainer",
    "Training",
    "WandB",
    "load",
    "minimize",
    "read_info",
    "save",
]


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, __all__)
