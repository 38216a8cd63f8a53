"""Several fits at the same time, on threads. Each has the bits of a fit of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from gpunn.arguments import count
from gpunn.backends.cpu.blas import one_thread
from gpunn.backends.cpu.threads import get_num_threads, num_threads
from gpunn.errors import ArgumentError

Result = TypeVar("Result")


def on_threads(
    jobs: Sequence[Callable[[], Result]],
    threads: int | None = None,
    stop: Callable[[], Any] | None = None,
) -> list[Result]:
    """Run functions on threads, with one thread of BLAS for each, and return their results.

    Args:
        jobs: the functions.
        threads: how many run at the same time; None for `gpunn.get_num_threads()`.
        stop: is called if one of them raises, before the others are waited for.

    Raises:
        Exception: the first one of a job. Jobs that have not begun are left out.
    """
    most = get_num_threads() if threads is None else count("threads", threads)
    with one_thread(), num_threads(1):
        if min(most, len(jobs)) <= 1:
            return [job() for job in jobs]
        with ThreadPoolExecutor(min(most, len(jobs))) as pool:
            begun = [pool.submit(copy_context().run, job) for job in jobs]
            try:
                return [each.result() for each in begun]
            except BaseException:
                if stop is not None:
                    stop()
                pool.shutdown(cancel_futures=True)
                raise


def fit_together(
    trainers: Sequence[Any],
    x: Any,
    y: Any = None,
    *,
    threads: int | None = None,
    **options: Any,
) -> list[Any]:
    """Train several models on the same data, several at the same time on a CPU.

    The trainers may differ in everything: their networks, seeds, optimizers, losses, schedules.
    Each model gets the bits of a fit of its own with one thread of BLAS. On a GPU they train one
    after another.

    Args:
        trainers: objects of `Trainer`, each with a model of its own.
        x: as for `Trainer.fit`.
        y: as for `Trainer.fit`.
        threads: how many train at the same time; None for `gpunn.get_num_threads()`.
        options: further arguments of `Trainer.fit`, the same for all. Callbacks are shared,
            so they must keep no state: for others, use `on_threads`.

    Returns:
        The history of each trainer.

    Raises:
        ArgumentError: two trainers have the same model, or an argument is outside its range.
        DataError, ShapeError, DivergenceError: as for `Trainer.fit`; the first error of a fit.

    Example:
        >>> import numpy as np
        >>> from gpunn import Trainer, nn
        >>> x, y = np.random.default_rng(0).random((64, 4), np.float32), np.arange(64) % 3
        >>> members = [nn.Sequential(nn.Linear(4, 3, seed=k)) for k in range(5)]
        >>> histories = fit_together([Trainer(net, seed=k) for k, net in enumerate(members)], x, y)
        >>> nn.Ensemble(members, "probabilities")(x).shape
        (64, 3)
    """
    if len({id(trainer.model) for trainer in trainers}) < len(trainers):
        raise ArgumentError(
            "got several trainers of one model to train together; expected a model for each: train "
            "them in turn, or copy the model"
        )
    options = {"progress": False} | options
    on_host = all(trainer.model.backend.on_host for trainer in trainers)
    jobs = [lambda each=each: each.fit(x, y, **options) for each in trainers]
    return on_threads(jobs, threads if on_host else 1)
