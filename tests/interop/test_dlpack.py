"""Memory shared with other libraries: no copies, either way."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ArgumentError, DeviceMismatchError, DTypeError, GradientError


class Elsewhere:
    """An array that says it lives on another device."""

    def __init__(self, device):
        self.device = device

    def __dlpack__(self, **request):
        return np.ones(2).__dlpack__(**request)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
def test_numpy_to_gpunn_without_a_copy(dtype):
    x = np.zeros((3, 2), dtype)
    shared = gn.from_dlpack(x)
    assert np.shares_memory(shared.data, x)
    assert (shared.shape, shared.dtype, str(shared.device)) == ((3, 2), x.dtype, "cpu")
    x[1, 1] = 1
    assert shared.data[1, 1] == 1
    shared.data[2, 0] = 1
    assert x[2, 0] == 1


def test_gpunn_to_numpy_without_a_copy():
    t = gn.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = np.from_dlpack(t)
    assert np.shares_memory(x, t.data)
    t.data[0, 1] = 7
    np.testing.assert_array_equal(x, [[1, 7], [3, 4]])


def test_a_view_keeps_its_strides():
    t = gn.tensor(np.arange(6.0).reshape(2, 3)).T
    x = np.from_dlpack(t)
    np.testing.assert_array_equal(x, [[0, 3], [1, 4], [2, 5]])
    assert np.shares_memory(x, t.data)


def test_a_tensor_in_a_graph_is_refused_until_detached():
    w = gn.tensor([1.0, 2.0], requires_grad=True)
    for inside in (w, w * 2):
        with pytest.raises(GradientError, match=r"share tensor\.detach\(\)"):
            np.from_dlpack(inside)
        with pytest.raises(GradientError, match="detach"):
            gn.from_dlpack(inside)
    assert np.shares_memory(np.from_dlpack(w.detach()), w.data)


def test_a_gradient_arrives_at_shared_memory():
    x = np.array([1.0, -2.0])
    w = gn.from_dlpack(x, requires_grad=True)
    (w * w).sum().backward()
    np.testing.assert_array_equal(w.grad, [2, -4])
    assert not gn.from_dlpack(x).requires_grad


def test_the_buffer_pool_leaves_shared_memory_alone():
    """A buffer that only a foreign array still uses is not handed out again."""
    x = np.ones((64, 64), np.float32)
    kept = np.from_dlpack(gn.ops.relu(gn.tensor(x)))
    for _ in range(3):
        gn.ops.multiply(gn.tensor(x), 5.0)
    np.testing.assert_array_equal(kept, x)


def test_the_exporter_lives_as_long_as_its_memory_is_used():
    class Tracked(np.ndarray):
        pass

    x = np.ones(4).view(Tracked)
    gone = weakref.ref(x)
    shared = gn.from_dlpack(x)
    del x
    gc.collect()
    assert gone() is not None
    assert shared.data.sum() == 4
    del shared
    gc.collect()
    assert gone() is None


def test_what_cannot_be_shared():
    with pytest.raises(ArgumentError, match="got a list, which has no __dlpack__"):
        gn.from_dlpack([1.0, 2.0])
    with pytest.raises(DeviceMismatchError, match="kind 8; expected the host or a CUDA device"):
        gn.from_dlpack(Elsewhere((8, 0)))
    with pytest.raises(DTypeError, match="complex64"):
        gn.from_dlpack(np.ones(2, np.complex64))
    with pytest.raises(DTypeError, match="requires_grad=True for int64"):
        gn.from_dlpack(np.arange(3), requires_grad=True)


def test_host_memory_that_is_pinned_is_host_memory():
    assert str(gn.from_dlpack(Elsewhere((3, 0))).device) == "cpu"


def test_pytorch_both_ways():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    there = torch.zeros(2, 3)
    here = gn.from_dlpack(there)
    here.data[1, 2] = 4
    assert there[1, 2] == 4
    t = gn.tensor([1.0, 2.0])
    torch.from_dlpack(t)[0] = 9
    np.testing.assert_array_equal(t.data, [9, 2])
    with pytest.raises(ArgumentError, match="cannot be shared"):
        gn.from_dlpack(torch.zeros(2, requires_grad=True))
    with pytest.raises(ArgumentError, match="cannot be shared"):
        gn.from_dlpack(torch.zeros(2, dtype=torch.bfloat16))


def test_cupy_both_ways(gpu):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    x = cupy.zeros(3, "float32")
    t = gn.from_dlpack(x)
    assert str(t.device) == gpu
    t.data[1] = 2
    cupy.from_dlpack(t)[2] = 5
    np.testing.assert_array_equal(x.get(), [0, 2, 5])
