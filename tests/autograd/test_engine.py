"""The graph: any shape, any depth, no reference cycle."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import (
    DeviceMismatchError,
    DTypeError,
    GradientError,
    GraphFreedError,
    ShapeError,
)

pytestmark = pytest.mark.fast


def test_fan_out_adds_and_never_overwrites(device):
    x = gn.tensor([0.7], requires_grad=True, dtype="float64", device=device)
    a, b = x * 2.0, gn.ops.exp(x)
    (a * b + a + b).sum().backward()
    value = 0.7
    expected = 2 * np.exp(value) + 2 * value * np.exp(value) + 2 + np.exp(value)
    np.testing.assert_allclose(x.backend.download(x.grad), [expected], rtol=1e-14)


def test_multivariate_chain_rule_of_lecture_003():
    t = gn.tensor(0.7, requires_grad=True, dtype="float64")
    x, y = gn.ops.cos(t), t * t
    (y + gn.ops.exp(x * y)).backward()
    assert float(t.grad) == pytest.approx(2.498432319393961, rel=1e-15)


def test_diamond_with_a_shared_weight():
    w = gn.tensor([[2.0]], requires_grad=True, dtype="float64")
    x = gn.tensor([[3.0]], dtype="float64")
    y = (x @ w) @ w + x @ w  # x w**2 + x w
    y.backward()
    assert w.grad.tolist() == [[3 * (2 * 2 + 1)]]


def test_backward_twice_accumulates_in_the_leaf():
    w = gn.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(2):
        (w * w).sum().backward()
    assert w.grad.tolist() == [4.0, 8.0]
    w.zero_grad()
    assert w.grad is None


def test_a_chain_of_50000_operations():
    x = gn.tensor([1.0], requires_grad=True, dtype="float64")
    y = x
    for _ in range(50_000):
        y = y + 1e-5
    y.backward()
    assert x.grad.tolist() == [1.0]


def test_the_graph_is_freed_by_reference_counting_alone():
    gc.collect()
    gc.disable()
    try:
        w = gn.tensor(np.ones((4, 4)), requires_grad=True)
        x = gn.tensor(np.ones((2, 4)))
        h = gn.ops.linear(x, w, gn.tensor(np.ones(4)), activation=gn.ops.tanh)
        loss = (h @ w).sum()
        loss.backward()
        references = [weakref.ref(t) for t in (w, x, h, loss)]
        references += [weakref.ref(t.node) for t in (w, h, loss)]
        del w, x, h, loss
        assert [r() for r in references] == [None] * len(references)
    finally:
        gc.enable()


def test_a_deep_graph_is_freed_without_a_backward():
    x = gn.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(50_000):
        y = y * 1.0
    node = weakref.ref(y.node)
    del y
    assert node() is None


def test_saved_arrays_are_dropped_as_the_walk_passes():
    x = gn.tensor(np.ones(3), requires_grad=True)
    saved = gn.ops.exp(x)
    loss = (saved * saved).sum()
    array = weakref.ref(saved.data)
    del saved
    assert array() is not None
    loss.backward()
    assert array() is None
    with pytest.raises(GraphFreedError, match="'sum'"):
        loss.backward()


def test_no_grad_records_nothing():
    w = gn.tensor([1.0], requires_grad=True)
    with gn.no_grad():
        y = w * 2.0
    assert not y.requires_grad
    with pytest.raises(GradientError, match="requires_grad=True"):
        y.backward()


def test_constants_get_no_gradient():
    needs = []

    def probe(b, x, y):
        return x + y, lambda gy, wanted: needs.append(wanted) or (gy, gy)

    op = gn.autograd.Op(probe, "probe_needs")
    try:
        w = gn.tensor([1.0], requires_grad=True)
        op(gn.tensor([1.0]), w).backward()
    finally:
        del gn.autograd.OPS["probe_needs"]
    assert [bool(n) for n in needs[0]] == [False, True]


def test_backward_of_several_elements_needs_a_gradient():
    w = gn.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ShapeError, match=r"\.sum\(\)"):
        (w * 2.0).backward()
    with pytest.raises(ShapeError, match=r"\(3,\).*\(2,\)"):
        (w * 2.0).backward(np.ones(3, np.float32))


def test_dtypes_are_not_mixed_in_silence():
    w = gn.tensor([1.0], dtype="float32")
    with pytest.raises(DTypeError, match="float32 and float64"):
        w * np.ones(1)


def test_devices_are_not_mixed_in_silence(cuda_device):
    a, b = gn.tensor([1.0]), gn.tensor([1.0, 2.0], device=cuda_device)
    with pytest.raises(DeviceMismatchError, match=rf"\(1,\) on cpu and .*\(2,\) on {cuda_device}"):
        a + b
    with pytest.raises(DeviceMismatchError):
        b + np.ones(2, np.float32)


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ShapeError, match=r"\(2,\) and \(3,\)"):
        gn.tensor([1.0, 2.0]) + gn.tensor([1.0, 2.0, 3.0])
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 3\)"):
        gn.tensor(np.ones((2, 3))) @ gn.tensor(np.ones((2, 3)))


def test_numpy_arrays_on_the_left_give_tensors():
    w = gn.tensor(np.ones((3, 2)), requires_grad=True)
    assert isinstance(np.ones((4, 3)) @ w, gn.Tensor)
    assert isinstance(np.ones((3, 2)) * w, gn.Tensor)


def test_tensor_defaults():
    assert gn.tensor([1.0]).dtype == np.float32
    assert gn.tensor(np.ones(1)).dtype == np.float64
    assert gn.tensor([1, 2]).dtype == np.int64
    with pytest.raises(DTypeError, match="int64"):
        gn.tensor([1, 2], requires_grad=True)
    with pytest.raises(DTypeError, match="complex"):
        gn.tensor(np.ones(1, complex))


def test_tensor_copies_its_data():
    data = np.ones(3)
    t = gn.tensor(data)
    data[:] = 5
    assert t.numpy().tolist() == [1, 1, 1]


def test_vjp_by_hand_needs_no_tape():
    x = np.array([0.5, -1.0])
    y, backward = gn.ops.sigmoid.vjp(gn.backend("cpu"), x)
    (gx,) = backward(np.ones(2), needs=(True,))
    np.testing.assert_allclose(gx, y * (1 - y), rtol=1e-15)


def test_a_tensor_in_numpys_hands(device):
    t = gn.tensor([1.0, 2.0], device=device)
    if t.backend.synchronous:
        np.testing.assert_array_equal(np.asarray(t), [1, 2])
    else:
        with pytest.raises(DeviceMismatchError, match=r"\.numpy\(\)"):
            np.asarray(t)


def test_a_tensor_of_one_element_is_a_number():
    t = gn.tensor([0.25])
    assert float(t) == 0.25
    assert f"{t:.3f}" == "0.250"
    assert f"{t}".startswith("tensor(")
    assert bool(t)
    assert not gn.tensor(0.0)
    with pytest.raises(ShapeError, match="one element"):
        bool(gn.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_a_copy_of_a_tensor_is_a_new_leaf(copied):
    t = gn.tensor([1.0, 2.0], requires_grad=True)
    (t * t).sum().backward()
    again = copied(t)
    assert again.requires_grad
    assert again.grad is None
    again.data[0] = 9
    assert t.numpy().tolist() == [1, 2]
    assert not copied(t * 2.0).requires_grad


def test_bare_arrays_of_the_device_are_constants(device):
    w = gn.tensor(np.ones((3, 2)), requires_grad=True, device=device)
    x = w.backend.upload(np.full((4, 3), 2.0))
    (x @ w).sum().backward()
    np.testing.assert_array_equal(w.backend.download(w.grad), np.full((3, 2), 8.0))
    with pytest.raises(DTypeError, match="float32 and float64"):
        gn.ops.linear(w.backend.upload(np.ones((4, 3), np.float32)), w)


def test_four_consumers_of_a_number(device):
    """A 0-d sum of NumPy's is a scalar, which cannot be added to in place."""
    x = gn.tensor([1.0, 2.0], requires_grad=True, dtype="float64", device=device)
    s = x.sum()
    (s * 1.0 + s * 2.0 + s * 3.0 + s * 4.0).backward()
    assert x.backend.download(x.grad).tolist() == [10.0, 10.0]


def test_negative_axes(device):
    x = gn.tensor(np.arange(9.0).reshape(3, 3), requires_grad=True, device=device)
    gy = np.arange(9.0).reshape(3, 3) ** 2
    x.transpose(-1, 0).backward(x.backend.upload(gy))
    np.testing.assert_array_equal(x.backend.download(x.grad), gy.T)
    with pytest.raises(ShapeError, match="each of 2 axes once"):
        x.transpose(0, 0)


def test_scalars_of_numpy_promote_nothing():
    t = gn.tensor([1.0, 2.0], requires_grad=True)
    y = t * np.float64(2) + np.sqrt(2.0)
    assert y.dtype == np.float32
    with pytest.raises(DTypeError, match="int64 and float32"):
        gn.tensor([1, 2]) * t


def test_a_gradient_of_another_dtype_or_device_is_refused():
    t = gn.tensor([1.0, 2.0], requires_grad=True) * 1.0
    with pytest.raises(DTypeError, match="float64; expected float32"):
        t.backward(np.ones(2))
    with pytest.raises(DTypeError):
        t.backward([1.0, 1.0])


def test_power_zero_at_zero():
    t = gn.tensor([0.0, 2.0], requires_grad=True)
    (t**0).sum().backward()
    assert t.grad.tolist() == [0, 0]


def test_sums_do_not_overflow_their_dtype(device):
    assert gn.tensor(np.full(200, 10, np.uint8), device=device).sum().item() == 2000
    half = gn.tensor(np.full((4096, 2), 1.0, np.float16), device=device)
    assert half.sum().item() == 8192
    target = half.backend.upload(np.full((4096, 2), 11.0, np.float16))
    assert gn.ops.squared_error(half, target).item() == 100
