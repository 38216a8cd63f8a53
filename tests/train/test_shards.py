"""Steps over shards: one tree of sums, and what belongs to a shard."""

from __future__ import annotations

import copy
import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.backends.cpu.threads import num_threads
from gpunn.distributed import ALONE, Tree, places, shards_of
from gpunn.errors import (
    ArgumentError,
    DivergenceError,
    GradientError,
    ModelFileError,
    WorkerError,
)
from gpunn.examples import edges
from gpunn.train.steps.sharded import ShardedStep

ROOT = Path(__file__).parents[2]
ROWS = 75
X = np.random.default_rng(0).standard_normal((ROWS, 5)).astype(np.float32)
Y = np.arange(ROWS) % 3
WEIGHTS = np.random.default_rng(1).uniform(0.2, 3, ROWS).astype(np.float32)


def network(dropout=0.25, norm=True, device="cpu", wide=8):
    layers = [nn.Linear(5, wide, "relu", seed=1), *([nn.BatchNorm(wide)] if norm else [])]
    layers += [nn.Dropout(dropout)] if dropout else []
    layers += [nn.Linear(wide, 3, seed=2)]
    return nn.Sequential(*layers).to(device)


def trained(shards, *, capture="auto", weights=None, net=None, batch_size=16, **options):
    """The state after a fit: parameters, running values, the optimizer's state, and the losses."""
    net = network() if net is None else net
    trainer = gn.Trainer(net, optimizer=optim.Adam(lr=0.02), shards=shards, capture=capture,
                         seed=5, **options)  # fmt: skip
    history = trainer.fit(
        X, Y, epochs=3, batch_size=batch_size, sample_weight=weights, progress=False
    )
    state = net.state_dict()
    state |= trainer.optimizer.state_dict()
    return state | {"loss": np.array(history["loss"])}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# the tree ----------------------------------------------------------------------------------------


def by_definition(leaves):
    """The binary tree over indices, level by level; an orphan goes up alone."""
    level = list(leaves)
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [pair[0] if len(pair) == 1 else pair[0] + pair[1] for pair in pairs]
    return level[0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 31, 64])
def test_the_tree_is_the_binary_tree_over_the_indices(count, device):
    b = gn.backend(device)
    leaves = np.random.default_rng(count).standard_normal((count, 9)).astype(np.float32) * 1e3
    tree = Tree(b, count)
    for number, leaf in enumerate(leaves):
        tree.add((0, number), [b.upload(leaf)])
    np.testing.assert_array_equal(b.download(tree.root()[0]), by_definition(leaves))
    if count > 6:
        assert (by_definition(leaves) != leaves.sum(axis=0, dtype=np.float32)).any()


def test_the_edges_are_a_function_of_rows_and_shards():
    assert edges(16, 4) == [0, 4, 8, 12, 16]
    assert edges(10, 4) == [0, 2, 5, 7, 10]
    for rows in range(1, 40):
        for shards in range(1, rows + 1):
            assert min(np.diff(edges(rows, shards))) >= 1


# the step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", ["auto", False])
@pytest.mark.parametrize("mode", ["stop", "skip", "ignore"])
def test_one_shard_has_the_bits_of_a_step_without(capture, mode, device):
    options = {"capture": capture, "on_nonfinite": mode}
    assert_equal(
        trained(1, net=network(device=device), **options),
        trained(None, net=network(device=device), **options),
    )


@pytest.mark.both_bodies
@pytest.mark.parametrize("shards", [2, 4, 7, 16])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("mode", ["stop", "skip", "ignore"])
def test_recorded_steps_have_the_bits_of_eager_ones(shards, weights, mode, device):
    options = {"weights": weights, "on_nonfinite": mode, "clip_norm": 0.5}
    options["regularizer"] = optim.L2(1e-2)
    norm = shards <= 4  # batch norm takes no shard of a single row
    nets = [network(norm=norm, device=device) for _ in range(2)]
    recorded = trained(shards, net=nets[0], **options)
    assert_equal(recorded, trained(shards, capture=False, net=nets[1], **options))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("batch_size", [16, 64, 75])
def test_without_draws_and_batch_norm_shards_only_round_otherwise(weights, batch_size, device):
    states = [
        trained(shards, weights=weights, batch_size=batch_size, net=network(0, False, device))
        for shards in (None, 4, 5)
    ]
    for state in states[1:]:
        for name, value in state.items():
            np.testing.assert_allclose(value, states[0][name], rtol=2e-3, atol=2e-5, err_msg=name)
    assert any((states[1][name] != states[0][name]).any() for name in states[0])


def test_each_shard_is_the_step_of_its_own_rows(device):
    """The gradients are the mean of those that the shards have alone, in the tree's order."""
    net = network(0, False, device)
    b = net.backend
    x, y = b.upload(X[:20]), b.upload(Y[:20])
    step = ShardedStep(net, gn.ops.softmax_cross_entropy, optim.SGD(net.parameters()))
    flat, alone = step.optimizer.bound, []
    for start, end in zip(edges(20, 4)[:-1], edges(20, 4)[1:], strict=True):
        step.gradients(x[start:end], y[start:end])
        alone.append(b.download(flat.grad).copy())
    step.divide(4, ALONE)
    step.gradients(x, y)
    expected = by_definition(alone) * np.float32(0.25)
    np.testing.assert_array_equal(b.download(flat.grad), expected)


class Tied(nn.Module):
    """A network that uses one weight twice: its gradient has two parts, one after the other."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5, "tanh", seed=1), nn.Linear(5, 3, seed=2)

    def forward(self, x):
        return self.last(self.first(self.first(x)))


@pytest.mark.both_bodies
@pytest.mark.parametrize("net", [network, Tied])
@pytest.mark.parametrize("rows", [64, 1100])
def test_gradients_that_are_added_at_once_have_the_bits_of_the_tree(net, rows, monkeypatch):
    """A right sibling adds to its left one: for few rows inside the product, for many after it."""
    x = np.random.default_rng(0).standard_normal((rows, 5)).astype(np.float32)

    def gradients(model):
        step = ShardedStep(model, gn.ops.softmax_cross_entropy, optim.SGD(model.parameters()))
        step.divide(4, ALONE)
        for stream in model.streams():
            stream.seed, stream.stream = 3, 1
        return step.gradients(x, np.arange(rows) % 3), step.optimizer.bound.grad

    found = gradients(net())
    monkeypatch.setattr("gpunn.train.steps.sharded.is_used_once", lambda node: False)
    expected = gradients(net())
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_parameter_without_a_gradient_is_an_error(device):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3, seed=1), nn.Linear(5, 3, seed=2)

        def forward(self, x):
            return self.used(x)

    trainer = gn.Trainer(Half(), shards=4, capture=False, device=device)
    with pytest.raises(GradientError, match="no gradient for parameter"):
        trainer.fit(X, Y, epochs=1, batch_size=16, progress=False)


def test_running_values_become_the_mean_over_the_shards(device):
    net = nn.Sequential(nn.BatchNorm(5, momentum=0.5), nn.Linear(5, 3, seed=0)).to(device)
    gn.Trainer(net, optimizer=optim.SGD(lr=0.0), shards=4, capture=False).fit(
        X[:64], Y[:64], epochs=1, batch_size=64, shuffle=False, progress=False
    )
    means = X[:64].reshape(4, 16, 5).mean(axis=1)
    np.testing.assert_allclose(net[0].running_mean.numpy(), 0.5 * means.mean(axis=0), atol=1e-6)


def test_a_broken_shard_breaks_the_step_as_a_whole(device):
    x = X.copy()
    x[3] = 1e30  # its squares are infinite
    net = network(device=device)
    before = net.state_dict()
    trainer = gn.Trainer(net, shards=4, on_nonfinite="skip", seed=5)
    trainer.fit(x[:16], Y[:16], epochs=1, batch_size=16, shuffle=False, progress=False)
    assert_equal(net.state_dict(), before)


def test_a_checkpoint_knows_its_shards(tmp_path):
    def fit(shards):
        trainer = gn.Trainer(network(), shards=shards, checkpoint=tmp_path)
        trainer.fit(X, Y, epochs=1, progress=False)

    fit(4)
    fit(4)
    for other in (8, None):
        with pytest.raises(ModelFileError, match="shards"):
            fit(other)


def test_what_is_refused():
    for wrong in (0, -1, 1.5, True, "4"):
        with pytest.raises(ArgumentError, match="shards"):
            gn.Trainer(network(), shards=wrong)

    class Mine(gn.train.EagerStep):
        pass

    class Own(gn.Trainer):
        step_class = Mine

    with pytest.raises(ArgumentError, match="leave out shards"):
        Own(network(), shards=2)


# groups of workers -------------------------------------------------------------------------------


class Threads:
    """A group of threads of this process; the same calls as for processes of MPI.

    With a `delay`, messages arrive late, and workers go on late after a meeting, at random.
    """

    def __init__(self, size, window=False, delay=0.0):
        self.size, self._barrier, self._parts = size, threading.Barrier(size, timeout=60), {}
        self.delay = delay
        self._memory = np.zeros((size, 1 << 20), np.uint8) if window else None

    wish = agreed = False
    view = None

    def window(self, part_bytes):
        if self._memory is None:
            return None
        assert part_bytes <= self._memory.shape[1]
        if self.view is None:
            self.view = SimpleNamespace(parts=self._memory, size=self.size, meet=self.wait)
        return self.view

    def wait(self):
        self._barrier.wait()
        time.sleep(random.uniform(0, self.delay))

    def member(self, rank):
        found = copy.copy(self)
        found.rank = rank
        return found

    def reaches(self, b):
        return b.on_host

    def swap(self, sent, received):
        self._parts[self.rank] = [(peer, array.copy()) for peer, array in sent]
        self.wait()
        for peer in range(self.size):
            there = [array for to, array in self._parts[peer] if to == self.rank]
            for array, (_, place) in zip(
                there, [given for given in received if given[0] == peer], strict=True
            ):
                assert array.dtype == place.dtype
                place[...] = array
        self.wait()

    def meet(self, last):
        pass

    def allgather(self, mine, sizes):
        assert mine.size == sizes[self.rank]
        self._parts[self.rank] = mine.copy()
        self.wait()
        found = [self._parts[rank] for rank in range(self.size)]
        self.wait()
        return found


def by_workers(size, fit, window=False, delay=0.0):
    """What `fit(group)` returns in each of so many threads."""
    group = Threads(size, window, delay)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(fit, [group.member(rank) for rank in range(size)]))


@pytest.mark.parametrize("leaves", range(1, 20))
def test_workers_own_the_nodes_that_their_leaves_add_up_to(leaves):
    rng = np.random.default_rng(leaves)
    values = rng.standard_normal((leaves, 3)).astype(np.float32)
    for size in range(1, leaves + 1):
        whole, seen = Tree(gn.backend("cpu"), leaves), []
        for rank in range(size):
            own = Tree(gn.backend("cpu"), leaves)
            for number in shards_of(rank, size, leaves):
                own.add((0, number), [values[number].copy()])
                seen.append(number)
            found = places(leaves, shards_of(rank, size, leaves))
            assert sorted(own.nodes) == sorted(found)
            first = [number << height for height, number in found]
            assert first == sorted(first)
            for place in sorted(own.nodes):
                whole.add(place, own.nodes[place])
        assert seen == list(range(leaves))
        np.testing.assert_array_equal(whole.root()[0], by_definition(values))


@pytest.mark.parametrize("window", [False, True], ids=["messages", "window"])
def test_late_messages_and_workers_change_no_bit(window):
    """A worker that is late still reads what the others must not overwrite yet."""

    def fit(group):
        return trained(8, net=network(wide=700), batch_size=32, group=group)

    alone = fit(None)
    for found in by_workers(3, fit, window, delay=0.02):
        assert_equal(found, alone)


@pytest.mark.both_bodies
@pytest.mark.parametrize("shards", [8, 12])
@pytest.mark.parametrize("size", [2, 3, 4, 8])
@pytest.mark.parametrize("window", [False, True], ids=["messages", "window"])
def test_any_number_of_workers_has_the_bits_of_one(shards, size, window):
    """Dropout, batch norm, clipping, a penalty, weights, a short last batch, recorded steps.

    In a window each worker adds up its slice of the long arrays.
    """

    def fit(group):
        return trained(shards, weights=WEIGHTS, net=network(wide=700), batch_size=32, group=group,
                       clip_norm=0.5, regularizer=optim.L2(1e-3))  # fmt: skip

    alone = fit(None)
    for found in by_workers(size, fit, window):
        assert_equal(found, alone)


@pytest.mark.both_bodies
@pytest.mark.parametrize("shards", [8, 12])
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_any_number_of_threads_has_the_bits_of_one(shards, threads):
    """Recorded steps, in which the threads share the shards, the sums and the update."""

    def fit(count):
        with num_threads(count):
            return trained(shards, weights=WEIGHTS, net=network(wide=40), batch_size=32,
                           clip_norm=0.5, regularizer=optim.L2(1e-3))  # fmt: skip

    assert_equal(fit(threads), fit(1))


@pytest.mark.both_bodies
@pytest.mark.parametrize("rule", [optim.Adam, optim.AdamW, optim.SGD, optim.RMSprop])
def test_a_divided_update_counts_all_steps(rule):
    """Steps that are not recorded, the last ones of an epoch, count for every piece."""

    def fit(count):
        net = nn.Sequential(nn.Linear(5, 4500, "relu", seed=1), nn.Linear(4500, 3, seed=2))
        with num_threads(count):
            trainer = gn.Trainer(net, optimizer=rule(lr=0.01), shards=4, seed=5)
            trainer.fit(X, Y, epochs=4, batch_size=16, progress=False)
        return net.state_dict() | trainer.optimizer.state_dict()

    assert_equal(fit(3), fit(1))


@pytest.mark.both_bodies
def test_two_processes_of_two_threads_have_the_bits_of_one():
    def fit(group=None, threads=2):
        with num_threads(threads):
            return trained(8, net=network(), batch_size=32, group=group)

    alone = fit(threads=1)
    for found in by_workers(2, fit):
        assert_equal(found, alone)


def test_the_number_of_threads_of_products_does_not_matter():
    """Shards are computed as with one thread of BLAS, whatever is set."""
    script = (
        "import hashlib, numpy as np, gpunn as gn\n"
        "x = np.random.default_rng(0).random((1024, 300), np.float32)\n"
        "net = gn.nn.Sequential(gn.nn.Linear(300, 512, seed=0), gn.nn.Linear(512, 10, seed=1))\n"
        "t = gn.Trainer(net, shards=2, seed=0)\n"
        "h = t.fit(x, np.arange(1024) % 10, epochs=1, batch_size=512, progress=False)\n"
        "s = t.evaluate(x, np.arange(1024) % 10)\n"
        "p = b''.join(a.tobytes() for a in net.state_dict().values())\n"
        "print(hashlib.sha256(p).hexdigest(), h['loss'], s)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


def test_as_many_shards_as_workers_has_other_bits():
    """The control: what is usual elsewhere depends on the number of workers."""
    first, second = (trained(shards, net=network()) for shards in (2, 4))
    assert any((first[name] != second[name]).any() for name in first)


def test_a_broken_shard_of_one_worker_ends_the_fit_of_all():
    x = X.copy()
    x[70] = 1e30

    def fit(group):
        trainer = gn.Trainer(network(), shards=4, group=group, seed=5)
        try:
            trainer.fit(x, Y, epochs=1, batch_size=16, shuffle=False, progress=False)
        except DivergenceError:
            return trainer.steps
        return "went on"

    assert by_workers(2, fit) == [4, 4]


def test_the_first_worker_writes_the_checkpoints(tmp_path):
    def fit(group):
        trainer = gn.Trainer(network(), shards=4, group=group, checkpoint=tmp_path, seed=5)
        trainer.fit(X, Y, epochs=2, batch_size=16, progress=True)
        return trainer.model.state_dict()

    first, second = by_workers(2, fit)
    assert_equal(first, second)
    resumed = gn.Trainer(network(), shards=4, checkpoint=tmp_path, seed=5)
    resumed.fit(X, Y, epochs=2, batch_size=16, progress=False)  # one worker goes on from there
    assert_equal(resumed.model.state_dict(), first)


def test_the_first_worker_writes_the_log(tmp_path):
    def fit(group):
        trainer = gn.Trainer(network(), shards=4, group=group, seed=5)
        log = gn.train.CSVLog(tmp_path / f"log-{group.rank}.csv")
        trainer.fit(X, Y, epochs=2, batch_size=16, progress=False, callbacks=[log])

    by_workers(2, fit)
    assert [path.name for path in tmp_path.iterdir()] == ["log-0.csv"]
    assert len((tmp_path / "log-0.csv").read_text().splitlines()) == 3


def test_workers_need_shards_and_launchers_a_group(monkeypatch):
    for shards in (None, 1, 3):
        with pytest.raises(ArgumentError, match="for 4 workers; expected at least as many shards"):
            gn.Trainer(network(), shards=shards, group=Threads(4).member(0))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(ArgumentError, match=r"got 4 processes .* pass group=gn.distributed.mpi"):
        gn.Trainer(network())


def test_a_trainer_with_a_group_can_be_copied():
    trainer = gn.Trainer(network(), shards=4, group=Threads(2).member(1))
    assert copy.deepcopy(trainer).group.size == 1


MPI = """
import hashlib, sys
from pathlib import Path
import numpy as np
import gpunn as gn
from tests.train.test_shards import WEIGHTS, trained
found = trained(8, weights=WEIGHTS, batch_size=32, group=gn.distributed.mpi(60))
digest = hashlib.sha256(b"".join(found[k].tobytes() for k in sorted(found))).hexdigest()
Path(sys.argv[1], str(gn.distributed.mpi().rank)).write_text(digest)
"""


@pytest.mark.parametrize("size", [2, 3])
def test_processes_of_mpi_have_the_bits_of_one(size, tmp_path):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("mpiexec is not installed")
    command = [launcher, "-n", str(size), sys.executable, "-c", MPI, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = trained(8, weights=WEIGHTS, batch_size=32)
    expected = hashlib.sha256(b"".join(found[k].tobytes() for k in sorted(found))).hexdigest()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        str(rank): expected for rank in range(size)
    }


def test_a_worker_that_does_not_answer_is_an_error():
    class Never:
        def Get_rank(self):
            return 0

        def Get_size(self):
            return 2

        def Iallgatherv(self, *given):
            return self

        def Ibcast(self, *given, root):
            return self

        def Test(self):
            return False

    group = gn.distributed.MpiGroup(Never(), limit_s=0.01)
    with pytest.raises(WorkerError, match=r"no answer for 0\.01 s"):
        gn.Trainer(network(), shards=4, group=group).fit(X, Y, epochs=1, progress=False)


def test_the_page_runs():
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/scale.md", "exec"), {})


def test_the_command_line_under_a_launcher_wants_shards(tmp_path):
    command = [sys.executable, "-m", "gpunn", "train", "digits", "--epochs", "1", "--quiet"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PMI_SIZE": "2"}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "--shards" in done.stderr
    assert not list(tmp_path.glob("runs/digits/*"))
