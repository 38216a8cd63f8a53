"""The 1,797 small handwritten digits that come with the package."""

from __future__ import annotations

import numpy as np

from gpunn.data.dataset import Dataset
from gpunn.data.idx import read_idx

LARGEST_VALUE = 16  # each pixel is the number of dark dots in a 4x4 block


def load_digits() -> Dataset:
    """Load 1,797 images of handwritten digits, 8x8 pixels, in ten classes of nearly equal size.

    The data is for first experiments and tests: it needs no download and is small enough for any
    CPU. It is the test set of the UCI data set, from 13 writers. Results on it cannot be compared
    with results on MNIST.

    Returns:
        x (1797, 64) float32 in [0, 1], with the rows of an image one after the other; y (1797,)
        int64.

    Reference:
        E. Alpaydin and C. Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, doi 10.24432/C50P49, CC BY 4.0.

    Example:
        >>> load_digits()
        Dataset('digits': 1797 examples, 64 features, 10 classes)
    """
    from importlib.resources import as_file, files

    folder = files("gpunn.data") / "embedded"
    with as_file(folder / "digits-images-idx3-ubyte.gz") as path:
        images = read_idx(path)  # (N, 8, 8)
    with as_file(folder / "digits-labels-idx1-ubyte.gz") as path:
        labels = read_idx(path)  # (N,)
    x = images.reshape(len(images), -1) / np.float32(LARGEST_VALUE)
    features = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return Dataset(x, labels, tuple("0123456789"), features, "digits")
