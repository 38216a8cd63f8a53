"""The stand-in computes what CUDA would, and notices what CUDA would not."""

import numpy as np
import pytest

from tests.standin.host_kernel import (
    ORDERS,
    HostCompileError,
    HostRawKernel,
    all_orders,
    why_unavailable,
)

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-")

ROW_SUM = r"""
extern "C" __global__ void row_sum(const float* x, float* y, float* total, int n) {
  __shared__ float part[32];
  extern __shared__ float row[];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  float s = 0.f;
  for (int j = threadIdx.x; j < n; j += blockDim.x) {
    row[j] = x[(size_t)blockIdx.x * n + j];
  }
  __syncthreads();  // 1: another warp's part of row is read
  for (int j = threadIdx.x; j < n; j += blockDim.x) s += row[j + 32 < n ? j + 32 : j];
  for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(0xffffffffu, s, o);
  if (lane == 0) part[warp] = s;
  __syncthreads();  // 2: part is complete
  s = lane < warps ? part[lane] : 0.f;
  for (int o = 16; o; o >>= 1) s += __shfl_down_sync(0xffffffffu, s, o);
  if (threadIdx.x == 0) { y[blockIdx.x] = s; atomicAdd(total, s); }
}
"""


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_broken_kernel_is_refused_and_its_line_named():
    kernel = HostRawKernel(
        '#line 1 "broken.body"\n__global__ void broken(int n) {\nnosuch; }', "broken"
    )
    with pytest.raises(HostCompileError, match=r"broken\.body:2:.*error.*nosuch"):
        kernel((1,), (1,), (np.int32(1),))


def run_rows(rng, code=ROW_SUM, n=100, args=None, orders=ORDERS, threads=128):
    x = rng.standard_normal((4, n)).astype(np.float32)
    y, total = np.zeros(4, np.float32), np.zeros(1, np.float32)
    kernel = HostRawKernel(code, "row_sum")
    given = args or (x, y, total, np.int32(n))
    kernel((4,), (threads,), given, shared_mem=4 * n, orders=orders, rtol=1e-5)
    return x, y, total


@pytest.mark.parametrize("threads", [32, 128, 256])
def test_rows(rng, threads):
    x, y, total = run_rows(rng, threads=threads)
    wanted = x[:, 32:].sum(1) + x[:, -32:].sum(1)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(total, [wanted.sum()], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("barrier", [1, 2])
def test_a_missing_barrier_is_noticed(rng, barrier):
    parts = ROW_SUM.split("__syncthreads();")
    parts[barrier - 1 : barrier + 1] = [parts[barrier - 1] + parts[barrier]]
    with pytest.raises(RuntimeError, match="depends on the order"):
        run_rows(rng, "__syncthreads();".join(parts))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("y[blockIdx.x] = s;", "y[blockIdx.x + 1] = s;", "wrote outside array 1"),
        ("if (lane == 0) part", "if (!warp) __syncthreads(); if (lane == 0) part", "__sync"),
        ("s = lane <", "if (lane < 16) s = __shfl_xor_sync(~0u, s, 1);\n s = lane <", "different"),
        ("__shfl_xor_sync(0xff", "__shfl_xor_sync(0x0f", "leaves it out|take part"),
    ],
)
def test_mistakes_are_noticed(rng, old, new, message):
    assert old in ROW_SUM
    with pytest.raises(RuntimeError, match=message):
        run_rows(rng, ROW_SUM.replace(old, new))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_read_outside_of_an_array_is_nan(dtype):
    letter = {2: "__half", 4: "float", 8: "double"}[np.dtype(dtype).itemsize]
    code = f'extern "C" __global__ void shift(const {letter}* x, {letter}* y) {{ *y = x[1]; }}'
    x, y = np.zeros((2, 1), dtype)
    HostRawKernel(code, "shift")((1,), (1,), (x, y))
    assert np.isnan(y[0])


def test_a_read_outside_that_is_written_outside_is_noticed():
    code = 'extern "C" __global__ void copy(const float* x, float* y) { y[1] = x[1] + x[0]; }'
    x, y = np.zeros((2, 1), np.float32)
    with pytest.raises(RuntimeError, match="wrote outside array 1"):
        HostRawKernel(code, "copy")((1,), (1,), (x, y))


def test_an_integer_read_outside_depends_on_the_order():
    code = 'extern "C" __global__ void shift(const int* x, int* y) { *y = x[1]; }'
    x, y = np.ones((2, 1), np.int32)
    with pytest.raises(RuntimeError, match="depends on the order"):
        HostRawKernel(code, "shift")((1,), (1,), (x, y), orders=ORDERS)


def test_what_nvrtc_does_not_define_is_not_defined():
    code = 'extern "C" __global__ void put(float* x) { *x = -INFINITY; }'
    with pytest.raises(HostCompileError, match="INFINITY"):
        HostRawKernel(code, "put")((1,), (1,), (np.zeros(1, np.float32),))


def test_arguments_that_do_not_fit_are_refused(rng):
    x, y = np.zeros((4, 5), np.float32), np.zeros(4, np.float32)
    for args in ((x, y, y, 5), (x.astype(float), y, y, np.int32(5)), (x, y, np.int32(5))):
        with pytest.raises(RuntimeError, match=r"argument|arguments"):
            run_rows(rng, n=5, args=args)


def test_one_order_is_the_default_and_all_can_be_asked_for(rng):
    parts = ROW_SUM.split("__syncthreads();", 1)
    racy = "".join(parts)
    run_rows(rng, racy, orders=None)
    with all_orders(rtol=1e-5), pytest.raises(RuntimeError, match="a race"):
        run_rows(rng, racy, orders=None)


def test_one_array_may_be_input_and_output():
    code = 'extern "C" __global__ void twice(const float* x, float* y) { *y = 2 * *x; }'
    x = np.full(1, 3, np.float32)
    HostRawKernel(code, "twice")((1,), (1,), (x, x))
    assert x[0] == 6


def test_half_arithmetic_rounds_each_time():
    code = """#include <cuda_fp16.h>
      extern "C" __global__ void add(__half* x) { x[0] = x[0] + x[1] + x[2]; }"""
    x = np.array([2048, 1, 1], np.float16)
    HostRawKernel(code, "add")((1,), (1,), (x,))
    assert x[0] == 2048


BOUND = 'extern "C" __global__ void __launch_bounds__(THREADS, 2) bound(int n) {}\n'
MACRO = "#define BOUNDS __launch_bounds__(64, sizeof(int) == 8 ? 1 : 2)\n"


@pytest.mark.parametrize(
    ("code", "most"),
    [
        (BOUND.replace("THREADS", "64"), 64),
        ("constexpr int WARPS = 2, THREADS = 64;\n" + BOUND, 64),
        (MACRO + 'extern "C" __global__ void BOUNDS bound(int n) {}', 64),
        ('extern "C" __global__ void bound(int n) {}', 1024),
    ],
)
def test_a_launch_that_a_card_refuses_is_refused(code, most):
    kernel = HostRawKernel(code, "bound")
    kernel((2, 3, 4), (most,), (np.int32(1),))
    for grid, block in (((1,), (most + 1,)), ((1,), (0,)), ((0,), (1,)), ((1, 65536), (1,))):
        with pytest.raises(ValueError, match="CUDA_ERROR_INVALID_VALUE"):
            kernel(grid, block, (np.int32(1),))
