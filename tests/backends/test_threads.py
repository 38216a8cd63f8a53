"""Threads that share a recorded step: how many, and that they change nothing but the time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cpu import threads
from gpunn.backends.cpu.recording import Plan
from gpunn.backends.cpu.threads import VARIABLES, Workers, num_threads
from gpunn.errors import ArgumentError

WAIT_S = 30


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


# how many ----------------------------------------------------------------------------------------


def test_the_number_is_that_of_the_processors(monkeypatch):
    monkeypatch.setattr(threads, "available_processors", lambda: 7)
    assert gn.get_num_threads() == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert gn.get_num_threads() == 3
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert gn.get_num_threads() == 2
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "many")
    assert gn.get_num_threads() == 3
    monkeypatch.setenv("MKL_NUM_THREADS", "0")
    assert gn.get_num_threads() == 1


def test_a_number_that_was_set_counts():
    gn.set_num_threads(5)
    assert gn.get_num_threads() == gn.backend("cpu").threads == 5
    with num_threads(1):
        assert gn.get_num_threads() == 1
    gn.set_num_threads(None)
    assert gn.get_num_threads() >= 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_is_a_whole_one(wrong):
    with pytest.raises(ArgumentError, match="above 0"):
        gn.set_num_threads(wrong)


def test_models_that_train_together_use_one_thread_each():
    assert gn.distributed.on_threads([gn.get_num_threads] * 2, threads=2) == [1, 1]


# jobs at the same time ---------------------------------------------------------------------------


def test_jobs_meet():
    meeting = threading.Barrier(3)
    seen = []

    def job():
        meeting.wait(WAIT_S)  # for ever, if they were done one after another
        seen.append(threading.get_ident())

    for _ in range(20):
        Workers().run([job] * 3)
        assert len(set(seen)) == 3
        seen.clear()


def test_an_error_is_raised_after_all_have_ended():
    done = []

    def broken():
        raise ValueError("of a job")

    workers = Workers()
    for jobs in ([broken, lambda: done.append(1)], [lambda: done.append(1), broken]):
        with pytest.raises(ValueError, match="of a job"):
            workers.run(jobs)
    assert done == [1, 1]
    workers.run([lambda: done.append(2)] * 2)
    assert done == [1, 1, 2, 2]


def test_a_second_user_does_one_job_after_another():
    workers, order = Workers(), []
    inner = [lambda: order.append(1), lambda: order.append(2), lambda: order.append(3)]
    workers.run([lambda: workers.run(inner)])
    assert order == [1, 2, 3]


# recordings --------------------------------------------------------------------------------------


def test_pieces_of_a_recording_meet():
    plan, meeting = Plan(), threading.Barrier(2)
    with plan.open():
        plan.apart([lambda: gn.backends.cpu.recording.recording().note(meeting.wait, WAIT_S)] * 2)
    plan.join(lambda calls: None, lambda calls: None)
    plan.launch(3)
    assert meeting.n_waiting == 0


def test_a_piece_that_cannot_be_repeated_refuses_the_recording():
    b, plan = gn.backend("cpu"), Plan()
    with plan.open():
        plan.apart([lambda: None, lambda: b.download(np.ones(3))])
    assert "copied to the host" in plan.refused


def adam(pieces, size=100_003):
    """Parameters, moments and the count of steps after recorded updates."""
    parameter = gn.tensor(np.random.default_rng(0).standard_normal(size), requires_grad=True)
    optimizer = gn.optim.Adam([parameter], lr=0.1)
    flat = optimizer.bound
    gradient = np.random.default_rng(1).standard_normal(size).astype(np.float32)

    def step():
        flat.zero_grad()
        parameter.node.add(flat.backend, gradient)
        optimizer.step()

    step()
    plan = flat.backend.record(step, pieces)
    plan.launch(3)
    return [flat.data.copy(), *(a.copy() for a in optimizer.state), optimizer.device_step.copy()]


@pytest.mark.both_bodies
@pytest.mark.parametrize("pieces", [2, 3, 8])
def test_a_divided_update_has_the_same_bits(pieces):
    for found, expected in zip(adam(pieces), adam(1), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert adam(pieces)[-1] == 5


@pytest.mark.both_bodies
@pytest.mark.parametrize("pieces", [2, 3, 70])
def test_divided_rows_are_the_same_rows(pieces):
    b = gn.backend("cpu")
    table = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    index = np.random.default_rng(1).integers(0, 300, 1000)
    found = []
    plan = b.record(lambda: found.append(gn.ops.gather.gather_rows(b, table, index)), pieces)
    found[0].fill(0)
    plan.launch()
    np.testing.assert_array_equal(found[0], table[index])


FORKED = """
import os, threading
import numpy as np
import gpunn as gn
from gpunn import nn
gn.set_num_threads(3)

def state():
    net = nn.Sequential(
        nn.Linear(20, 64, "relu", seed=1), nn.Dropout(0.5), nn.Linear(64, 3, seed=2)
    )
    x = np.random.default_rng(0).random((640, 20), np.float32)
    gn.Trainer(net, shards=4, seed=0).fit(x, np.arange(640) % 3, epochs=2, batch_size=64,
                                          progress=False)
    return b"".join(a.tobytes() for a in net.state_dict().values())

expected = state()
child = os.fork()
if child == 0:
    os._exit(0 if state() == expected else 1)
assert os.waitpid(child, 0)[1] == 0
found = []
others = [threading.Thread(target=lambda: found.append(state())) for _ in range(3)]
[t.start() for t in others], [t.join() for t in others]
assert found == [expected] * 3
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("compiled", ["auto", "0"])
def test_a_child_of_a_fork_has_threads_of_its_own(compiled):
    """And several threads of a program may train at the same time."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        env=os.environ | {"GPUNN_COMPILED": compiled},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
