"""Operations compute through their backend alone, so that work can be recorded while it is done."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.autograd import OPS
from tests.opcases import CASES
from tests.spy import Computed, Spy, spied, through_the_backend

ALL = sorted(CASES)


def gradients(name, inputs):
    """The result of an operation and the gradients of its inputs."""
    case = CASES[name]
    tensors = [gn.tensor(a, requires_grad=True) for a in inputs]
    y = case.call(*tensors)
    if not case.differentiable:
        return [y.data]
    y.backward(y.backend.full(y.shape, 0.5, y.dtype))
    return [y.data, *(t.grad.data for t in tensors if t.grad is not None)]


@pytest.mark.parametrize("name", ALL)
def test_an_operation_and_its_backward(name, monkeypatch):
    expected = [np.array(a) for a in gradients(name, CASES[name].inputs())]
    for operation in OPS.values():
        monkeypatch.setattr(operation, "vjp", through_the_backend(operation.vjp))
    found = gradients(name, CASES[name].inputs())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ALL)
def test_a_recording_of_it_does_the_same_with_other_numbers(name):
    """From the very arrays that it read: the numbers in them are the reverse ones."""
    b = gn.backend("cpu")
    inputs = CASES[name].inputs()
    given = [np.array(a) for a in inputs]
    tensors = [gn.tensor(a, requires_grad=True) for a in given]
    for tensor, array in zip(tensors, given, strict=True):
        tensor.data = array
    case, kept = CASES[name], []

    def work():
        y = case.call(*tensors)
        kept[:] = [y.data]
        if case.differentiable:
            y.backward(b.full(y.shape, 0.5, y.dtype))
            kept.extend(t.grad.data for t in tensors if t.grad is not None)

    plan = b.record(work)
    assert not plan.refused
    for array, content in zip(given, inputs, strict=True):
        array[...] = content.reshape(-1)[::-1].reshape(content.shape)
    plan.launch()
    expected = gradients(name, [np.array(a) for a in given])
    for one, other in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_spy_refuses():
    x = spied(np.ones(3))
    assert type(x[:2]) is Spy
    for compute in (
        lambda: x * 2,
        lambda: 2 - x,
        lambda: np.exp(x),
        lambda: np.sum(x),
        lambda: x.sum(),
        lambda: x.astype("float32"),
        lambda: float(x[:1]),
        lambda: x[0],
        lambda: x.copy(),
        lambda: x.__setitem__(0, 1),
    ):
        with pytest.raises(Computed):
            compute()
