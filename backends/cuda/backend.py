"""The CUDA backend. NVRTC compiles kernels on first use, and buffers come from CuPy's memory pool.

Only this module and the one for cuBLASLt use CuPy's classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from gpunn.backends.base import Backend, check_product
from gpunn.backends.cuda.cublaslt import CublasLt, CublasLtError, LibraryNotFound
from gpunn.backends.cuda.diagnosis import check_package, climb_ladder
from gpunn.backends.cuda.graph import Graphs, Recording
from gpunn.backends.cuda.launcher import Launcher
from gpunn.backends.cuda.nccl import Nccl
from gpunn.backends.cuda.streaming import DoubleBuffer
from gpunn.backends.device import Device
from gpunn.backends.diagnosis import Diagnosis
from gpunn.backends.dtypes import FLOATS
from gpunn.backends.kernel import Elementwise, GridKernel, RowKernel
from gpunn.errors import (
    DeviceMismatchError,
    DeviceUnavailableError,
    DTypeError,
    OutOfMemoryError,
)
from gpunn.log import logger
from gpunn.typing import Array, DType, Shape

PITCH_BYTES = 16  # cuBLASLt has fast kernels for rows that are a multiple of this apart


class CupyBackend(Backend):
    """CuPy on one CUDA device."""

    kind = "cuda"
    fuses = True

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.xp = self._cupy()
        runtime = self.xp.cuda.runtime
        count = runtime.getDeviceCount()
        if device.index >= count:
            raise DeviceUnavailableError(
                f'device "{device}" cannot be used: there {"is" if count == 1 else "are"} {count} '
                f"CUDA device{'' if count == 1 else 's'}, numbered from 0: "
                f'use "{device.kind}:{count - 1}" or less'
            )
        self._here = self.xp.cuda.Device(device.index)
        if count > 1:  # CuPy's functions run on the current device, wherever their arrays are
            self.scope = self._here
        self.grid_blocks = runtime.getDeviceProperties(device.index)["multiProcessorCount"]
        self._launcher = Launcher(self.xp)
        self._stream: Any = None
        self._ends: tuple[Any, Any]  # events before and behind the stream's work
        self._alone = threading.RLock()  # held by the thread that uses the stream
        self._graphs = Graphs(self.xp)
        self._no_lt = ""

    @classmethod
    def _cupy(cls) -> Any:
        return importlib.import_module("cupy")

    @classmethod
    def _nccl(cls) -> Any:
        return importlib.import_module("cupy.cuda.nccl")

    @classmethod
    def diagnose(cls) -> Diagnosis:
        """Check the package, the driver, the device, a compiled kernel and a matrix product."""
        return climb_ladder(cls._cupy, cls._check_package)

    @classmethod
    def _check_package(cls) -> str:
        return check_package(cls._cupy)

    @classmethod
    def device_of(cls, array: Any) -> Device | None:
        """Return the device of a CuPy array, None for anything else. This does not import CuPy."""
        cupy = sys.modules.get("cupy")
        if cupy is None or not isinstance(array, cupy.ndarray):
            return None
        return Device(cls.kind, int(array.device.id))

    def describe(self) -> str:
        """Describe the device in words."""
        name = self.xp.cuda.runtime.getDeviceProperties(self.device.index)["name"].decode()
        return f"{name} (CuPy {self.xp.__version__})"

    def empty(self, shape: Shape, dtype: DType) -> Array:
        """Return an array with undefined content from CuPy's pool."""
        with self._room(shape, dtype), self._here:
            return self.xp.empty(shape, dtype)

    @contextmanager
    def _room(self, shape: Shape, dtype: DType) -> Iterator[None]:
        """Raise gpunn's out-of-memory error for an array where CuPy raises its own."""
        try:
            yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            raise OutOfMemoryError(
                f"device {self.device} has no room for an array of shape {shape}, "
                f"{size_bytes / 2**20:.0f} MiB: use a smaller batch_size or a smaller network"
            ) from error

    def full(self, shape: Shape, value: float, dtype: DType) -> Array:
        """Return an array filled with one value."""
        with self._here:
            return super().full(shape, value, dtype)

    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """Copy a host array to the device. Floats wider than 64 bits become float64.

        Raises:
            DTypeError: the array contains text, objects or dates, which CuPy cannot store.
            OutOfMemoryError: the device has no room for the array.
        """
        if array.dtype.kind in "fc" and array.dtype.char in "gG":
            array = array.astype(np.float64 if array.dtype.kind == "f" else np.complex128)
        if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
            raise DTypeError(
                f"got an array of {array.dtype} to move to {self.device}; expected numbers: "
                "encode text and dates as numbers first"
            )
        with self._room(array.shape, array.dtype), self._here:
            return self.xp.array(np.ascontiguousarray(array).reshape(array.shape))

    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy an array to the host. This waits for the device."""
        host: np.ndarray[Any, Any] = self.xp.asnumpy(array)
        return host

    def write(self, array: Array, content: np.ndarray[Any, Any]) -> None:
        """Copy a host array into `array`, in order with the work of the current stream."""
        with self._here:
            array.set(np.ascontiguousarray(content, array.dtype).reshape(array.shape))

    def launch(self, kernel: Elementwise, *inputs: Any, out: Any = None) -> Any:
        """Run the CUDA body, compiled on first use."""
        outputs = self._outputs(kernel, inputs) if out is None else out
        if type(outputs) is not tuple:
            outputs = (outputs,)
        with self._here:
            self._launcher.launch(kernel, inputs, outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def launch_rows(
        self,
        kernel: RowKernel,
        blocks: int,
        dtype: DType,
        *args: Any,
        threads: int | None = None,
        columns: int | None = None,
    ) -> None:
        """Run the CUDA file, compiled on first use."""
        with self._here:
            how = blocks, threads or kernel.threads, columns
            self._launcher.launch_file(kernel, how, np.dtype(dtype), args)

    def launch_grid(self, kernel: GridKernel, blocks: int, dtype: DType, *args: Any) -> None:
        """Run the CUDA file, compiled on first use."""
        with self._here:
            how = blocks, kernel.threads, 1
            self._launcher.launch_file(kernel, how, np.dtype(dtype), args)

    def matmul(self, a: Array, b: Array, out: Array | None = None, *, adds: bool = False) -> Array:
        """Compute the matrix product with cuBLASLt, in full precision unless `tf32` is set."""
        if adds and out is not None:
            self.add_to(out, self.matmul(a, b))
            return out
        for operand in (a, b):
            if not isinstance(operand, self.xp.ndarray):
                raise DeviceMismatchError(
                    f"got {type(operand).__name__} in a matrix product on {self.device}; "
                    "expected an array of that device: move it with .to(device)"
                )
        check_product(a, b)
        if a.ndim > 2 or b.ndim > 2 or self._lt is None or not a.size or not b.size:
            return self._cublas(a, b, out)
        if out is None:
            out = self.empty((a.shape[0], b.shape[1]), a.dtype)
        with self._here:
            right = _pitched(self, b) if _is_slow(b, out) else b
            done = self._lt.matmul(a, right, out, tf32=self.tf32)
        return out if done else self._cublas(a, b, out)

    def _cublas(self, a: Array, b: Array, out: Array | None) -> Array:
        with self._here:
            if out is None or out.dtype == a.dtype:
                return self.xp.matmul(a, b, out=out)
            out[...] = self.xp.matmul(a, b)
            return out

    def matmul_with(
        self, epilogue: str, a: Array, b: Array, bias: Array, out: Array | None = None
    ) -> Array | None:
        """Compute the product and the epilogue; None if cuBLASLt has no fast kernel for them."""
        if self._lt is None:
            return None
        if out is None:
            out = self.empty((a.shape[0], b.shape[1]), a.dtype)
        if _is_slow(b, out):
            return None
        with self._here:
            done = self._lt.matmul(a, b, out, epilogue=epilogue, bias=bias, tf32=self.tf32)
        return out if done else None

    @cached_property
    def _lt(self) -> CublasLt | None:
        try:
            with self._here:
                return self._cublaslt()
        except (LibraryNotFound, CublasLtError) as error:
            self._no_lt = f"products cannot be captured without cuBLASLt: {error}"
            logger.warning("%s: %s", self.device, self._no_lt)
            return None

    def _cublaslt(self) -> CublasLt:
        return CublasLt.find(self.xp)

    def synchronize(self) -> None:
        """Wait for the device.

        Raises:
            DeviceUnavailableError: blocks of `launch_grid` have waited for each other in vain.
        """
        self._here.synchronize()
        self._launcher.check_waits(self.device)

    def connect(self, rank: int, size: int, tell: Callable[[Sequence[int]], list[int]]) -> Nccl:
        """Connect this device with those of other processes through NCCL.

        Raises:
            MissingExtraError: NCCL is not installed.
            RuntimeError: NCCL cannot connect them, such as one device twice.
        """
        with self._here:
            return Nccl(self.xp, self._nccl(), rank, size, tell)

    def why_no_capture(self) -> str:
        """Return the reason if cuBLASLt is missing; CuPy's own products cannot be captured."""
        return "" if self._lt is not None else self._no_lt

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        """Run the block on this backend's own stream.

        The stream first waits for the current one. At the end, the current one waits for it. All
        work on the stream shares workspaces and is captured together, so other threads wait.
        """
        with self._alone, self._here, self.telling_room():
            outer = self.xp.cuda.get_current_stream()
            if self._stream is None:
                self._stream = self.xp.cuda.Stream(non_blocking=True)
                event = self.xp.cuda.Event
                self._ends = event(disable_timing=True), event(disable_timing=True)
            if outer == self._stream:
                yield
                return
            self._stream.wait_event(outer.record(self._ends[0]))
            try:
                with self._stream:
                    yield
            finally:
                outer.wait_event(self._stream.record(self._ends[1]))

    def record(self, work: Callable[[], Any], pieces: int = 1) -> Recording:
        """Capture the stream. The graph's arrays come from a memory pool of its own."""
        self.free_memory()  # the graph's own pool cannot use idle blocks of CuPy's pool
        self.make_constants()  # inside the capture, filling them would be recorded but not done
        limited = self.xp.get_default_memory_pool().get_limit()
        return self._graphs.capture(self._stream, work, max(1, self.free_bytes()) if limited else 0)

    def free_bytes(self) -> int:
        """Return the bytes that the device still has, within the pool's limit.

        Blocks that the pool cannot give back do not count, because parts of them are in use and
        the idle parts may be too small for an array.
        """
        self.free_memory()
        with self._here:
            pool = self.xp.get_default_memory_pool()
            free = self.xp.cuda.runtime.memGetInfo()[0]
            limit = pool.get_limit()
            return int(max(0, min(free, limit - pool.total_bytes())) if limit else free)

    def make_constants(self) -> None:
        """Make the constants and the workspaces of kernels and products before they are needed."""
        with self._here:
            self.zero()
            for dtype in FLOATS:
                self.one(np.dtype(dtype))
            if "bfloat16" in np.sctypeDict:  # its package is imported
                self.one(np.dtype("bfloat16"))
            self._launcher.make_spaces()
            if self._lt is not None:
                self._lt.make_workspace()

    def memory_limit(self) -> int | None:
        """Return the limit of CuPy's pool in bytes; None if there is none."""
        with self._here:
            return self.xp.get_default_memory_pool().get_limit() or None

    def limit_memory(self, limit_bytes: int | None) -> None:
        """Limit CuPy's pool. The pools of graphs that are captured later keep to the limit too.

        The constants and workspaces of every training are made first. A training may then use the
        difference between the limit and `memory_bytes()`.
        """
        if limit_bytes is not None:
            self.make_constants()
        with self._here:
            self.xp.get_default_memory_pool().set_limit(size=limit_bytes or 0)

    def double_buffer(self, kinds: Sequence[tuple[Shape, DType]]) -> DoubleBuffer:
        """Make pinned buffers on the host and buffers on the device."""
        with self._here:
            return DoubleBuffer(self.xp, kinds)

    def memory_bytes(self) -> int:
        """Return the bytes that CuPy's pool holds."""
        with self._here:
            return int(self.xp.get_default_memory_pool().total_bytes())

    def free_memory(self) -> None:
        """Give the idle blocks of CuPy's pool and those of deleted graphs back to the device."""
        with self._here:
            self.xp.get_default_memory_pool().free_all_blocks()
            self._graphs.free()


def _is_slow(b: Array, out: Array) -> bool:
    """Return whether cuBLASLt has only slow kernels for the factor `b`, and slower fused ones.

    This is so for half factors with a float32 result, if the rows of `b` are not a multiple of
    16 bytes. The product (4096, 8192) @ (8192, 10) of bfloat16 then takes 463 us. If the rows are a
    multiple of 16 bytes apart, it takes 31 us (H200, 2026-11).
    """
    return bool(out.dtype != b.dtype and b.shape[1] * b.itemsize % PITCH_BYTES)


def _pitched(backend: Backend, b: Array) -> Array:
    """Copy a matrix to one whose rows are a multiple of 16 bytes apart."""
    unit = PITCH_BYTES // b.itemsize
    wider = backend.empty((b.shape[0], -(-b.shape[1] // unit) * unit), b.dtype)
    wider = wider[:, : b.shape[1]]
    wider[...] = b
    return wider
