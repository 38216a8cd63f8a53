"""The stand-in computes what CUDA would, and notices what CUDA would not."""

import math

import numpy as np
import pytest

from tests.standin.host_kernel import (
    ORDERS,
    HostCompileError,
    HostElementwiseKernel,
    HostRawKernel,
    all_orders,
    why_unavailable,
)

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-")

RELU_GRAD = ("T gy, T y", "T gx", "gx = y > T(0) ? gy : T(0)", "relu_grad")
PHILOX = """
__device__ inline void philox4x64(unsigned long long* c, unsigned long long k0,
                                  unsigned long long k1) {
  for (int round = 0; round < 10; ++round) {
    const unsigned long long a = 0xD2E7470EE14C6C93ull, b = 0xCA5A826395121157ull;
    const unsigned long long high0 = __umul64hi(a, c[0]), low0 = a * c[0];
    const unsigned long long high1 = __umul64hi(b, c[2]), low1 = b * c[2];
    c[0] = high1 ^ c[1] ^ k0; c[1] = low1; c[2] = high0 ^ c[3] ^ k1; c[3] = low0;
    k0 += 0x9E3779B97F4A7C15ull; k1 += 0xBB67AE8584CAA73Bull;
  }
}
"""
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


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_broadcasts(rng, dtype):
    gy = rng.standard_normal((5, 1, 7)).astype(dtype)
    y = rng.standard_normal((3, 7)).astype(dtype)
    found = HostElementwiseKernel(*RELU_GRAD)(gy, y)
    np.testing.assert_array_equal(found, np.where(y > 0, gy, dtype(0)))
    assert found.dtype == dtype


def test_takes_strided_and_transposed_views(rng):
    x = rng.standard_normal((6, 8)).astype(np.float32)
    gy, y, out = x.T[::2], x[:, ::2].T, np.empty((6, 4), np.float32).T
    HostElementwiseKernel(*RELU_GRAD)(gy, y, out)
    np.testing.assert_array_equal(out, np.where(y > 0, gy, 0))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
def test_small_shapes(shape):
    found = HostElementwiseKernel(*RELU_GRAD)(
        np.ones(shape, np.float32), np.ones(shape, np.float32)
    )
    np.testing.assert_array_equal(found, np.ones(shape))


def test_flat_index_counts_over_the_broadcast_shape():
    out = np.empty((2, 3), np.int64)
    HostElementwiseKernel("T x", "int64 y", "y = i + (x - x)", "index")(np.ones(3, np.float32), out)
    np.testing.assert_array_equal(out, np.arange(6).reshape(2, 3))


def test_philox_is_numpys(rng):
    key = rng.integers(0, 2**64, 2, np.uint64)
    body = """unsigned long long c[4] = {(unsigned long long)i + 1, 7, 0, 0};
      philox4x64(c, k0, k1);
      for (int j = 0; j < 4; ++j) out[4 * i + j] = c[j]"""
    kernel = HostElementwiseKernel("uint64 k0, uint64 k1", "raw uint64 out", body, "kat", PHILOX)
    found = np.zeros(40, np.uint64)
    kernel(*map(int, key), found, size=10)
    wanted = np.random.Philox(key=key, counter=np.array([0, 7, 0, 0], np.uint64)).random_raw(40)
    np.testing.assert_array_equal(found, wanted)


def test_updates_in_place_with_mixed_types(rng):
    body = "m = b1 * m + (1.0f - b1) * (float)g; p = T((float)p - lr * m)"
    kernel = HostElementwiseKernel(
        "T g, float32 lr, float32 b1", "T p, float32 m", body, "momentum"
    )
    g, p = rng.standard_normal((2, 100)).astype(np.float16)
    m, before = np.zeros(100, np.float32), p.copy()
    kernel(g, 0.1, np.float64(0.5), p, m)
    np.testing.assert_allclose(m, g / np.float32(2), rtol=1e-6)
    np.testing.assert_allclose(p, before - np.float32(0.1) * m, rtol=2e-3, atol=1e-3)


def test_mathematics_of_each_type():
    body = (
        "y = T(erf(x) + log1p(exp(-abs(x))) + expm1(max(x, T(0))) + tanh(x) + rsqrt(T(1) + x * x))"
    )
    for dtype in (np.float16, np.float32, np.float64):
        x = np.linspace(-3, 3, 50, dtype=dtype)
        found = HostElementwiseKernel("T x", "T y", body, "mathematics")(x)
        erf = np.array([math.erf(v) for v in x.astype(float)])
        z = x.astype(np.float64)
        wanted = erf + np.log1p(np.exp(-abs(z))) + np.expm1(np.maximum(z, 0)) + np.tanh(z)
        wanted += (1 + z * z) ** -0.5
        np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(dtype).eps, atol=1e-6)


def test_a_broken_body_is_refused_and_its_line_named():
    kernel = HostElementwiseKernel("T x", "T y", "T z = x;\ny = z + nosuch", "broken")
    with pytest.raises(HostCompileError, match=r"broken\.operation:2:.*error.*nosuch"):
        kernel(np.ones(3, np.float32))


def test_type_rules_are_cupys():
    x = np.ones(3, np.float32)
    kernel = HostElementwiseKernel(*RELU_GRAD)
    with pytest.raises(TypeError, match="Type is mismatched"):
        kernel(x, x.astype(np.float64))
    with pytest.raises(KeyError, match="S"):
        HostElementwiseKernel("T x, S scale", "T y", "y = x * scale", "scaled")(x, 2.0)
    with pytest.raises(ValueError, match="Loop size"):
        HostElementwiseKernel("float32 x", "float32 y", "y = x")(1.0)
    with pytest.raises(ValueError, match="Out shape"):
        kernel(x, x, np.empty(1, np.float32))


def test_raw_index_outside_is_noticed():
    kernel = HostElementwiseKernel("raw T x", "T y", "y = x[i + 1]", "shifted")
    with pytest.raises(RuntimeError, match="index 3 of raw parameter x, which has 3"):
        kernel(np.ones(3, np.float32), np.empty(3, np.float32))


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
