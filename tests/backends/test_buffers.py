"""The CPU's buffers: aligned, used again when nobody holds them, never while somebody does."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from itertools import pairwise

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cpu.backend import CHUNK
from gpunn.backends.cpu.pool import IDLE, OWN, WINDOW, BufferPool
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


def lines_run(work, filename):
    """Count the lines of a file that run while work is done."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename.endswith(filename):
            count += event == "line"
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def small_net(inputs=20):
    return gn.nn.Sequential(
        gn.nn.Linear(inputs, 256, "relu", seed=0),
        gn.nn.Linear(256, 256, "relu", seed=1),
        gn.nn.Linear(256, 3, seed=2),
    )


@pytest.mark.parametrize("order", ["up", "down", "random"])
def test_batches_of_all_sizes_need_no_more_than_the_largest(order):
    b, net, x = gn.backend("cpu"), small_net(), np.zeros((1000, 20), np.float32)
    gc.collect()  # what other tests have left
    b.free_memory()
    before = b.memory_bytes()
    net.predict(x)
    largest = b.memory_bytes() - before
    sizes = np.arange(1, 1001)
    if order == "random":
        np.random.default_rng(0).shuffle(sizes)
    for n in sizes[::-1] if order == "down" else sizes:
        net.predict(x[:n])
        assert b.memory_bytes() - before <= 2 * largest
    assert largest < 2.5 * 1000 * 256 * 4
    for _ in range(1000):
        net.predict(x[:20])
    assert b.memory_bytes() - before < largest / 10


def test_idle_buffers_are_never_more_than_was_in_use(rng):
    pool, held, peak = BufferPool(), [], 0
    for _ in range(3000):
        if held and rng.random() < 0.5:
            held.pop(rng.integers(len(held)))
        else:
            held.append(pool.empty((int(rng.integers(1_000, 200_000)),), F32))
        used = sum(a.nbytes for a in held)
        peak = max(peak, used)
        assert pool.size_bytes() <= 2 * (used + IDLE * peak)  # a buffer may be twice its array
    held.clear()
    for _ in range(2 * WINDOW):
        pool.empty((1024,), F32)
    assert pool.size_bytes() <= 2 * 4096


def test_arrays_of_one_size_class_share_a_buffer():
    pool = BufferPool()
    first = pool.empty((1000, 64), F32).ctypes.data
    assert pool.empty((998, 64), F32).ctypes.data == first
    assert pool.empty((600, 64), F32).ctypes.data == first  # up to twice as large
    assert pool.empty((400, 64), F32).ctypes.data != first  # a kept array must not waste much


@pytest.mark.parametrize("kept", ["predictions", "tensors"])
def test_results_that_are_kept_cost_no_time_and_leave_the_pool(kept):
    b, net = gn.backend("cpu"), gn.nn.Sequential(gn.nn.Linear(20, 4, seed=0))
    x = np.zeros((512, 20), np.float32)  # a result has 8 KiB

    def result():
        return net.predict(x) if kept == "predictions" else net(x).detach()

    result()
    b.free_memory()
    before = b.memory_bytes()
    few = lines_run(result, "pool.py")
    results = [result() for _ in range(4 * WINDOW)]
    assert b.memory_bytes() - before <= 2 * WINDOW * 8192  # the latest, at most
    assert lines_run(result, "pool.py") <= few + 2
    del results
    if kept == "tensors":
        for _ in range(2 * WINDOW):
            result()
    assert b.memory_bytes() - before <= 2 * 8192


def test_a_small_part_of_a_buffer_is_copied_for_its_keeper():
    pool = BufferPool()
    array = pool.empty((640, 64), F32)
    assert pool.forget(array[:600]).base is array
    assert pool.size_bytes() == 0
    array = pool.empty((640, 64), F32)
    for part in (array[:64], array[:300]):
        assert pool.forget(part).base is None
    assert pool.size_bytes() == array.nbytes
    other = np.zeros(SHAPE, np.float32)
    assert pool.forget(other) is other


def test_a_buffer_comes_back_from_another_thread():
    pool = BufferPool()
    array = [pool.empty(SHAPE, F32)]
    address = array[0].ctypes.data
    thread = threading.Thread(target=array.clear)
    thread.start()
    thread.join()
    assert pool.empty(SHAPE, F32).ctypes.data == address


def test_a_thread_that_ends_takes_its_pool_along():
    kept = []

    def work():
        pool = OWN.pool
        kept.append(weakref.ref(pool))
        kept.append(pool.empty(SHAPE, F32))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    pool, array = kept
    assert pool() is None
    array[...] = 1  # the array outlives its pool


WIDTHS = {
    "wide": (64, 512, 512, 10),
    "funnel": (800, 700, 600, 500, 400, 300, 200, 100, 10),
    "hourglass": (64, 512, 32, 1024, 16, 700, 10),
    "deep": (64,) * 40 + (10,),
}


@pytest.mark.both_bodies
@pytest.mark.parametrize("widths", WIDTHS)
def test_steady_work_makes_no_buffer(widths, bodies, monkeypatch):
    sizes = WIDTHS[widths]
    layers = [gn.nn.Linear(a, b, "gelu") for a, b in pairwise(sizes)]
    normal = [gn.nn.BatchNorm(b) for b in sizes[1:-1]]
    drops = [gn.nn.Dropout(0.5) for _ in normal]
    parts = [m for three in zip(layers, normal, drops, strict=False) for m in three]
    net = gn.nn.Sequential(*parts, layers[-1])
    step = gn.train.EagerStep(
        net, gn.ops.softmax_cross_entropy, gn.optim.Adam(net.parameters(), lr=1e-4)
    )
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, sizes[0]), dtype=np.float32), rng.integers(0, 10, 64)
    made, real = [], BufferPool._new

    def spied(self, size_bytes):
        made.append(size_bytes)
        return real(self, size_bytes)

    def work():
        step(x, y)
        net.predict(x)

    # The first windows end within these: parameters no longer count as in use.
    for _ in range(6 if widths == "deep" else 100):
        work()
    monkeypatch.setattr(BufferPool, "_new", spied)
    for _ in range(3):
        work()
    assert not made


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
