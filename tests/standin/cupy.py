"""A test-only stand-in for the module `cupy`: the same CUDA text, run on the CPU.

`make()` gives an object to use in place of the module. It offers the part of CuPy 14 that gpunn
uses, on arrays that refuse to be mixed with host arrays, and counts launches, copies and waits
(`module.counters`). It is never installed into `sys.modules`.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.standin import memory, streams
from tests.standin.device_array import (
    FUNCTIONS,
    Device,
    DeviceArray,
    call,
    empty,
    from_host,
    produce,
    unwrap,
)
from tests.standin.host_kernel import HostRawKernel
from tests.standin.machine import MACHINE, CUDARuntimeError, OutOfMemoryError

VERSION = "14.2.0+standin"
CUDA = 2  # DLPack's number for CUDA devices
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


def make() -> ModuleType:
    """The module object. All of them share one pretended GPU: its counters and its memory."""
    module = ModuleType("cupy", __doc__)
    members: dict[str, Any] = {
        **{name: _function(getattr(np, name)) for name in (*UFUNCS, *sorted(FUNCTIONS))},
        **{name: getattr(np, name) for name in (*DTYPES, "dtype", "newaxis", "inf", "nan", "pi")},
        **{f.__name__: f for f in (empty, empty_like, zeros, zeros_like, ones, ones_like)},
        **{f.__name__: f for f in (full, full_like, arange, asarray, array, ascontiguousarray)},
        **{f.__name__: f for f in (asnumpy, from_dlpack, RawKernel, ElementwiseKernel)},
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
        size = memory.DEVICE_BYTES
        about = {"name": b"stand-in", "major": 9, "minor": 0, "multiProcessorCount": 132}
        return about | {"totalGlobalMem": size}

    def free_and_total() -> tuple[int, int]:
        return memory.DEVICE_BYTES - MACHINE.held[MACHINE.devices[-1]], memory.DEVICE_BYTES

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: 2,
        getDevice=lambda: MACHINE.devices[-1],
        setDevice=lambda device: None,
        getDeviceProperties=properties,
        memGetInfo=free_and_total,
        deviceSynchronize=streams.synchronize_device,
    )
    return SimpleNamespace(
        Device=Device,
        Stream=streams.Stream,
        Event=streams.Event,
        Graph=streams.Graph,
        runtime=runtime,
        MemoryPool=memory.MemoryPool,
        alloc_pinned_memory=memory.PinnedMemory,
        using_allocator=memory.using_allocator,
        memory=SimpleNamespace(
            OutOfMemoryError=OutOfMemoryError,
            Memory=memory.Memory,
            MemoryPointer=memory.MemoryPointer,
        ),
        get_current_stream=streams.current,
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
    return produce(lambda: np.arange(*args, dtype=dtype))


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


def from_dlpack(value: Any) -> DeviceArray:
    """A view of another library's array. A device array stands for the capsule of DLPack."""
    kind, _ = value.__dlpack_device__()
    if kind != CUDA:
        raise BufferError(f"the stand-in shares memory of CUDA alone, not of the kind {kind}")
    return value.__dlpack__(stream=streams.current().ptr).view()
