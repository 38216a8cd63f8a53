"""Training: the loop, its callbacks, what it records, and models as files."""

from gpunn.nn.model_file import load, read_info, save
from gpunn.train.callbacks import Callback, CSVLog, EarlyStopping
from gpunn.train.capture import CapturedStep
from gpunn.train.history import History
from gpunn.train.step import EagerStep
from gpunn.train.trainer import Trainer

__all__ = [
    "CSVLog",
    "Callback",
    "CapturedStep",
    "EagerStep",
    "EarlyStopping",
    "History",
    "Trainer",
    "load",
    "read_info",
    "save",
]
