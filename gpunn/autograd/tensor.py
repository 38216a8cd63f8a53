"""The tensor: an array of one device with its node in the graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpunn.arguments import fitting
from gpunn.autograd.engine import Leaf, Node, run_backward
from gpunn.backends import Backend, Device, as_array, backend, backend_of
from gpunn.backends.dtypes import FLOATS, differentiable, float_dtype
from gpunn.errors import ArgumentError, DeviceMismatchError, DTypeError, GradientError, ShapeError
from gpunn.typing import Array, DeviceLike, DType, Shape

METHODS: dict[str, Callable[..., Tensor]] = {}
"""The operations behind the tensor's operators and methods. `gpunn.autograd.op` fills it."""


class Method:
    """A method that calls an operation: `x.exp()` is `gpunn.ops.exp(x)`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, x: Tensor | None, owner: type) -> Callable[..., Tensor]:
        operation = METHODS[self.name]
        return operation if x is None else partial(operation, x)


class Tensor:
    """An array that remembers how it was computed.

    Attributes:
        data: the array, of NumPy or CuPy.
        node: the node in the graph; None if the tensor requires no gradient.
        backend: the backend of the device.
    """

    __slots__ = ("__weakref__", "backend", "data", "node")
    __array_ufunc__ = None  # `array * tensor` is the tensor's operator, not NumPy's

    def __init__(
        self,
        data: Array,
        requires_grad: bool = False,
        *,
        backend: Backend | None = None,
        node: Node | None = None,
    ) -> None:
        self.data = data
        self.backend = backend_of(data) if backend is None else backend
        self.node = Leaf(data.shape) if requires_grad else node

    # properties ----------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The array's shape."""
        return tuple(self.data.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.data.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self.data.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    @property
    def device(self) -> Device:
        """The device that the array is on."""
        return self.backend.device

    @property
    def requires_grad(self) -> bool:
        """Whether a backward pass reaches this tensor."""
        return self.node is not None

    @property
    def grad(self) -> Array | None:
        """The gradient of a leaf, an array of the device; None before the first backward pass."""
        return self.node.grad if isinstance(self.node, Leaf) else None

    def __repr__(self) -> str:
        grad = f", grad of {self.node.name}" if self.node is not None else ""
        values = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=20)
        return f"tensor({values}, dtype={self.dtype}, device={self.device}{grad})"

    def __getstate__(self) -> dict[str, Any]:
        """Return the content, the device and whether this is a leaf, for a copy or a pickle."""
        state = {"data": self.numpy(), "device": self.device}
        state["leaf"] = isinstance(self.node, Leaf)
        return state | {
            name: getattr(self, name)
            for name in vars(type(self)).get("__slots__", ())
            if type(self) is not Tensor
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.backend = backend(state.pop("device"))
        self.data = self.backend.upload(state.pop("data"))
        self.node = Leaf(self.data.shape) if state.pop("leaf") else None
        for name, value in state.items():
            setattr(self, name, value)

    def __fingerprint__(self) -> dict[str, Any]:
        return {"data": self.data}

    def __array__(self, dtype: DType = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return the content for `numpy.asarray`. A GPU raises an error, not a hidden copy."""
        if not self.backend.on_host:
            raise DeviceMismatchError(
                f"got numpy.asarray of a tensor on {self.device}; expected one on the CPU: use "
                ".numpy() for a copy on the host"
            )
        return np.array(self.data, dtype=dtype)

    def __dlpack__(self, **request: Any) -> Any:
        """Share the memory with another library's `from_dlpack`. Nothing is copied.

        Args:
            request: the options of the protocol, which are passed to the array of this device.

        Raises:
            GradientError: the tensor requires a gradient, which another library would not compute.
        """
        if self.node is not None:
            raise GradientError(
                "got a tensor that requires a gradient to share; expected one outside the graph: "
                "share tensor.detach()"
            )
        with self.backend.current():
            return self.data.__dlpack__(**request)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's numbers for the kind of device and its index."""
        kind, index = self.data.__dlpack_device__()
        return int(kind), int(index)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __eq__(self, other: object) -> bool:
        """Compare by identity, and refuse to compare with other tensors, arrays and numbers.

        Raises:
            ArgumentError: `other` is another tensor, an array, a number or a list.
        """
        if self is other:
            return True
        if isinstance(other, Tensor | int | float | list) or hasattr(other, "dtype"):
            raise ArgumentError(
                "got == between a tensor and another object with numbers; expected arrays: compare "
                "x.numpy() == y.numpy(), or x.data == y.data on the device; use `x is y` to check "
                "that two tensors are the same object"
            )
        return NotImplemented

    __hash__ = object.__hash__

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("got len() of a 0-d tensor; expected at least one axis: use item()")
        return self.shape[0]

    # copies to the host, to other devices and outside the graph -------------------------------

    def numpy(self) -> np.ndarray[Any, Any]:
        """Copy the content to a NumPy array on the host."""
        return self.backend.download(self.data)

    def item(self) -> float:
        """Return the only element as a Python number. This waits for the device."""
        if self.size != 1:
            raise ShapeError(
                f"got item() of shape {self.shape}; expected one element: reduce first"
            )
        value: float = self.numpy().reshape(()).item()
        return value

    def detach(self) -> Tensor:
        """Return a tensor with the same array that is outside the graph."""
        return Tensor(self.data, backend=self.backend)

    def to(self, device: DeviceLike) -> Tensor:
        """Copy the tensor to a device, outside the graph; return this one if it is there."""
        there = backend(device)
        if there is self.backend:
            return self
        return Tensor(there.upload(self.numpy()), self.requires_grad, backend=there)

    # gradients -------------------------------------------------------------------------------

    def backward(self, gy: Array | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that it was computed from.

        A gradient is a plain array, so there are no second derivatives.

        Args:
            gy: the gradient with respect to this tensor, of its shape; None for 1.
            retain_graph: whether to keep the saved arrays for another call.

        Raises:
            GradientError: no tensor that this one was computed from requires a gradient.
            ShapeError: `gy` has another shape, or is missing for several elements.
            DTypeError, DeviceMismatchError: `gy` has another dtype, or is on another device.
            GraphFreedError: an earlier call without `retain_graph` has freed the graph.
        """
        if self.node is None:
            raise GradientError(
                "got backward() of a tensor that depends on none with requires_grad=True; "
                "expected one: create it with requires_grad=True, outside no_grad()"
            )
        if gy is None:
            if self.size != 1:
                raise ShapeError(
                    f"got backward() of shape {self.shape} without a gradient; expected one "
                    "element: reduce with .sum() or .mean(), or pass gy"
                )
            one = self.backend.one(self.dtype)
            gy = one if not self.shape else one.reshape(self.shape)
        gy = as_array(gy.data if isinstance(gy, Tensor) else gy)
        if backend_of(gy) is not self.backend:
            raise DeviceMismatchError(
                f"got a gradient on {backend_of(gy).device} for a tensor on {self.device}; "
                "expected one device: move it with .to(device)"
            )
        if gy.dtype != self.dtype:
            raise DTypeError(f"got a gradient of {gy.dtype}; expected {self.dtype}: use astype")
        if tuple(gy.shape) != self.shape:
            raise ShapeError(
                f"got a gradient of shape {tuple(gy.shape)}; expected {self.shape}: pass gy with "
                "the shape of the tensor"
            )
        with self.backend.current():
            run_backward(self.backend, self.node, gy, retain_graph)

    def zero_grad(self) -> None:
        """Forget the gradient of this leaf."""
        if isinstance(self.node, Leaf):
            self.node.grad = None

    # operators, each an operation of gpunn.ops -------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return METHODS["add"](self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Tensor:
        return METHODS["subtract"](self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return METHODS["subtract"](other, self)

    def __mul__(self, other: Any) -> Tensor:
        return METHODS["multiply"](self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        return METHODS["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return METHODS["divide"](other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return METHODS["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return METHODS["matmul"](other, self)

    def __neg__(self) -> Tensor:
        return METHODS["negative"](self)

    def __pow__(self, exponent: float) -> Tensor:
        return METHODS["power"](self, exponent)

    def __abs__(self) -> Tensor:
        return METHODS["abs"](self)

    def __getitem__(self, index: Any) -> Tensor:
        return METHODS["getitem"](self, (index,) if hasattr(index, "dtype") else index)

    exp, log, sqrt, sin, cos = Method(), Method(), Method(), Method(), Method()
    abs, relu, sigmoid, tanh = Method(), Method(), Method(), Method()

    def astype(self, dtype: DType) -> Tensor:
        """Convert the elements to another float dtype. Gradients are converted back to this one."""
        return METHODS["astype"](self, np.dtype(dtype))

    def max(self, axis: int | Shape | None = None, keepdims: bool = False) -> Tensor:
        """Compute the largest element over all axes, or over some."""
        return METHODS["max"](self, axis=axis, keepdims=keepdims)

    def sum(self, axis: int | Shape | None = None, keepdims: bool = False) -> Tensor:
        """Compute the sum of the elements over all axes, or over some."""
        return METHODS["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | Shape | None = None, keepdims: bool = False) -> Tensor:
        """Compute the mean of the elements over all axes, or over some."""
        return METHODS["mean"](self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        """Return the same elements in another shape."""
        return METHODS["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: int) -> Tensor:
        """Return the tensor with its axes in another order; in reverse order by default."""
        return METHODS["transpose"](self, axes or None)

    @property
    def T(self) -> Tensor:
        """The tensor with its axes in reverse order."""
        return METHODS["transpose"](self, None)


def tensor(
    data: Any,
    requires_grad: bool = False,
    *,
    dtype: DType = None,
    device: DeviceLike = None,
) -> Tensor:
    """Make a tensor with a copy of `data`.

    Args:
        data: numbers, nested sequences, a NumPy or CuPy array, or a tensor.
        requires_grad: whether backward passes compute a gradient for it.
        dtype: float16, float32 or float64. By default arrays keep their dtype, Python floats
            become float32, and integers stay integers.
        device: the device. By default an array of a GPU stays there, and other data goes to the
            default device.

    Raises:
        DTypeError: the data is neither floats nor integers, or integers require a gradient.
        DataError: a number is beyond the range of the dtype.
        DeviceUnavailableError: the device cannot be used.

    Example:
        >>> w = tensor([[1.0, -2.0]], requires_grad=True)
        >>> ((w @ w.T) ** 2).sum().backward()
        >>> w.grad
        array([[ 20., -40.]], dtype=float32)
    """
    if isinstance(data, Tensor):
        data = data.data
    bare = not hasattr(data, "dtype")
    array = as_array(data)
    here = backend_of(array)
    there = here if device is None and not here.on_host else backend(device)
    host = here.download(array)
    if dtype is not None:
        host = fitting("data", host, float_dtype(dtype))
    elif bare and host.dtype == np.float64:
        host = fitting("data", host, np.float32)
    if host.dtype.kind not in "iub" and host.dtype.name not in FLOATS:
        raise DTypeError(
            f"got data of dtype {host.dtype}; expected integers or {', '.join(FLOATS)}: "
            "convert it, or pass dtype"
        )
    requires_grad = requires_grad and differentiable(host.dtype)
    return Tensor(there.upload(host), requires_grad, backend=there)
