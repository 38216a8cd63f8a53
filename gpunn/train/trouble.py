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


def divergence(
    model: Module, x: Array, loss: float, gradients: Callable[[], Array] | None = None
) -> str:
    """Describe a broken step: the first parameter, layer or gradient that is not finite.

    Args:
        model: the model, as it was before the step.
        x: the examples.
        loss: the loss.
        gradients: a function that computes the gradients of the step and returns its loss; None
            if the loss is known to be broken.
    """
    with undisturbed(model):  # the search for the layer must not count as a step
        begins = _where(model, x)
        if not begins and gradients is not None:
            again = model.backend.download(gradients())
            begins = _largest_gradient(model) if np.isfinite(again) else ""
        begins = begins or "the loss itself"
    return (
        f"got a loss of {loss}; it began in {begins}: lower the learning rate, clip the "
        "gradients with clip_norm, or scale the data"
    )


def _where(model: Module, x: Array) -> str:
    """Name what is first not finite in a forward pass; "" if everything is finite."""
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
    for name, value in model.state():
        if not found and not np.isfinite(value.numpy()).all():
            found.append(f"{name!r}, which this batch makes infinite")
    return found[0] if found else ""


def _largest_gradient(model: Module) -> str:
    """Name the parameter with the largest gradient, if the norm of all gradients is not finite."""
    largest, norm, total = "", -1.0, 0.0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradient = parameter.backend.download(parameter.grad)
            part = float(np.vdot(gradient, gradient))
            total += part
            if not part <= norm:
                largest, norm = name, part
    broken = not np.isfinite(total)
    return f"the gradient of parameter {largest!r}, whose norm is not finite" if broken else ""
