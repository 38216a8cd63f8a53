"""Optimizers, learning-rate schedules, gradient clipping and regularizers."""

from typing import Any

from gpunn.guesses import missing
from gpunn.optim import schedules
from gpunn.optim.adam_like import Lion, NAdam, RAdam
from gpunn.optim.average import EMA, SWA, Average
from gpunn.optim.factor import clip_by_global_norm
from gpunn.optim.lamb import LAMB
from gpunn.optim.optimizer import OPTIMIZERS, Optimizer
from gpunn.optim.optimizers import SGD, Adam, AdamW, get_optimizer
from gpunn.optim.regularizers import (
    L1,
    L2,
    ElasticNet,
    MaxNorm,
    Regularizer,
    Regularizers,
)
from gpunn.optim.schedules import SCHEDULES, Schedule, get_schedule
from gpunn.optim.squares import AdaGrad, RMSprop

__all__ = [
    "EMA",
    "L1",
    "L2",
    "LAMB",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "SWA",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Average",
    "ElasticNet",
    "Lion",
    "MaxNorm",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Regularizer",
    "Regularizers",
    "Schedule",
    "clip_by_global_norm",
    "get_optimizer",
    "get_schedule",
    "schedules",
]


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, __all__)
