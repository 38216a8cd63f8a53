"""Work on the CPU that is recorded once and done again, without the Python that led to it.

While work is recorded nothing is computed: every kernel, product and array function is noted with
its arguments, and answers with a `Traced` array, whose content is undefined. What reads such an
array, or does to it what cannot be noted, ends the recording with an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import groupby
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.cpu.compiled import Call
from gpunn.backends.cpu.pool import BufferPool, address
from gpunn.typing import Array, DType, Shape

_open = threading.local()  # .plan: what this thread records


class Unrecordable(Exception):
    """What was done cannot be done again later without looking at arrays."""


def recording() -> Plan | None:
    """The plan that this thread records; None while it computes."""
    return getattr(_open, "plan", None)


class Noted(NamedTuple):
    """A function and what it is called with."""

    run: Callable[..., Any]
    args: tuple[Any, ...]


class Plan:
    """Calls in order, on arrays that stay where they are.

    Attributes:
        pool: of the buffers that the calls work in; nobody else's.
        kept: arrays that must live as long as the plan.
    """

    def __init__(self) -> None:
        self.pool = BufferPool()
        self.kept: Any = None
        self._held: list[Any] = []
        self._calls: list[Call | Noted] = []
        self._repeated: Callable[[int], Call | None] = lambda times: None

    def launch(self, times: int = 1) -> None:
        """Do the recorded work, several times one after another."""
        whole = self._repeated(times)
        if whole is not None:
            whole.run(*whole.args)
            return
        with np.errstate(all="ignore"):
            for _ in range(times):
                for run, args in self._calls:
                    run(*args)

    def join(self, chain: Callable[[Sequence[Call]], Call | None]) -> None:
        """Make one call of compiled calls that follow each other.

        Args:
            chain: that makes one of several, or None where it cannot.
        """
        joined: list[Call | Noted] = []
        for compiled, group in groupby(self._calls, lambda call: isinstance(call, Call)):
            calls: list[Any] = list(group)
            whole = chain(calls) if compiled and len(calls) > 1 else None
            joined += calls if whole is None else [whole]
            self._held.append(calls)
        self._calls = joined
        if len(joined) == 1 and isinstance(only := joined[0], Call):
            self._repeated = cache(lambda times: chain([only] * times))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Record what this thread does in the block.

        Raises:
            Unrecordable: it records already.
        """
        if recording() is not None:
            raise Unrecordable("a recording inside a recording")
        _open.plan = self
        try:
            yield
        finally:
            _open.plan = None
            self._held.append(self.pool.arrays())  # the pool's own end with their thread

    def empty(self, shape: Shape, dtype: DType) -> Array:
        """A traced array of the plan's own."""
        return self.pool.empty(shape, np.dtype(dtype)).view(Traced)

    def note(self, work: Callable[..., Any], *args: Any) -> None:
        """Add a call."""
        self._calls.append(Noted(work, tuple(self._plain(a) for a in args)))

    def note_call(self, call: Call, args: tuple[Any, ...]) -> None:
        """Add a compiled call, which knows addresses; buffers of the pool stay anyway."""
        self._held += [a for a in args if isinstance(a, np.ndarray) and not self._pooled(a)]
        self._calls.append(call)

    def call(
        self, function: Callable[..., Any], *args: Any, out: Any = None, **options: Any
    ) -> Any:
        """Note an array function, and answer with the array that it will write or be a view of."""
        given = [plain(a) for a in args]
        with np.errstate(all="ignore"):
            shown = function(*given, **options)  # of undefined content: only its kind counts
        if not isinstance(shown, np.ndarray | np.generic):
            raise Unrecordable(f"{function.__name__} gives no array")
        arrays = [a for a in given if isinstance(a, np.ndarray)]
        if isinstance(shown, np.ndarray) and any(np.may_share_memory(a, shown) for a in arrays):
            return shown.view(Traced)
        result = self.empty(shown.shape, shown.dtype) if out is None else out

        def again(target: Array, *inputs: Any) -> None:
            np.copyto(target, function(*inputs, **options), casting="same_kind")

        self.note(again, result, *args)
        return result

    def ufunc(self, function: np.ufunc, *args: Any, out: Any = None, **options: Any) -> Any:
        """Note an elementwise function."""
        if out is None or options or function.nout != 1:
            return self.call(function, *args, out=out, **options)

        def again(target: Array, *inputs: Any) -> None:
            function(*inputs, out=target)

        self.note(again, out, *args)
        return out

    def _pooled(self, array: Array) -> bool:
        return self.pool.owns(_root(array))

    def _plain(self, value: Any) -> Any:
        """An argument as the call takes it: an array of NumPy's that keeps no buffer in use."""
        if not isinstance(value, Traced):
            return value
        if not self._pooled(value):
            return plain(value)
        root: Any = _root(value)
        start = value.__array_interface__["data"][0] - address(root.base)
        return np.ndarray(value.shape, value.dtype, root.base, start, value.strides)


def _root(array: Array) -> Any:
    """The array that a view is of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Traced(np.ndarray):
    """An array without content yet: what is done with it is noted in the open plan.

    Once nothing is recorded any more it is an array like any other.
    """

    def __array_ufunc__(self, ufunc: Any, method: Any, *inputs: Any, **options: Any) -> Any:
        """Note a ufunc, or one of its methods."""
        out = options.pop("out", (None,))[0]
        work = ufunc if method == "__call__" else getattr(ufunc, method)
        plan = recording()
        if plan is None:
            out = plain(out)
            return work(*map(plain, inputs), **options, **({} if out is None else {"out": out}))
        if method == "__call__":
            return plan.ufunc(work, *inputs, out=out, **options)
        return plan.call(work, *inputs, out=out, **options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """Note a function of NumPy's."""
        plan = recording()
        if plan is None:
            return super().__array_function__(function, types, args, options)
        if not all(isinstance(a, np.ndarray | np.generic | int | float | tuple) for a in args):
            raise Unrecordable(f"{function.__name__} is called with more than arrays")
        return plan.call(function, *args, **options)

    def __getattribute__(self, name: str) -> Any:
        plan = None if name in KNOWN else recording()
        if plan is not None and name in METHODS:
            return partial(plan.call, getattr(np, name), self)
        if plan is not None:
            raise Unrecordable(f".{name} of an array is asked for")
        return super().__getattribute__(name)

    def __getitem__(self, key: Any) -> Any:
        plan = recording()
        return super().__getitem__(key) if plan is None else plan.call(_item, self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        plan = recording()
        if plan is None:
            plain(self)[key] = value
            return
        part = plain(self)[key]
        if not isinstance(part, np.ndarray) or not np.may_share_memory(part, plain(self)):
            raise Unrecordable("elements are written that are no slice")
        plan.note(np.copyto, part.view(Traced), value)

    def fill(self, value: Any) -> None:
        """Fill with a value."""
        plan = recording()
        if plan is None:
            super().fill(value)
        else:
            plan.note(np.ndarray.fill, self, value)

    def copy(self, order: Any = "C") -> Any:
        """Copy."""
        return self.astype(self.dtype)

    def astype(self, dtype: Any, *args: Any, copy: Any = True, **options: Any) -> Any:
        """Convert."""
        plan = recording()
        if plan is None:
            return plain(self).astype(dtype, *args, copy=copy, **options)
        if not copy and self.dtype == dtype:
            return self
        target = plan.empty(self.shape, dtype)
        plan.note(_convert, target, self)
        return target

    def __bool__(self) -> bool:
        return bool(_content(self))

    def __float__(self) -> float:
        return float(_content(self))

    def __int__(self) -> int:
        return int(_content(self))

    def __index__(self) -> int:
        return int(_content(self))


class TracedModule(ModuleType):
    """NumPy while work is recorded: what its functions make is traced."""

    def __init__(self) -> None:
        super().__init__("numpy")

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, np.ufunc) or not callable(found) or isinstance(found, type):
            return found

        def noted(*args: Any, **options: Any) -> Any:
            plan = recording()
            return found(*args, **options) if plan is None else plan.call(found, *args, **options)

        return noted


def plain(value: Any) -> Any:
    """A traced array as one of NumPy's; anything else as it is."""
    return np.ndarray.view(value, np.ndarray) if isinstance(value, Traced) else value


def _convert(target: Array, given: Array) -> None:
    np.copyto(target, given, casting="unsafe")


def _item(array: Array, key: Any) -> Array:
    return array[key]


def _content(array: Traced) -> Array:
    if recording() is not None:
        raise Unrecordable("a number of an array is read")
    return plain(array)


METHODS = frozenset(
    ("sum", "mean", "prod", "max", "min", "argmax", "argmin", "std", "var", "clip", "dot", "cumsum")
)
"""Methods that are noted as the functions of the same name."""
KNOWN = frozenset(
    (  # numbers and views; what is overridden above; and what NumPy itself asks for
        *("T", "base", "data", "dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size"),
        *("strides", "ravel", "reshape", "squeeze", "swapaxes", "transpose", "view"),
        *("fill", "copy", "astype", "__getitem__", "__setitem__", "__array_ufunc__"),
        *("__array_function__", "__array_interface__", "__array_struct__", "__array_priority__"),
        *("__array_finalize__", "__array_wrap__", "__class__", "__len__", "__dict__"),
    )
)
"""What may be asked of an array without content."""
