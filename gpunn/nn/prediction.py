"""Compute the outputs of a model for many examples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.autograd import Tensor
from gpunn.backends import Backend, backend, backend_of
from gpunn.backends.cpu.recording import recording
from gpunn.examples import rows_of
from gpunn.nn.inference import CapturedForward
from gpunn.nn.observation import observed
from gpunn.sparse import is_sparse, sparse_rows
from gpunn.typing import Array


def outputs(model: Any, x: Any, batch_size: int) -> Array:
    """Return the outputs of a model in evaluation mode; see `Module.predict`."""
    captured = vars(model).get("_captured")
    if captured is not None and type(x) is np.ndarray and type(batch_size) is int:
        found: Array | None = captured.again(x, batch_size)
        if found is not None:
            return found
    batch_size = count("batch_size", batch_size)
    if hasattr(x, "pieces"):  # rows on disk
        starts = range(0, len(x), batch_size)
        return np.concatenate([outputs(model, x[k : k + batch_size], batch_size) for k in starts])
    x = rows_of(x, "x")
    sparse = is_sparse(x)
    here = backend("cpu") if sparse else backend_of(x)
    b, dtype = model._home()
    stays = here is b
    if sparse:
        x = sparse_rows(x, dtype)
    forward = _forward(model, b)

    def of_batch(batch: Array) -> Array:
        batch = batch.astype(dtype) if batch.dtype != dtype else batch
        if sparse and stays:
            return b.kept(model(batch).data)
        batch = batch.toarray() if sparse else batch
        if stays:
            return forward(batch)
        return b.download(forward(b.upload(here.download(batch))))

    with b.current(), b.own_stream(), model.evaluating():
        parts = [
            of_batch(x[start : start + batch_size])
            for start in range(0, max(x.shape[0], 1), batch_size)
        ]
        return parts[0] if len(parts) == 1 else here.xp.concatenate(parts)


def _forward(model: Any, b: Backend) -> Callable[[Array], Array]:
    """Return the function that computes a batch: captured passes if the device allows them.

    Its result is an array that nothing else writes to.
    """
    if recording() or b.why_no_capture() or observed.get() is not None:
        return lambda x: b.kept(model(Tensor(x, backend=b)).data)
    captured: CapturedForward | None = vars(model).get("_captured")
    if captured is None or captured.backend is not b:
        captured = model._captured = CapturedForward(model, b)
    return captured
