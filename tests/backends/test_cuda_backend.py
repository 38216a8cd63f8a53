"""The CUDA backend at its edges: dtypes that CuPy has not, constants, errors of the driver."""

from __future__ import annotations

import numpy as np
import pytest

from gpunn.backends import Device, backend
from gpunn.backends.cuda.graph import graph_pool
from gpunn.errors import DTypeError, OutOfMemoryError
from gpunn.optim.factor import NORM
from tests.standin.backend import StandinBackend, standin_cupy
from tests.standin.machine import MACHINE, CUDARuntimeError
from tests.standin.memory import MemoryPool, using_allocator


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([None]), np.array(["2020-01-01"], "datetime64[D]")],
    ids=["text", "object", "date"],
)
def test_what_cupy_has_not_is_refused_with_a_remedy(array, cuda_device):
    with pytest.raises(DTypeError, match=f"got an array of .*to move to {cuda_device}.*encode"):
        backend(cuda_device).upload(array)


def test_long_doubles_become_doubles(cuda_device):
    b = backend(cuda_device)
    found = b.upload(np.array([1, 2.5], np.longdouble))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(b.download(found), [1, 2.5])


def test_an_upload_without_room_is_told_in_the_words_of_the_library(cuda_device):
    b = backend(cuda_device)
    b.make_constants()
    b.free_memory()
    try:
        held = b.memory_bytes()  # idle parts of blocks that others use count, too
        b.limit_memory(held + 1_000_000)
        with pytest.raises(OutOfMemoryError, match=r"no room for an array.*smaller batch"):
            b.upload(np.zeros(held // 8 + 1_000_000))
    finally:
        b.limit_memory(None)


def test_constants_that_a_capture_asks_for_first_are_whole():
    b = StandinBackend(Device("standin", 1))  # a backend that has made none yet
    x = b.upload(np.ones(100, np.float32))
    b.launch(NORM, x)
    fresh = StandinBackend(Device("standin", 1))
    with fresh.own_stream():
        fresh.record(lambda: [fresh.one(np.float16), fresh.launch(NORM, x), fresh.zero()])
    assert float(fresh.one(np.float16)) == 1
    assert int(fresh.zero()) == 0
    assert float(fresh.launch(NORM, x)) == 10


@pytest.mark.parametrize(("status", "expected"), [(2, MemoryError), (700, CUDARuntimeError)])
def test_only_a_failed_allocation_is_out_of_memory(status, expected, monkeypatch):
    xp = standin_cupy()

    def fail(size):
        raise CUDARuntimeError("the driver's words", status)

    monkeypatch.setattr(xp.cuda.memory, "Memory", fail)
    with pytest.raises(expected):
        graph_pool(xp, 0).malloc(512)


def test_idle_memory_that_cannot_be_given_back_is_not_free(cuda_device):
    b = backend(cuda_device)
    b.make_constants()
    b.free_memory()
    try:
        before = b.memory_bytes()
        b.limit_memory(2 * before + 4_000_000)
        held = b.empty((before + 2_000_000,), np.uint8)  # no idle block has room for it
        assert b.free_bytes() <= 2 * before + 4_000_000 - before - held.nbytes
        b.empty((b.free_bytes() // 512 * 512,), np.uint8)  # what is promised can be had
    finally:
        b.limit_memory(None)


@pytest.fixture
def fresh(monkeypatch):
    """A backend that has made no constants yet, with an empty pool."""
    pool = MemoryPool()
    with using_allocator(pool.malloc):
        monkeypatch.setattr(MACHINE, "pool", pool)
        yield StandinBackend(Device("standin", 1))


def test_a_limit_leaves_room_for_constants_and_workspaces(fresh):
    fresh.limit_memory(2**30)  # makes them
    fresh.limit_memory(fresh.memory_bytes() + 4 * 512)  # three matrices and a sum
    x = fresh.upload(np.ones((8, 8), np.float32))
    product = fresh.matmul(x, fresh.upload(np.ones((8, 8), np.float32)))
    assert float(fresh.launch(NORM, product)) == 64


def test_idle_blocks_are_free(fresh):
    fresh.limit_memory(2**30)
    free = fresh.free_bytes()
    fresh.empty((1_000_000,), np.uint8)
    assert fresh.free_bytes() == free
