import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import gpunn as gn
from gpunn.data import batches
from gpunn.data.loader import steps_per_epoch
from gpunn.errors import ArgumentError, DataError, DeviceMismatchError, ShapeError

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


def orders(loader):
    return np.concatenate([y for _, y in loader]).tolist()


def test_every_loop_has_the_orders_of_the_next_epochs():
    x, y = np.zeros((50, 1)), np.arange(50)
    single = [orders(batches(x, y, 8, seed=4, epoch=epoch)) for epoch in range(1, 7)]
    loader = batches(x, y, 8, seed=4)
    assert [orders(loader) for _ in range(6)] == single
    assert len({tuple(order) for order in single}) == 6
    loader = batches(x, y, 8, seed=4, epochs=3)
    assert len(loader) == 3 * 7
    assert orders(loader) == np.concatenate(single[:3]).tolist()
    assert orders(loader) == np.concatenate(single[3:]).tolist()
    assert loader.epoch == 7


def test_the_obvious_loop_shuffles_anew_and_repeats_by_seed():
    x, y = np.zeros((50, 1)), np.arange(50)

    def run():
        found = []
        for _ in range(4):
            rows = []
            for _, labels in batches(x, y, 8):
                rows += labels.tolist()
            found.append(tuple(rows))
        return found

    assert len({*run(), *run()}) == 8
    gn.manual_seed(3)
    first, layer = run(), gn.nn.Linear(2, 2).weight.numpy()
    gn.manual_seed(3)
    alone = gn.nn.Linear(2, 2).weight.numpy()
    assert run() == first  # layers and orders are counted apart
    np.testing.assert_array_equal(layer, alone)
    assert list(first[0]) == orders(batches(x, y, 8, seed=3))


def test_a_loop_that_is_left_early_has_had_its_epoch():
    loader = batches(np.zeros((9, 1)), np.arange(9), 3, seed=1)
    next(iter(loader))
    assert orders(loader) == orders(batches(np.zeros((9, 1)), np.arange(9), 3, seed=1, epoch=2))


def test_tensors_and_sparse_rows_are_taken(rng):
    x, y = rng.standard_normal((7, 3)), np.arange(7)
    plain = list(batches(x, y, 3, seed=1))
    for data in (gn.tensor(x), sparse.csr_array(x), sparse.coo_array(x)):
        for (xb, yb), (x_plain, y_plain) in zip(batches(data, y, 3, seed=1), plain, strict=True):
            xb = xb.toarray() if sparse.issparse(xb) else xb
            np.testing.assert_array_equal(xb, x_plain)
            np.testing.assert_array_equal(yb, y_plain)


def test_batches_are_where_they_should_be(device, rng):
    x, y, b = rng.standard_normal((7, 3)), np.arange(7), gn.backend(device)
    plain = list(batches(x, y, 3, seed=1))
    there = (b.upload(x), b.upload(y))
    for data in ((x, y), (sparse.csr_array(x), y), there):
        found = list(batches(*data, 3, seed=1, device=device))
        if data is there:
            found += list(batches(*data, 3, seed=1))
        for (xb, yb), (x_plain, y_plain) in zip(found, plain * (len(found) // 3), strict=True):
            if sparse.issparse(xb):
                xb = xb.toarray()
            np.testing.assert_array_equal(b.download(xb), x_plain)
            np.testing.assert_array_equal(b.download(yb), y_plain)
    if device != "cpu":
        with pytest.raises(DeviceMismatchError, match=r"x on .* and y on cpu"):
            batches(there[0], y)
        with pytest.raises(DeviceMismatchError):
            batches(*there, device="cpu")


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
