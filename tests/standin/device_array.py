"""An array on the pretended GPU: it never becomes a host array in silence.

Not a subclass of `numpy.ndarray`: `numpy.asarray` would turn one into a host array unasked.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tests.standin.machine import MACHINE
from tests.standin.memory import MemoryPointer, allocate, is_pinned
from tests.standin.streams import QUEUES, current, synchronize_device

SLOW, FEW = {"all", "any", "array_equal", "allclose"}, 128
"""What CuPy compiles for seconds at its first call, if there are more elements than this."""
KNOWN = "?bhilqBHILQefdFD"
"""What CuPy's arrays may hold, beside bfloat16."""
RUBBISH = 0xFF  # what `empty` holds: NaN for floats, so that nobody relies on it
PRODUCTS = {"matmul", "dot", "vdot", "inner", "tensordot", "einsum"}
VIEWS = {
    "reshape",
    "transpose",
    "swapaxes",
    "squeeze",
    "expand_dims",
    "moveaxis",
    "broadcast_to",
    "ravel",
}
FUNCTIONS = {
    *PRODUCTS,
    *VIEWS,
    *("sum", "mean", "var", "std", "prod", "max", "min", "amax", "amin", "argmax", "argmin"),
    *("any", "all", "count_nonzero", "concatenate", "stack", "where", "take", "clip", "outer"),
    *("cumsum", "repeat", "tile", "argsort", "sort", "array_equal", "allclose"),
}


class Device:
    """As `cupy.cuda.Device`: a context manager with a number."""

    def __init__(self, device: int = 0) -> None:
        self.id = int(device)

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __enter__(self) -> Device:
        MACHINE.devices.append(self.id)
        return self

    def __exit__(self, *exception: object) -> None:
        """Make the one before current again."""
        MACHINE.devices.pop()

    def use(self) -> Device:
        """Make it the current one."""
        MACHINE.devices[-1] = self.id
        return self

    def synchronize(self) -> None:
        """Wait for it."""
        synchronize_device()


class DeviceArray(NDArrayOperatorsMixin):
    """As `cupy.ndarray`.

    Attributes:
        host: the memory, for the stand-in's own use.
        place: where it is; shared by all views of an array.
    """

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray, place: MemoryPointer) -> None:
        self.host, self.place = host, place
        self._device = place.device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise AssertionError("asking for the address may wait for the device: ask the type")

    # meeting NumPy -------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        out = options.pop("out", None)
        return _call(ufunc, ufunc.__name__, inputs, options, out)

    def __array_function__(self, func: Any, types: Any, args: Any, options: Any) -> Any:
        if func.__name__ not in FUNCTIONS:
            return NotImplemented
        return call(func, *args, **options)

    # to the host ---------------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None) -> np.ndarray:
        """A copy on the host."""
        MACHINE.copy_to_host()
        if out is None:
            return np.array(self.host, order="C")
        out[...] = self.host
        return out

    def item(self, *index: int) -> Any:
        """One element as a Python scalar."""
        return self.get().item(*index)

    def tolist(self) -> Any:
        """All elements as Python scalars."""
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get().item())

    def __float__(self) -> float:
        return float(self.get().item())

    def __index__(self) -> int:
        return operator.index(self.get().item())

    def __repr__(self) -> str:
        return f"Device{self.get()!r}"

    def __reduce__(self) -> Any:
        return from_host, (self.get(),)

    # from the host -------------------------------------------------------------------------

    def set(self, host: np.ndarray, stream: Any = None) -> None:
        """Copy a host array of the same shape and dtype into this one."""
        if host.shape != self.shape or host.dtype != self.dtype:
            raise ValueError(f"Shape or dtype mismatch: {host.shape} {host.dtype}")
        MACHINE.copy_to_device()
        if QUEUES.order is not None and not is_pinned(host):
            host = host.copy()  # what lies in other memory is copied before this returns
        target = self.host
        (current() if stream is None else stream).do(lambda: target.__setitem__(..., host))

    # elements ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, index: Any) -> DeviceArray:
        parts = _index(index)
        basic = slice | int | np.integer | type(None) | type(...)
        if all(isinstance(k, basic) for k in parts):
            every = parts if any(k is Ellipsis for k in parts) else (*parts, Ellipsis)
            return DeviceArray(self.host[every], self.place)  # 0-d, where NumPy gives a scalar
        MACHINE.counters.launches["take"] += 1
        source = unwrap(self)
        found = produce(lambda: source[parts])
        del index  # whose memory is not to be reused before
        return found

    def __setitem__(self, index: Any, value: Any) -> None:
        target, index, value = unwrap(self), _index(index), unwrap(value)
        MACHINE.launch("setitem", lambda: target.__setitem__(index, value))

    def fill(self, value: Any) -> None:
        """Set every element."""
        target, value = unwrap(self), unwrap(value)
        MACHINE.launch("fill", lambda: target.fill(value))

    # copies and views ----------------------------------------------------------------------

    def copy(self, order: str = "C") -> DeviceArray:
        """A copy on the device."""
        source = unwrap(self)
        MACHINE.counters.launches["copy"] += 1
        return produce(lambda: np.array(source, order="C"))

    def __copy__(self) -> DeviceArray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> DeviceArray:
        return self.copy()

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> DeviceArray:
        """A copy in another dtype."""
        if not copy and self.dtype == dtype:
            return self
        source = unwrap(self)
        MACHINE.counters.launches["astype"] += 1
        return produce(lambda: source.astype(dtype))

    def view(self, dtype: Any = None) -> DeviceArray:
        """The same memory, perhaps in another dtype."""
        host = self.host.view() if dtype is None else self.host.view(dtype)
        return DeviceArray(host, self.place)

    def reshape(self, *shape: Any) -> DeviceArray:
        """The same elements in another shape."""
        return call(np.reshape, self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> DeviceArray:
        """A view with its axes in another order."""
        return DeviceArray(self.host.transpose(*axes), self.place)

    @property
    def T(self) -> DeviceArray:
        return self.transpose()

    @property
    def data(self) -> Any:
        _used(self)  # whoever is given the address may read or write there
        return SimpleNamespace(ptr=self.host.ctypes.data)

    @property
    def device(self) -> Device:
        return Device(self._device)

    @property
    def nbytes(self) -> int:
        return self.host.nbytes


def _forward_attribute(name: str) -> property:
    return property(lambda self: getattr(self.host, name))


def _forward_method(name: str) -> Callable[..., Any]:
    function = getattr(np, name)
    return lambda self, *args, **options: call(function, self, *args, **options)


for _name in ("shape", "dtype", "ndim", "size", "strides", "itemsize", "flags"):
    setattr(DeviceArray, _name, _forward_attribute(_name))
for _name in (
    *("sum", "mean", "var", "std", "prod", "max", "min", "argmax", "argmin", "any", "all"),
    *("ravel", "swapaxes", "squeeze", "take", "clip", "dot", "repeat", "cumsum", "argsort"),
):
    setattr(DeviceArray, _name, _forward_method(_name))


def unwrap(value: Any) -> Any:
    """What the stand-in computes with: the memory of device arrays, scalars as they are."""
    if isinstance(value, DeviceArray):
        if value._device != MACHINE.devices[-1]:
            raise ValueError(
                f"Array device must be same as the current device: array device = {value._device} "
                f"while current = {MACHINE.devices[-1]}"
            )
        _used(value)
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(unwrap(part) for part in value)
    return value


def _used(array: DeviceArray) -> None:
    graph = current().graph
    if graph is not None:
        array.place.used_by(graph)


def from_host(host: Any, dtype: Any = None) -> DeviceArray:
    """A copy of a host array on the device."""
    MACHINE.copy_to_device()
    staged = np.array(host, dtype, order="C")
    array = undefined(staged.shape, staged.dtype)
    target = array.host
    current().do(lambda: target.__setitem__(..., staged))
    return array


def undefined(shape: Any, dtype: Any, order: str = "C") -> DeviceArray:
    """An array of what lies in the memory that it is given: rubbish."""
    kind = np.dtype(dtype)
    if kind.char not in KNOWN and kind.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {kind}")
    sides = tuple(shape) if isinstance(shape, tuple | list) else (int(shape),)
    if any(side < 0 for side in sides):
        raise ValueError("Negative dimensions are not allowed")
    place = allocate(math.prod(sides) * kind.itemsize)
    array = DeviceArray(place.array(sides, kind, order), place)
    _used(array)
    return array


def empty(shape: Any, dtype: Any = float, order: str = "C") -> DeviceArray:
    """An array of rubbish."""
    array = undefined(shape, dtype, order)
    if array.size and array.dtype != bool:
        content = array.host.reshape(-1, order=order).view(np.uint8)
        current().do_now(lambda: content.fill(RUBBISH))
    return array


def produce(compute: Callable[[], Any]) -> Any:
    """Work that makes new arrays; a graph writes them again whenever it is launched."""
    stream = current()
    at_once = stream.graph is None and QUEUES.order is None
    with np.errstate(all="ignore"):
        try:
            made = compute()  # perhaps of rubbish, for the shape alone
        except IndexError:  # rubbish that is an index
            stream.finish()
            made = compute()
    parts = made if isinstance(made, tuple) else (made,)
    arrays = tuple(_like(part, at_once) for part in map(np.asarray, parts))
    targets = tuple(array.host for array in arrays)

    def write(values: Any) -> None:
        for target, value in zip(targets, values, strict=True):
            target[...] = value

    if at_once:
        write(parts)
    else:
        stream.do(lambda: write(compute() if isinstance(made, tuple) else (compute(),)))
    return arrays if isinstance(made, tuple) else arrays[0]


def _like(part: np.ndarray, at_once: bool) -> DeviceArray:
    order = "F" if part.flags.f_contiguous and not part.flags.c_contiguous else "C"
    return (undefined if at_once else empty)(part.shape, part.dtype, order)


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A NumPy function on device arrays; host arrays are refused."""
    out = options.pop("out", None)
    name = function.__name__
    if name not in VIEWS:
        return _call(function, name, args, options, out)
    source: DeviceArray = args[0]
    result = function(unwrap(source), *args[1:], **options)
    if np.may_share_memory(result, source.host):
        return DeviceArray(result, source.place)
    return _call(function, "copy", args, options, None)


def _call(function: Any, name: str, args: Any, options: Any, out: Any) -> Any:
    given = [unwrap(a) for a in args]
    if name in SLOW and np.size(given[0]) > FEW:
        raise AssertionError(f"CuPy compiles {name} for seconds: use all_true of gpunn.ops")
    options = {key: unwrap(value) for key, value in options.items()}
    if name in PRODUCTS:
        MACHINE.product()
    else:
        MACHINE.counters.launches[name] += 1
    targets = out if isinstance(out, tuple) else (out,)
    if any(target is not None for target in targets):
        if not all(isinstance(t, DeviceArray) for t in targets):
            raise TypeError("Output must be a device array")
        hosts = tuple(unwrap(t) for t in targets)
        destination = hosts if isinstance(function, np.ufunc) else hosts[0]
        current().do(lambda: function(*given, out=destination, **options))
        return out if isinstance(out, tuple) and len(out) > 1 else targets[0]
    return produce(lambda: function(*given, **options))


def _index(index: Any) -> tuple[Any, ...]:
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(_index_part(part) for part in parts)


def _index_part(part: Any) -> Any:
    if isinstance(part, DeviceArray):
        if part.dtype == bool:
            MACHINE.synchronise()  # how many are True decides the shape
            current().finish()
        return unwrap(part)
    if isinstance(part, np.ndarray | list):
        MACHINE.copy_to_device()  # CuPy does this unasked
        return np.asarray(part)
    return part
