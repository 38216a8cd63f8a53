"""Only events order work: what a backend leaves unordered comes out wrong under some order."""

import inspect
from types import ModuleType

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.backends.cuda import backend as backends
from gpunn.backends.cuda import streaming
from gpunn.errors import DivergenceError
from gpunn.sklearn import MLPClassifier
from tests.standin import cupy as standin
from tests.standin.backend import StandinBackend, standin_cupy
from tests.standin.host_kernel import why_unavailable
from tests.standin.machine import CUDARuntimeError
from tests.standin.streams import QUEUES, order

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-")
ORDERS = ("late", 0, 1, 2, 3)
DEVICE = "standin:0"
cp = standin.make()


@pytest.fixture
def two():
    return cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)


# streams and events ------------------------------------------------------------------------------


def test_nothing_is_done_before_the_host_waits(two):
    x = cp.zeros(3)
    with order("late"):
        x.fill(1)
        assert (x.host == 0).all()
        with two[0]:
            assert (x.get() == 0).all()  # only for its own stream
        assert (x.get() == 1).all()


@pytest.mark.parametrize("how", ["late", *range(10)])
def test_an_event_orders_two_streams(two, how):
    with order(how):
        x, done = cp.zeros(3), cp.cuda.get_current_stream().record()
        with two[0]:
            two[0].wait_event(done)
            x.fill(1)
            x += 1
            done = two[0].record()
            x.fill(7)  # after the event
        with two[1]:
            two[1].wait_event(done)
            y = x + 1
            assert set(y.get()) <= {3, 8}


def test_without_an_event_there_is_an_order_for_each_result(two):
    found = set()
    for how in ("late", *range(20)):
        x = cp.zeros(1)
        with order(how):
            with two[0]:
                x.fill(1)
            with two[1]:
                found.add(float(x + 1))
    assert found == {1, 2}


def test_an_event_is_where_it_was_recorded_last(two):
    with order("late"):
        x = cp.zeros(1)
        event = cp.cuda.get_current_stream().record()
        x.fill(1)
        event.synchronize()
        assert x.host[0] == 0
        event.record()
        event.synchronize()
        assert x.host[0] == 1


def test_a_copy_from_pinned_memory_reads_when_it_is_due(two):
    pinned = np.frombuffer(cp.cuda.alloc_pinned_memory(8), np.float64, 1)
    for host, found in ((pinned, 2), (np.zeros(1), 1)):
        with order("late"):
            x = cp.zeros(1)
            host[0] = 1
            x.set(host)
            host[0] = 2
            assert float(x[0]) == found


def test_a_stream_outlives_its_object_as_long_as_it_has_work():
    with order("late"):
        x = cp.zeros(1)
        cp.cuda.get_current_stream().synchronize()
        with cp.cuda.Stream(non_blocking=True):
            x.fill(3)
        cp.cuda.runtime.deviceSynchronize()
        assert x.host[0] == 3


def test_memory_that_goes_back_waits_for_the_device(two):
    with order("late"):
        x, target = cp.ones(3), cp.zeros(3)
        pool = cp.cuda.MemoryPool()
        with cp.cuda.using_allocator(pool.malloc):
            y = x + 1
        target[...] = y
        del y
        pool.free_all_blocks()
        assert (target.host == 2).all()


def test_an_error_ends_the_work_of_all_streams(two):
    with order("late"):
        with two[0]:
            cp.zeros(1)
        cp.take(cp.zeros(3), cp.asarray(np.array([1])), axis=0)
        cp.cuda.get_current_stream().do(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cp.cuda.runtime.deviceSynchronize()
        assert not QUEUES.busy


def test_a_capture_does_not_wait_for_work_outside_of_it(two):
    event = two[1].record()
    two[0].begin_capture()
    try:
        with pytest.raises(CUDARuntimeError, match="StreamCaptureIsolation"):
            two[0].wait_event(event)
        inside = two[0].record()
    finally:
        two[0].end_capture()
    with pytest.raises(CUDARuntimeError, match="StreamCaptureIsolation"):
        two[1].wait_event(inside)


# the library -------------------------------------------------------------------------------------


def network(norm=False):
    gn.manual_seed(0)
    with gn.device(DEVICE):
        layers = [nn.BatchNorm(8)] if norm else []
        return nn.Sequential(
            nn.Linear(6, 8, "relu"),
            *layers,
            nn.Dropout(0.5),
            nn.Linear(8, 4, "gelu"),
            nn.Linear(4, 3),
        )


def examples():
    rng = np.random.default_rng(3)
    return rng.standard_normal((100, 6), np.float32), rng.integers(0, 3, 100)


def fitted(data, **options):
    net = network(options.pop("norm", False))
    trainer = gn.Trainer(net, seed=1, **options)
    history = trainer.fit(*data, epochs=2, batch_size=16, validation=data, progress=False)
    state = [np.asarray(value) for value in net.state_dict().values()]
    return [history["loss"], history["val_loss"], trainer.evaluate(*data)["loss"], *state]


def recorded_fit():
    return fitted(examples(), norm=True, clip_norm=1.0, schedule="cosine")


def eager_fit():
    return fitted(examples(), capture=False, regularizer=gn.optim.MaxNorm(1.0))


def narrow_fit():
    return fitted(examples(), precision="float16")


def streamed_fit():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3000, 100), np.float32), rng.integers(0, 3, 3000)
    gn.manual_seed(0)
    net = nn.Sequential(nn.Linear(100, 4, "relu"), nn.Linear(4, 3)).to(DEVICE)
    net.backend.make_constants()
    net.backend.free_memory()
    trainer = gn.Trainer(net, seed=1, memory_limit=net.backend.memory_bytes() + 1_000_000)
    loss = trainer.fit(*data, epochs=1, batch_size=200, progress=False)["loss"]
    return [loss, *map(np.asarray, net.state_dict().values())]


def data_of_the_device():
    x, y = examples()
    b = gn.backend(DEVICE)
    net = network()
    x, y = b.upload(x), b.upload(y)
    gn.Trainer(net, seed=1).fit(x, y, epochs=1, batch_size=16, progress=False)
    net.eval()
    return [b.download(net.predict(x, batch_size=30)), net(gn.Tensor(x)).numpy()]


def estimator():
    x, y = examples()
    model = MLPClassifier((5,), max_iter=3, random_state=0, device=DEVICE, tol=0)
    return [*model.fit(x, y).coefs_, model.predict_proba(x)]


def streamed_batches():
    """Batches that come from pinned memory and are read by work that is far behind."""
    b = gn.backend(DEVICE)
    shape = (40, 3)
    old = b.full(shape, 5, np.float32)
    kept = old + 1
    del old  # whose memory the buffers may get
    with b.own_stream():
        buffers, found = b.double_buffer([(shape, np.float32)]), []
        for number in range(7):
            buffers.put(number, 40, lambda pinned, number=number: pinned[0].fill(number))
            (batch,) = buffers.get(number, 40)
            found.append(batch * 2)
            buffers.release(number)
        del batch
    return [b.download(kept), *map(b.download, found)]


def old_memory():
    b = gn.backend(DEVICE)
    old = b.full((40, 3), 5, np.float32)
    kept = old + 1
    del old
    buffers = b.double_buffer([((40, 3), np.float32)])
    buffers.put(0, 40, lambda pinned: pinned[0].fill(9))
    return [b.download(kept), *[b.download(a) for a in buffers.get(0, 40)]]


def dropped_buffers():
    b = gn.backend(DEVICE)
    buffers = b.double_buffer([((40, 3), np.float32)])
    buffers.put(0, 40, lambda pinned: pinned[0].fill(9))
    del buffers
    new = [b.full((40, 3), 5, np.float32) for _ in range(2)]
    b.download(new[0])
    b.synchronize()
    return [b.download(a) for a in new]


PROGRAMS = (
    *(recorded_fit, eager_fit, narrow_fit, streamed_fit, data_of_the_device, estimator),
    *(streamed_batches, old_memory, dropped_buffers),
)


def same(program, how):
    """Whether a program has the bits under an order that it has when all is done at once."""
    expected = program()
    standin_cupy().get_default_memory_pool().here().poison()
    with order(how):
        try:
            found = program()
        except DivergenceError:  # it has read poison
            return False
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(expected, found, strict=True))


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("how", ORDERS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_bits_do_not_depend_on_the_order(program, how):
    assert same(program, how)


FAULTS = [
    (backends, "self._stream.wait_event(outer.record(self._ends[0]))", "pass", data_of_the_device),
    (backends, "outer.wait_event(self._stream.record(self._ends[1]))", "pass", data_of_the_device),
    (streaming, "slot.copied.synchronize()", "pass", streamed_batches),
    (streaming, "self._copies.wait_event(slot.used)", "pass", streamed_batches),
    (streaming, "get_current_stream().wait_event(slot.copied)", "Event()", streamed_batches),
    (streaming, "].used = self", "].unused = self", streamed_batches),
    (streaming, "Any = xp.cuda.get_current_stream().record()", "Any = xp.cuda.Event()", old_memory),
    (streaming, "self._copies.synchronize()", "pass", dropped_buffers),
]
LEFT = {
    backends: ["self._here.synchronize()"],  # the user's own wait
    streaming: ["slot.copied = self._copies.record()"],  # the event of the waits for copies
}
"""Every wait of the backend, what is planted in its place, and a program that needs it."""


def planted(module, old, new):
    """The module with a fault in its text."""
    text = inspect.getsource(module)
    assert text.count(old) == 1
    broken = ModuleType(module.__name__)
    exec(compile(text.replace(old, new), module.__file__, "exec"), broken.__dict__)
    return broken


@pytest.mark.parametrize(("module", "old", "new", "program"), FAULTS)
def test_a_missing_wait_is_found(module, old, new, program, monkeypatch):
    broken = planted(module, old, new)
    if module is streaming:
        monkeypatch.setattr(backends, "DoubleBuffer", broken.DoubleBuffer)
    else:
        monkeypatch.setattr(StandinBackend, "own_stream", broken.CupyBackend.own_stream)
    assert not all(same(program, how) for how in ("late", *range(12)))


def test_every_wait_of_the_backend_is_among_the_faults():
    words = ("wait_event(", ".synchronize()", ".record()")
    for module in (backends, streaming):
        lines = [line for line in inspect.getsource(module).splitlines() if "def " not in line]
        waits = [line for line in lines if any(word in line for word in words)]
        here = [old for found, old, _, _ in FAULTS if found is module]
        missing = [line for line in waits if not any(old in line for old in here)]
        assert [line.strip() for line in missing] == LEFT[module]
