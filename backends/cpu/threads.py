"""The threads that share the work of one recorded step: how many, and how they are run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from gpunn.backends.cpu.blas import available_processors
from gpunn.errors import ArgumentError

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The environment variables that limit the number of threads. The lowest one counts."""

_chosen: int | None = None
_here: ContextVar[int | None] = ContextVar("gpunn_threads", default=None)

Job = Callable[[], object]


def set_num_threads(threads: int | None) -> None:
    """Set the number of threads that share a step with shards, and the rows of a prediction.

    The number changes no result.

    Args:
        threads: the number; None for the lowest of the environment variables `OMP_NUM_THREADS`,
            `OPENBLAS_NUM_THREADS` and `MKL_NUM_THREADS`, or without them, the number of processors
            that this process may use.

    Raises:
        ArgumentError: threads is not a whole number above 0.
    """
    global _chosen
    if threads is not None and (
        isinstance(threads, bool) or not isinstance(threads, int) or threads < 1
    ):
        raise ArgumentError(f"got threads={threads!r}; expected a whole number above 0, or None")
    _chosen = threads


def get_num_threads() -> int:
    """Return the number of threads that share a step with shards, and the rows of a prediction."""
    here = _here.get()
    if here is not None:
        return here
    if _chosen is not None:
        return _chosen
    limits = [text for name in VARIABLES if (text := os.environ.get(name, "").strip()).isdecimal()]
    return min([available_processors(), *(max(1, int(limit)) for limit in limits)])


@contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Set the number of threads inside the block, for this thread and what it calls."""
    token = _here.set(threads)
    try:
        yield
    finally:
        _here.reset(token)


class _Worker:
    """A thread that waits for jobs. It sleeps meanwhile, and ends with the process."""

    def __init__(self) -> None:
        self._begin, self._done = threading.Lock(), threading.Lock()
        self._begin.acquire()
        self._done.acquire()
        self._job: Job = lambda: None
        self.error: BaseException | None = None
        threading.Thread(target=self._serve, name="gpunn", daemon=True).start()

    def start(self, job: Job) -> None:
        """Let the thread do a job."""
        self._job, self.error = job, None
        self._begin.release()

    def wait(self) -> None:
        """Wait until the job is done."""
        self._done.acquire()

    def _serve(self) -> None:
        while True:
            self._begin.acquire()
            try:
                self._job()
            except BaseException as error:
                self.error = error
            self._done.release()


class Workers:
    """Threads that do jobs at the same time. They are started when they are first needed."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # a child has none of the threads

    def _reset(self) -> None:
        self._workers: list[_Worker] = []
        self._free = threading.Lock()

    def run(self, jobs: Sequence[Job]) -> None:
        """Do the jobs at the same time, the first one in this thread, and wait for all.

        If another thread uses the workers, this thread does one job after another.

        Raises:
            BaseException: the first error of a job, after all have ended.
        """
        if not self._free.acquire(blocking=False):
            for job in jobs:
                job()
            return
        try:
            while len(self._workers) < len(jobs) - 1:
                self._workers.append(_Worker())
            begun = self._workers[: len(jobs) - 1]
            for worker, job in zip(begun, jobs[1:], strict=True):
                worker.start(job)
            _all_done(jobs[0], begun)
        finally:
            self._free.release()


def _all_done(job: Job, others: Sequence[_Worker]) -> None:
    """Do a job and wait for other threads, even if a signal interrupts this."""
    errors: list[BaseException] = []
    try:
        job()
    except BaseException as error:
        errors.append(error)
    for worker in others:
        while True:
            try:
                worker.wait()
                break
            except BaseException as error:  # of a handler of a signal
                errors.append(error)
        errors += [] if worker.error is None else [worker.error]
    if errors:
        raise errors[0]


WORKERS = Workers()
