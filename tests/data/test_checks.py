import numpy as np
import pytest

from gpunn.data.checks import check_arrays, check_finite, check_labels, check_lengths
from gpunn.errors import DataError, DTypeError, GpunnError, ShapeError, UnknownNameError

pytestmark = pytest.mark.fast

X = np.zeros((3, 2))


def test_good_arrays_pass():
    check_arrays(X, task="regression")
    check_arrays(X, [0, 1, 1], task="classification", classes=2)
    check_arrays(X, np.zeros(3), task="regression")
    check_arrays(X, np.zeros((3, 4)), task="regression")


@pytest.mark.parametrize(
    ("x", "y", "error", "match"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), DataError, r"\(0, 2\)"),
        (np.zeros((3, 0)), [0, 1, 1], DataError, r"\(3, 0\)"),
        (X, [0, 1], ShapeError, r"\(3, 2\).*\(2,\)"),
        (np.zeros(3), [0, 1, 1], ShapeError, r"\(3,\).*reshape"),
        (X, [0.0, 1.0, 1.0], DTypeError, "float64.*integers"),
        (X, [False, True, True], DTypeError, "bool"),
        (X, [[0], [1], [1]], ShapeError, "ravel"),
        (X, [0, -2, -3], DataError, "label -2 in row 1.*0 to 1"),
        (X, [0, 1, 2], DataError, "label 2 in row 2.*0 to 1"),
        (X, ["a", "b", "b"], DTypeError, "integers"),
        ([["a", "b"]] * 3, [0, 1, 1], DTypeError, "numbers"),
        (X * 1j, [0, 1, 1], DTypeError, "complex"),
    ],
)
def test_bad_classification_arrays(x, y, error, match):
    with pytest.raises(error, match=match) as caught:
        check_arrays(x, y, task="classification", classes=2)
    assert isinstance(caught.value, GpunnError)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_first_row_and_column_are_named(value):
    x = np.zeros((4, 3), np.float32)
    x[2, 1] = x[3, 0] = value
    with pytest.raises(DataError, match=r"row 2, column 1 \(2 such"):
        check_finite("x", x)
    with pytest.raises(DataError, match="got y"):
        check_arrays(X, [0, 1, value], task="regression")


def test_finite_of_other_shapes():
    check_finite("x", np.zeros(0))
    with pytest.raises(DataError, match=r"row 1 \("):
        check_finite("x", np.array([0, np.nan]))
    with pytest.raises(DataError, match="only element"):
        check_finite("x", np.nan)
    with pytest.raises(DataError, match="row 0, axis 1 0, axis 2 1"):
        check_finite("x", np.array([[[0, np.nan]]]))


def test_unsigned_labels_and_no_upper_limit():
    check_labels(np.array([0, 200], np.uint8))
    with pytest.raises(DataError, match="label 200 in row 1"):
        check_labels(np.array([0, 200], np.uint8), 10)


def test_numbers_have_no_length():
    with pytest.raises(ShapeError):
        check_lengths(np.array(1.0), np.zeros(1))


def test_unknown_task():
    with pytest.raises(UnknownNameError, match="clustering"):
        check_arrays(X, task="clustering")
