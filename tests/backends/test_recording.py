"""Captured work: its memory goes back when it is gone, never before; a capture always ends."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cuda.graph import graph_pool
from gpunn.errors import CaptureError

pytestmark = [pytest.mark.both_bodies, pytest.mark.fast]


@pytest.fixture
def b(cuda_device):
    return gn.backend(cuda_device)


def recorded(b, work):
    with b.own_stream():
        return b.record(work)


def test_the_memory_of_a_graph_goes_back_after_it(b):
    out = b.full((1000,), 5, np.float32)  # loads the kernel
    graph = recorded(b, lambda: out.__setitem__(..., b.full((1000,), 3, np.float32)))
    pool = graph.pool
    pool.malloc(4096)
    b.free_memory()
    assert pool.total_bytes() >= 4096
    with b.own_stream():
        graph.launch()
    assert (b.download(out) == 3).all()
    del graph
    b.free_memory()
    assert pool.total_bytes() == 0


@pytest.mark.parametrize("limit", [10_000, 0])
def test_a_pool_without_room_gives_nothing_back(b, limit):
    """CuPy's own would: a graph would then write where somebody else's arrays are."""
    pool = graph_pool(b.xp, limit)
    block = pool.malloc(4096)
    del block  # idle, and yet the graph's
    with pytest.raises(b.xp.cuda.memory.OutOfMemoryError):
        pool.malloc(8192 if limit else 2**50)
    assert pool.total_bytes() == 4096


@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt])
def test_a_capture_that_breaks_off_leaves_the_stream_usable(b, error):
    def work():
        raise error

    with pytest.raises(CaptureError if error is not KeyboardInterrupt else KeyboardInterrupt):
        recorded(b, work)
    out = b.full((4,), 1, np.float32)
    graph = recorded(b, lambda: out.fill(2))
    with b.own_stream():
        graph.launch()
    assert (b.download(out) == 2).all()


def test_a_capture_that_cannot_be_ended_says_so(b, monkeypatch):
    with b.own_stream():
        stream = b.xp.cuda.get_current_stream()
    end = type(stream).end_capture

    def broken(self):
        end(self)
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(type(stream), "end_capture", broken)
    with pytest.raises(CaptureError, match=r"cannot be captured .*Invalidated"):
        recorded(b, lambda: None)
