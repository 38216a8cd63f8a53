"""Every row kernel: its CUDA body gives what its NumPy body gives, for every shape and dtype."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
import gpunn.train  # declares its kernels, and so do all the modules below it
from gpunn.backends import RowKernel
from gpunn.backends.kernel import KERNELS, WARP_COLUMNS
from gpunn.errors import DTypeError
from gpunn.ops.class_losses import correct
from gpunn.ops.reductions import column_sums
from tests.rowcases import ARGUMENTS, Draw
from tests.standin.host_kernel import all_orders

NAMES = sorted(
    name for name, k in KERNELS.items() if isinstance(k, RowKernel) and name != "gather_rows"
)  # which moves bytes: tests/backends/test_buffers.py
RTOL = {"float64": 1e-11, "float32": 3e-5, "float16": 2e-2, "bfloat16": 1e-1}
ROW_SHAPES = [(1, 1), (3, 10), (9, 32), (17, 33), (2, 1000), (2, 1025), (1, 1500)]
COLUMN_SHAPES = [(2, 1), (3, 10), (40, 32), (130, 33), (7, 136), (300, 8), (600, 40)]


def shapes(kernel):
    """The shapes that a kernel is tested with."""
    if kernel.name == "layer_norm_grad_in_one":
        return [shape for shape in ROW_SHAPES if shape[1] <= WARP_COLUMNS]
    return COLUMN_SHAPES if kernel.by_columns else ROW_SHAPES


def run(b, kernel, dtype, shape, arguments):
    given = [b.upload(a) if isinstance(a, np.ndarray) else a for a in arguments]
    b.launch_matrix(kernel, shape, dtype, *given)
    return [b.download(a) for a in given if hasattr(a, "dtype")]


CASES = [
    pytest.param(name, dtype, shape, id=f"{name}-{dtype}-{shape[0]}x{shape[1]}")
    for name in NAMES
    for dtype in KERNELS[name].dtypes
    for shape in shapes(KERNELS[name])
]


def test_every_row_kernel_has_arguments():
    assert set(ARGUMENTS) == set(NAMES)


@pytest.mark.parametrize(("name", "dtype", "shape"), CASES)
def test_bodies_agree(name, dtype, shape, cuda_device):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="NumPy's bfloat16 is in ml_dtypes")
    kernel, arguments = KERNELS[name], ARGUMENTS[name](Draw(dtype, *shape))
    numpy = run(gn.backend("cpu"), kernel, dtype, shape, arguments)
    with all_orders():
        cuda = run(gn.backend(cuda_device), kernel, dtype, shape, arguments)
    for ours, theirs in zip(numpy, cuda, strict=True):
        assert ours.dtype == theirs.dtype
        wide = ours.astype(np.float64), theirs.astype(np.float64)
        assert not np.isnan(wide[0]).any()
        np.testing.assert_allclose(wide[1], wide[0], rtol=RTOL[dtype], atol=RTOL[dtype])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_column_sums_may_be_kept_wider(dtype, device):
    b = gn.backend(device)
    x = (np.arange(3000) % 7).astype(dtype).reshape(1500, 2)
    out = b.empty((2,), np.float32)
    assert column_sums(b, b.upload(x), out) is out
    np.testing.assert_array_equal(b.download(out), x.astype(np.float64).sum(axis=0))
    with pytest.raises(DTypeError, match="float64"):
        column_sums(b, b.upload(x), b.empty((2,), np.float64))


def test_columns_that_no_vector_load_may_touch(device):
    b = gn.backend(device)
    x = np.arange(1 + 40 * 36, dtype=np.float32)
    view = b.upload(x)[1:].reshape(40, 36)  # 4 bytes past a multiple of 16
    np.testing.assert_array_equal(
        b.download(column_sums(b, view)), x[1:].reshape(40, 36).sum(axis=0)
    )


def test_a_tall_and_narrow_matrix_has_a_block_for_every_multiprocessor(cuda_device, monkeypatch):
    b, blocks = gn.backend(cuda_device), []
    launch = b.launch_rows

    def noted(kernel, count, *args, **options):
        blocks.append(count)
        launch(kernel, count, *args, **options)

    monkeypatch.setattr(b, "launch_rows", noted)
    rows = 132 * 512  # an H100 and an H200 have 132 multiprocessors
    found = column_sums(b, b.full((rows, 1), 1, np.float32))
    assert blocks == [132, 1]  # the second launch adds up the sums of the first
    assert b.download(found) == rows


def test_sums_of_no_rows_and_of_a_view_with_gaps(device):
    b = gn.backend(device)
    np.testing.assert_array_equal(b.download(column_sums(b, b.zeros((0, 5), np.float32))), 0)
    x = np.arange(60, dtype=np.float32).reshape(6, 10)
    found = column_sums(b, b.upload(x).T[::2])
    np.testing.assert_array_equal(b.download(found), x.T[::2].sum(axis=0))


def test_an_array_with_gaps_is_refused_by_a_row_kernel(cuda_device):
    b = gn.backend(cuda_device)
    x = b.zeros((4, 6), np.float32)
    with pytest.raises(ValueError, match="not contiguous"):
        b.launch_matrix(KERNELS["softmax"], (6, 4), x.dtype, x.T, b.empty((6, 4), x.dtype))


def test_threads_of_a_block_may_be_chosen(cuda_device):
    b, x = gn.backend(cuda_device), np.ones((5, 3), np.float32)
    y = b.empty(x.shape, x.dtype)
    b.launch_rows(KERNELS["softmax"], 5, x.dtype, b.upload(x), y, 3, 5, threads=32)
    np.testing.assert_allclose(b.download(y), 1 / 3, rtol=1e-6)


def test_nan_is_the_first_largest_score_as_in_numpy(device):
    b, nan = gn.backend(device), np.nan
    scores = np.array([[0, nan, 1], [nan, 0, nan], [2, nan, 3], [-np.inf] * 3, [1, 1, 0]])
    labels = np.array([1, 2, 2, 0, 0])
    hits = b.full((), 10, np.int64)
    found = correct(b, b.upload(scores), b.upload(labels), "argmax", hits)
    assert found is hits
    assert b.download(hits) == 10 + (scores.argmax(axis=1) == labels).sum() == 13


def test_hits_are_added_up_in_their_own_dtype(device):
    b = gn.backend(device)
    scores, labels = b.upload(np.array([[1.0], [-1.0], [2.0]])), b.upload(np.array([1, 1, 1]))
    hits = b.full((), 10, np.float64)
    assert correct(b, scores, labels, "sign", hits) is hits
    assert b.download(hits) == 12
    with pytest.raises(DTypeError, match="expected int64"):
        correct(b, scores, labels, "argmax", hits)


def test_a_softmax_with_nan_in_it_is_nan(device):
    x = np.zeros((2, 40), np.float32)
    x[0, 35] = np.nan
    y = gn.ops.softmax(gn.tensor(x, device=device)).numpy()
    np.testing.assert_array_equal(np.isnan(y), [[True] * 40, [False] * 40])


@pytest.mark.parametrize("columns", [12, 150])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradients_of_a_layer_norm_of_many_rows(columns, dtype, device, rng):
    shapes = (4099, columns), (columns,), (columns,)
    given = [rng.standard_normal(shape) for shape in shapes]
    gy, found = rng.standard_normal(shapes[0]), []
    for place, kind in ((device, dtype), ("cpu", "float64")):
        leaves = [gn.tensor(a.astype(kind), requires_grad=True, device=place) for a in given]
        b = leaves[0].backend
        gn.ops.layer_norm(*leaves).backward(b.upload(gy.astype(kind)))
        found.append([b.download(leaf.grad) for leaf in leaves])
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=2e-5 * abs(wanted).max())
