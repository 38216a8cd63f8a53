import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import gpunn as gn
from gpunn.data import Dataset, Standardizer
from gpunn.errors import ArgumentError, DataError, DeviceMismatchError, DTypeError, ShapeError

pytestmark = pytest.mark.fast


def labelled(sizes, columns=2):
    y = np.repeat(np.arange(len(sizes)), sizes)
    x = np.arange(len(y) * columns, dtype=np.float32).reshape(-1, columns)
    return Dataset(x, y, tuple("abcdefgh"[: len(sizes)]))


def test_dtypes_are_converted():
    data = Dataset(np.asfortranarray(np.ones((3, 2))), np.array([2, 0, 1], np.uint8))
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)
    assert data.x.flags.c_contiguous
    assert data.classes == ("0", "1", "2")
    assert len(data) == 3


def test_regression_targets_become_columns():
    data = Dataset(np.ones((3, 2)), np.array([0.5, 1, 2]))
    assert (data.y.shape, data.y.dtype, data.classes) == ((3, 1), np.float32, None)
    assert "1 target)" in repr(data)


def test_float32_is_not_copied():
    x = np.ones((3, 2), np.float32)
    assert Dataset(x, np.array([0, 1, 1])).x is x


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"x": np.full((2, 1), np.nan)}, DataError),
        ({"x": np.full((2, 1), 1e300)}, DataError),
        ({"x": np.zeros((0, 1)), "y": np.zeros(0)}, DataError),
        ({"x": np.zeros(2)}, ShapeError),
        ({"y": np.array([0, -1])}, DataError),
        ({"y": np.array([-1, -1])}, DataError),
        ({"y": np.array([0, 10**12])}, DataError),
        ({"y": np.array([0, 1]), "classes": ("a",)}, DataError),
        ({"y": np.array([0.0, 1.0]), "classes": ("a", "b")}, DTypeError),
        ({"features": ("a", "b")}, ShapeError),
    ],
)
def test_bad_arguments(arguments, error):
    good = {"x": np.zeros((2, 1)), "y": np.array([0, 1])}
    with pytest.raises(error):
        Dataset(**(good | arguments))


def test_subset():
    data = labelled([2, 2])
    np.testing.assert_array_equal(data.subset([3, 0]).x, data.x[[3, 0]])
    np.testing.assert_array_equal(data.subset(data.y == 1).y, [1, 1])
    assert data.subset([0]).classes == data.classes
    for wrong in ([4], [-1], [[0]], [0.0], [True]):
        with pytest.raises(ArgumentError):
            data.subset(wrong)
    with pytest.raises(DataError):
        data.subset([])


@given(
    sizes=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**64 - 1),
)
def test_split_keeps_every_row_and_stratifies_in_proportion(sizes, share, seed):
    data = labelled(sizes)
    n = len(data)
    count = min(max(1, round(n * share)), n - 1)
    for stratify in (False, True):
        if stratify and min(count, n - count) < len(sizes):
            with pytest.raises(DataError, match="in each part"):
                data.split(share, seed=seed, stratify=True)
            return
        train, held_out = data.split(share, seed=seed, stratify=stratify)
        assert len(held_out) == count
        rows = np.concatenate((train.x, held_out.x))
        np.testing.assert_array_equal(np.sort(rows[:, 0]), data.x[:, 0])
    taken = np.bincount(held_out.y, minlength=len(sizes))
    kept = np.bincount(train.y, minlength=len(sizes))
    assert taken.min() >= 1
    assert kept.min() >= 1
    free = (taken > 1) & (kept > 1)  # away from the limit of one row in each part
    if free.all():
        assert np.abs(taken - np.array(sizes) * count / n).max() <= 1


def test_stratified_shares_of_unequal_classes():
    train, held_out = labelled([100, 50, 10]).split(0.2, seed=3, stratify=True)
    assert np.bincount(held_out.y).tolist() == [20, 10, 2]
    assert np.bincount(train.y).tolist() == [80, 40, 8]


def test_split_is_random_and_repeatable():
    data = labelled([50, 50])
    first, again, other = (data.split(20, seed=seed)[1].x[:, 0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_split_refuses():
    data = labelled([5, 5])
    for wrong in (0, 10, 0.0, 1.0, -0.5, True, np.nan, "half"):
        with pytest.raises(ArgumentError, match="held_out"):
            data.split(wrong)
    for seed in (-1, 2**64, 0.5):
        with pytest.raises(ArgumentError, match="seed"):
            data.split(0.5, seed=seed)
    with pytest.raises(DataError, match="'b' with a single row"):
        labelled([5, 1]).split(0.5, stratify=True)
    with pytest.raises(ArgumentError, match="regression"):
        Dataset(data.x, data.x).split(0.5, stratify=True)


def test_stratify_ignores_a_class_without_rows():
    data = Dataset(np.zeros((8, 1)), np.array([0, 2] * 4), ("a", "b", "c"))
    assert np.bincount(data.split(0.5, stratify=True)[1].y).tolist() == [2, 0, 2]


def test_standardizer():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (200, 3)).astype(np.float32)
    x[:, 1] = 0.1  # its float64 standard deviation may come out as 1e-17
    scaler = Standardizer.fit(x)
    z = scaler(x)
    assert z.dtype == np.float32
    assert scaler.scale[1] == 1
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(axis=0), [1, 0, 1], atol=1e-6)
    data = scaler(Dataset(x, np.arange(200) % 2))
    np.testing.assert_array_equal(data.x, z)
    assert data.classes == ("0", "1")


def test_tensors_are_taken_and_sparse_rows_are_not():
    data = Dataset(gn.tensor([[1.0], [2.0]]), gn.tensor([1, 0]))
    assert data.classes == ("0", "1")
    np.testing.assert_array_equal(data.x, [[1], [2]])
    with pytest.raises(DataError, match=r"toarray\(\)"):
        Dataset(sparse.csr_array(np.eye(2)), [0, 1])


def test_arrays_of_a_device_are_refused(cuda_device):
    there = gn.tensor([[1.0], [2.0]], device=cuda_device)
    with pytest.raises(DeviceMismatchError, match=r"got x on .*\.numpy\(\)"):
        Dataset(there, [0, 1])


def test_standardizer_refuses_other_columns():
    scaler = Standardizer.fit(np.zeros((2, 3)))
    for wrong in (np.zeros((2, 1)), np.zeros(3), np.zeros((2, 4))):
        with pytest.raises(ShapeError, match=r"\(N, 3\)"):
            scaler(wrong)
    with pytest.raises(DataError):
        Standardizer.fit(np.zeros((0, 3)))
