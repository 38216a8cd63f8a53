"""Jobs of several processes: they stop together, name who fails, and go on with fewer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpunn as gn
from gpunn.distributed import check_alike
from gpunn.distributed.launch import MARK, Job
from gpunn.distributed.mpi import AGAIN
from gpunn.errors import ArgumentError, WorkerError
from tests.train.test_shards import by_workers

ROOT = Path(__file__).parents[2]
LIMIT_S = 20  # of one command


def mpiexec():
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("mpiexec is not installed")
    return found


FIT = """
import hashlib, os, sys, time
from pathlib import Path
import numpy as np
import gpunn as gn
from tests.train.test_shards import network

class Look(gn.train.Callback):
    def on_epoch_end(self, trainer, epoch, history):
        Path(folder, f"at-{group.rank}").write_text(f"{os.getpid()} {trainer.steps}")
        time.sleep(float(os.environ.get("PAUSE", 0)))

folder, epochs = sys.argv[1], int(sys.argv[2])
group = gn.distributed.mpi()
x = np.random.default_rng(0).standard_normal((96, 5)).astype(np.float32)
x += group.rank * float(os.environ.get("OTHER", 0))
net = network()
trainer = gn.Trainer(net, shards=8, group=group, seed=5, checkpoint=folder)
trainer.fit(x, np.arange(96) % 3, epochs=epochs, batch_size=32, progress=False, callbacks=[Look()])
state = net.state_dict() | trainer.optimizer.state_dict() | dict(trainer.history)
content = [np.asarray(state[k]).tobytes() for k in sorted(state) if k != "seconds"]
digest = hashlib.sha256(b"".join(content))
Path(folder, f"end-{group.rank}").write_text(digest.hexdigest())
"""


def start(size, folder, epochs=3, limit_s=LIMIT_S, *, command=(), **variables):
    """A job that writes what it has done into a folder."""
    folder.mkdir(exist_ok=True)
    command = command or [mpiexec(), "-n", str(size), sys.executable]
    return subprocess.Popen(
        [*command, "-c", FIT, str(folder), str(epochs)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"GPUNN_LIMIT_S": str(limit_s), "PYTHONPATH": str(ROOT)} | variables,
    )  # fmt: skip


def ended(job):
    """The exit status of a job, and what it wrote to stderr."""
    _, words = job.communicate(timeout=120)
    return job.returncode, words


def reached(folder, rank, steps):
    """The number of a worker's process, when it has done so many steps."""
    for _ in range(12_000):
        try:
            process, done = map(int, (folder / f"at-{rank}").read_text().split())
            if done >= steps:
                return process
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    raise AssertionError(f"worker {rank} has not done {steps} steps")


def assert_gone(process):
    """Assert that a process has ended, or ends soon. Its parent may not have asked for its end."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {process} is still there, in state {state}")


def digests(folder):
    return {path.read_text() for path in folder.glob("end-*")}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The digest of a fit that nothing disturbs."""
    folder = tmp_path_factory.mktemp("unbroken")
    status, words = ended(start(2, folder, epochs=12))
    assert status == 0, words
    (digest,) = digests(folder)
    return digest


def test_a_signal_to_one_worker_stops_all_after_the_same_step(tmp_path, unbroken):
    job = start(3, tmp_path, epochs=12, PAUSE="0.2")
    os.kill(reached(tmp_path, 1, 6), signal.SIGTERM)
    status, words = ended(job)
    assert status == 128 + signal.SIGTERM, words
    assert not digests(tmp_path)
    status, words = ended(start(2, tmp_path, epochs=12))
    assert status == 0, words
    assert "resuming" in words
    assert digests(tmp_path) == {unbroken}


def test_a_worker_that_is_suspended_is_named(tmp_path):
    job = start(3, tmp_path, epochs=10_000, limit_s=1, PAUSE="0.01")
    suspended = reached(tmp_path, 2, 6)
    os.kill(suspended, signal.SIGSTOP)
    status, words = ended(job)
    assert status != 0
    assert "got no answer for 1 s from worker 2 of 3" in words
    assert_gone(suspended)


@pytest.mark.parametrize(
    ("variables", "name"), [({"OTHER": "1"}, "data.x"), ({"UNALIKE": "1"}, "kernels")]
)
def test_a_worker_that_would_do_something_else_is_refused(variables, name, tmp_path):
    command = []
    if "UNALIKE" in variables:  # the second worker has no compiled kernels
        inner = f'{sys.executable} "$@"'
        rank = "${PMI_RANK:-$OMPI_COMM_WORLD_RANK}"
        wrapped = f'if [ "{rank}" = 1 ]; then GPUNN_COMPILED=0 {inner}; else {inner}; fi'
        command = [mpiexec(), "-n", "2", "bash", "-c", wrapped, "job"]
    status, words = ended(start(2, tmp_path, command=command, **variables))
    assert status != 0
    assert f"got a worker 1 with {name}" in words
    assert not digests(tmp_path)


@pytest.mark.filterwarnings("ignore:suspicious MPI")
def test_a_launcher_of_another_mpi_is_an_error(monkeypatch):
    """Each process would take itself for the only one, and do the whole fit."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(WorkerError, match="got 4 processes of a launcher, and mpi4py sees 1"):
        gn.distributed.mpi()


def test_an_error_of_one_worker_ends_all(tmp_path):
    script = (
        "import gpunn as gn\n"
        "group = gn.distributed.mpi()\n"
        "if group.rank: raise ValueError('of one')\n"
        "import numpy as np\n"
        "group.allgather(np.zeros(1, np.uint8), [1, 1])\n"
    )
    command = [mpiexec(), "-n", "2", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "of one" in done.stderr


# the supervisor ----------------------------------------------------------------------------------


def supervised(folder, workers, restarts, epochs=12, **variables):
    script = folder.parent / "fit.py"
    script.write_text(FIT)
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "gpunn", "launch", "-n", str(workers)]
    command += ["--restarts", str(restarts), "--limit", "2", str(script), str(folder), str(epochs)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
    )  # fmt: skip


def test_a_job_goes_on_without_a_worker_that_dies(tmp_path, unbroken):
    mpiexec()
    folder = tmp_path / "run"
    job = supervised(folder, 3, restarts=2, PAUSE="0.2")
    os.kill(reached(folder, 1, 6), signal.SIGKILL)
    os.kill(reached(folder, 0, 15), signal.SIGKILL)
    status, words = ended(job)
    assert status == 0, words
    assert "starting it again with 2 workers, 1 more times" in words
    assert unbroken in digests(folder)


def test_a_supervisor_that_is_told_to_stop_stops_the_job(tmp_path, unbroken):
    mpiexec()
    folder = tmp_path / "run"
    job = supervised(folder, 2, restarts=2, PAUSE="0.2")
    worker = reached(folder, 1, 6)
    job.terminate()
    status, words = ended(job)
    assert status == 128 + signal.SIGTERM, words
    assert_gone(worker)
    status, words = ended(start(2, folder, epochs=12))
    assert digests(folder) == {unbroken}, words


def test_a_wrong_program_is_not_started_again(tmp_path):
    mpiexec()
    script = tmp_path / "wrong.py"
    script.write_text("raise SystemExit(1)")
    command = [sys.executable, "-m", "gpunn", "launch", "-n", "2", str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "again" not in done.stderr


def test_what_launch_refuses(tmp_path, monkeypatch):
    for wrong in ({"workers": 0}, {"workers": 2, "restarts": -1}):
        with pytest.raises(ArgumentError, match="expected an integer"):
            gn.distributed.launch(["python"], **wrong)


def test_killing_a_job_leaves_nothing():
    """Processes are found by a mark in their environment, whoever their parent is."""
    job = Job(["import time; time.sleep(60)"], 1, shutil.which("true"))
    job.process.wait()
    left = subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: job._mark})
    while MARK not in Path(f"/proc/{left.pid}/environ").read_text():
        time.sleep(0.001)  # it has not begun
    assert job.wait() == 0
    assert left.wait(10) == -signal.SIGKILL


def test_a_job_with_a_suspended_process_is_killed(tmp_path, caplog):
    launcher = tmp_path / "launcher"
    launcher.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    launcher.chmod(0o700)
    job = Job(["sleep", "60"], 1, str(launcher), limit_s=0.2)
    os.kill(job.process.pid, signal.SIGSTOP)
    assert job.wait() == AGAIN
    assert f"process {job.process.pid} is suspended" in caplog.text
    assert job.process.wait(10) == -signal.SIGKILL


def test_texts_are_compared():
    def check(group):
        try:
            check_alike(group, {"seed": "1", "lr": "0.1" if group.rank < 2 else "0.2"})
        except WorkerError as error:
            return str(error)
        return ""

    found = by_workers(3, check)
    assert len(set(found)) == 1
    assert "got a worker 2 with lr 0.2, and a worker 0 with 0.1" in found[0]
