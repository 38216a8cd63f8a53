"""The interface that every kind of device implements."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from gpunn.backends.device import Device
from gpunn.backends.diagnosis import Diagnosis
from gpunn.backends.kernel import ADDED, Elementwise, GridKernel, RowKernel
from gpunn.backends.memory import Memory
from gpunn.backends.random import RANDOM_WORDS, Draw
from gpunn.errors import ArgumentError, CaptureError, ShapeError
from gpunn.typing import Array, DType, Shape

Result = TypeVar("Result")


class Graph(Protocol):
    """Work that was recorded and can be repeated.

    Attributes:
        done: whether the work was also done while it was recorded.
        refused: the reason why a launch does not repeat the work; empty if a launch repeats it.
    """

    done: bool
    refused: str

    @property
    def size_bytes(self) -> int:
        """The bytes of the arrays that the work makes."""

    def launch(self, times: int = 1) -> None:
        """Repeat the recorded work `times` times in a row; called inside `Backend.own_stream`."""


class Backend(Memory):
    """One device: its memory, and the work that is done on it.

    Attributes:
        tf32: whether float32 products may round their operands to a mantissa of 10 bits; off by
            default.
        fuses: whether `matmul_with` has fused products on this device.
        synchronous: whether a number can be read without waiting for the device.
        on_host: whether arrays of this device are NumPy arrays.
        grid_blocks: the most blocks of threads that certainly run at the same time, so that they
            can wait for each other; 0 if this device has no such launches.
    """

    grid_blocks = 0
    kind: ClassVar[str]
    synchronous: ClassVar[bool] = False
    on_host: ClassVar[bool] = False
    fuses: ClassVar[bool] = False

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._tf32 = False
        self._thread = threading.local()

    @property
    def tf32(self) -> bool:
        """Whether float32 products in this thread may round their operands."""
        return getattr(self._thread, "tf32", self._tf32)

    @tf32.setter
    def tf32(self, value: bool) -> None:
        self._tf32 = value

    @contextmanager
    def rounding(self, tf32: bool) -> Iterator[None]:
        """Set `tf32` inside the block, for this thread only."""
        before = vars(self._thread).copy()
        self._thread.tf32 = tf32
        try:
            yield
        finally:
            vars(self._thread).clear()
            vars(self._thread).update(before)

    def __fingerprint__(self) -> dict[str, Any]:
        return {"tf32": self.tf32}

    def __identity__(self) -> str:
        return "a device"  # a run may go on on another one

    @classmethod
    @abstractmethod
    def diagnose(cls) -> Diagnosis:
        """Check whether devices of this kind can be used, and if not, find the cause."""

    @abstractmethod
    def describe(self) -> str:
        """Describe the device in words: "CPU (NumPy 2.4.1)", "NVIDIA H200 (CuPy 14.2.0)"."""

    def host(self, function: Callable[..., Any], *args: Any) -> tuple[Array, ...]:
        """Compute arrays with NumPy on the host. On a GPU this waits and copies.

        Args:
            function: takes NumPy arrays and returns a tuple of NumPy arrays or numbers.
            args: arrays of this device. Anything else is passed to `function` unchanged.
        """
        known = [self.download(a) if self.device_of(a) is not None else a for a in args]
        return tuple(self.upload(np.asarray(made)) for made in function(*known))

    def connect(self, rank: int, size: int, tell: Callable[[Sequence[int]], list[int]]) -> Any:
        """Connect this device with those of other processes; see `gpunn.distributed.nccl`.

        Args:
            rank: the number of this process.
            size: the number of processes. Each has a device of its own, and calls this.
            tell: gets a few numbers from process 0 and returns them in every process.

        Raises:
            ArgumentError: this device cannot be connected.
        """
        raise ArgumentError(
            f"got device {self.device} to connect with those of other processes; expected a CUDA "
            "device: pass group=gn.distributed.mpi() for others"
        )

    # work ----------------------------------------------------------------------------------

    @abstractmethod
    def launch(self, kernel: Elementwise, *inputs: Any, out: Any = None) -> Any:
        """Run an elementwise kernel.

        Args:
            kernel: the kernel.
            inputs: arrays of this device, or Python scalars.
            out: the output array, or a tuple of them. If it is None, new arrays are made with the
                shape that the inputs broadcast to. An output may be one of the inputs, but it
                must not overlap an input in part.

        Returns:
            The output, or the tuple of outputs.
        """

    @abstractmethod
    def launch_rows(
        self,
        kernel: RowKernel,
        blocks: int,
        dtype: DType,
        *args: Any,
        threads: int | None = None,
        columns: int | None = None,
    ) -> None:
        """Run a row kernel.

        Args:
            kernel: the kernel.
            blocks: the number of thread blocks.
            dtype: the dtype of the kernel's arrays.
            args: the inputs and outputs: contiguous arrays of this device, or Python scalars.
            threads: the threads per block, a multiple of 32, at most 1024; None for the kernel's
                default.
            columns: the length of a row, if the kernel may be compiled specially for short rows.
        """

    def launch_grid(self, kernel: GridKernel, blocks: int, dtype: DType, *args: Any) -> None:
        """Run a kernel whose blocks wait for each other. On the CPU there is none.

        Args:
            kernel: the kernel, which gets the numbers to count with behind `args`.
            blocks: the number of thread blocks, at most `grid_blocks`.
            dtype: the dtype of the kernel's arrays.
            args: the inputs and outputs, as for `launch_rows`. If a block waits in vain, their
                content is undefined, and `synchronize` raises an error.
        """
        raise NotImplementedError(f"{self.device} has no launches whose blocks wait")

    def launch_matrix(self, kernel: RowKernel, shape: Shape, dtype: DType, *args: Any) -> None:
        """Run a row kernel on a matrix and pass it the numbers of columns and rows as well.

        Args:
            kernel: the kernel.
            shape: (..., columns); all axes but the last together are the rows.
            dtype: the dtype of the kernel's arrays.
            args: the other arguments: contiguous arrays of this device, or Python scalars.
        """
        columns = shape[-1]
        rows = math.prod(shape[:-1])
        blocks, threads = kernel.geometry(np.dtype(dtype).itemsize, rows, columns)
        sizes = columns, rows
        self.launch_rows(kernel, blocks, dtype, *args, *sizes, threads=threads, columns=columns)

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array | None = None, *, adds: bool = False) -> Array:
        """Return the matrix product of two 2-D arrays (or views of them).

        Args:
            a: (M, K).
            b: (K, N).
            out: (M, N) for the product; None for a new array.
            adds: whether the product is added to `out`, with the bits of `add_to`.
        """

    def add_to(self, total: Array, part: Array) -> None:
        """Add `part` to `total`, in place."""
        if total.flags.c_contiguous and part.flags.c_contiguous and total.dtype == part.dtype:
            self.launch(ADDED, total, part, out=total)
        else:
            self.xp.add(total, part, out=total)

    def matmul_with(
        self, epilogue: str, a: Array, b: Array, bias: Array, out: Array | None = None
    ) -> Array | None:
        """Compute a matrix product and an epilogue in one kernel.

        Args:
            epilogue: "bias" for a @ b + bias; "relu_bias" for relu(a @ b + bias); "bias_grad" for
                a @ b, where the sums of the columns of `b` are written to `bias`.
            a: (M, K).
            b: (K, N).
            bias: (N,).
            out: (M, N).

        Returns:
            The product, or None if this device has no such kernel.
        """
        return None

    def random_words(self, count: int, draw: Draw) -> Array:
        """Return `count` 64-bit random words of a draw; see `gpunn.backends.random`."""
        out = self.empty((count,), np.uint64)
        return self.launch(RANDOM_WORDS, *draw.key, draw.call, draw.ahead, draw.shard, out=out)

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything launched so far is done."""

    @property
    def threads(self) -> int:
        """The number of pieces of work that this device can do at the same time."""
        return 1

    def apart(self, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """Do pieces of work that do not depend on each other, and return their results.

        A recording on the CPU repeats them on threads, with the same bits. The pieces must not
        write to the same array.
        """
        return [work() for work in works]

    def single_threaded(self) -> AbstractContextManager[None]:
        """Let every computation have the bits that one thread gives it, inside the block."""
        return nullcontext()

    # captured work ---------------------------------------------------------------------------

    def why_no_capture(self) -> str:
        """Return the reason why work cannot be captured on this device; empty if it can be."""
        return f"{self.device} has no graphs"

    def own_stream(self) -> AbstractContextManager[None]:
        """Run the block's work on a stream that can be captured, in order with all other work.

        On a GPU only one thread at a time is inside such a block. Another thread waits.
        """
        return nullcontext()

    def record(self, work: Callable[[], Any], pieces: int = 1) -> Graph:
        """Record the kernels that `work` launches; called inside `own_stream`.

        On the CPU, the work is also done while it is recorded; see `Graph.done`.

        Args:
            work: the work.
            pieces: the number of pieces that long kernels are divided into on the CPU, where
                threads repeat them. The number changes no result.

        Raises:
            CaptureError: the work cannot be captured; the message says why.
        """
        raise CaptureError(f"got work to capture; {self.why_no_capture()}: pass capture=False")

    def _outputs(self, kernel: Elementwise, inputs: Sequence[Any]) -> tuple[Array, ...]:
        """Make the output arrays of a launch.

        An output has the shape that the inputs broadcast to. Its dtype is its own, or that of the
        first input array whose type has the same letter.
        """
        shape: Shape = ()
        letters: dict[str, DType] = {}
        for param, value in zip(kernel.inputs, inputs, strict=True):
            if not hasattr(value, "dtype") or param.role == "raw":
                continue
            letters.setdefault(param.type, value.dtype)
            shape = value.shape if not shape else np.broadcast_shapes(shape, value.shape)
        return tuple(
            self.empty(
                shape if p.role == "each" else (),
                letters[p.type] if len(p.type) == 1 else np.dtype(p.type),
            )
            for p in kernel.outputs
        )


def check_product(a: Array, b: Array) -> None:
    """Check that two arrays can be multiplied as matrices.

    Raises:
        ShapeError: the inner sizes differ.
    """
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"got a matrix product of shapes {a.shape} and {b.shape}; "
            f"expected {a.shape[-1]} == {b.shape[-2]}: check the layer sizes"
        )


def not_capturable(error: BaseException) -> CaptureError:
    """Return the error for work that raised while it was captured."""
    return CaptureError(
        f"got a step that cannot be captured ({type(error).__name__}: {error}); expected "
        "one without copies to the host: pass capture=False"
    )
