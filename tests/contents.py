"""The whole content of a file of arrays, for tests that compare files."""

from __future__ import annotations

import numpy as np

from gpunn.storage.arrays import open_arrays


def unpack(path):
    """Metadata and arrays of a safetensors file, all of them."""
    with open_arrays(path) as file:
        return file.metadata, {name: np.asarray(array) for name, array in file.items()}
