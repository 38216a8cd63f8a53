import hashlib

import numpy as np
import pytest

from gpunn.data import load_digits

# Of the pixels (0 to 16) and then the labels, as unsigned bytes.
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_digits():
    data = load_digits()
    assert (data.x.shape, data.x.dtype) == ((1797, 64), np.float32)
    assert (data.x.min(), data.x.max()) == (0, 1)
    assert data.classes == tuple("0123456789")
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    content = (data.x * 16).astype(np.uint8).tobytes() + data.y.astype(np.uint8).tobytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    x, y = datasets.load_digits(return_X_y=True)
    data = load_digits()
    np.testing.assert_array_equal(data.x * 16, x)
    np.testing.assert_array_equal(data.y, y)
