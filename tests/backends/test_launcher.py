"""Launches on arguments that are alike share a plan, which was made at the first of them."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cuda.launcher import Launcher
from gpunn.backends.kernel import KERNELS
from gpunn.errors import DeviceMismatchError
from gpunn.ops.activations import leaky_relu, relu
from gpunn.optim.factor import NORM


@pytest.fixture
def b():
    if not gn.diagnose("standin").usable:
        pytest.skip(f"standin:0: {gn.diagnose('standin').reason}")
    return gn.backend("standin")


@pytest.fixture
def launcher(b):
    return Launcher(b.xp)


def arrays(b, *shapes, dtype="float32"):
    rng = np.random.default_rng(0)
    return [b.upload(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


def test_a_launch_on_arrays_alike_arranges_nothing_again(b, launcher, monkeypatch):
    kernel = leaky_relu.bias_kernel
    first = arrays(b, (9,), (4, 9))
    launcher.launch(kernel, (first[0], 0.5), first[1:])
    monkeypatch.setattr(launcher, "_arranged", None)
    for slope in (0.25, np.float64(0.125), np.float32(0.75)):  # a plan holds no numbers
        bias, z = arrays(b, (9,), (4, 9))
        wanted = b.download(z) + b.download(bias)
        launcher.launch(kernel, (bias, slope), (z,))
        wanted = np.where(wanted > 0, wanted, np.float32(slope) * wanted)
        np.testing.assert_array_equal(b.download(z), wanted)
    assert len(launcher._plans) == 1


@pytest.mark.parametrize("start", [1, 2])
def test_a_plan_is_for_one_alignment(start, b, launcher):
    gy, y, gx = arrays(b, (64,), (64,), (64,))
    launcher.launch(relu.grad_kernel, (gy[:32], y[:32]), (gx[:32],))
    off = slice(start, start + 32)
    before = b.download(gx)
    launcher.launch(relu.grad_kernel, (gy[off], y[:32]), (gx[:32],))
    wanted = np.where(b.download(y)[:32] > 0, b.download(gy)[off], 0)
    np.testing.assert_array_equal(b.download(gx)[:32], wanted)
    np.testing.assert_array_equal(b.download(gx)[32:], before[32:])
    assert len(launcher._plans) == 2


@pytest.mark.parametrize(
    "views",
    [
        lambda gy, y: (gy.T, y.T),
        lambda gy, y: (gy[:, ::2], y[:, ::2]),
        lambda gy, y: (gy[:4].reshape(8, 1, 4), y.reshape(8, 2, 4)),
    ],
)
def test_arrays_that_must_be_copied_have_no_plan(views, b, launcher):
    gy, y = views(*arrays(b, (8, 8), (8, 8)))
    alike = arrays(b, y.shape, y.shape, y.shape)  # in order, they have a plan
    launcher.launch(relu.grad_kernel, alike[:2], alike[2:])
    for _ in range(2):
        gx = b.empty(y.shape, y.dtype)
        launcher.launch(relu.grad_kernel, (gy, y), (gx,))
        wanted = np.where(b.download(y) > 0, b.download(gy), 0)
        np.testing.assert_array_equal(b.download(gx), wanted)
    assert len(launcher._plans) == 1


def test_a_copy_of_an_output_is_written_back_at_every_launch(b, launcher):
    gy, y, gx = arrays(b, (4, 6), (4, 6), (6, 4))
    for _ in range(2):
        gx.fill(7)
        launcher.launch(relu.grad_kernel, (gy, y), (gx.T,))
        np.testing.assert_array_equal(
            b.download(gx.T), np.where(b.download(y) > 0, b.download(gy), 0)
        )


def test_a_host_array_is_refused_with_a_plan_for_its_shape(b, launcher):
    gy, y, gx = arrays(b, (8,), (8,), (8,))
    launcher.launch(relu.grad_kernel, (gy, y), (gx,))
    with pytest.raises(DeviceMismatchError, match="host array"):
        launcher.launch(relu.grad_kernel, (gy, b.download(y)), (gx,))


def test_a_sum_is_begun_anew_at_every_launch(b, launcher):
    (x,), total = arrays(b, (33, 5)), b.zeros((), np.float32)
    for _ in range(3):
        launcher.launch(NORM, (x,), (total,))
        found = float(b.download(total))
    assert found == pytest.approx(np.linalg.norm(b.download(x)), rel=1e-5)


def test_an_array_of_one_number_and_a_number_have_plans_of_their_own(b, launcher):
    kernel = KERNELS["sgd"]
    inputs = {p.name: p for p in kernel.inputs}
    g, p = arrays(b, (8,), (8,))
    given = [g if name == "g" else 0.5 for name in inputs]
    outs = [p if q.role == "each" else b.zeros((), np.int64) for q in kernel.outputs]
    before = b.download(p)
    launcher.launch(kernel, given, outs)
    first, plans = b.download(p), len(launcher._plans)
    b.write(p, before)
    arrays_of_one = [b.upload(np.array(0.5, np.float32)) if type(v) is float else v for v in given]
    launcher.launch(kernel, arrays_of_one, outs)
    np.testing.assert_array_equal(b.download(p), first)
    assert len(launcher._plans) == plans + 1
