"""Every kernel of the library: its CUDA body gives what its NumPy body gives."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
import gpunn.sklearn  # declares its kernels, and so do all the modules below it
from gpunn.backends import Elementwise
from gpunn.backends.cuda.launcher import Launcher
from gpunn.backends.kernel import KERNELS
from gpunn.errors import ArgumentError
from gpunn.ops import ACTIVATIONS, LOSSES
from gpunn.ops.dropout import Rate
from gpunn.ops.reductions import ACCUMULATE

RATE = Rate.of(0.3)
NUMBERS = {
    **{name: o.default for f in (*ACTIVATIONS.values(), *LOSSES.values())
       for name, o in getattr(f, "limits", {}).items()},
    "slope": 0.1, "alpha": 1.3, "momentum": 0.9, "ahead": 1.0, "eps": 1e-3, "decay": 0.9,
    "count": 4.0, "interval": np.int64(5), "fresh": 0.7, "centered": 1.0, "fall": -2e-4,
    "beta1": 0.9, "beta2": 0.99, "log_beta1": np.log(0.9), "log_beta2": np.log(0.99),
    "shrink": 0.1, "limit": 1.5, "l1": 0.1, "l2": 0.2, "weight": 0.25, "fill": -1.0,
    "width": RATE.width, "threshold": RATE.threshold, "scale": RATE.scale,
    "delta": 0.4, "quantile": 0.3, "low": -0.5, "high": 0.8,
    "seed": 7, "stream": 8, "call": 9, "step": np.int64(3),
}  # fmt: skip
RTOL = {"float64": 1e-12, "float32": 3e-6, "float16": 8e-3}
SHAPE = (5, 6)
KINDS = sorted(n for n, k in KERNELS.items() if isinstance(k, Elementwise) and "test_" not in n)


def arguments(kernel, dtype):
    """Inputs and the outputs' first content, as host arrays and numbers, by parameter name."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**63, 64).astype(np.uint64)
    special = {
        "t": rng.integers(0, 2, SHAPE).astype(dtype),
        "p": rng.uniform(0.1, 0.9, SHAPE).astype(dtype),
        "s": rng.uniform(0.1, 0.9, SHAPE).astype(dtype),
        "v": rng.uniform(0.1, 0.9, SHAPE).astype(dtype),
        "norm": np.array(2.5, dtype),
        "lr": np.array(0.1, dtype),
        "factor": np.array(0.5, dtype),
        "times": np.array(2, dtype),
        "good": np.array(4, np.int64),
        "taken": np.array(3, np.int64),
        "loss": np.array(0.3, dtype),
        "total": np.array(0.2, np.float64),
        "bias": rng.standard_normal(SHAPE[1:]).astype(dtype),
        "words": words,
        "row": rng.uniform(0.5, 2, SHAPE[1:]).astype(dtype),
    }
    if kernel.name.startswith("binary_cross_entropy"):
        special |= {"weight": special["row"], "pos_weight": special["row"][::-1].copy()}
    if kernel.name == "accumulate":
        return [special["loss"], 0.25], [special["total"]]
    if kernel.name == "advance":
        return [np.array([2, 3])], [np.array([5, 6])]
    if kernel.name == "code_rows":
        return [np.array([0, 3, 4, -1, 1.5, np.nan, 2], dtype), 4.0], [np.full(7, 9)]
    if kernel.name == "count":
        return [np.array([2, 3])], [np.array([5, 6])]
    if kernel.name == "window":
        return [np.arange(9).astype(dtype), np.array(4)], [np.zeros(3, dtype)]
    if kernel.name == "clip_factor":
        return [special["norm"], 1.5, np.array(1)], [np.zeros((), dtype)]
    if kernel.name in ("guard", "judged"):
        counts = [np.array(n, np.int64) for n in (0, 2, 7)]
        state = [np.array(1), np.zeros((), dtype), np.array(1.0), *counts, special["total"]]
        if kernel.name == "guard":
            return [np.array(np.inf, dtype), 0, 4.0], state
        g = rng.standard_normal(SHAPE).astype(dtype)
        return [g, special["loss"], 1, 4.0], [np.array(0.0, dtype), *state]
    if kernel.name == "complete_mean":
        w, g = rng.standard_normal((2, 30)).astype(dtype)
        w[12:16] = 0  # between two parameters
        numbers = [np.array([[0, 12], [16, 30]]), special["times"], 1.3, 7.0]
        return [w, *numbers], [g, np.array(0.7, dtype)]
    if kernel.name == "divided":
        return [7.0], [rng.standard_normal(30).astype(dtype)]
    if kernel.name == "rescale":
        zero, scale = np.zeros((), dtype), np.array(8, dtype)
        return [special["norm"], 0.1, 5, np.array(1)], [zero, scale, special["good"]]
    if kernel.name == "moving_average":
        p, mean = rng.standard_normal((2, *SHAPE)).astype(dtype)
        return [p, special["factor"], 0.9, np.array(4)], [mean]
    if kernel.name == "equal_average":
        p, mean = rng.standard_normal((2, *SHAPE)).astype(dtype)
        return [p, special["factor"], np.int64(2), np.int64(3), np.array(8)], [mean]
    if kernel.name == "lamb_lengths":
        p, u = rng.standard_normal((2, *SHAPE)).astype(dtype)
        return [p, 0.1, 0.5], [u, np.array(0.3, dtype), np.array(0.4, dtype)]
    if kernel.name == "lamb_step":
        u, p = rng.standard_normal((2, *SHAPE)).astype(dtype)
        norms = [np.array(n, dtype) for n in (2.0, 3.0)]
        return [u, *norms, special["factor"], special["lr"], 0.5], [p]
    labels, ignored = np.array([0, 3, -100, 5, -1, 6]), -100.0
    if kernel.name == "label_masses":
        out = [np.ones(6, dtype), np.ones(6, np.int64), np.array(0.0, dtype)]
        return [labels, special["row"], np.int64(1), np.int64(6), ignored], out
    if kernel.name == "smoothed":
        out = [np.ones((6, 6), dtype)]
        return [labels[:, None], np.arange(6), special["row"], 0.1, 6.0, ignored], out
    if kernel.name == "focused":
        nll = np.array([0.0, 1e-3, 0.5, 4.0, 90.0, np.nan]).astype(dtype)
        mass = np.array([1, 2, 0.5, 1, 0.25, 0]).astype(dtype)
        return [nll, mass, 1.7], [nll + 1, nll + 2, np.array(0.5, dtype)]
    if kernel.name == "chosen":
        saved, now = rng.standard_normal((2, *SHAPE)).astype(dtype)
        return [saved, np.array(0)], [now]
    if kernel.name == "take_back":
        return [np.array(0), 2], [np.array(7)]
    if kernel.name == "random_words":
        return [7, 2**63 + 5, 9, 2, 3], [np.zeros(11, np.uint64)]

    def value(param):
        if param.name in special:
            return special[param.name]
        if param.name in NUMBERS:
            return NUMBERS[param.name]
        return rng.standard_normal(SHAPE).astype(dtype)

    def filled(param):
        if param.role == "sum":
            return np.array(0.7, dtype)
        content = value(param)
        if param.role == "one":
            return content
        return content if np.shape(content) == SHAPE else rng.standard_normal(SHAPE).astype(dtype)

    return [value(p) for p in kernel.inputs], [filled(p) for p in kernel.outputs]


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("name", KINDS)
def test_bodies_agree(name, dtype, cuda_device):
    kernel = KERNELS[name]
    inputs, outputs = arguments(kernel, dtype)
    results = []
    for b in (gn.backend("cpu"), gn.backend(cuda_device)):
        given = [b.upload(v) if isinstance(v, np.ndarray) else v for v in inputs]
        out = tuple(b.upload(v) for v in outputs)
        b.launch(kernel, *given, out=out)
        results.append([b.download(a) for a in out])
    for numpy, cuda, before in zip(*results, outputs, strict=True):
        assert numpy.dtype == cuda.dtype == before.dtype
        rtol = RTOL[dtype] if numpy.dtype.kind == "f" else 0
        np.testing.assert_allclose(cuda, numpy, rtol=rtol, atol=rtol)
    assert any((a != b).any() for a, b in zip(results[0], outputs, strict=True)), "it does nothing"


def test_a_label_out_of_range_gives_nan_on_the_device(cuda_device):
    z = gn.tensor(np.zeros((3, 4), np.float32), device=cuda_device)
    labels = z.backend.upload(np.array([0, 4, -1]))
    for loss in (gn.ops.softmax_cross_entropy, gn.ops.multiclass_hinge):
        losses = loss(z, labels, reduction="none").numpy()
        np.testing.assert_array_equal(np.isnan(losses), [False, True, True])


def test_a_number_is_written_in_place(cuda_device):
    """A 0-d output is the array itself, not the 1-d view that CuPy would make contiguous."""
    b = gn.backend(cuda_device)
    given = []

    class Spy:
        def __getattr__(self, name):
            return getattr(b.xp, name)

        def RawKernel(self, *args, **options):
            kernel = b.xp.RawKernel(*args, **options)
            return lambda grid, block, arrays: (given.append(arrays), kernel(grid, block, arrays))

    total = b.zeros((), np.float64)
    Launcher(Spy()).launch(ACCUMULATE, (b.one(np.float32), 0.5), (total,))
    assert given[0][2] is total
    assert b.download(total) == 0.5


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "multiclass_hinge"])
@pytest.mark.parametrize("classes", [3, 200])
@pytest.mark.parametrize("off", [-1, -2, 0, 1])
def test_a_recorded_loss_is_nan_where_a_label_is_none(loss, classes, off, rng):
    b = gn.backend("cpu")
    z, t = gn.tensor(rng.standard_normal((4, classes)), requires_grad=True), np.array([0, 2, 1, 0])
    found = []

    def work():
        value, backward = gn.ops.LOSSES[loss].vjp(b, z.data, t)
        found[:] = value, backward(b.one("float64"), (True, False))[0]
        return found

    plan = b.record(work)
    plan.launch()
    assert np.isfinite(found[0])
    t[2] = off if off < 0 else classes + off
    plan.launch()
    assert np.isnan(found[0])
    assert np.isnan(found[1]).any(axis=1)[2]


@pytest.mark.parametrize("signature", ["x, T scale, T scale -> y", "x, T i -> y", "x -> x"])
def test_a_name_that_is_taken_is_refused_when_a_kernel_is_declared(signature):
    with pytest.raises(ArgumentError, match=r"a second parameter named .*choose another name"):
        Elementwise("test_taken", signature, numpy=lambda *arrays: None, cuda="")
