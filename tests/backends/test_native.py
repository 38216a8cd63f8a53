"""Compiled kernels on the CPU: the numbers of the NumPy bodies, and a word where they fail."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.backends import Device, RowKernel
from gpunn.backends.bounded import Bounded
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.compiled import Call, Compiler, Native, compiler, find_compiler
from gpunn.backends.cpu.compiled.kernels import MOST_OF_A_KERNEL, ROW_COLUMNS
from gpunn.backends.kernel import KERNELS
from gpunn.ops import softmax_cross_entropy
from gpunn.ops.gather import RowGather
from tests.ops.test_kernels import KINDS, arguments
from tests.rowcases import ARGUMENTS, Draw


@pytest.fixture
def compiled(native, monkeypatch):
    """The CPU with compiled kernels."""
    b = gn.backend("cpu")
    monkeypatch.setattr(b, "_native", native)
    return b


@pytest.mark.parametrize("shape", ["as on a GPU", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_a_compiled_body_gives_what_numpy_gives(name, shape, native):
    kernel = KERNELS[name]
    inputs, outputs = given(kernel)
    if shape == "large":  # more than the lanes of a sum, and no multiple of them
        inputs, outputs = ([_grown(v) for v in values] for values in (inputs, outputs))
    results = []
    for one in (None, native):
        b = NumpyBackend(Device("cpu"))
        b._native = one
        out = tuple(v.copy() for v in outputs)
        call = None if one is None else one.elementwise(kernel, inputs, out)
        if one is not None and call is None:
            assert native_is_not_for(kernel, one), "it has a compiled body no more"
            return
        b.launch(kernel, *inputs, out=out)
        results.append(out)
    for numpy, found, before in zip(*results, outputs, strict=True):
        assert numpy.dtype == found.dtype == before.dtype
        rtol = 3e-6 if numpy.dtype.kind == "f" else 0
        np.testing.assert_allclose(found, numpy, rtol=rtol, atol=rtol)


def given(kernel):
    """The arguments of a kernel, with one weight for all classes, as most losses have."""
    inputs, outputs = arguments(kernel, "float32")
    if kernel.name.startswith("binary_cross_entropy"):
        one, names = np.array(0.25, np.float32), [param.name for param in kernel.inputs]
        inputs = [one if "weight" in n else v for n, v in zip(names, inputs, strict=True)]
    return [float(v) if isinstance(v, float) else v for v in inputs], outputs


def native_is_not_for(kernel, native):
    slow = ["philox", "pow(", "cos(", "sin("]
    if not native._compiler.vector_math:
        slow += ["exp(", "log(", "log1p(", "tanh(", "erf(", "erfc("]
    return any(word in kernel.cuda for word in slow) or "narrow" in kernel.name


def _grown(value):
    if not isinstance(value, np.ndarray) or value.shape != (5, 6):
        return value
    return np.ascontiguousarray(np.tile(value, (7, 1)))  # 210 elements


def test_the_common_kernels_are_compiled(native):
    for name in ("relu_bias", "relu_grad_dropout", "relu_bias_dropout", "sgd", "adam", "norm"):
        inputs, outputs = given(KERNELS[name])
        assert native.elementwise(KERNELS[name], inputs, outputs) is not None, name


def test_without_vector_mathematics_exponentials_stay_with_numpy(native):
    plain = Compiler(native._compiler.command, "without libmvec")
    vars(plain)["vector_math"] = False
    one = Native(plain)
    for name, compiled in (("adam", True), ("relu", True), ("sigmoid", False), ("tanh", False)):
        inputs, outputs = given(KERNELS[name])
        assert (one.elementwise(KERNELS[name], inputs, outputs) is not None) == compiled, name


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, -0.0])
def test_special_numbers_pass_as_through_numpy(special, native):
    for name in ("relu", "leaky_relu", "clip_factor", "norm", "sigmoid", "tanh"):
        kernel = KERNELS[name]
        inputs, outputs = arguments(kernel, "float32")
        floats = [isinstance(v, np.ndarray) and v.dtype.kind == "f" for v in inputs]
        pairs = zip(inputs, floats, strict=True)
        values = [np.full_like(v, special) if is_float else v for v, is_float in pairs]
        out, expected = ([o.copy() for o in outputs] for _ in range(2))
        for total in kernel.sums:
            expected[kernel.outputs.index(total)].fill(0)
        call = native.elementwise(kernel, values, out)
        call.run(*call.args)
        with np.errstate(all="ignore"):
            kernel.numpy(*values, *expected)
            if kernel.numpy_once is not None:
                kernel.numpy_once(*values, *expected)
        for a, e in zip(out, expected, strict=True):
            np.testing.assert_array_equal(a, e, err_msg=name)


@pytest.mark.parametrize("name", sorted(n for n in KINDS if "total" in str(KERNELS[n].sums)))
def test_a_loss_of_nan_is_nan(name, native):
    kernel = KERNELS[name]
    inputs, outputs = given(kernel)
    inputs[0] = inputs[0].copy()
    inputs[0].reshape(-1)[7 % inputs[0].size] = np.nan
    call = native.elementwise(kernel, inputs, outputs)
    if call is None:
        assert native_is_not_for(kernel, native)
        return
    call.run(*call.args)
    assert np.isnan(outputs[[param.name for param in kernel.outputs].index("total")])


def test_sums_of_millions(native):
    x = np.full(5_000_000, 0.1, np.float32)
    found = np.zeros((), np.float32)
    call = native.elementwise(KERNELS["norm"], (x,), (found,))
    call.run(*call.args)
    assert found == pytest.approx(0.1 * 5e6**0.5, rel=1e-6)
    b = NumpyBackend(Device("cpu"))
    b._native = native
    z, t = np.zeros((1_000_000, 10), np.float32), np.zeros(1_000_000, np.int64)
    assert float(softmax_cross_entropy.vjp(b, z, t)[0]) == pytest.approx(np.log(10), rel=1e-6)


def test_what_numpy_refuses_is_left_to_it(native, compiled):
    x, out = np.ones((4, 6), np.float32), np.zeros((4, 6), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        compiled.launch(KERNELS["relu"], x, out=out)
    with pytest.raises(ValueError, match="read-only"):
        compiled.matmul(np.ones((4, 3), np.float32), np.ones((3, 6), np.float32), out=out)
    with pytest.raises(ValueError, match="mismatch"):
        compiled.matmul(x, np.ones((6, 3), np.float32), out=np.zeros((2, 3), np.float32))
    none = np.zeros((5, 0), np.float32)
    assert native.elementwise(KERNELS["relu_bias"], (none[0],), (none,)) is None


def test_a_recording_outlives_the_thread_that_made_it(compiled, rng):
    x, plans = rng.standard_normal((64, 300), dtype=np.float32), []

    def record():
        def work():
            return compiled.launch(KERNELS["relu"], compiled.launch(KERNELS["relu"], x))

        plans.append(compiled.record(work))

    thread = threading.Thread(target=record)
    thread.start()
    thread.join()
    others = [np.full(x.shape, 7, np.float32) for _ in range(20)]  # where the buffers would be
    plans[0].launch()
    np.testing.assert_array_equal(plans[0].kept, np.maximum(x, 0))
    assert all((other == 7).all() for other in others)


def test_what_is_not_float32_and_contiguous_stays_with_numpy(native):
    kernel = KERNELS["relu"]
    x = np.ones((4, 6), np.float32)
    assert native.elementwise(kernel, (x,), (np.empty_like(x),)) is not None
    assert native.elementwise(kernel, (x.T,), (np.empty((6, 4), np.float32),)) is None
    assert native.elementwise(kernel, (x.astype(float),), (np.empty((4, 6)),)) is None
    assert native.elementwise(kernel, (x[0],), (np.empty_like(x),)) is not None  # a row, repeated


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@pytest.mark.parametrize("columns", [10, 64, 150])
def test_every_kernel_of_narrow_rows_or_columns(name, columns, native):
    kernel = KERNELS[name]
    arguments = (*ARGUMENTS[name](Draw("float32", 37, columns)), columns, 37)
    found = [[a.copy() if isinstance(a, np.ndarray) else a for a in arguments] for _ in range(2)]
    call = native.rows(kernel, found[0])
    if name.startswith("waves") or name in ("layer_norm_grad_in_one", "classifier_loss"):
        # NumPy computes several sines at a time; the CPU has two kernels, or multiplies matrices
        assert call is None
        return
    if call is None:  # NumPy's exponentials are faster than those of a compiler without vectors
        assert columns > ROW_COLUMNS
        assert not kernel.by_columns
        assert not find_compiler().vector_math
        return
    call.run(*call.args)
    kernel.numpy(*found[1])
    for ours, numpy in zip(*found, strict=True):
        np.testing.assert_allclose(ours, numpy, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "multiclass_hinge"])
@pytest.mark.parametrize("classes", [1, 2, 10, ROW_COLUMNS, ROW_COLUMNS + 1])
def test_rows(loss, classes, compiled, rng):
    z = 5 * rng.standard_normal((37, classes), dtype=np.float32)
    z[3] = 80.0
    t = rng.integers(0, classes, 37)
    found = []
    for one in (compiled._native, None):
        compiled._native = one
        scores = gn.tensor(z, requires_grad=True)
        value = gn.ops.LOSSES[loss](scores, t)
        value.backward()
        found.append((value.item(), np.array(scores.grad)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_fit_learns_the_same(optimizer, compiled, rng):
    x, y = rng.standard_normal((170, 6), dtype=np.float32), rng.integers(0, 3, 170)
    histories = []
    for one, capture in ((compiled._native, True), (compiled._native, False), (None, True)):
        compiled._native = one
        gn.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16, "relu"), nn.Dropout(0.5), nn.Linear(16, 3))
        trainer = gn.Trainer(net, optimizer=optimizer, clip_norm=0.5, capture=capture)
        histories.append(trainer.fit(x, y, epochs=3, batch_size=16, progress=False)["loss"])
    assert histories[0] == histories[1]
    assert histories[0] == pytest.approx(histories[2], rel=1e-4)


@pytest.mark.parametrize(("dtype", "width"), [("float32", 7), ("float64", 3), ("uint8", 5)])
def test_recorded_rows_are_gathered_by_machine_code(dtype, width, compiled):
    table, labels = np.arange(9 * width).reshape(9, width).astype(dtype), np.arange(9)
    order, tick = np.array([3, 8, 0, 5, 5, 1]), np.zeros((), np.int64)
    gather = RowGather(compiled, (table, labels))
    found = []
    plan = compiled.record(lambda: found.extend(gather(order, tick, 1, 2)) or found)
    assert all(isinstance(call, Call) for call in plan._calls)
    for first in (-1, 0, 1):
        tick[...] = first
        plan.launch()
        expected = order[2 * first + 2 : 2 * first + 4]
        np.testing.assert_array_equal(found[0], table[expected])
        np.testing.assert_array_equal(found[1], expected)
    order[:] = 9, -1, 9, -1, 9, -1  # nobody can raise here: NaN, -1 or the largest number
    plan.launch()
    np.testing.assert_array_equal(found[0].view(np.uint8), 255)
    np.testing.assert_array_equal(found[1], -1)


def test_several_launches_at_once(compiled, rng):
    total, one = np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)
    plan = compiled.record(lambda: compiled.launch(KERNELS["identity_bias"], one[0], out=total))
    for times in (1, 5, 2, 5):
        plan.launch(times)
    np.testing.assert_array_equal(total, 1 + 13)  # recording was doing it once


ROWS = (
    *("correct", "multiclass_hinge", "softmax", "softmax_cross_entropy", "softmax_grad"),
    *("log_softmax", "log_softmax_grad"),
    *("batch_norm", "batch_norm_grad", "column_sums"),
)


def test_these_row_kernels_are_compiled(native, caplog):
    found = set()
    for kernel in KERNELS.values():
        if isinstance(kernel, RowKernel):
            with caplog.at_level(logging.WARNING, "gpunn"):
                call = native.rows(kernel, (np.ones((2, 3), np.float32), 3, 2))
            if call is not None:
                found.add(kernel.name)
    assert not caplog.text
    assert found >= set(ROWS)


def test_accuracy(compiled, rng):
    z, t = rng.integers(0, 3, (37, 5)).astype(np.float32), rng.integers(0, 5, 37)  # with ties
    trainer = gn.Trainer(nn.Linear(5, 5))
    trainer.model.weight.data[...] = np.eye(5)
    assert trainer.evaluate(z, t)["accuracy"] == pytest.approx(np.mean(z.argmax(1) == t))


def test_threads_do_not_disturb_each_other(native, rng):
    """A row kernel knows its row by a variable of the thread's."""
    z = rng.standard_normal((4000, 8), dtype=np.float32)
    t = rng.integers(0, 8, 4000)
    b = NumpyBackend(Device("cpu"))
    b._native = native

    def loss():
        return softmax_cross_entropy.vjp(b, z, t)[0]

    expected, wrong = float(loss()), []

    def work():
        wrong.extend(v for v in (float(loss()) for _ in range(50)) if v != expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_compiler_that_fails_is_told_of_once(native, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = Native(Compiler(("false",), "a compiler that refuses everything"))
    b = NumpyBackend(Device("cpu"))
    b._native = broken
    x = np.array([-1.0, 2.0], np.float32)
    with caplog.at_level(logging.WARNING, "gpunn"):
        for _ in range(2):
            np.testing.assert_array_equal(b.launch(KERNELS["relu"], x), [0, 2])
    assert len(caplog.records) == 1
    assert "relu runs through NumPy" in caplog.text


def test_a_compiled_kernel_is_kept(native, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x = np.array([-1.0, 2.0], np.float32)
    counts = []
    for _ in range(2):
        again = Native(native._compiler)
        assert again.elementwise(KERNELS["relu"], (x,), (x.copy(),)) is not None
        counts.append(sorted(p.stat().st_mtime_ns for p in (tmp_path / "gpunn").iterdir()))
    assert counts[0] == counts[1]
    assert len(counts[0]) == 1


def test_a_damaged_kernel_is_compiled_again(native, monkeypatch, tmp_path):
    x = np.array([-1.0, 2.0], np.float32)
    for name in ("whole", "damaged"):  # whose name is the same
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        if name == "damaged":
            (whole,) = (tmp_path / "whole" / "gpunn").iterdir()
            library = tmp_path / name / "gpunn" / whole.name
            library.parent.mkdir(parents=True)
            library.write_bytes(whole.read_bytes()[:100])
        assert Native(native._compiler).elementwise(KERNELS["relu"], (x,), (x.copy(),)) is not None
    assert library.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("script", "usable"),
    [
        ("#!/bin/sh\nprintf 'caf\\351 1.0\\n'\n", True),  # no UTF-8
        ("#!/bin/sh\nexit 1\n", False),
        ("not a program", False),
        ("#!/bin/sh\nsleep 60\n", False),
    ],
)
def test_a_strange_compiler_is_passed_over(script, usable, monkeypatch, tmp_path):
    strange = tmp_path / "strange++"
    strange.write_text(script)
    strange.chmod(0o755)
    monkeypatch.setenv("GPUNN_COMPILED", "auto")
    monkeypatch.setenv("CXX", str(strange))
    monkeypatch.setattr(compiler, "TIMEOUT_S", 0.5)
    found = find_compiler.__wrapped__()
    assert (found.command == (str(strange),)) == usable


def test_a_user_without_a_home_computes_through_numpy(native, monkeypatch, caplog):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(compiler.Path, "home", homeless)
    b = NumpyBackend(Device("cpu"))
    b._native = Native(native._compiler)
    with caplog.at_level(logging.WARNING, "gpunn"):
        found = b.launch(KERNELS["relu"], np.array([-1.0, 2.0], np.float32))
    np.testing.assert_array_equal(found, [0, 2])
    assert "set XDG_CACHE_HOME" in caplog.text


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("GPUNN_COMPILED", "0")
    found = find_compiler.__wrapped__()
    assert found.command == ()
    assert "GPUNN_COMPILED=0" in found.why


def test_one_launch_serves_batches_of_all_sizes(native):
    kernel, entries = gn.ops.relu.bias_kernel, []
    for rows in (3, 64, 1000):
        bias, z = np.ones(5, np.float32), np.zeros((rows, 5), np.float32)
        call = native.elementwise(kernel, (bias,), (z,))
        call.run(*call.args)
        assert (z == 1).all()
        entries.append(len(native._launches))
    assert entries[0] == entries[-1]


@pytest.mark.parametrize("rows", [5, 7, 1])
def test_a_layout_of_one_shape_is_not_taken_for_another(rows, native):
    """The key of a launch leaves out the length of a batch, so that must not decide a layout."""
    kernel = KERNELS["relu_grad"]
    column, x = np.arange(5, dtype=np.float32)[:, None], np.ones((5, 3), np.float32)
    assert native.elementwise(kernel, (column, x), (np.empty_like(x),)) is not None
    other, out = np.ones((rows, 3), np.float32), np.empty((rows, 3), np.float32)
    fits = native.elementwise(kernel, (column, other), (out,)) is not None
    assert fits == (rows == 5)


def test_a_kernel_with_ever_other_integers_is_not_compiled_for_ever(native, monkeypatch):
    built = []
    monkeypatch.setattr(native, "_functions", Bounded(512))
    monkeypatch.setattr(
        Compiler, "build", lambda *given: built.append(given) or (lambda slots: None)
    )
    kernel = KERNELS["dropout"]
    inputs, outputs = given(kernel)
    whole = [k for k, param in enumerate(kernel.inputs) if "int" in param.type]
    whole = [k for k in whole if isinstance(inputs[k], int)]
    for number in range(200):
        native.elementwise(
            kernel, [number if k in whole else v for k, v in enumerate(inputs)], outputs
        )
    assert 0 < len(built) <= MOST_OF_A_KERNEL
