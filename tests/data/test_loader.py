import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpunn.data import batches, steps_per_epoch
from gpunn.errors import ArgumentError, DataError, ShapeError

pytestmark = pytest.mark.fast


def rows(n, batch_size, **options):
    x = np.arange(n, dtype=np.float32)[:, None]
    return list(batches(x, np.arange(n), batch_size, **options))


@given(
    n=st.integers(1, 200),
    batch_size=st.integers(1, 250),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32),
    shuffle=st.booleans(),
)
def test_each_row_once_an_epoch(n, batch_size, seed, epoch, shuffle):
    parts = rows(n, batch_size, seed=seed, epoch=epoch, shuffle=shuffle)
    assert len(parts) == steps_per_epoch(n, batch_size)
    assert [len(y) for _, y in parts[:-1]] == [batch_size] * (len(parts) - 1)
    for x, y in parts:
        np.testing.assert_array_equal(x[:, 0], y)
    np.testing.assert_array_equal(np.sort(np.concatenate([y for _, y in parts])), np.arange(n))


@given(n=st.integers(1, 100), batch_size=st.integers(1, 100))
def test_drop_last_leaves_whole_batches_of_different_rows(n, batch_size):
    if batch_size > n:
        with pytest.raises(ArgumentError, match="no batch"):
            rows(n, batch_size, drop_last=True)
        return
    parts = rows(n, batch_size, drop_last=True)
    assert {len(y) for _, y in parts} == {batch_size}
    assert len(parts) == n // batch_size == steps_per_epoch(n, batch_size, drop_last=True)
    assert len(set(np.concatenate([y for _, y in parts]))) == batch_size * len(parts)


def test_order_depends_on_seed_and_epoch_alone():
    def order(**options):
        return np.concatenate([y for _, y in rows(100, 7, **options)]).tolist()

    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(seed=1, epoch=2) != order(seed=1, epoch=3)
    assert order(seed=1, epoch=2) != order(seed=2, epoch=2)
    assert order(shuffle=False) == list(range(100))


def test_images_keep_their_shape():
    x = np.zeros((5, 2, 3))
    assert [xb.shape for xb, _ in batches(x, np.zeros((5, 1)), 3)] == [(3, 2, 3), (2, 2, 3)]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, None, "4"])
def test_batch_size_is_checked_by_the_call(batch_size):
    with pytest.raises(ArgumentError, match="batch_size"):
        batches(np.zeros((3, 1)), np.zeros(3), batch_size)
    with pytest.raises(ArgumentError, match="batch_size"):
        steps_per_epoch(3, batch_size)


def test_other_arguments_are_checked_by_the_call():
    x = np.zeros((3, 1))
    with pytest.raises(ShapeError):
        batches(x, np.zeros(2), 1)
    with pytest.raises(DataError):
        batches(x[:0], np.zeros(0), 1)
    with pytest.raises(ArgumentError, match="epoch"):
        batches(x, np.zeros(3), 1, epoch=-1)
    with pytest.raises(ArgumentError, match="seed"):
        batches(x, np.zeros(3), 1, seed=-1)


def test_numpy_integers_count():
    assert len(rows(5, np.int32(2))) == 3
