"""Batches from the host: no copy starts into memory that is still in use."""

from __future__ import annotations

import numpy as np

import gpunn as gn


def test_the_first_copies_wait_for_what_had_their_memory(cuda_device, monkeypatch):
    b = gn.backend(cuda_device)
    stream = b.xp.cuda.Stream
    waits, wait = [], stream.wait_event

    def spy(self, event):
        waits.append(self)
        wait(self, event)

    monkeypatch.setattr(stream, "wait_event", spy)
    buffers = b.double_buffer([((3, 2), np.float32)])
    for number in range(4):
        buffers.put(number, 3, lambda pinned, number=number: pinned[0].fill(number))
        assert [s != b.xp.cuda.get_current_stream() for s in waits] == [True]
        (batch,) = buffers.get(number, 3)
        assert (b.download(batch) == number).all()
        buffers.release(number)
        waits.clear()


def test_buffers_that_are_dropped_wait_for_their_copies(cuda_device, monkeypatch):
    b = gn.backend(cuda_device)
    buffers = b.double_buffer([((3, 2), np.float32)])
    copies, waited = buffers._copies, []
    monkeypatch.setattr(type(copies), "synchronize", lambda self: waited.append(self))
    buffers.put(0, 3, lambda pinned: pinned[0].fill(1))
    del buffers
    assert waited == [copies]
