"""Compiled matrix products, and several compiled calls as one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpunn.backends import Device
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.compiled import Native, compiler, find_compiler, kernels
from gpunn.backends.cpu.compiled.kernels import LARGE_PRODUCT, SERIAL_PRODUCT, SMALL_PRODUCT
from gpunn.backends.cpu.processor import processor_flags
from gpunn.backends.cpu.recording import Noted, Plan
from gpunn.backends.kernel import KERNELS

SHAPES = [
    (1, 1, 1),
    (1, 9, 1),
    (7, 33, 17),
    (13, 16, 64),
    (14, 300, 70),  # two blocks of depth, two panels
    (23, 5, 49),
    (37, 257, 33),
    (241, 3, 65),  # two blocks of rows
    (5, 18, 1030),  # three blocks of columns
    (1, 300, 1030),  # few rows: b as it lies in memory
    (3, 259, 77),
    (11, 270, 513),
]


@pytest.fixture(scope="module", params=["this processor", "AVX2"])
def native(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUNN_COMPILED", "auto")
        patch.setattr(kernels, "SMALL_PRODUCT", SERIAL_PRODUCT)  # large ones are to be tried, too
        if request.param == "AVX2":
            if "avx2" not in processor_flags():
                pytest.skip("this processor has no AVX2")
            flags = ["-march=x86-64-v3" if f == "-march=native" else f for f in compiler.FLAGS]
            patch.setattr(compiler, "FLAGS", tuple(flags))
        found = find_compiler.__wrapped__()
        if not found.command:
            pytest.skip(found.why)
        with pytest.MonkeyPatch.context() as of_blas:
            of_blas.setattr(kernels, "thread_count", lambda: 2)
            made = Native(found)
        yield made


def matrix(rng, shape, transposed):
    array = rng.standard_normal(shape[::-1] if transposed else shape, dtype=np.float32)
    return array.T if transposed else array


def product(native, a, b, out):
    call = native.product(a, b, out)
    assert call is not None
    call.run(*call.args)
    return out


@pytest.mark.parametrize("turned", [*itertools.product((False, True), repeat=2)])
@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
def test_products(rows, depth, columns, turned, native, rng):
    a, b = matrix(rng, (rows, depth), turned[0]), matrix(rng, (depth, columns), turned[1])
    around = np.full(rows * columns + 2, 7, np.float32)
    out = product(native, a, b, around[1:-1].reshape(rows, columns))
    exact = a.astype(float) @ b.astype(float)
    error = np.abs(out - exact) / (np.abs(a).astype(float) @ np.abs(b).astype(float))
    assert error.max() < 2e-7 * depth**0.5 + 1e-7
    assert around[0] == around[-1] == 7  # nothing beside it is written


def test_parts_of_larger_arrays(native, rng):
    a = rng.standard_normal((9, 40), dtype=np.float32)[:, 3:23]
    b = rng.standard_normal((20, 90), dtype=np.float32)[:, 7:77]
    out = product(native, a, b, np.empty((9, 70), np.float32))
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-5)


def test_an_empty_sum_is_zero(native):
    out = np.full((3, 20), np.nan, np.float32)
    product(native, np.empty((3, 0), np.float32), np.empty((0, 20), np.float32), out)
    assert not out.any()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_numbers_reach_their_row_and_column_only(special, native, rng):
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((14, 20), (20, 70)))
    a[5, 3] = b[2, 66] = special
    out = product(native, a, b, np.empty((14, 70), np.float32))
    broken = np.zeros(out.shape, bool)
    broken[5], broken[:, 66] = True, True
    np.testing.assert_array_equal(np.isfinite(out), ~broken)


@pytest.mark.parametrize("columns", [70, 523, 715])
def test_a_row_has_the_same_bits_in_every_batch(columns, native, rng):
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((38, 300), (300, columns)))
    whole = product(native, a, b, np.empty((38, columns), np.float32))
    for rows in range(1, 38):
        part = product(native, a[:rows], b, np.empty((rows, columns), np.float32))
        assert part.tobytes() == whole[:rows].tobytes()


def test_what_is_left_to_blas(native, monkeypatch):
    def ask(a, b, kind=np.float32, one=native):
        return one.product(a, b, np.empty((a.shape[0], b.shape[1]), kind))

    a, b = np.ones((6, 5), np.float32), np.ones((5, 4), np.float32)
    assert ask(a, b) is not None
    assert ask(a.astype(float), b.astype(float), float) is None
    assert ask(a, np.ones((5, 8), np.float32)[:, ::2]) is None
    assert native.product(a, b, np.empty((4, 6), np.float32).T) is None

    limits = SMALL_PRODUCT, SERIAL_PRODUCT, LARGE_PRODUCT
    sizes = [limit // 20 + more for limit in limits for more in (0, 1)]
    tall = [np.broadcast_to(a[:1, :1], (rows, 5)) for rows in sizes]
    monkeypatch.setattr(kernels, "SMALL_PRODUCT", SMALL_PRODUCT)
    for flags, threads, taken in ((set(), 1, 1), ({"avx512f"}, 2, 3), ({"avx512f"}, 1, 5)):
        monkeypatch.setattr(kernels, "processor_flags", lambda flags=flags: flags)
        monkeypatch.setattr(kernels, "thread_count", lambda threads=threads: threads)
        one = Native(native._compiler)
        assert [ask(x, b, one=one) is not None for x in tall] == [k < taken for k in range(6)]


def test_the_backend_takes_them(native, rng):
    b = NumpyBackend(Device("cpu"))
    b._native = native
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((6, 70), (70, 9)))
    expected = product(native, x, w, np.empty((6, 9), np.float32))
    np.testing.assert_array_equal(b.matmul(x, w), expected)


def test_compiled_calls_that_follow_each_other_become_one(native, rng):
    b = NumpyBackend(Device("cpu"))
    b._native = native
    x = rng.standard_normal((4, 6), dtype=np.float32)
    arrays = [np.zeros_like(x) for _ in range(4)]

    def work():
        b.launch(KERNELS["relu"], x, out=arrays[0])
        b.launch(KERNELS["identity"], arrays[0], out=arrays[1])
        b.xp.negative(arrays[1], out=arrays[2])
        b.launch(KERNELS["identity"], arrays[2], out=arrays[3])

    plan = b.record(work)
    assert [isinstance(call, Noted) for call in plan._calls] == [False, True, False]
    for _ in range(2):
        x[0] += 1
        plan.launch()
        np.testing.assert_array_equal(arrays[3], -np.maximum(x, 0))


def test_without_a_chain_they_stay_apart(native):
    plan, calls = Plan(), [native.chain([]) for _ in range(2)]
    for call in calls:
        plan.note_call(call, ())
    plan.join(lambda calls: None, lambda calls: None)
    assert plan._calls == calls
