"""Data sets in memory, loaders, readers of files, and checks of arrays that users pass.

All data stays on the host; the trainer moves it to a device.

Example:
    >>> from gpunn.data import batches, load_digits
    >>> train, test = load_digits().split(0.2, stratify=True)
    >>> x, y = next(iter(batches(train.x, train.y, batch_size=32)))
    >>> x.shape, y.shape
    ((32, 64), (32,))
"""

from typing import Any

from gpunn.data.dataset import Dataset, Standardizer
from gpunn.data.digits import load_digits
from gpunn.data.idx import read_idx, write_idx
from gpunn.data.images import (
    bag_of_words,
    color_histogram,
    oriented_gradients,
    patches,
    visual_words,
)
from gpunn.data.loader import batches
from gpunn.data.mnist import load_mnist
from gpunn.data.rows import Rows, open_rows
from gpunn.data.stream import FeatureStream, load_features, open_features
from gpunn.data.synthetic import blobs, circles, shifted_patterns, spirals, xor
from gpunn.data.table import TableData, load_csv, load_npz, load_table
from gpunn.guesses import missing

__all__ = [
    "Dataset",
    "FeatureStream",
    "Rows",
    "Standardizer",
    "TableData",
    "bag_of_words",
    "batches",
    "blobs",
    "circles",
    "color_histogram",
    "load_csv",
    "load_digits",
    "load_features",
    "load_mnist",
    "load_npz",
    "load_table",
    "open_features",
    "open_rows",
    "oriented_gradients",
    "patches",
    "read_idx",
    "shifted_patterns",
    "spirals",
    "visual_words",
    "write_idx",
    "xor",
]


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, __all__)
