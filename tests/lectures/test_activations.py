"""Activations: the rows A1 to A11 of docs/lectures.md."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest

import gpunn as gn
from gpunn import ops

POINTS = np.concatenate([np.linspace(-40, 40, 81), [-1e4, -700.0, -1e-3, 1e-12, 700.0, 1e4]])


def values(op, x, device):
    return op(gn.tensor(np.asarray(x), device=device)).numpy()


def slopes(op, x, device):
    t = gn.tensor(np.asarray(x), requires_grad=True, device=device)
    op(t).sum().backward()
    return t.backend.download(t.grad)


def exact(function, points):
    with mpmath.workdps(60):
        return np.array([float(function(mpmath.mpf(float(x)))) for x in points])


def test_both_written_forms_of_the_sigmoid(device):
    """A1: 1 / (1 + e^-x) of lecture 001 and e^u / (1 + e^u) of lecture 000."""
    x = np.linspace(-30, 30, 121)
    got = values(ops.sigmoid, x, device)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-x)), rtol=1e-15)
    np.testing.assert_allclose(got, np.exp(x) / (1 + np.exp(x)), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_sigmoid_never_overflows(dtype, device):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = values(ops.sigmoid, np.linspace(-1e4, 1e4, 20_001).astype(dtype), device)
    assert np.isfinite(got).all()
    assert got[0] == 0
    assert got[-1] == 1


def test_the_sigmoid_to_a_few_units_in_the_last_place(device):
    expected = exact(lambda x: 1 / (1 + mpmath.exp(-x)), POINTS)
    got = values(ops.sigmoid, POINTS, device)
    normal = expected > 1e-300
    np.testing.assert_allclose(got[normal], expected[normal], rtol=1e-15)


def test_the_elegant_gradient(device):
    """A2: fused dz = dy s (1 - s) against the written expression, and against a difference."""
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((2, 5, 7))
    b = gn.backend(device)
    for dtype, atol in (("float64", 1e-15), ("float32", 1e-6)):
        s, backward = ops.sigmoid.vjp(b, b.upload(x.astype(dtype)))
        (got,) = backward(b.upload(gy.astype(dtype)), (True,))
        s = b.download(s)
        np.testing.assert_allclose(b.download(got), gy.astype(dtype) * s * (1 - s), atol=atol)
    gn.gradcheck(ops.sigmoid, gn.tensor(x, device=device))


def test_the_elegant_gradient_is_one_launch(launches):
    b = gn.backend("standin")
    y = b.upload(np.full((4, 8), 0.5))
    _, backward = ops.sigmoid.vjp(b, y)
    with launches() as found:
        backward(y, (True,))
    assert found.launches == {"gpunn_sigmoid_grad": 1}


def test_tanh_is_a_scaled_sigmoid(device):
    """A3."""
    x = np.linspace(-20, 20, 2001)
    got = values(ops.tanh, x, device)
    np.testing.assert_allclose(got, 2 * values(ops.sigmoid, 2 * x, device) - 1, atol=3.4e-16)
    with np.errstate(all="raise"):
        e = np.exp(2 * x)
        np.testing.assert_allclose(got, (e - 1) / (e + 1), rtol=1e-13, atol=1e-15)
        e, f = np.exp(x), np.exp(-x)
        np.testing.assert_allclose(got, (e - f) / (e + f), rtol=1e-13, atol=1e-15)
    assert values(ops.tanh, [-1e4, 1e4], device).tolist() == [-1, 1]


def test_relu_is_the_maximum(device):
    """A4: NaN stays NaN and relu(-inf) is 0, where x * (x > 0) would be NaN."""
    x = np.array([-np.inf, -3.0, -0.0, 0.0, 1e-300, 2.5, np.inf, np.nan])
    for op in (ops.relu, ops.relu_right):
        np.testing.assert_array_equal(values(op, x, device), np.maximum(x, 0))


def test_the_derivative_of_relu_at_zero_can_be_chosen(device):
    """A5: 0 as in lecture 000, in scikit-learn and PyTorch; 1 as lecture 002 prints."""
    x = np.array([-1.0, -0.0, 0.0, 1.0])
    assert slopes(ops.relu, x, device).tolist() == [0, 0, 0, 1]
    assert slopes(ops.relu_right, x, device).tolist() == [0, 1, 1, 1]
    layer = gn.nn.Linear(1, 1, "relu_right", init="zeros", device=device)
    layer(layer.backend.upload(np.ones((1, 1), np.float32))).sum().backward()
    assert layer.backend.download(layer.bias.grad).tolist() == [1.0]


def test_the_leaky_slope_is_a_tenth(device):
    """A6."""
    x = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(values(ops.leaky_relu, x, device), [-0.1, 0, 1], rtol=1e-15)
    np.testing.assert_allclose(slopes(ops.leaky_relu, x, device), [0.1, 0.1, 1], rtol=1e-15)


def test_elu_is_smooth_at_zero_and_exact_just_below(device):
    """A7: the value and the derivative are continuous for alpha = 1; expm1, not exp - 1."""
    x = np.array([-1e-12, 0.0, 1e-12])
    got = values(ops.elu, x, device)
    assert got[0] == pytest.approx(float(mpmath.expm1(mpmath.mpf(-1e-12))), rel=1e-15, abs=0)
    naive = np.exp(-1e-12) - 1
    assert naive != pytest.approx(got[0], rel=1e-6, abs=0)
    np.testing.assert_allclose(slopes(ops.elu, x, device), 1, atol=2e-12)


@pytest.mark.parametrize(
    ("dtype", "atol", "rtol"),
    [("float64", 1e-15, 1e-15), ("float32", 8e-7, 6e-7)],  # CUDA's erfcf may be off by 4 ulp
)
def test_gelu_with_the_error_function(dtype, atol, rtol, device):
    """A8."""
    x = np.linspace(-8, 8, 161).astype(dtype)
    expected = exact(lambda v: v * (1 + mpmath.erf(v / mpmath.sqrt(2))) / 2, x)
    got = values(ops.gelu, x, device)
    np.testing.assert_allclose(got, expected, atol=atol, rtol=rtol)


def test_the_sigmoid_approximation_of_gelu(device):
    """A9: off by at most 0.020335, at x = -2.27 (and, the difference being even, at 2.27)."""
    x = np.linspace(-8, 8, 16_001)
    gap = np.abs(values(ops.gelu, x, device) - values(ops.gelu_sigmoid, x, device))
    assert 0.0203 <= gap.max() <= 0.0204
    assert gap.max() == pytest.approx(0.020335, abs=5e-7)
    assert abs(x[gap.argmax()]) == pytest.approx(2.27, abs=0.005)


def test_a_scaled_sigmoid_tends_to_the_step(device):
    """A10 and M15: off a band of width 8 / k the two differ by less than 1e-3."""
    x = np.linspace(-1, 1, 4001)
    step = values(ops.hard_threshold, x, device)
    np.testing.assert_array_equal(step, x > 0)
    for k in (10, 100, 1000):
        off = np.abs(x) > 8 / k
        assert np.abs(values(ops.sigmoid, k * x, device) - step)[off].max() < 1e-3
        near = (np.abs(x) < 1 / k) & (x != 0)
        assert np.abs(values(ops.sigmoid, k * x, device) - step)[near].max() > 0.2


def test_no_gradient_passes_a_step_and_training_through_it_is_refused(device):
    net = gn.nn.Sequential(
        gn.nn.Linear(2, 3, "hard_threshold", device=device), gn.nn.Linear(3, 1, device=device)
    )
    net(net.backend.upload(np.ones((1, 2), np.float32))).sum().backward()
    assert net[0].weight.grad is None
    with pytest.raises(gn.errors.GradientError, match="gradient"):
        gn.optim.SGD(net.parameters()).step()


def test_outputs_identity_sigmoid_and_softmax(device, rng):
    """A11: softmax sums to 1 and is wired across, its Jacobian is diag(p) - p p'."""
    x = rng.standard_normal((3, 4))
    np.testing.assert_array_equal(values(ops.identity, x, device), x)
    p = values(ops.softmax, x, device)
    assert p.shape == x.shape
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-15)
    b = gn.backend(device)
    _, backward = ops.softmax.vjp(b, b.upload(x[:1]))
    rows = [b.download(backward(b.upload(e[None]), (True,))[0])[0] for e in np.eye(4)]
    np.testing.assert_allclose(rows, np.diag(p[0]) - np.outer(p[0], p[0]), atol=1e-16)
    elementwise = np.diag(slopes(ops.sigmoid, x[0], device))
    assert np.count_nonzero(elementwise) == 4
