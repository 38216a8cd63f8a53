"""Workers with a GPU each, on the stand-in: messages are a part of the captured step."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpunn as gn
from gpunn import optim
from gpunn.backends.cuda.nccl import Nccl
from gpunn.distributed import NcclGroup
from gpunn.errors import (
    ArgumentError,
    DeviceUnavailableError,
    MissingExtraError,
    WorkerError,
)
from tests.standin import nccl
from tests.standin.backend import StandinBackend, standin_cupy
from tests.train.test_jobs import mpiexec
from tests.train.test_shards import ROWS, WEIGHTS, network, trained

ROOT = Path(__file__).parents[2]
STEPS = 3 * -(-ROWS // 16)  # of `trained`

FIT = """
import json, sys
from pathlib import Path
import gpunn as gn
from tests.standin import backend, nccl, streams
from tests.train.test_nccl import digest

waited = gn.distributed.MpiGroup._wait

def wait(self, request):
    if not request.Test():  # a card goes on while its host waits
        streams.QUEUES.finish_all()
    waited(self, request)

gn.distributed.MpiGroup._wait = wait
backend.register()
group = gn.distributed.NcclGroup(gn.distributed.mpi(60), gn.backend("standin"))
order, shards, precision = sys.argv[2:]
with streams.order("late" if order == "late" else int(order)):
    told = {"digest": digest(group, int(shards), precision)} | nccl.counted
Path(sys.argv[1], str(group.rank)).write_text(json.dumps(told))
"""


@pytest.fixture
def standin():
    """The backend of the stand-in."""
    if not StandinBackend.diagnose().usable:
        pytest.skip(f"standin:0: {StandinBackend.diagnose().reason}")
    return gn.backend("standin")


def digest(group, shards, precision):
    """A digest of the state after a fit on the stand-in, whose steps must be captured."""
    narrow = {} if precision == "float32" else {"precision": precision}
    found = trained(
        shards, weights=WEIGHTS, net=network(wide=700, device="standin"), group=group,
        clip_norm=0.5, regularizer=optim.L2(1e-3), capture=True, **narrow,
    )  # fmt: skip
    content = b"".join(np.asarray(found[name]).tobytes() for name in sorted(found))
    return hashlib.sha256(content).hexdigest()


def by_processes(size, folder, order="late", shards=8, precision="float32"):
    """What each worker of a job tells of its fit."""
    command = [mpiexec(), "-n", str(size), sys.executable, "-c", FIT, str(folder), order]
    done = subprocess.run(
        [*command, str(shards), precision], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / str(rank)).read_text()) for rank in range(size)]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(("size", "shards", "order"), [(2, 8, "late"), (3, 8, "1"), (4, 12, "2")])
def test_gpus_of_several_processes_have_the_bits_of_one(
    size, shards, order, precision, tmp_path, standin
):
    """Each message has the number and the size that its receiver expects, or the stand-in fails."""
    found = by_processes(size, tmp_path, order, shards, precision)
    assert {each["digest"] for each in found} == {digest(None, shards, precision)}
    assert [each["groups"] for each in found] == [2 * STEPS] * size  # sums, then their slices
    assert sum(each["sent"] for each in found) == sum(each["received"] for each in found)


class Pretended:
    """A job of two workers in which the other one says what this one says."""

    rank, size, limit_s = 0, 2, 0.05

    def allgather(self, mine, sizes):
        return [mine, mine]


class Wire:
    """NCCL whose work goes on for `looks` looks at it."""

    def __init__(self, looks=10**9, fails=False):
        self.looks, self.fails, self.aborted = looks, fails, False
        wire = self

        class Communicator:
            def __init__(self, size, name, rank):
                wire.name = name

            def check_async_error(self):
                if wire.fails:
                    raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR: connection reset by peer")

            def abort(self):
                wire.aborted = True

        self.module = SimpleNamespace(
            NcclCommunicator=Communicator, get_unique_id=lambda: (-3, 7), available=True
        )
        stream = SimpleNamespace(ptr=1, record=lambda: self)
        self.xp = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: stream))

    @property
    def done(self):
        self.looks -= 1
        return self.looks < 0

    def group(self):
        b = SimpleNamespace(
            device="cuda:0", connect=lambda *given: Nccl(self.xp, self.module, *given)
        )
        return NcclGroup(Pretended(), b)


def test_a_step_that_does_not_end_is_an_error_within_the_limit():
    wire = Wire()
    group = wire.group()
    assert wire.name == (-3, 7)
    group.meet(last=False)  # nothing was done before this step
    with pytest.raises(WorkerError, match=r"got no end of a step for 0\.05 s in worker 0 of 2"):
        group.meet(last=False)
    assert wire.aborted


def test_the_last_step_of_an_epoch_is_waited_for():
    with pytest.raises(WorkerError, match="no end of a step"):
        Wire().group().meet(last=True)
    wire = Wire(looks=20)
    wire.group().meet(last=True)
    assert wire.looks < 0
    assert not wire.aborted


def test_an_error_of_nccl_is_told_at_once():
    wire = Wire(fails=True)
    with pytest.raises(WorkerError, match="connection reset by peer in worker 0 of 2"):
        wire.group().meet(last=True)
    assert wire.aborted


def test_a_wish_to_stop_is_agreed_on():
    group = Wire(looks=0).group()
    group.meet(last=False)
    assert not group.agreed
    group.wish = True
    group.meet(last=False)
    assert group.agreed


def test_what_cannot_be_connected(standin, monkeypatch):
    with pytest.raises(ArgumentError, match=r"got device cpu .*gn\.distributed\.mpi"):
        NcclGroup(Pretended(), gn.backend("cpu"))
    monkeypatch.setattr(nccl, "available", False)
    with pytest.raises(MissingExtraError, match=r"gpunn\[nccl13\].*nvidia-nccl-cu13"):
        NcclGroup(Pretended(), standin)

    def refuse(*given):
        raise nccl.NcclError("NCCL_ERROR_INVALID_USAGE: duplicate GPU")

    monkeypatch.setattr(nccl, "available", True)
    monkeypatch.setattr(nccl, "NcclCommunicator", refuse)
    with pytest.raises(WorkerError, match=r"duplicate GPU.* a GPU of its own"):
        NcclGroup(Pretended(), standin)


def test_messages_are_work_of_a_capture(standin):
    """Nothing is sent before the graph is launched, and everything again at each launch."""
    sent = []
    wire = Wire()
    module = wire.module
    module.NCCL_UINT8 = 1
    module.groupStart = lambda: None
    current = standin_cupy().cuda.get_current_stream
    module.groupEnd = lambda: current().do(lambda: sent.append(1))
    links = Nccl(standin_cupy(), module, 0, 2, list)
    links._communicator.send = links._communicator.recv = lambda *message: None
    array = standin.zeros((3,), np.float32)
    with standin.own_stream():
        graph = standin.record(lambda: links.swap([(1, array)], [(1, array)]))
        assert not sent
        graph.launch(3)
        standin.synchronize()
    assert len(sent) == 3


@pytest.mark.parametrize("count", [1, 2])
def test_the_command_line_takes_a_gpu_for_each_worker(count, monkeypatch):
    """And one for all through the host, where there are too few."""

    class Two(Pretended):
        def machines(self):
            return [np.zeros(4, np.uint8)] * 2

    def backend(name):
        if int(name.partition(":")[2]) >= count:
            raise DeviceUnavailableError(name)
        return SimpleNamespace(device=name, connect=lambda *given: None)

    module = sys.modules["gpunn.distributed.nccl"]  # the package's name is the function
    monkeypatch.setattr(module, "mpi", Two)
    monkeypatch.setattr(module, "backend", backend)
    found = gn.distributed.workers(gn.Device("cuda"))
    assert getattr(found, "device", "") == ("cuda:0" if count == 2 else "")
    assert not hasattr(gn.distributed.workers(gn.Device("cpu")), "device")
