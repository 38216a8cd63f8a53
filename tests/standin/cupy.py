"""A test-only stand-in for the module `cupy`: the same CUDA text, run on the CPU.

`make()` gives an object to use in place of the module. It offers the part of CuPy 14 that gpunn
uses, on arrays that refuse to be mixed with host arrays, and counts launches, copies and waits
(`module.counters`). It is never installed into `sys.modules`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.standin.device_array import FUNCTIONS, Device, DeviceArray, call, from_host, unwrap
from tests.standin.host_kernel import HostRawKernel
from tests.standin.machine import MACHINE, CUDARuntimeError, Graph, OutOfMemoryError

VERSION = "14.2.0+standin"
RUBBISH = 0xFF  # what `empty` holds: NaN for floats, so that nobody relies on it
DEVICE_BYTES = 2**34
UFUNCS = (
    *("add", "subtract", "multiply", "divide", "true_divide", "floor_divide", "negative", "power"),
    *("exp", "log", "log2", "log1p", "expm1", "sqrt", "abs", "absolute", "sign", "tanh", "square"),
    *("maximum", "minimum", "isfinite", "isnan", "isinf", "equal", "not_equal", "less", "greater"),
    *("less_equal", "greater_equal", "logical_and", "logical_or", "logical_not", "reciprocal"),
    *("sin", "cos", "floor", "ceil", "rint", "fabs", "remainder", "bitwise_and", "right_shift"),
)
DTYPES = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bool_"),
)


class RawKernel:
    """As `cupy.RawKernel`, on device arrays."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), **ignored: Any) -> None:
        self._kernel = HostRawKernel(code, name, options)
        self.name = name

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        """Launch it."""
        given = [_argument(a) for a in args]
        MACHINE.launch(self.name, lambda: self._kernel(grid, block, given, shared_mem))


class ElementwiseKernel:
    """As `cupy.ElementwiseKernel` for arrays of one shape: T is their dtype, `raw` is a pointer."""

    def __init__(self, in_params: str, out_params: str, operation: str, name: str) -> None:
        self.name, self.operation = name, operation
        self._inputs, self._outputs = (p.split(",") for p in (in_params, out_params))

    def __call__(self, *args: Any) -> Any:
        """Launch it, a thread for each element, and return the last output."""
        size = args[-1].size
        types = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
        parameters, element, given = [], [], []
        params = [(p, True) for p in self._inputs] + [(p, False) for p in self._outputs]
        for (param, is_input), value in zip(params, args, strict=True):
            *role, kind, name = param.split()
            ctype = {"uint64": "unsigned long long", "int32": "int", "uint32": "unsigned int"}.get(
                kind, kind
            )
            if role == ["raw"]:
                parameters.append(f"const {ctype}* {name}")
            elif hasattr(value, "dtype") and value.ndim:
                const = "const " if is_input else ""
                parameters.append(f"{const}{ctype}* {name}_p")
                element.append(f"{ctype}{' ' if is_input else '& '}{name} = {name}_p[i];")
            else:
                scalars = {"T": args[-1].dtype.type, "int32": np.int32, "uint32": np.uint32}
                parameters.append(f"{ctype} {name}")
                value = scalars[kind](value)
            given.append(value)
        text = f"""typedef {types[args[-1].dtype]} T;
extern "C" __global__ void {self.name}({", ".join(parameters)}, long long n_) {{
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n_) return;
  {" ".join(element)}
  {self.operation};
}}"""
        RawKernel(text, self.name)((-(-size // 128),), (128,), (*given, np.int64(size)))
        return args[-1]


class Stream:
    """As `cupy.cuda.Stream`; work is done at once, or recorded while a capture is on."""

    null: Stream
    _current: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, **ignored: Any) -> None:
        self.is_null = null
        self.ptr = 0 if null else id(self)
        self._graph: Graph | None = None
        self._before: list[Stream] = []

    def use(self) -> Stream:
        """Make it the current stream."""
        Stream._current = self
        MACHINE.graph = self._graph
        return self

    def __enter__(self) -> Stream:
        self._before.append(Stream._current)
        return self.use()

    def __exit__(self, *exception: object) -> None:
        self._before.pop().use()

    def synchronize(self) -> None:
        """Wait for its work."""
        MACHINE.synchronise()

    def begin_capture(self, mode: Any = None) -> None:
        """Record from now on what is launched on this stream."""
        if self.is_null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._graph is not None:
            raise RuntimeError("the stream is already capturing")
        self._graph = Graph()
        if Stream._current is self:
            MACHINE.graph = self._graph

    def end_capture(self) -> Graph:
        """The graph of what was launched since `begin_capture`."""
        if self._graph is None:
            raise RuntimeError("cannot end capture: the stream is not capturing")
        graph, self._graph = self._graph, None
        if Stream._current is self:
            MACHINE.graph = None
        return graph

    def is_capturing(self) -> bool:
        """Whether a capture is on."""
        return self._graph is not None

    def record(self, event: Event | None = None) -> Event:
        """An event that is done when this stream's work is."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Nothing to wait for."""


Stream.null = Stream._current = Stream(null=True)


class Memory:
    """As `cupy.cuda.memory.Memory`: what `cudaMalloc` gives."""

    def __init__(self, size: int) -> None:
        if size > DEVICE_BYTES:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory", 2)
        self.size = size


class MemoryPool:
    """As `cupy.cuda.MemoryPool`, which keeps what its allocator gave until `free_all_blocks`.

    Arrays do not come from it: the stand-in has one memory.
    """

    def __init__(self, allocator: Any) -> None:
        self._allocator, self._taken, self._limit = allocator, 0, 0

    def set_limit(self, size: int) -> None:
        """Allow at most `size` bytes; 0 for no limit."""
        self._limit = size

    def malloc(self, size: int) -> Any:
        """A new block. Where there is no room, all blocks go back: to a graph's harm."""
        if self._limit and self._taken + size > self._limit:
            self.free_all_blocks()
        block = self._allocator(size)
        self._taken += size
        return block

    def total_bytes(self) -> int:
        """Bytes of all blocks."""
        return self._taken

    def free_all_blocks(self) -> None:
        """Give the blocks back."""
        self._taken = 0


@contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    """As `cupy.cuda.using_allocator`."""
    yield


class Event:
    """As `cupy.cuda.Event`: a moment."""

    def __init__(self, **ignored: Any) -> None:
        self.seconds = 0.0

    def record(self, stream: Any = None) -> None:
        """Now."""
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """Wait for it."""
        MACHINE.synchronise()


def make() -> ModuleType:
    """The module object. All of them share one pretended GPU: its counters and its memory."""
    module = ModuleType("cupy", __doc__)
    members: dict[str, Any] = {
        **{name: _function(getattr(np, name)) for name in (*UFUNCS, *sorted(FUNCTIONS))},
        **{name: getattr(np, name) for name in (*DTYPES, "dtype", "newaxis", "inf", "nan", "pi")},
        **{f.__name__: f for f in (empty, empty_like, zeros, zeros_like, ones, ones_like)},
        **{f.__name__: f for f in (full, full_like, arange, asarray, array, ascontiguousarray)},
        **{f.__name__: f for f in (asnumpy, RawKernel, ElementwiseKernel)},
        "__version__": VERSION,
        "ndarray": DeviceArray,
        "counters": MACHINE.counters,
        "get_default_memory_pool": lambda: MACHINE.pool,
        "cuda": _cuda(),
    }
    for name, member in members.items():
        setattr(module, name, member)
    return module


def _cuda() -> SimpleNamespace:
    def properties(device: int) -> dict[str, Any]:
        return {"name": b"stand-in", "major": 9, "minor": 0, "totalGlobalMem": DEVICE_BYTES}

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: 2,
        getDevice=lambda: MACHINE.devices[-1],
        setDevice=lambda device: None,
        getDeviceProperties=properties,
        memGetInfo=lambda: (DEVICE_BYTES - MACHINE.pool.total_bytes(), DEVICE_BYTES),
        deviceSynchronize=MACHINE.synchronise,
    )
    return SimpleNamespace(
        Device=Device,
        Stream=Stream,
        Event=Event,
        Graph=Graph,
        runtime=runtime,
        MemoryPool=MemoryPool,
        alloc_pinned_memory=bytearray,
        using_allocator=using_allocator,
        memory=SimpleNamespace(
            OutOfMemoryError=OutOfMemoryError,
            Memory=Memory,
            MemoryPointer=lambda memory, offset: memory,
        ),
        get_current_stream=lambda: Stream._current,
        get_elapsed_time=lambda start, end: 1e3 * (end.seconds - start.seconds),
        is_available=lambda: True,
    )


def _function(function: Any) -> Any:
    def on_device(*args: Any, **options: Any) -> Any:
        return call(function, *args, **options)

    on_device.__name__ = function.__name__
    return on_device


def _argument(value: Any) -> Any:
    if isinstance(value, DeviceArray) and value.host.ctypes.data % value.itemsize:
        raise CUDARuntimeError("cudaErrorMisalignedAddress: misaligned address")
    if isinstance(value, DeviceArray | np.generic | int | float | bool):
        return unwrap(value)
    raise TypeError(f"Unsupported type {type(value)}")


# making arrays ---------------------------------------------------------------------------------


def empty(shape: Any, dtype: Any = float, order: str = "C") -> DeviceArray:
    """An array of rubbish."""
    array = DeviceArray(np.empty(shape, dtype))
    if array.size and array.dtype != bool:
        array.host.reshape(-1).view(np.uint8).fill(RUBBISH)
    return array


def full(shape: Any, value: Any, dtype: Any = None) -> DeviceArray:
    """An array of one value."""
    array = empty(shape, np.asarray(value).dtype if dtype is None else dtype)
    array.fill(value)
    return array


def zeros(shape: Any, dtype: Any = float) -> DeviceArray:
    """An array of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> DeviceArray:
    """An array of ones."""
    return full(shape, 1, dtype)


def empty_like(array: DeviceArray, dtype: Any = None, shape: Any = None) -> DeviceArray:
    """An array of rubbish with the shape and dtype of another."""
    return empty(array.shape if shape is None else shape, dtype or array.dtype)


def full_like(array: DeviceArray, value: Any, dtype: Any = None) -> DeviceArray:
    """An array of one value with the shape and dtype of another."""
    return full(array.shape, value, dtype or array.dtype)


def zeros_like(array: DeviceArray, dtype: Any = None) -> DeviceArray:
    """An array of zeros with the shape and dtype of another."""
    return full_like(array, 0, dtype)


def ones_like(array: DeviceArray, dtype: Any = None) -> DeviceArray:
    """An array of ones with the shape and dtype of another."""
    return full_like(array, 1, dtype)


def arange(*args: Any, dtype: Any = None) -> DeviceArray:
    """Evenly spaced numbers."""
    MACHINE.counters.launches["arange"] += 1
    return DeviceArray(MACHINE.produce(lambda: np.arange(*args, dtype=dtype)))


def asarray(value: Any, dtype: Any = None, **ignored: Any) -> DeviceArray:
    """The device array itself, or a copy of a host array."""
    if not isinstance(value, DeviceArray):
        return from_host(value, dtype)
    return value if dtype is None else value.astype(dtype, copy=False)


def array(value: Any, dtype: Any = None, copy: bool = True, **ignored: Any) -> DeviceArray:
    """A copy on the device."""
    if not isinstance(value, DeviceArray) or not copy:
        return asarray(value, dtype)
    return value.astype(dtype or value.dtype)


def ascontiguousarray(value: Any, dtype: Any = None) -> DeviceArray:
    """The array itself if its elements lie in order, or a copy; a 0-d array becomes 1-d."""
    array = asarray(value, dtype)
    if not array.ndim:
        return array.reshape(1)
    return array if array.flags.c_contiguous else array.copy()


def asnumpy(value: Any, **ignored: Any) -> np.ndarray:
    """A copy on the host."""
    return value.get() if isinstance(value, DeviceArray) else np.asarray(value)
