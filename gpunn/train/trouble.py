"""The diagnosis of errors in a training: out of memory, and losses that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from gpunn.autograd import Tensor, no_grad
from gpunn.data.feed import Feed, on_device
from gpunn.nn import Module
from gpunn.nn.observation import observe
from gpunn.optim import Optimizer
from gpunn.typing import Array

Loss = Callable[..., Tensor]


def no_room(model: Module, loss: Loss, optimizer: Optimizer, feed: Feed, error: MemoryError) -> str:
    """Describe an out-of-memory error, and find a batch size that fits.

    The batch size is halved until a forward and a backward pass have room.
    """
    b = optimizer.bound.backend
    error.__traceback__ = None  # the traceback keeps the arrays of the failed step alive
    fits = feed.batch_size // 2
    with undisturbed(model):
        while fits and not _fits(model, loss, optimizer, feed, fits):
            fits //= 2
    optimizer.zero_grad()
    b.free_memory()
    remedy = (
        f"batch_size={fits} fits" if fits else "not even a batch of one fits: shrink the network"
    )
    return (
        f"got batch_size={feed.batch_size}, for which {b.device} has no room ({error}); expected "
        f"less: {remedy}"
    )


def _fits(model: Module, loss: Loss, optimizer: Optimizer, feed: Feed, rows: int) -> bool:
    """Return whether the device has room for a forward and a backward pass over `rows` rows."""
    flat = optimizer.bound
    b = flat.backend
    b.free_memory()
    try:
        x, *given = (on_device(b, a[:rows].copy()) for a in feed.tables)  # a real batch is a copy
        if flat.narrow is not None:  # the device converts streamed examples
            x = x.astype(flat.narrow.dtype, copy=False)
        y, *weights = given
        loss(model(x), y, weights[0] if weights else None).backward()
    except MemoryError:
        return False
    return True


@contextmanager
def undisturbed(model: Module) -> Iterator[None]:
    """Restore the random streams and the state of a model after the block."""
    calls, state = [stream.call for stream in model.streams()], model.state_dict()
    try:
        yield
    finally:
        for stream, call in zip(model.streams(), calls, strict=True):
            stream.call = call
        model.load_state_dict(state)


def divergence(model: Module, x: Array, loss: float) -> str:
    """Describe a loss that is not finite: the first parameter or layer that is not finite."""
    with undisturbed(model):  # the search for the layer must not count as a step
        begins = _where(model, x)
    return (
        f"got a loss of {loss}; it began in {begins}: lower the learning rate, clip the "
        "gradients with clip_norm, or scale the data"
    )


def _where(model: Module, x: Array) -> str:
    names = {id(module): name or "the model" for name, module in model.named_modules()}
    for name, parameter in model.named_parameters():
        if not np.isfinite(parameter.numpy()).all():
            return f"parameter {name!r}, which is no longer finite"
    found: list[str] = []

    def look(module: Module, y: Tensor) -> None:
        if not found and not np.isfinite(y.numpy()).all():
            found.append(f"the output of layer {names[id(module)]!r} ({type(module).__name__})")

    with no_grad(), np.errstate(all="ignore"), observe(look):
        # First without dropout, because a new mask may drop the number that is not finite.
        with model.evaluating():
            model(x)
        if not found:  # batch norm may fail only with the mean and variance of this batch
            model(x)
    return found[0] if found else "the loss itself"
