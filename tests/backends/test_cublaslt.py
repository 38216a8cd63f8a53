"""Products with epilogues against NumPy: through a recording library, and on a GPU at hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gpunn.backends.cuda.cublaslt import CublasLt, CublasLtError
from gpunn.backends.cuda.cublaslt_request import EPILOGUES, mask_shape
from gpunn.errors import ArgumentError, UnknownNameError
from tests.standin.backend import standin_cupy
from tests.standin.cublaslt import FakeCublasLt
from tests.standin.machine import MACHINE

XP = standin_cupy()
M, K, N = 5, 7, 131  # all different, and a mask of two units of 128 bits
LAYOUTS = ("row", "transposed", "pitched", "pitched transposed")
DTYPES = ("float16", "bfloat16", "float32", "float64")
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5, "float64": 1e-12}
SENTINEL = 99


def dtype_of(name):
    if name == "bfloat16":
        return pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16
    return np.dtype(name)


@pytest.fixture
def fake():
    library = FakeCublasLt()
    yield library
    assert library.failures == []


@pytest.fixture
def lt(fake):
    return CublasLt(fake, XP)


@pytest.fixture(params=["standin", "cuda:0"])
def device(request):
    """A cuBLASLt with the array module to feed it."""
    if request.param == "standin":
        return SimpleNamespace(lt=request.getfixturevalue("lt"), xp=XP)
    request.getfixturevalue("gpu")
    cupy = pytest.importorskip("cupy")
    return SimpleNamespace(lt=CublasLt.find(cupy), xp=cupy)


def put(host, layout="row", xp=XP):
    """A host matrix on the device; a pitched one lies among sentinels."""
    stored = host.T if "transposed" in layout else host
    wide = xp.full((stored.shape[0], stored.shape[1] + 8 * ("pitched" in layout)), SENTINEL)
    wide = wide.astype(host.dtype)
    view = wide[:, : stored.shape[1]]
    view[...] = xp.asarray(np.ascontiguousarray(stored))
    return view.T if "transposed" in layout else view


def carve(offset_bytes, shape, dtype=np.float32):
    """An array at so many bytes after an address that 256 divides."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = XP.zeros(offset_bytes + count + 256, np.uint8)
    start = -memory.data.ptr % 256 + offset_bytes
    return memory[start : start + count].view(dtype).reshape(shape)


def wide(array):
    """A device array as float64 on the host."""
    return array.get().astype(np.float64)


def close(found, expected, dtype):
    scale = np.abs(expected).max() + 1
    np.testing.assert_allclose(wide(found) / scale, expected / scale, atol=TOLERANCE[dtype])


# values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("b_layout", LAYOUTS)
@pytest.mark.parametrize("a_layout", LAYOUTS)
def test_the_product_in_every_layout_and_dtype(device, rng, a_layout, b_layout, dtype):
    a = rng.standard_normal((M, K)).astype(dtype_of(dtype))
    b = rng.standard_normal((K, N)).astype(dtype_of(dtype))
    whole = put(np.full((M, N + 3), SENTINEL, dtype_of(dtype)), xp=device.xp)
    done = device.lt.matmul(put(a, a_layout, device.xp), put(b, b_layout, device.xp), whole[:, :N])
    assert done
    close(whole[:, :N], a.astype(np.float64) @ b.astype(np.float64), dtype)
    assert (whole[:, N:].get() == SENTINEL).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 3), (3, 4, 1), (3, 1, 4)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_are_matrices_too(device, rng, shape, layout):
    m, k, n = shape
    a, b = (rng.standard_normal(s, np.float32) for s in ((m, k), (k, n)))
    out = device.xp.empty(m * n, np.float32)
    out = out[None] if m == 1 else out.reshape(m, n)  # `[None]` has a stride of 0
    assert device.lt.matmul(put(a, layout, device.xp), put(b, layout, device.xp), out)
    close(out, a @ b, "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_factors_give_an_unrounded_float32_result(device, rng, dtype):
    a, b = (rng.standard_normal(s).astype(dtype_of(dtype)) for s in ((M, 300), (300, N)))
    out = device.xp.empty((M, N), np.float32)
    assert device.lt.matmul(put(a, xp=device.xp), put(b, xp=device.xp), out)
    close(out, a.astype(np.float64) @ b.astype(np.float64), "float32")


def epilogue_case(rng, epilogue, a, b):
    """What to pass as bias and aux, and what out, bias and aux should be."""
    y = a.astype(np.float64) @ b.astype(np.float64)
    bias, signs = rng.standard_normal(N), rng.random((M, N)) < 0.5
    z = y + bias
    blank = np.full(N, SENTINEL)
    masked = y * signs
    return {
        "none": (None, None, y, None, None),
        "bias": (bias, None, z, bias, None),
        "relu_bias": (bias, None, np.maximum(z, 0), bias, None),
        "relu_aux_bias": (bias, "mask", np.maximum(z, 0), bias, z > 0),
        "drelu_bgrad": (blank, signs, masked, masked.sum(0), signs),
        "bias_grad": (blank, None, y, b.astype(np.float64).sum(0), None),
    }[epilogue]


def put_aux(aux, xp):
    """A mask, packed into bits."""
    if aux is None:
        return None
    packed = np.zeros(mask_shape(M, N), np.uint8)
    if not isinstance(aux, str):
        bits = np.packbits(aux, axis=1, bitorder="little")
        packed[:, : bits.shape[1]] = bits
    return put(packed, xp=xp)


@pytest.mark.parametrize("layouts", [("row", "row"), ("pitched", "transposed")], ids="-".join)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_the_epilogues(device, rng, epilogue, dtype, layouts):
    a, b = (rng.standard_normal(s).astype(dtype) for s in ((M, K), (K, N)))
    bias, aux, *expected = epilogue_case(rng, epilogue, a, b)
    xp = device.xp
    out = xp.empty((M, N), dtype)
    bias = None if bias is None else xp.asarray(bias.astype(dtype))
    aux = put_aux(aux, xp)
    operands = (put(a, layouts[0], xp), put(b, layouts[1], xp), out)
    if not device.lt.matmul(*operands, epilogue=epilogue, bias=bias, aux=aux):
        assert xp is not XP
        pytest.skip(f"cuda:0: cuBLASLt offers no {epilogue} for {dtype}")
    close(out, expected[0], dtype)
    if bias is not None:
        close(bias, expected[1], dtype)
    if aux is not None:
        bits = np.unpackbits(aux.get(), axis=1, count=N, bitorder="little")
        np.testing.assert_array_equal(bits, expected[2])


@pytest.mark.parametrize(("dtype", "code"), [("float16", 2), ("float32", -1)])
def test_the_type_of_the_bias_is_told_when_it_is_not_that_of_out(lt, fake, rng, dtype, code):
    a, b = (rng.standard_normal(s).astype(np.float16) for s in ((M, K), (K, N)))
    out, bias = XP.empty((M, N), np.float32), XP.asarray(np.linspace(-1, 1, N).astype(dtype))
    assert lt.matmul(put(a), put(b), out, epilogue="bias", bias=bias)
    close(out, a.astype(np.float64) @ b + wide(bias), "float32")
    assert dict(fake.asked[-1].operation)["bias_type"] == code


# what cuBLASLt is told --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tf32", "compute", "scale"),
    [
        ("float32", False, 68, 0),
        ("float32", True, 77, 0),
        ("float16", True, 68, 0),
        ("bfloat16", False, 68, 0),
        ("float64", True, 70, 1),
    ],
)
def test_the_computing_type(lt, fake, dtype, tf32, compute, scale):
    x = put(np.eye(4).astype(dtype_of(dtype)))
    assert lt.matmul(x, x, XP.empty((4, 4), dtype_of(dtype)), tf32=tf32)
    assert (fake.asked[-1].compute, fake.asked[-1].scale) == (compute, scale)


@pytest.mark.parametrize(("dtype", "schemes"), [("float16", 2), ("float32", 6), ("float64", 6)])
def test_parts_of_a_product_are_added_in_an_order_and_not_rounded(lt, fake, dtype, schemes):
    x = put(np.eye(4).astype(dtype))
    assert lt.matmul(x, x, XP.empty((4, 4), dtype))
    assert fake.calls[-1].preferences["reduction_schemes"] == schemes


def test_alignments_are_told_and_part_of_the_plan(lt, fake):
    a, b, out = carve(16, (4, 4)), carve(32, (4, 4)), carve(0, (4, 4))
    assert lt.matmul(a, b, out)
    found = [fake.calls[-1].preferences[f"align_{letter}"] for letter in "abcd"]
    assert found == [16, 16, 16, 16]
    assert lt.matmul(a, carve(8, (4, 4)), out)
    assert fake.calls[-1].preferences["align_a"] == 8  # cuBLASLt's A is b
    assert lt.matmul(carve(4, (4, 4)), b, out)
    assert fake.calls[-1].preferences["align_b"] == 4
    assert not lt.matmul(carve(2, (4, 4)), b, out)
    x, bias = carve(0, (8, 8)), carve(0, (8,))
    aux = carve(0, mask_shape(8, 8), np.uint8)
    for companions in ((bias, aux), (carve(4, (8,)), aux), (bias, carve(8, aux.shape, np.uint8))):
        asked = len(fake.asked)
        assert lt.matmul(
            x, x, carve(0, (8, 8)), epilogue="drelu_bgrad", bias=companions[0], aux=companions[1]
        )
        assert len(fake.asked) == asked + 1


# plans ------------------------------------------------------------------------------------------


def test_a_plan_is_made_once_and_finds_other_arrays(lt, fake, rng):
    for _ in range(3):
        a, b = (rng.standard_normal(s, np.float32) for s in ((4, 6), (6, 8)))
        given = [carve(0, (4, 6)), carve(0, (6, 8)), carve(0, (4, 8)), carve(0, (8,))]
        given[0].set(a)
        given[1].set(b)
        given[3].fill(rng.random())
        assert lt.matmul(*given[:3], epilogue="bias", bias=given[3])
        close(given[2], a @ b + wide(given[3]), "float32")
    assert len(fake.asked) == 1
    assert len(fake.calls) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda given: dict(a=carve(0, (5, 4)), out=carve(0, (5, 4))),
        lambda given: dict(a=carve(0, (4, 8))[:, :4]),
        lambda given: dict(a=given["a"].T),
        lambda given: {key: carve(0, given[key].shape, np.int32) for key in ("a", "b", "out")},
        lambda given: dict(tf32=True),
        lambda given: dict(epilogue="relu_bias"),
    ],
    ids=["shape", "pitch", "transpose", "dtype", "tf32", "epilogue"],
)
def test_another_product_does_not_take_the_plan(lt, fake, change):
    shapes = {"a": (4, 4), "b": (4, 4), "out": (4, 4), "bias": (4,)}
    given = {"epilogue": "bias", **{key: carve(0, shape) for key, shape in shapes.items()}}
    assert lt.matmul(**given)
    changed = {**given, **change(given)}
    if lt.matmul(**changed):
        assert fake.asked[0] != fake.asked[1]
        assert fake.calls[1].problem == fake.asked[1]
    else:
        assert changed["a"].dtype == np.int32  # as wide as float32, and refused


@pytest.mark.parametrize("status", [15, 0])
def test_what_is_refused_is_not_written_nor_asked_for_again(lt, fake, status):
    fake.refuse, fake.refusal_status = {EPILOGUES["relu_aux_bias"]}, status
    x, out = put(np.ones((4, 4), np.float32)), XP.full((4, 4), np.float32(SENTINEL))
    bias, aux = XP.ones(4, np.float32), XP.full(mask_shape(4, 4), np.uint8(SENTINEL))
    for _ in range(2):
        assert not lt.matmul(x, x, out, epilogue="relu_aux_bias", bias=bias, aux=aux)
    assert (out.get() == SENTINEL).all()
    assert (aux.get() == SENTINEL).all()
    assert len(fake.asked) == 1
    assert fake.live == [""]  # the handle
    assert lt.matmul(x, x, out)


def test_no_more_workspace_is_asked_for_than_there_is(lt, fake):
    fake.workspace_bytes = CublasLt.WORKSPACE_BYTES
    x = put(np.ones((4, 4), np.float32))
    assert lt.matmul(x, x, XP.empty((4, 4), np.float32))
    fake.workspace_bytes += 1
    assert not lt.matmul(x, x, XP.empty((4, 4), np.float32), tf32=True)


def square(dtype=np.float32, rows=4, columns=4):
    return XP.full((rows, columns), dtype(SENTINEL))


def grad(epilogue, aux):
    return dict(epilogue=epilogue, bias=XP.ones(4, np.float32), aux=aux)


@pytest.mark.parametrize(
    "change",
    [
        dict(a=square(columns=8)[:, ::2]),
        dict(a=square()[::-1]),
        dict(a=XP.broadcast_to(square(rows=1), (4, 4))),
        dict(b=square(np.int32), a=square(np.int32), out=square(np.int32)),
        dict(b=square(np.float64)),
        dict(b=square(np.float16)),
        dict(a=square(np.float64), b=square(np.float64)),
        dict(out=square(np.float16)),
        dict(out=square().T),
        dict(out=square(rows=3)),
        dict(b=square(rows=5)),
        dict(a=XP.ones((1, 4, 4), np.float32)),
        dict(a=square(rows=0), out=square(rows=0)),
        dict(a=square(columns=0), b=square(rows=0)),
        dict(b=square(columns=0), out=square(columns=0)),
        dict(epilogue="bias", bias=XP.ones(5, np.float32)),
        dict(epilogue="bias", bias=XP.ones(8, np.float32)[::2]),
        dict(epilogue="bias", bias=XP.ones(4, np.int32)),
        grad("drelu_bgrad", square(np.uint8)),
        grad("drelu_bgrad", square(np.uint8, 3, 16)),
        grad("drelu_bgrad", square(np.int8, 4, 16)),
        grad("drelu_bgrad", square(np.uint8, 4, 16)[:, :0]),
    ],
    ids=lambda change: "-".join(change),
)
def test_what_cublaslt_has_no_words_for_is_left_to_the_caller(lt, fake, change):
    given = {"a": square(), "b": square(), "out": square(), **change}
    assert not lt.matmul(**given)
    assert fake.asked == []
    assert (given["out"].get() == SENTINEL).all()


@pytest.mark.parametrize(
    "given",
    [
        {"epilogue": "bias"},
        {"bias": 1},
        {"epilogue": "bias", "bias": 1, "aux": 1},
        {"epilogue": "x"},
    ],
)
def test_a_wrong_epilogue_or_companion_is_an_error(lt, given):
    with pytest.raises((ArgumentError, UnknownNameError), match="epilogue"):
        lt.matmul(square(), square(), square(), **given)


def test_a_failing_product_says_which_and_why(lt, fake):
    fake.status = 13
    a, b = square(rows=3), square(columns=6)
    with pytest.raises(CublasLtError, match=r"13 \(EXECUTION_FAILED\).*\(3, 4\).*\(4, 6\).*bias"):
        lt.matmul(a, b, square(rows=3, columns=6), epilogue="bias", bias=XP.ones(6, np.float32))


def test_a_captured_product_runs_at_launch_with_what_it_was_told(lt, fake, rng):
    a, b = carve(0, (4, 4)), carve(0, (4, 4))
    outs, biases = ([carve(0, shape) for _ in range(2)] for shape in ((4, 4), (4,)))
    assert lt.matmul(a, b, outs[0], epilogue="bias", bias=biases[0])
    outs[0].fill(SENTINEL)
    stream = XP.cuda.Stream(non_blocking=True)
    with MACHINE.counters.count() as counted, stream:
        stream.begin_capture()
        for out, bias in zip(outs, biases, strict=True):
            assert lt.matmul(a, b, out, epilogue="bias", bias=bias)
        graph = stream.end_capture()
    assert (counted.matmuls, counted.allocations, len(fake.asked)) == (2, 0, 1)
    assert [call.stream for call in fake.calls] == [0, stream.ptr, stream.ptr]
    assert (outs[0].get() == SENTINEL).all()
    for _ in range(2):
        for array in (a, b, *biases):
            array.set(rng.standard_normal(array.shape, np.float32))
        graph.launch(stream)
        for out, bias in zip(outs, biases, strict=True):
            close(out, wide(a) @ wide(b) + wide(bias), "float32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_relu_in_a_product_keeps_nan_and_infinity(device, dtype):
    a, b = (np.ones(shape, dtype_of(dtype)) for shape in ((M, K), (K, N)))
    a[1, 2], a[2, 2], a[3, 2] = np.nan, np.inf, -np.inf
    out, bias = put(np.zeros((M, N), a.dtype), xp=device.xp), device.xp.zeros(N, a.dtype)
    if not device.lt.matmul(
        put(a, xp=device.xp), put(b, xp=device.xp), out, epilogue="relu_bias", bias=bias
    ):
        pytest.skip("this version's ReLU loses NaN, and is not used")
    found = device.xp.asnumpy(out).astype(float)
    assert np.isnan(found[1]).all()
    assert (found[2] == np.inf).all()
    assert (found[3] == 0).all()


def test_a_relu_that_loses_nan_is_not_used(lt, fake, monkeypatch):
    a, b, out, bias = (XP.ones(shape, np.float32) for shape in ((4, 3), (3, 8), (4, 8), (8,)))
    monkeypatch.setattr(np, "maximum", np.fmax)  # by which the fake library computes its ReLU
    assert not lt.matmul(a, b, out, epilogue="relu_bias", bias=bias)
    monkeypatch.undo()
    assert not lt.matmul(a, b, out, epilogue="relu_bias", bias=bias)  # it is not tried again


def test_a_relu_that_was_not_tried_is_not_captured(lt):
    a, b, out, bias = (XP.ones(shape, np.float32) for shape in ((4, 3), (3, 8), (4, 8), (8,)))
    stream = XP.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        assert not lt.matmul(a, b, out, epilogue="relu_bias", bias=bias)
        stream.end_capture()
