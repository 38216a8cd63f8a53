"""A supervisor of a job of MPI: it starts the job again, with fewer workers, when one has died."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from gpunn.arguments import count
from gpunn.distributed.mpi import AGAIN, LIMIT, LIMIT_S
from gpunn.errors import MissingExtraError
from gpunn.log import logger

MARK = "GPUNN_JOB"
"""The environment variable by which the processes of a job are found."""
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
FINAL = (0, 1, 2, 130, 143)
"""Exit statuses after which the job is not started again: it is done, its program or its command is
wrong, or a signal has asked it to end.
"""
LOOK_S = 0.5  # between two looks at the processes
GRACE_S = 30  # after SIGTERM, until the processes are killed


class Job:
    """Processes that mpiexec has started.

    Args:
        command: the program and its arguments.
        workers: the number of processes.
        mpiexec: the path of mpiexec.
        limit_s: the seconds that a worker waits for the others; None for the default.
    """

    def __init__(
        self, command: Sequence[str], workers: int, mpiexec: str, limit_s: float | None = None
    ) -> None:
        self._mark = uuid.uuid4().hex
        environment = os.environ | {MARK: self._mark}
        if limit_s is not None:
            environment[LIMIT] = str(limit_s)
        self._limit_s = LIMIT_S if limit_s is None else limit_s
        self.process = subprocess.Popen(
            [mpiexec, "-n", str(workers), *command], env=environment, start_new_session=True
        )

    def wait(self) -> int:
        """Wait for the end of the job, kill what is left of it, and return its exit status.

        A job with a process that is suspended for longer than the limit is killed. Its workers
        cannot see that while they start, nor can a single worker.
        """
        since, status = time.monotonic(), None
        while status is None:
            try:
                status = self.process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                suspended = [process for process, _ in self._processes() if _is_suspended(process)]
                if not suspended:
                    since = time.monotonic()
                elif time.monotonic() - since > self._limit_s + LOOK_S:
                    logger.warning("killing the job: process %d is suspended", suspended[0])
                    self.kill()
                    return AGAIN
        self.kill()
        return 128 - status if status < 0 else status

    def stop(self) -> None:
        """Ask one worker to end. All of them then end after the same step, with a checkpoint."""
        for process, environment in self._processes():
            if any(name in environment for name in RANKS):
                os.kill(process, signal.SIGTERM)
                return
        self.process.terminate()  # there are no workers yet, or this system does not show them

    def kill(self) -> None:
        """Kill all processes of the job."""
        while found := self._processes():
            for process, _ in found:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)

    def _processes(self) -> list[tuple[int, dict[str, str]]]:
        """Return the processes of the job with their environments, where the system shows them."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                content = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:  # it has ended, or belongs to somebody else
                continue
            environment = dict(line.split("=", 1) for line in content.split("\0") if "=" in line)
            if environment.get(MARK) == self._mark:
                found.append((int(folder.name), environment))
        return found


def _is_suspended(process: int) -> bool:
    """Return whether a signal has suspended a process."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] == "T"


def launch(
    command: Sequence[str],
    workers: int,
    *,
    restarts: int = 3,
    mpiexec: str | None = None,
    limit_s: float | None = None,
) -> int:
    """Run a program in several processes of MPI until it is done, and return its exit status.

    If a process dies or does not answer, the program starts again with one process fewer. A fit
    with shards and checkpoints goes on from its newest checkpoint, with the same bits. SIGTERM and
    Ctrl-C end the job after a step and a checkpoint.

    Args:
        command: the program and its arguments, such as ["python", "fit.py"].
        workers: the number of processes at first.
        restarts: how often the program is started again.
        mpiexec: the path of mpiexec; None for the one beside Python, or else the first on the path.
        limit_s: the seconds that a worker waits for the others; None for the default.

    Raises:
        ArgumentError: a number is outside its range.
        MissingExtraError: there is no mpiexec.
    """
    workers, left = count("workers", workers), count("restarts", restarts, least=0)
    beside = Path(sys.executable).with_name("mpiexec")
    found = mpiexec or (str(beside) if beside.exists() else shutil.which("mpiexec"))
    if found is None:
        raise MissingExtraError("mpich", "mpi", "a job of several processes (it needs mpiexec)")
    while True:
        status = _watched(Job(command, workers, found, limit_s))
        if status in FINAL or not left:
            return status
        left, workers = left - 1, max(1, workers - 1)
        logger.warning(
            "the job ended with status %d: starting it again with %d workers, %d more times",
            *(status, workers, left),
        )


def _watched(job: Job) -> int:
    """Wait for a job, and pass signals on to it."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            job.kill()
            return
        stopped = True
        job.stop()
        signal.signal(signal.SIGALRM, lambda number, frame: job.kill())
        signal.alarm(GRACE_S)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = job.wait()
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + signal.SIGTERM if stopped and status else status
