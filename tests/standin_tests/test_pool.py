"""The stand-in's memory: blocks are split as CuPy's are, and a graph's memory is its own."""

import gc

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.backends import Device
from gpunn.backends.cuda import graph as graphs
from gpunn.errors import OutOfMemoryError
from gpunn.optim.factor import NORM
from tests.standin import cupy as standin
from tests.standin.backend import StandinBackend, standin_cupy
from tests.standin.host_kernel import why_unavailable
from tests.standin.machine import MACHINE, CUDARuntimeError
from tests.standin.memory import DEVICE_BYTES

cp = standin.make()
needs_compiler = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-")


@pytest.fixture
def pool():
    made = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(made.malloc):
        yield made


@pytest.fixture
def stream():
    return cp.cuda.Stream(non_blocking=True)


def test_a_block_is_split_and_its_parts_are_not_given_back(pool):
    whole = cp.empty(4096, np.uint8)
    address = whole.data.ptr
    del whole
    first, second = cp.empty(10, np.uint8), cp.empty(600, np.uint8)
    assert [a.data.ptr - address for a in (first, second)] == [0, 512]
    assert (pool.used_bytes(), pool.free_bytes(), pool.total_bytes()) == (1536, 2560, 4096)
    del first
    pool.free_all_blocks()
    assert pool.total_bytes() == 4096
    del second
    assert pool.used_bytes() == 0
    pool.free_all_blocks()
    assert pool.total_bytes() == 0


def test_parts_that_are_idle_side_by_side_become_one_again(pool):
    whole = cp.empty(4096, np.uint8)
    address = whole.data.ptr
    del whole
    parts = [cp.empty(1024, np.uint8) for _ in range(4)]
    for k in (0, 2, 1, 3):
        parts[k] = None
    assert cp.empty(4096, np.uint8).data.ptr == address
    assert pool.total_bytes() == 4096


def test_the_smallest_block_with_room_is_taken(pool):
    arrays = [cp.empty(size, np.uint8) for size in (8192, 1024, 2048)]
    places = [a.data.ptr for a in arrays]
    arrays.clear()
    assert cp.empty(1500, np.uint8).data.ptr == places[2]


def test_views_hold_the_memory_of_their_array(pool):
    part = cp.zeros(1 << 20, np.uint8)[:10]
    assert pool.used_bytes() == 1 << 20
    del part
    assert pool.used_bytes() == 0


def test_a_limit_counts_idle_blocks_and_gives_none_back(pool):
    cp.empty(4096, np.uint8)
    pool.set_limit(size=8192)
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match=r"8,192 bytes.*4,096 bytes.*limit"):
        cp.empty(8192, np.uint8)
    pool.free_all_blocks()
    assert cp.empty(8192, np.uint8).size == 8192


def test_a_device_without_room_gets_idle_blocks_back(pool, monkeypatch):
    cp.empty(4096, np.uint8)
    monkeypatch.setitem(MACHINE.held, 0, DEVICE_BYTES - 1024)
    free, total = cp.cuda.runtime.memGetInfo()
    assert (free, total) == (1024, DEVICE_BYTES)
    assert cp.empty(4096, np.uint8).size == 4096
    with pytest.raises(cp.cuda.memory.OutOfMemoryError):
        cp.empty(65536, np.uint8)


def test_idle_memory_of_another_stream_is_not_taken(pool, stream):
    here = cp.empty(4096, np.uint8)
    address = here.data.ptr
    del here
    with stream:
        assert cp.empty(4096, np.uint8).data.ptr != address
    assert cp.empty(4096, np.uint8).data.ptr == address


def test_a_pool_that_is_deleted_gives_nothing_back():
    gc.collect()  # of what earlier tests left
    free, _ = cp.cuda.runtime.memGetInfo()
    pool = cp.cuda.MemoryPool()
    pool.malloc(4096)
    del pool
    gc.collect()
    assert cp.cuda.runtime.memGetInfo()[0] == free - 4096


# graphs ------------------------------------------------------------------------------------------


def captured(stream, work):
    with stream:
        stream.begin_capture()
        try:
            kept = work()
        finally:
            graph = stream.end_capture()
    return graph, kept


def test_a_planted_fill_inside_a_capture_is_not_done(stream):
    graph, zeros = captured(stream, lambda: cp.zeros(4, np.float32))
    assert np.isnan(zeros.get()).all()
    graph.launch(stream)
    assert (zeros.get() == 0).all()


def test_what_a_capture_computes_is_not_there_before_its_graph_is_launched(stream):
    x = cp.ones(4, np.float32)
    graph, y = captured(stream, lambda: x + 1)
    assert np.isnan(y.get()).all()
    graph.launch(stream)
    assert (y.get() == 2).all()


def drop_before(x, y, pool):
    del x[:]


def drop_after(x, y, pool):
    y.clear()


def free_blocks(x, y, pool):
    y.clear()
    pool.used_bytes()
    pool.free_all_blocks()


@pytest.mark.parametrize(
    ("own_pool", "fault", "words"),
    [
        (True, drop_before, "no longer there"),
        (False, drop_before, "no longer there"),
        (False, drop_after, "no longer there"),
        (True, free_blocks, "given back"),
        (True, drop_after, None),
        (True, lambda *arrays: None, None),
    ],
)
def test_a_graph_whose_memory_is_gone_is_not_launched(stream, own_pool, fault, words):
    x, pool = [cp.ones(4, np.float32)], cp.cuda.MemoryPool()
    allocator = pool.malloc if own_pool else cp.get_default_memory_pool().malloc
    with cp.cuda.using_allocator(allocator):
        graph, y = captured(stream, lambda: [x[0] + 1])
    fault(x, y, pool)
    if words is None:
        graph.launch(stream)
        return
    with pytest.raises(CUDARuntimeError, match=words) as caught:
        graph.launch(stream)
    assert caught.value.status == 700


def test_an_array_made_in_the_memory_of_a_graph_is_noticed(stream):
    x, pool = cp.ones(4, np.float32), cp.cuda.MemoryPool()
    with stream, cp.cuda.using_allocator(pool.malloc):
        graph, y = captured(stream, lambda: [x + 1])
        graph.launch(stream)
        y.clear()
        cp.zeros(4, np.float32)
    with pytest.raises(CUDARuntimeError, match="made in after the capture"):
        graph.launch(stream)


def test_memory_that_is_reused_within_a_capture_is_used_in_turn(stream):
    x, pool = cp.ones(4, np.float32), cp.cuda.MemoryPool()

    def work():
        first = x + 1
        out = first * 3
        address = first.data.ptr
        del first
        second = x + 7
        assert second.data.ptr == address
        return out, second

    with cp.cuda.using_allocator(pool.malloc):
        graph, (out, second) = captured(stream, work)
    for _ in range(2):
        graph.launch(stream)
        assert (out.get() == 6).all()
        assert (second.get() == 8).all()


# faults planted in the backend -------------------------------------------------------------------


@needs_compiler
def test_constants_planted_inside_a_capture_are_noticed(monkeypatch):
    b = StandinBackend(Device("standin", 1))
    x = b.upload(np.ones(100, np.float32))
    b.launch(NORM, x)
    fresh = StandinBackend(Device("standin", 1))
    monkeypatch.setattr(fresh, "make_constants", lambda: None)
    with fresh.own_stream():
        fresh.record(lambda: [fresh.one(np.float16), fresh.launch(NORM, x)])
    assert float(fresh.one(np.float16)) != 1
    assert float(fresh.launch(NORM, x)) != 10


@needs_compiler
def test_a_planted_count_of_fragments_as_room_is_noticed(monkeypatch):
    b = gn.backend("standin:0")
    pool = standin_cupy().get_default_memory_pool()
    b.make_constants()
    big = b.empty((4_000_000,), np.uint8)
    del big
    small = b.empty((512,), np.uint8)  # in the place of the big one
    monkeypatch.setattr(b, "free_bytes", lambda: pool.get_limit() - pool.used_bytes())
    b.limit_memory(b.memory_bytes() + 1_000_000)
    try:
        with pytest.raises(OutOfMemoryError):
            b.empty((b.free_bytes() // 512 * 512,), np.uint8)
        monkeypatch.undo()
        assert b.empty((b.free_bytes() // 512 * 512,), np.uint8).size
    finally:
        b.limit_memory(None)
    assert small.size


@needs_compiler
def test_a_planted_graph_without_memory_of_its_own_is_noticed(monkeypatch, rng):
    xp = standin_cupy()
    monkeypatch.setattr(graphs, "graph_pool", lambda *args: xp.get_default_memory_pool())
    net = nn.Sequential(nn.Linear(6, 4, "relu"), nn.Linear(4, 3)).to("standin:0")
    x, y = rng.standard_normal((64, 6), np.float32), rng.integers(0, 3, 64)
    with pytest.raises(CUDARuntimeError, match="no longer there"):
        gn.Trainer(net, capture=True).fit(x, y, epochs=3, batch_size=16, progress=False)
