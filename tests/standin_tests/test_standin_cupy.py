"""The stand-in for cupy keeps the device and the host apart, and counts."""

import copy

import numpy as np
import pytest

from tests.standin import cupy as standin
from tests.standin.host_kernel import why_unavailable

cp = standin.make()
needs_compiler = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-")


@pytest.fixture
def x():
    return cp.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, host: np.asarray(x),
        lambda x, host: np.add(x, host),
        lambda x, host: x + host,
        lambda x, host: host + x,
        lambda x, host: host.__iadd__(x),
        lambda x, host: x + host[0, 0, ...],
        lambda x, host: cp.sum(host),
        lambda x, host: np.concatenate([x, host]),
        lambda x, host: cp.where(x > 0, x, host),
        lambda x, host: x.__setitem__(slice(None), host),
        lambda x, host: cp.matmul(x, host.T),
        lambda x, host: np.add(x, x, out=host),
        lambda x, host: np.fft.fft(x),
    ],
)
def test_host_and_device_do_not_mix(x, mix):
    with pytest.raises((TypeError, ValueError)):
        mix(x, np.ones((3, 4), np.float32))


@pytest.mark.parametrize("dtype", ["U3", object, "M8[s]", np.longdouble, np.clongdouble])
def test_what_cupy_cannot_store_is_refused(dtype):
    for make in (lambda: cp.empty(3, dtype), lambda: cp.asarray(np.empty(3, dtype))):
        with pytest.raises(ValueError, match="Unsupported dtype"):
            make()


def test_what_cupy_compiles_for_seconds_is_refused():
    many, few = cp.asarray(np.ones(129)), cp.asarray(np.ones(128))
    for slow in (lambda v: (v > 0).all(), lambda v: cp.any(v > 0), lambda v: cp.isnan(v).any()):
        with pytest.raises(AssertionError, match="use all_true"):
            slow(many)
        slow(few)


def test_scalars_are_fine(x):
    for y in (x + 1, 1 + x, np.float32(1) + x, x + np.float32(1)):
        assert isinstance(y, cp.ndarray)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y.get(), x.get() + 1)
    x += 1
    assert x.get()[0, 0] == 1


def test_results_stay_on_the_device(x):
    host = x.get()
    for found, wanted in (
        (x.sum(), host.sum()),
        (cp.max(x, axis=1, keepdims=True), host.max(1, keepdims=True)),
        (np.mean(x, axis=0), host.mean(0)),
        (x[1, 2], host[1, 2]),
        (x[1], host[1]),
        (x.T @ x, host.T @ host),
        (x[:, None] == cp.arange(4), host[:, None] == np.arange(4)),
        (cp.where(x > 5, x, 0), np.where(host > 5, host, 0)),
        (x[cp.asarray(np.array([2, 0]))], host[[2, 0]]),
        (cp.concatenate([x, x]), np.concatenate([host, host])),
        (x.astype(np.float64), host.astype(np.float64)),
        (cp.moveaxis(x, 0, 1), host.T),
    ):
        assert type(found) is cp.ndarray
        assert found.shape == np.shape(wanted)
        np.testing.assert_array_equal(found.get(), wanted)


def test_views_share_memory_and_copies_do_not(x):
    x[1:].fill(7)
    x.reshape(-1)[0] = 5
    x.T[3, 0] = 9
    duplicate = copy.deepcopy(x)
    duplicate.fill(0)
    assert x.get().tolist() == [[5, 1, 2, 9], [7] * 4, [7] * 4]


def test_out_is_written_and_returned(x):
    out = cp.empty((4,), np.float32)
    assert cp.sum(x, axis=0, out=out) is out
    assert np.negative(x, out=x) is x
    assert out.get().tolist() == [12, 15, 18, 21]
    assert cp.matmul(x, x.T, out=cp.empty((3, 3), np.float32)).get()[0, 0] == 14


def test_reading_a_value_is_allowed_and_counted(x):
    with cp.counters.count() as found:
        assert float(x[0, 1]) == 1.0
        assert bool(x[0, 1])
        assert x[0, 1].item() == 1.0
        cp.asnumpy(x)
        x.tolist()
    assert found.device_to_host == found.synchronisations == 5
    assert found.host_to_device == 0


def test_counters(x):
    with cp.counters.count() as found:
        y = x + 1
        cp.exp(y, out=y)
        cp.sum(y)
        cp.matmul(y, y.T)
        cp.asarray(np.ones(3))
        y.reshape(-1)
    assert dict(found.launches) == {"add": 1, "exp": 1, "sum": 1}
    assert (found.matmuls, found.host_to_device, found.allocations) == (1, 1, 4)


def test_empty_holds_rubbish():
    assert np.isnan(cp.empty((2, 3), np.float32).get()).all()


@needs_compiler
def test_kernels_take_device_arrays_only(x):
    code = 'extern "C" __global__ void put(float* x, float v) { x[threadIdx.x] = v; }'
    put = cp.RawKernel(code, "put", options=("--std=c++17",))
    with cp.counters.count() as found:
        put((1,), (12,), (x, np.float32(3)))
    assert (x.get() == 3).all()
    assert found.launches["put"] == 1
    with pytest.raises(TypeError, match="Unsupported type"):
        put((1,), (1,), (np.ones(1, np.float32), np.float32(3)))


@needs_compiler
def test_a_capture_records_and_a_graph_replays(x):
    code = 'extern "C" __global__ void double_it(float* x) { x[threadIdx.x] *= 2; }'
    double = cp.RawKernel(code, "double_it")
    stream = cp.cuda.Stream(non_blocking=True)
    stream.wait_event(cp.cuda.get_current_stream().record())
    with stream:
        stream.begin_capture()
        assert stream.is_capturing()
        double((1,), (x.size,), (x,))
        total = x.sum()
        graph = stream.end_capture()
        assert float(x[0, 1]) == 1.0
        graph.launch(stream)
        graph.launch(stream)
        stream.synchronize()
    assert float(x[0, 1]) == 4.0
    assert float(total) == 4 * 66


def test_what_cupy_refuses_in_a_capture(x):
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            with pytest.raises(NotImplementedError):
                cp.matmul(x, x.T)
            for forbidden in (x.get, stream.synchronize, lambda: cp.asarray(np.ones(2))):
                with pytest.raises(RuntimeError, match="capturing"):
                    forbidden()
        finally:
            stream.end_capture()
    with pytest.raises(RuntimeError):
        cp.cuda.get_current_stream().begin_capture()


def test_events_and_properties():
    start, end = cp.cuda.Event(), cp.cuda.Event()
    with cp.cuda.Device(0):
        start.record()
        end.record()
        end.synchronize()
    assert cp.cuda.get_elapsed_time(start, end) >= 0
    assert cp.cuda.runtime.getDeviceCount() == 2
    assert cp.cuda.runtime.getDeviceProperties(0)["name"] == b"stand-in"
