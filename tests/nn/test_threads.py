"""Threads that predict change nothing: no mode, no running value, no random stream, no weight."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.autograd import no_grad
from gpunn.fingerprint import Latest
from gpunn.nn.linear import unfused

D, C, THREADS = 12, 3, 8
NEEDED = "filelock, numpy, pytest, scipy, tqdm, typer"
WAIT_S = 60  # after which a thread that hangs fails its test


@pytest.fixture(autouse=True)
def many_switches():
    """Let threads interrupt each other as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def network(device="cpu"):
    return nn.Sequential(
        nn.Linear(D, 32, "relu", seed=0, device=device),
        nn.BatchNorm(32, device=device),
        nn.Dropout(0.5, seed=1),
        nn.Linear(32, 16, "gelu", seed=2, device=device),
        nn.VanillaDropout(0.3, seed=3),
        nn.LayerNorm(16, device=device),
        nn.RMSNorm(16, device=device),
        nn.Linear(16, C, seed=4, device=device),
    )


def data(rows=200):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, D)).astype(np.float32), rng.integers(0, C, rows)


def together(*works):
    """Do pieces of work in threads that start at the same time; raise the first error."""
    start, errors = threading.Barrier(len(works)), []

    def run(work):
        try:
            start.wait(WAIT_S)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@contextmanager
def beside(work):
    """Do work again and again in three threads while the block runs."""
    over, errors, runs = threading.Event(), [], []

    def run():
        try:
            while not over.is_set() or not runs:
                work()
                runs.append(1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(WAIT_S)
    if errors:
        raise errors[0]


def state(net):
    modes = [vars(module).get("training", True) for module in net.modules()]
    arrays = {name: value.tobytes() for name, value in net.state_dict().items()}
    return arrays, modes, [stream.call for stream in net.streams()]


USES = {
    "predict": lambda net, x, y: net.predict(x),
    "classify": lambda net, x, y: net.classify(x),
    "batches": lambda net, x, y: net.predict(x, batch_size=7),
    "float64": lambda net, x, y: net.predict(x.astype(np.float64)),
    "Trainer.predict": lambda net, x, y: gn.Trainer(net).predict(x),
    "evaluate": lambda net, x, y: np.array(
        list(gn.Trainer(net, loss="softmax_cross_entropy").evaluate(x, y).values())
    ),
    "dead units": lambda net, x, y: np.array(
        [report.fraction for report in nn.dead_units(net, x).values()]
    ),
}


@pytest.mark.parametrize("use", USES)
def test_threads_that_predict_agree_and_change_nothing(use):
    net, (x, y) = network(), data()
    want, before = USES[use](net, x, y), state(net)

    def work():
        for _ in range(25):
            np.testing.assert_array_equal(USES[use](net, x, y), want)

    together(*[work] * THREADS)
    assert state(net) == before


@pytest.mark.parametrize("use", [u for u in USES if "rainer" not in u and u != "evaluate"])
def test_predicting_writes_no_attribute(use):
    net, (x, y) = network(), data()
    USES[use](net, x, y)
    for value in net.state():
        value[1].data.flags.writeable = False
    before, changes = state(net), Latest.number
    USES[use](net, x, y)
    assert Latest.number == changes
    assert state(net) == before


def test_the_mode_belongs_to_the_call():
    net, (x, _) = network(), data()
    inside, trained = threading.Event(), threading.Event()
    seen = []

    def predict():
        with net.evaluating():
            seen.append(net.training)
            inside.set()
            assert trained.wait(WAIT_S)
            seen.append(any(module.training for module in net.modules()))

    def train():
        assert inside.wait(WAIT_S)
        seen.append(net.training)
        calls = [stream.call for stream in net.streams()]
        assert net(x).node is not None  # the tape is on
        assert [stream.call for stream in net.streams()] == [n + 1 for n in calls]
        trained.set()

    together(predict, train)
    assert seen == [False, True, False]


def test_modes_of_a_user_stay_as_with_pytorch():
    net = network().eval()
    net[1].train()
    with net.evaluating():
        assert not net[1].training
        net[2].training = True  # counts from the end of the block on
        assert not net[2].training
    assert [module.training for module in net.layers] == [k in (1, 2) for k in range(8)]
    assert not copy.deepcopy(net)[0].training
    with pytest.raises(KeyError), net.evaluating():
        raise KeyError
    assert net[1].training


def test_a_change_of_mode_is_counted_inside_the_block_too():
    net = network()
    with net.evaluating():
        before = Latest.number
        net[1].training = False
    assert Latest.number > before
    before = Latest.number
    net[1].training = False
    assert Latest.number == before


def fitted(work=None, **options):
    net, (x, y) = network(), data(600)
    trainer = gn.Trainer(net, loss="softmax_cross_entropy", optimizer="adam", seed=0, **options)

    def fit():
        trainer.fit(x, y, epochs=3, batch_size=32, progress=False)

    if work is None:
        fit()
    else:
        with beside(lambda: work(net, trainer, x, y)):
            fit()
    return state(net)


@pytest.mark.parametrize("capture", [False, "auto"])
@pytest.mark.parametrize(
    "work",
    [
        lambda net, trainer, x, y: net.predict(x[:50]),
        lambda net, trainer, x, y: trainer.classify(x[:50]),
        lambda net, trainer, x, y: trainer.evaluate(x[:50], y[:50]),
        lambda net, trainer, x, y: nn.dead_units(net, x[:50]),
        lambda net, trainer, x, y: gn.explain.network(net, x[:2], y[:2], "softmax_cross_entropy"),
    ],
    ids=["predict", "classify", "evaluate", "dead units", "explain"],
)
def test_a_fit_is_not_disturbed_by_threads_that_use_its_model(work, capture):
    assert fitted(work, capture=capture) == fitted(capture=capture)


def test_activations_are_watched_in_one_thread_only():
    net, (x, _) = network(), data()
    watching, done = threading.Event(), threading.Event()
    layers = []

    def watch(layer, z, y):
        layers.append(threading.get_ident())
        watching.set()
        assert done.wait(WAIT_S)

    def look():
        with unfused(watch), no_grad():
            net(x)

    def predict():
        assert watching.wait(WAIT_S)
        net.predict(x)
        done.set()

    together(look, predict)
    assert len(set(layers)) == 1
    assert len(layers) == 3


@pytest.mark.parametrize("compiled", [True, False])
def test_threads_that_train_networks_of_their_own_get_their_own_numbers(compiled, monkeypatch):
    b = gn.backend("cpu")
    if not compiled:
        monkeypatch.setattr(b, "_native", None)
    want, found = fitted(), []
    together(*[lambda: found.append(fitted())] * 3)
    assert all(one == want for one in found)


def test_limits_of_memory_that_overlap_are_put_back(standin):
    b, before = gn.backend(standin), gn.backend(standin).memory_limit()
    first, second = b.limited_memory(2**28), b.limited_memory(2**29)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert b.memory_limit() == 2**29
    second.__exit__(None, None, None)
    assert b.memory_limit() == before


@pytest.fixture
def standin():
    """The stand-in for a GPU, and its end."""
    return "standin:0"


def test_threads_take_turns_on_a_gpu(standin):
    net, (x, _) = network(standin), data(40)
    want, before = net.predict(x), state(net)
    net.predict(x)  # recorded

    def work():
        for _ in range(3):
            np.testing.assert_array_equal(net.predict(x), want)

    together(*[work] * 4)
    assert state(net) == before


def test_one_thread_at_a_time_is_on_the_stream_of_a_gpu(standin):
    b = gn.backend(standin)
    inside, other = threading.Event(), threading.Event()
    order = []

    def first():
        with b.own_stream(), b.own_stream():  # a thread may enter again
            inside.set()
            other.wait(0.3)  # the other thread comes in now, unless it waits
            order.append("first")

    def second():
        assert inside.wait(WAIT_S)
        with b.own_stream():
            other.set()
            order.append("second")

    together(first, second)
    assert order == ["first", "second"]


def free_threaded():
    """A Python without a global interpreter lock that has what gpunn needs, or None."""
    for name in ("python3.13t", "python3.14t"):
        found = shutil.which(name)
        code = f"import sys, {NEEDED}; sys.exit(sys._is_gil_enabled())"
        if found and not subprocess.run([found, "-c", code], check=False).returncode:
            return found
    return None


def test_without_a_global_interpreter_lock():
    python = free_threaded()
    if python is None:
        pytest.skip("no python3.13t or python3.14t with the packages of gpunn on the PATH")
    code = (
        "from tests.nn.test_threads import USES, together, network, data, state\n"
        "import numpy as np\n"
        "net, (x, y) = network(), data()\n"
        "want, before = USES['predict'](net, x, y), state(net)\n"
        "def work():\n"
        "    for _ in range(200):\n"
        "        np.testing.assert_array_equal(USES['predict'](net, x, y), want)\n"
        "together(*[work] * 8)\n"
        "assert state(net) == before\n"
    )
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": root}
    subprocess.run([python, "-c", code], check=True, cwd=root, env=env)
