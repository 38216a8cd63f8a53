"""The CPU's buffers: aligned, used again when nobody holds them, never while somebody does."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cpu.backend import CHUNK, BufferPool
from gpunn.errors import DataError
from gpunn.ops.gather import gather_rows

pytestmark = pytest.mark.fast

F32 = np.dtype(np.float32)
SHAPE = (64, 64)


def test_a_buffer_is_used_again_once_nobody_holds_it():
    pool = BufferPool()
    first = pool.empty(SHAPE, F32)
    address = first.ctypes.data
    second = pool.empty(SHAPE, F32)
    assert second.ctypes.data != address
    del first
    assert pool.empty(SHAPE, F32).ctypes.data == address


@pytest.mark.parametrize(
    "hold",
    [lambda a: a[1:3], lambda a: a.T, lambda a: a.reshape(-1)[5:].view(np.uint8), memoryview, iter],
    ids=["slice", "transpose", "view", "memoryview", "iterator"],
)
def test_a_view_keeps_its_buffer_in_use(hold):
    pool = BufferPool()
    array = pool.empty(SHAPE, F32)
    address = array.ctypes.data
    view = hold(array)
    del array
    assert pool.empty(SHAPE, F32).ctypes.data != address
    del view
    assert pool.empty(SHAPE, F32).ctypes.data == address


def test_buffers_are_aligned_and_writable():
    pool = BufferPool()
    for n in (1024, 1025, 4097):
        array = pool.empty((n,), F32)
        array[...] = 1
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous


def test_free_drops_the_idle_buffers_only():
    pool = BufferPool()
    held = pool.empty(SHAPE, F32)
    other = pool.empty(SHAPE, F32)
    del other
    assert pool.size_bytes() == 2 * held.nbytes
    pool.free()
    assert pool.size_bytes() == held.nbytes


def test_steady_training_needs_no_new_buffer():
    rng = np.random.default_rng(0)
    net = gn.nn.Sequential(
        gn.nn.Linear(32, 64, "relu"),
        gn.nn.Dropout(0.5),
        gn.nn.Linear(64, 64, "tanh"),
        gn.nn.Linear(64, 5),
    )
    optimizer = gn.optim.Adam(net.parameters())
    step = gn.train.EagerStep(net, gn.ops.softmax_cross_entropy, optimizer)
    x, y = rng.standard_normal((128, 32), dtype=np.float32), rng.integers(0, 5, 128)
    b = gn.backend("cpu")
    for _ in range(3):
        step(x, y)
    before = b.memory_bytes()
    for _ in range(20):
        step(x, y)
    assert b.memory_bytes() == before


def test_a_prediction_is_not_overwritten_by_the_next():
    net = gn.nn.Sequential(gn.nn.Linear(8, 64, "relu"), gn.nn.Linear(64, 64))
    x = np.random.default_rng(0).standard_normal((64, 8), dtype=np.float32)
    first = net.predict(x)
    kept = first.copy()
    for _ in range(3):
        net.predict(x + 1)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("shape", [(3 * CHUNK + 5,), (7, CHUNK), (2 * CHUNK + 1, 1), (5, 3, CHUNK)])
def test_large_arrays_in_chunks_equal_the_whole(shape):
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    bias = x.reshape(-1)[: shape[-1]].copy()
    b = gn.backend("cpu")
    z = x.copy()
    with b.numpy_alone():  # compiled, the last few numbers are computed one by one
        b.launch(gn.ops.tanh.bias_kernel, bias, out=z)
    np.testing.assert_array_equal(z, np.tanh(x + bias))


def test_chunks_leave_an_axis_of_one_whole():
    x = np.random.default_rng(0).standard_normal((5, CHUNK), dtype=np.float32)
    row, z = x[:1].copy(), x.copy()
    b = gn.backend("cpu")
    with b.numpy_alone():
        b.launch(gn.ops.tanh.bias_kernel, row, out=z)
    np.testing.assert_array_equal(z, np.tanh(x + row))


def test_gather_rows(device):
    b = gn.backend(device)
    rng = np.random.default_rng(0)
    for table in (
        rng.standard_normal((9, 5)),
        rng.integers(0, 9, 9),
        rng.standard_normal((9, 2, 3)),
    ):
        index = rng.integers(0, 9, 20)
        rows = gather_rows(b, b.upload(table), b.upload(index))
        np.testing.assert_array_equal(b.download(rows), table[index])


def test_gather_rows_of_a_table_that_starts_anywhere(device):
    b = gn.backend(device)
    host = np.arange(21, dtype=np.float32)
    table = b.upload(host)[1:].reshape(10, 2)  # rows of 8 bytes, from an address that 8 divides not
    rows = gather_rows(b, table, b.upload(np.array([3, 9])))
    np.testing.assert_array_equal(b.download(rows), host[1:].reshape(10, 2)[[3, 9]])


@pytest.mark.parametrize("bad", [-1, 9])
def test_gather_rows_out_of_range(bad, device):
    b = gn.backend(device)
    table, index = b.upload(np.ones((9, 2))), b.upload(np.array([0, bad]))
    if b.synchronous:
        with pytest.raises(DataError, match="expected 0 to 8"):
            gather_rows(b, table, index)
    else:
        rows = b.download(gather_rows(b, table, index))
        assert np.isnan(rows[1]).all()
        assert (rows[0] == 1).all()
