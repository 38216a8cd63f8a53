"""The CPU: kernels are their NumPy bodies, buffers are used again as soon as nobody holds them."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backends.base import Backend
from gpunn.backends.device import Device
from gpunn.backends.diagnosis import Diagnosis, Rung
from gpunn.backends.kernel import Elementwise, RowKernel
from gpunn.backends.random import Draw, words
from gpunn.errors import ShapeError
from gpunn.typing import Array, DType, Shape

CHUNK = 32_768  # elements; several passes over a chunk stay in a core's L2 (measured 2026-11, EPYC)


class BufferPool(threading.local):
    """Arrays that are handed out again once the pool holds the only reference to them.

    NumPy frees and maps large arrays anew at every step, and the page faults cost as much as the
    arithmetic. A view keeps its array in use, because it refers to it. One pool per thread.
    """

    SMALL_BYTES = 4096  # below, the allocator's own cache is as fast
    ALIGN = 64  # bytes: one cache line, one AVX-512 register

    def __init__(self) -> None:
        self._buckets: dict[tuple[Shape, Any], list[Array]] = {}
        self._idle = self._references([self._new((1,), np.dtype(np.uint8))], 0)

    def empty(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """An array that nobody else holds, with undefined content."""
        bucket = self._buckets.get((shape, dtype))
        if bucket is None:
            size_bytes = dtype.itemsize
            for n in shape:
                size_bytes *= n
            if size_bytes < self.SMALL_BYTES:
                return np.empty(shape, dtype)
            bucket = self._buckets[shape, dtype] = []
        references, idle = sys.getrefcount, self._idle
        for i in range(len(bucket)):
            if references(bucket[i]) == idle:
                return bucket[i]
        bucket.append(self._new(shape, dtype))
        return bucket[-1]

    def size_bytes(self) -> int:
        """Bytes of all buffers, in use or idle."""
        return sum(array.nbytes for bucket in self._buckets.values() for array in bucket)

    def free(self) -> None:
        """Drop the idle buffers."""
        for key, bucket in list(self._buckets.items()):
            busy = [i for i in range(len(bucket)) if self._references(bucket, i) != self._idle]
            self._buckets[key] = [bucket[i] for i in busy]
            if not busy:
                del self._buckets[key]

    def _new(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = bytearray(size_bytes + self.ALIGN)  # not an array: a view's base is then our array
        start = -np.frombuffer(memory, np.uint8).__array_interface__["data"][0] % self.ALIGN
        return np.ndarray(shape, dtype, memory, start)

    @staticmethod
    def _references(bucket: list[Array], i: int) -> int:
        return sys.getrefcount(bucket[i])


class NumpyBackend(Backend):
    """NumPy on the CPU."""

    kind = "cpu"
    synchronous = True
    xp = np

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._pool = BufferPool()

    @classmethod
    def diagnose(cls) -> Diagnosis:
        """The CPU can always be used."""
        return Diagnosis((Rung("package", True, f"NumPy {np.__version__}"),))

    @classmethod
    def device_of(cls, array: Any) -> Device | None:
        """The CPU for a NumPy array or scalar."""
        return Device("cpu") if isinstance(array, np.ndarray | np.generic) else None

    def describe(self) -> str:
        """The device in words."""
        return f"CPU (NumPy {np.__version__})"

    def empty(self, shape: Shape, dtype: DType) -> Array:
        """An array with undefined content, from the pool."""
        return self._pool.empty(shape, np.dtype(dtype))

    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """A copy of the array."""
        return np.array(array, order="C")

    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """A copy of the array, so that a pooled buffer is not kept."""
        return np.array(array, order="C")

    def write(self, array: Array, content: np.ndarray[Any, Any]) -> None:
        """Copy the content over."""
        array[...] = content

    def launch(self, kernel: Elementwise, *inputs: Any, out: Any = None) -> Any:
        """Run the NumPy body, in chunks of rows when the arrays are large."""
        outputs = self._outputs(kernel, inputs) if out is None else out
        if type(outputs) is not tuple:
            outputs = (outputs,)
        for total in kernel.sums:
            outputs[kernel.outputs.index(total)].fill(0)
        first = outputs[0] if kernel.outputs[0].role == "each" else inputs[0]
        if kernel.chunkable and first.size > 2 * CHUNK and first.ndim:
            _by_chunks(kernel.numpy, first.shape, (*inputs, *outputs))
        else:
            kernel.numpy(*inputs, *outputs)
        if kernel.numpy_once is not None:
            kernel.numpy_once(*inputs, *outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def as_units(self, array: Array, unit_bytes: int) -> Array:
        """The array itself: NumPy bodies know what they copy."""
        return array

    def launch_rows(
        self, kernel: RowKernel, blocks: int, dtype: DType, *args: Any, threads: int | None = None
    ) -> None:
        """Run the NumPy body on all rows."""
        kernel.numpy(*args)

    def launch_matrix(self, kernel: RowKernel, shape: Shape, dtype: DType, *args: Any) -> None:
        """Run the NumPy body; there are no threads to share it out among."""
        kernel.numpy(*args, shape[-1], math.prod(shape[:-1]))

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product through BLAS."""
        if a.shape[-1] != b.shape[-2]:
            raise ShapeError(
                f"got a matrix product of shapes {a.shape} and {b.shape}; "
                f"expected {a.shape[-1]} == {b.shape[-2]}: check the layer sizes"
            )
        if out is None and a.ndim == 2 and b.ndim == 2:
            out = self._pool.empty((a.shape[0], b.shape[1]), a.dtype)
        return np.matmul(a, b, out=out)

    def random_words(self, count: int, draw: Draw) -> Array:
        """Words of NumPy's own Philox, which runs in C."""
        return words(count, draw.key, int(draw.call) + draw.ahead)

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def time_ms(self, work: Callable[[], Any]) -> float:
        """Wall milliseconds of `work()`."""
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)

    def memory_bytes(self) -> int:
        """Bytes of this thread's pool."""
        return self._pool.size_bytes()

    def free_memory(self) -> None:
        """Drop this thread's idle buffers."""
        self._pool.free()


def _by_chunks(body: Callable[..., Any], shape: Shape, args: tuple[Any, ...]) -> None:
    """Call a body on consecutive slices of axis 0, so that its passes stay in the cache."""
    ndim, length = len(shape), shape[0]
    rows = max(1, CHUNK * length // math.prod(shape))
    sliced = [getattr(a, "ndim", 0) == ndim and a.shape[0] == length for a in args]
    for start in range(0, length, rows):
        part = slice(start, start + rows)
        body(*[a[part] if cut else a for a, cut in zip(args, sliced, strict=True)])
