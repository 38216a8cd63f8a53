"""What differs between machines, and nothing else."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, ClassVar, Protocol

import numpy as np

from gpunn.backends.cuda.streaming import DoubleBuffer
from gpunn.backends.device import Device
from gpunn.backends.diagnosis import Diagnosis
from gpunn.backends.kernel import Elementwise, RowKernel
from gpunn.backends.random import Draw
from gpunn.errors import (
    ArgumentError,
    CaptureError,
    DTypeError,
    MissingExtraError,
    ShapeError,
    lookup,
)
from gpunn.typing import Array, DType, Shape

FLOATS = ("float16", "float32", "float64")
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")


class Graph(Protocol):
    """Recorded work."""

    def launch(self, times: int = 1) -> None:
        """Do it, several times one after another, inside `Backend.own_stream`."""


def precision_dtype(precision: str) -> np.dtype[Any]:
    """The dtype that a network computes in under a precision of training.

    Raises:
        UnknownNameError: no such precision.
        MissingExtraError: bfloat16 without the package that defines its dtype.
    """
    lookup("precision", precision, dict.fromkeys(PRECISIONS))
    if precision == "float16":
        return np.dtype(np.float16)
    if precision != "bfloat16":
        return np.dtype(np.float32)
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingExtraError("ml_dtypes", "bfloat16", 'precision="bfloat16"') from error
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


class Backend(ABC):
    """One device: its array module, its buffers and its way to run kernels.

    Attributes:
        device: the device.
        scope: makes this device current in a `with` block; None where it always is.
        tf32: whether products of float32 may round their operands to 10 bits; off unless asked.
        xp: the array module, `numpy` or `cupy`.
        fuses: whether `matmul_with` is worth a call.
        synchronous: whether a number can be read without waiting for the device.
    """

    kind: ClassVar[str]
    synchronous: ClassVar[bool] = False
    fuses: ClassVar[bool] = False
    xp: Any

    def __init__(self, device: Device) -> None:
        self.device = device
        self.tf32 = False
        self.scope: AbstractContextManager[Any] | None = None
        self._constants: dict[str, Array] = {}
        self._ones: dict[DType, Array] = {}

    @classmethod
    @abstractmethod
    def diagnose(cls) -> Diagnosis:
        """Whether devices of this kind can be used, and if not, why."""

    @classmethod
    @abstractmethod
    def device_of(cls, array: Any) -> Device | None:
        """The device of an array of this backend; None for anything else."""

    @abstractmethod
    def describe(self) -> str:
        """The device in words: "CPU (NumPy 2.4.1)", "NVIDIA H200 (CuPy 14.2.0)"."""

    def current(self) -> AbstractContextManager[Any]:
        """A block in which array functions run on this device, whichever was current before."""
        return nullcontext() if self.scope is None else self.scope

    # arrays --------------------------------------------------------------------------------

    @abstractmethod
    def empty(self, shape: Shape, dtype: DType) -> Array:
        """An array with undefined content, from buffers that are used again."""

    @abstractmethod
    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """A copy of a host array on this device."""

    @abstractmethod
    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """A host array with an array's content; waits for the device."""

    @abstractmethod
    def write(self, array: Array, content: np.ndarray[Any, Any]) -> None:
        """Copy a host array of the same shape into one of this device, and convert its dtype."""

    def zeros(self, shape: Shape, dtype: DType) -> Array:
        """An array of zeros."""
        return self.full(shape, 0, dtype)

    def full(self, shape: Shape, value: float, dtype: DType) -> Array:
        """An array filled with one value."""
        array = self.empty(shape, dtype)
        with self.current():
            array.fill(value)
        return array

    def empty_like(self, array: Array) -> Array:
        """An array with undefined content and the shape and dtype of another."""
        return self.empty(array.shape, array.dtype)

    # work ----------------------------------------------------------------------------------

    @abstractmethod
    def launch(self, kernel: Elementwise, *inputs: Any, out: Any = None) -> Any:
        """Run an elementwise kernel.

        Args:
            kernel: the kernel.
            inputs: arrays of this device, or Python scalars.
            out: the output array, or a tuple of them; made anew, with the shape that the inputs
                broadcast to, when it is None. It may be an input, but not overlap one otherwise.

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
        """Run a row kernel on arguments that include its outputs.

        Args:
            kernel: the kernel.
            blocks: how many blocks of threads.
            dtype: what the kernel's arrays are stored in.
            args: contiguous arrays of this device, or Python scalars.
            threads: of a block, a multiple of 32 and at most 1024; None for the kernel's own.
            columns: of a row, if short rows may have a text of their own.
        """

    def launch_matrix(self, kernel: RowKernel, shape: Shape, dtype: DType, *args: Any) -> None:
        """Run a row kernel on (..., columns) arrays; its last two arguments follow from the shape.

        Args:
            kernel: the kernel.
            shape: of the matrix; all axes but the last are rows.
            dtype: what the kernel's arrays are stored in.
            args: contiguous arrays of this device, or Python scalars.
        """
        columns = shape[-1]
        rows = math.prod(shape[:-1])
        blocks, threads = kernel.geometry(np.dtype(dtype).itemsize, rows, columns)
        sizes = columns, rows
        self.launch_rows(kernel, blocks, dtype, *args, *sizes, threads=threads, columns=columns)

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product of two 2-D arrays (or views of them)."""

    def matmul_with(
        self, epilogue: str, a: Array, b: Array, bias: Array, out: Array | None = None
    ) -> Array | None:
        """A matrix product with something fused in, or None where this device has no such thing.

        Args:
            epilogue: "bias" for a @ b + bias; "bias_grad" for a @ b where `bias` becomes the
                sums of the columns of `b`.
            a: (M, K).
            b: (K, N).
            bias: (N,).
            out: (M, N).
        """
        return None

    @abstractmethod
    def random_words(self, count: int, draw: Draw) -> Array:
        """`count` 64-bit words of the counter-based stream; see `gpunn.backends.random`."""

    # time and memory -----------------------------------------------------------------------

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything launched so far is done."""

    @abstractmethod
    def memory_bytes(self) -> int:
        """Bytes that buffers of this backend occupy, in use or kept for use."""

    @abstractmethod
    def free_memory(self) -> None:
        """Give back every buffer that nobody uses."""

    # captured work ---------------------------------------------------------------------------

    def why_no_capture(self) -> str:
        """Why work cannot be captured as a graph here; empty when it can."""
        return f"{self.device} has no graphs"

    def own_stream(self) -> AbstractContextManager[None]:
        """Do the work of the block on a stream that can be captured, in order with all other."""
        return nullcontext()

    def record(self, work: Callable[[], Any]) -> Graph:
        """What `work` launches, recorded and not done; called inside `own_stream`.

        Raises:
            CaptureError: the work cannot be captured; the message says why.
        """
        raise CaptureError(f"got work to capture; {self.why_no_capture()}: pass capture=False")

    def traced(self, array: Array) -> Array:
        """The array as a recording must meet it, to take note of what is done with it."""
        return array

    # memory that does not suffice ------------------------------------------------------------

    def free_bytes(self) -> int:
        """Bytes that new arrays may take."""
        return sys.maxsize

    def limit_memory(self, limit_bytes: int | None) -> None:
        """Let arrays take at most so many bytes together; None for no limit.

        Raises:
            ArgumentError: this device has no such limit.
        """
        if limit_bytes is not None:
            raise ArgumentError(
                f"got memory_limit={limit_bytes} on {self.device}; expected None: only the memory "
                "of a GPU can be limited"
            )

    def double_buffer(self, kinds: Sequence[tuple[Shape, DType]]) -> DoubleBuffer:
        """Buffers through which batches of such (shape, dtype) come from the host."""
        raise ArgumentError(f"got data to stream to {self.device}, where host arrays are at home")

    # shared --------------------------------------------------------------------------------

    def _outputs(self, kernel: Elementwise, inputs: Sequence[Any]) -> tuple[Array, ...]:
        """New output arrays for a launch: broadcast shape, dtype of the first array of letter T."""
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

    def zero(self) -> Array:
        """The integer 0 as a 0-d array, always the same one."""
        if "zero" not in self._constants:
            self._constants["zero"] = self.zeros((), np.int64)
        return self._constants["zero"]

    def one(self, dtype: DType) -> Array:
        """The number 1 as a 0-d array, always the same one: the gradient of a loss by itself."""
        found = self._ones.get(dtype)  # a dtype's name costs more than the rest of this
        if found is None:
            kind = np.dtype(dtype)
            found = self._ones[dtype] = self._ones.setdefault(kind, self.full((), 1, kind))
        return found


def check_product(a: Array, b: Array) -> None:
    """Check that two arrays have a matrix product.

    Raises:
        ShapeError: the inner sizes differ.
    """
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"got a matrix product of shapes {a.shape} and {b.shape}; "
            f"expected {a.shape[-1]} == {b.shape[-2]}: check the layer sizes"
        )


def not_capturable(error: BaseException) -> CaptureError:
    """The error for work that raised while it was captured."""
    return CaptureError(
        f"got a step that cannot be captured ({type(error).__name__}: {error}); expected "
        "one without copies to the host: pass capture=False"
    )


def float_dtype(dtype: DType) -> np.dtype[Any]:
    """The dtype as NumPy's, if gpunn computes in it.

    Raises:
        DTypeError: it is not float16, float32 or float64.
    """
    found: np.dtype[Any] | None = None
    # NumPy parses other texts with literal_eval, and a text may come from a file
    if not isinstance(dtype, str) or dtype.lstrip("<>=|").isidentifier():
        with suppress(TypeError, ValueError):
            found = np.dtype(dtype)
    if found is None or found.name not in FLOATS:
        raise DTypeError(
            f"got dtype {dtype!r}; expected one of {', '.join(FLOATS)}: convert with astype"
        )
    return found
