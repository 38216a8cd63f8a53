"""Every operation: value against the literature, gradient, edges, device against device."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import ops
from gpunn.autograd import OPS
from gpunn.errors import ArgumentError, GradcheckError, GraphFreedError, UnknownNameError
from gpunn.ops.linear import Dropped
from tests import reference
from tests.opcases import CASES, reference_of

pytestmark = pytest.mark.fast

ALL = sorted(CASES)
SMOOTH = [name for name in ALL if CASES[name].differentiable]


def run(name, device, dtype="float64"):
    case = CASES[name]
    tensors = [gn.tensor(a.astype(dtype), device=device) for a in case.inputs()]
    return case.call(*tensors)


def test_every_operation_has_a_case():
    of_estimators = {"expit"}  # in the table once gpunn.sklearn is imported; tests/sklearn has it
    cases = {name.partition("/")[0] for name in CASES}
    assert set(OPS) - of_estimators == cases - of_estimators


@pytest.mark.parametrize("name", ALL)
def test_value_agrees_with_the_reference(name, device):
    case = CASES[name]
    if case.expected is None:
        pytest.skip(f"{name}: its value is fixed by tests of its own")
    expected = np.asarray(case.expected(*case.inputs()))
    np.testing.assert_allclose(run(name, device).numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient(name, device):
    case = CASES[name]
    inputs = [gn.tensor(a, device=device) for a in case.inputs()]
    gn.gradcheck(case.call, *inputs, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_float32_agrees_with_float64(name, device):
    wide, narrow = run(name, device).numpy(), run(name, device, "float32").numpy()
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_inputs_are_left_alone(name, device):
    case = CASES[name]
    tensors = [gn.tensor(a, requires_grad=True, device=device) for a in case.inputs()]
    y = case.call(*tensors)
    if case.differentiable:
        y.backward(y.backend.full(y.shape, 0.5, y.dtype))
    for tensor, before in zip(tensors, case.inputs(), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), before)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_agree_between_cuda_bodies_and_numpy_bodies(name, cuda_device):
    grads = []
    for device in ("cpu", cuda_device):
        tensors = [gn.tensor(a, requires_grad=True, device=device) for a in CASES[name].inputs()]
        y = CASES[name].call(*tensors)
        weights = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(y.backend.upload(weights))
        grads.append([t.backend.download(t.grad) for t in tensors])
    for ours, theirs in zip(*grads, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SMOOTH)
def test_second_backward_names_the_operation(name):
    tensors = [gn.tensor(a, requires_grad=True) for a in CASES[name].inputs()]
    y = CASES[name].call(*tensors)
    gy = np.ones(y.shape)
    y.backward(gy, retain_graph=True)
    y.backward(gy)
    with pytest.raises(GraphFreedError, match="retain_graph"):
        y.backward(gy)


ELEMENTWISE = [n for n, a in gn.ops.ACTIVATIONS.items() if isinstance(a, gn.ops.Activation)]


@pytest.mark.parametrize("name", sorted(gn.ops.ACTIVATIONS))
@pytest.mark.parametrize("shape", [(0, 3), (1,), (1, 1), (2, 3, 4)])
def test_activation_of_any_shape(name, shape, device):
    x = np.linspace(-2, 2, int(np.prod(shape))).reshape(shape)
    if not isinstance(gn.ops.ACTIVATIONS[name], gn.ops.Activation):
        of_row = getattr(reference, name)
        expected = np.array([of_row(row) for row in x.reshape(-1, shape[-1])])
    else:
        expected = np.array([reference_of("ACTIVATIONS", name)(v) for v in x.reshape(-1)])
    y = OPS[name](gn.tensor(x, device=device)).numpy()
    np.testing.assert_allclose(y, expected.reshape(shape), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", sorted(gn.ops.ACTIVATIONS))
def test_activation_of_a_view_that_is_not_contiguous(name, device):
    wide = gn.tensor(np.linspace(-2, 2, 24).reshape(4, 6), device=device)
    view = wide.T[::2]
    packed = gn.tensor(view.numpy(), device=device)
    np.testing.assert_array_equal(OPS[name](view).numpy(), OPS[name](packed).numpy())


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
@pytest.mark.parametrize("rate", [None, 0.5, 0.25, 0.3])
def test_fused_linear_equals_the_parts(name, rate, device):
    rng = np.random.default_rng(0)
    draw = gn.backends.RandomStream(7).draw()
    arrays = [rng.standard_normal(s) for s in ((5, 4), (4, 9), (9,))]
    fused = [gn.tensor(a, requires_grad=True, device=device) for a in arrays]
    parts = [gn.tensor(a, requires_grad=True, device=device) for a in arrays]
    dropped = None if rate is None else Dropped(rate, draw)
    y = gn.ops.linear(*fused, activation=OPS[name], dropout=dropped)
    z = OPS[name](parts[0] @ parts[1] + parts[2])
    if rate is not None:
        z = gn.ops.dropout(z, rate=rate, draw=draw)
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-13, atol=1e-15)
    if not OPS[name].differentiable:
        return
    y.sum().backward()
    z.sum().backward()
    for a, b in zip(fused, parts, strict=True):
        np.testing.assert_allclose(
            a.backend.download(a.grad), b.backend.download(b.grad), rtol=1e-12, atol=1e-14
        )


def test_a_planted_wrong_gradient_is_caught():
    def wrong(b, x):
        return b.xp.tanh(x), lambda gy, needs: (gy * (1 - b.xp.tanh(x)),)  # y for y**2

    op = gn.autograd.Op(wrong, "planted_wrong_tanh")
    try:
        with pytest.raises(GradcheckError, match="numerical"):
            gn.gradcheck(op, np.array([0.3, -0.8]))
    finally:
        del OPS["planted_wrong_tanh"]


@pytest.mark.parametrize(("slope", "x"), [(0.01, -3.0), (0.5, 2.0)])
def test_an_activation_with_another_number(slope, x, device):
    t = gn.tensor([x], requires_grad=True, dtype="float64", device=device)
    y = gn.ops.leaky_relu(t, slope=slope)
    y.backward()
    assert y.numpy().tolist() == [x if x > 0 else slope * x]
    assert t.backend.download(t.grad).tolist() == [1.0 if x > 0 else slope]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_elu_of_another_alpha(alpha, device):
    x = np.array([-2.0, -1e-12, 0.5])
    t = gn.tensor(x, requires_grad=True, device=device)
    y = gn.ops.elu(t, alpha=alpha)
    np.testing.assert_allclose(y.numpy(), np.where(x > 0, x, alpha * np.expm1(x)), rtol=1e-14)
    y.backward(t.backend.upload(np.ones(3)))
    expected = np.where(x > 0, 1, alpha * np.exp(x))
    np.testing.assert_allclose(t.backend.download(t.grad), expected, rtol=1e-14)


def test_a_number_outside_its_range_is_refused():
    x = gn.tensor([1.0])
    with pytest.raises(ArgumentError, match=r"0\.0 < slope < 1\.0"):
        gn.ops.leaky_relu(x, slope=2.0)
    with pytest.raises(UnknownNameError, match="slope"):
        gn.ops.leaky_relu(x, alpha=0.5)


@pytest.mark.parametrize(
    ("loss", "options", "expected"),
    [
        (ops.huber, {"delta": 0.5}, [0.5 * (2 - 0.25), 0.125 * 0.25, 0.125]),
        (ops.quantile_error, {"quantile": 0.9}, [0.9 * 2, 0.1 * 0.25, 0.1 * 0.5]),
        (ops.poisson_error, {}, [np.exp(-1), np.exp(0.25), np.exp(0.5)]),
    ],
)
def test_losses_with_options(loss, options, expected, device):
    p = gn.tensor(np.array([-1.0, 0.25, 0.5]), requires_grad=True, device=device)
    t = p.backend.upload(np.array([1.0, 0.0, 0.0]))
    found = loss(p, t, reduction="none", **options)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)
    gn.gradcheck(lambda q: loss(q, t, **options), p)
    with pytest.raises(UnknownNameError, match="option of"):
        loss(p, t, margin=1.0)
