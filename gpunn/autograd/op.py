"""Operations. An operation is made from a function that returns a result and its backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.autograd.engine import Backward, Node, is_recording
from gpunn.autograd.tensor import METHODS, Tensor
from gpunn.backends import Backend, backend_of
from gpunn.errors import DeviceMismatchError, DTypeError, UnknownNameError
from gpunn.fingerprint import Tracked
from gpunn.names import home_of, is_own, register

if TYPE_CHECKING:
    import inspect

OPS: dict[str, Op] = {}
"""Every operation, by name."""


class Op(Tracked):
    """An operation on tensors, made from a function over arrays.

    A call with tensors records the result for gradients. Arrays and numbers are constants. A call
    of `vjp(backend, *arrays)` records nothing. It returns the result and the function that computes
    the gradients of the inputs, `backward(gy, needs=(True, ...))`.

    Args:
        vjp: the function.
        name: the name of the operation.
        home: the module that declares it; by default that of the function.

    Raises:
        ArgumentError: another module has an operation with that name.
    """

    any_float: tuple[int, ...] = ()  # argument positions exempt from the dtype check
    options: Mapping[str, Any] = MappingProxyType({})  # default values of its formula's numbers

    def __init__(
        self, vjp: Callable[..., tuple[Any, Backward]], name: str, home: str | None = None
    ) -> None:
        register(OPS, "operation", name, self, home or home_of(vjp))
        self.vjp, self.name = vjp, name
        self.__name__, self.__doc__ = name, vjp.__doc__
        METHODS[name] = self

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect

        signature = inspect.signature(self.vjp)
        parameters = list(signature.parameters.values())[1:]
        if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters[-1:] = [
                inspect.Parameter(name, kind, default=default)
                for name, default in self.options.items()
            ]
        return signature.replace(parameters=parameters, return_annotation=Tensor)

    def __fingerprint__(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name not in _WRITTEN_ONCE}

    def __identity__(self) -> dict[str, Any] | str:
        if is_own("operation", self.name):
            return self.name
        return {**self.__fingerprint__(), "name": self.name, "vjp": self.vjp}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle an operation as its name, so that a copy of it is the same object."""
        return _known, (self.name,)

    def __repr__(self) -> str:
        return f"<operation {self.name}>"

    def _check_names(self, options: Mapping[str, Any]) -> None:
        """Check that the operation has these options.

        Raises:
            UnknownNameError: it has no such option.
        """
        known = self.__signature__.parameters
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return
        for option in options:
            if option not in known:
                names = [name for name, p in known.items() if p.default is not p.empty]
                raise UnknownNameError(f"option of {self.name}", option, names)

    def __call__(self, *args: Any, **options: Any) -> Tensor:
        """Apply the operation, and record it if an input requires a gradient."""
        backend: Backend | None = None
        dtype = None
        arrays: list[Any] = []
        parents: list[Node | None] = []
        live = False
        for arg in args:
            node = None
            if isinstance(arg, Tensor):
                here, node = arg.backend, arg.node
                arg = arg.data
            elif isinstance(arg, np.ndarray) or hasattr(type(arg), "__cuda_array_interface__"):
                here = backend_of(arg)
            elif isinstance(arg, list) and not arrays:
                raise DTypeError(
                    f"got a list in {self.name}; expected a tensor or an array: wrap it with "
                    "gpunn.tensor or numpy.asarray"
                )
            else:  # a NumPy scalar would change the dtype of the result, a Python number does not
                arrays.append(arg.item() if isinstance(arg, np.generic) else arg)
                parents.append(None)
                continue
            if backend is None:
                backend = here
            elif here is not backend:
                raise DeviceMismatchError(_mismatch(self.name, args))
            if arg.dtype.kind not in "fiub":
                check_real(self.name, arg)
            if arg.dtype.kind == "f" and len(arrays) not in self.any_float:
                if dtype is None:
                    dtype = arg.dtype
                elif arg.dtype != dtype:
                    raise DTypeError(
                        f"got {dtype} and {arg.dtype} in {self.name}; expected one dtype: convert "
                        "one of them with astype, because gpunn converts nothing by itself"
                    )
            live = live or node is not None
            arrays.append(arg)
            parents.append(node)
        if backend is None:
            raise DTypeError(
                f"got no tensor or array in {self.name}; expected at least one: wrap the data "
                "with gpunn.tensor"
            )
        try:
            if backend.scope is None:
                y, backward = self.vjp(backend, *arrays, **options)
            else:
                with backend.scope:
                    y, backward = self.vjp(backend, *arrays, **options)
        except TypeError:
            self._check_names(options)
            raise
        recording = is_recording()
        node = Node(self.name, tuple(parents), backward) if live and recording else None
        result = Tensor(y, backend=backend, node=node)
        if recording and recording is not True:
            recording(self.name, args, options, result)
        return result


def check_real(name: str, array: Any) -> None:
    """Check that an array of an operation holds real numbers.

    Raises:
        DTypeError: it holds something else.
    """
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise DTypeError(
            f"got {array.dtype} in {name}; expected floats, integers or booleans: convert with "
            "astype"
        )


_WRITTEN_ONCE = ("vjp", "name", "__name__", "__doc__")


def _known(name: str) -> Op:
    return OPS[name]


def op(function: Callable[..., tuple[Any, Backward]]) -> Op:
    """Make an operation from a function `(backend, *arrays, **options) -> (y, backward)`.

    `backward(gy, needs)` returns one gradient per positional argument, or None for no gradient.
    `needs` says which gradients are wanted; see `Sink`.
    """
    return Op(function, function.__name__.rstrip("_"))


def _mismatch(name: str, args: tuple[Any, ...]) -> str:
    places = []
    for position, arg in enumerate(args):
        if isinstance(arg, Tensor) or hasattr(arg, "dtype"):
            array = arg.data if isinstance(arg, Tensor) else arg
            places.append(f"argument {position} {tuple(array.shape)} on {backend_of(array).device}")
    return (
        f"got {' and '.join(places)} in {name}; expected one device: move one with .to(device), "
        "because gpunn moves nothing by itself"
    )
