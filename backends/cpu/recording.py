"""Recording of work on the CPU. A repetition skips the Python code around the recorded calls.

A recording is an ordinary computation: every array holds real numbers. Each call that the backend
makes is also noted with its arrays. A repetition makes the noted calls again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from gpunn.backends.cpu.compiled import Call
from gpunn.backends.cpu.pool import LastingPool, address, root_of
from gpunn.backends.cpu.threads import WORKERS
from gpunn.backends.floating import unwarned
from gpunn.errors import CaptureError
from gpunn.typing import Array, DType, Shape

Result = TypeVar("Result")
Joiner: TypeAlias = Callable[[Sequence[Call]], "Call | None"]
_open = threading.local()  # .plan is the plan that this thread records


def recording() -> Plan | None:
    """Return the plan that this thread records; None if it records nothing."""
    return getattr(_open, "plan", None)


class Noted(NamedTuple):
    """A call that was noted: a function and its arguments."""

    run: Callable[..., Any]
    args: tuple[Any, ...]


class Fork(NamedTuple):
    """Recordings that are repeated at the same time: a function and its arguments."""

    run: Callable[..., Any]
    args: tuple[Plan, ...]

    def joined(self, chain: Joiner, fork: Joiner) -> Call | Fork:
        """Return one compiled call if the recordings are compiled calls; see `Plan.join`."""
        calls: list[Call] = []
        for branch in self.args:
            branch.join(chain, fork)
            calls += [call for call in branch._calls if isinstance(call, Call)]
        compiled = all(len(branch._calls) == 1 for branch in self.args)
        whole = fork(calls) if compiled and len(calls) == len(self.args) else None
        return self if whole is None else whole


def _at_the_same_time(*branches: Plan) -> None:
    WORKERS.run([branch.launch for branch in branches])


class Plan:
    """A recording: calls in order, on arrays whose addresses do not change.

    Args:
        pieces: the number of pieces that a long kernel is divided into. Threads repeat them.

    Attributes:
        done: True, because the work is done while it is recorded.
        refused: the reason why the calls do not repeat the work; empty if they repeat it.
        pool: the buffers that the calls use. Nothing else uses them.
        kept: arrays that must live as long as the plan.
    """

    done = True

    def __init__(self, pieces: int = 1) -> None:
        self.pieces = pieces
        self.refused = ""
        self.pool = LastingPool()
        self.kept: Any = None
        self._held: list[Any] = []
        self._calls: list[Call | Noted | Fork] = []
        self._repeated: Callable[[int], Call | None] = lambda times: None

    @property
    def size_bytes(self) -> int:
        """The bytes of the buffers, without small ones."""
        return self.pool.size_bytes()

    def launch(self, times: int = 1) -> None:
        """Repeat the recorded work `times` times in a row."""
        whole = self._repeated(times)
        if whole is not None:
            whole.run(*whole.args)
            return
        with unwarned():
            for _ in range(times):
                for run, args in self._calls:
                    run(*args)

    def join(self, chain: Joiner, fork: Joiner) -> None:
        """Merge compiled calls that follow each other, or are made at the same time, into one call.

        Args:
            chain: makes one call of several in order; returns None if it cannot.
            fork: makes one call of several at the same time; returns None if it cannot.
        """
        self._held.append(self._calls)
        self._calls = [
            call.joined(chain, fork) if isinstance(call, Fork) else call for call in self._calls
        ]
        joined: list[Call | Noted | Fork] = []
        for compiled, group in groupby(self._calls, lambda call: isinstance(call, Call)):
            calls: list[Any] = list(group)
            whole = chain(calls) if compiled and len(calls) > 1 else None
            joined += calls if whole is None else [whole]
            self._held.append(calls)
        self._calls = joined
        if len(joined) == 1 and isinstance(only := joined[0], Call):
            self._repeated = lru_cache(maxsize=16)(lambda times: chain([only] * times))

    def apart(self, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """Record pieces of work that do not depend on each other. They are repeated on threads.

        A piece uses no memory of another one, and only its own buffers are used again in it.
        """
        branches, results = [], []
        for work in works:
            branch = Plan()
            _open.plan = branch
            try:
                results.append(work())
            finally:
                _open.plan = self
            branch.kept = results[-1]
            self.refuse(branch.refused)
            branches.append(branch)
        self._calls.append(Fork(_at_the_same_time, tuple(branches)))
        return results

    @contextmanager
    def open(self) -> Iterator[None]:
        """Note the calls that this thread's backend makes inside the block.

        Raises:
            CaptureError: this thread is already recording.
        """
        if recording() is not None:
            raise CaptureError(
                "got a recording inside a recording; expected one at a time: pass capture=False "
                "to the inner one"
            )
        _open.plan = self
        try:
            yield
        finally:
            _open.plan = None

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Note nothing inside the block."""
        _open.plan = None
        try:
            yield
        finally:
            _open.plan = self

    def empty(self, shape: Shape, dtype: DType) -> Array:
        """Return an array with undefined content from the plan's own pool."""
        return self.pool.empty(tuple(shape), np.dtype(dtype))

    def refuse(self, why: str) -> None:
        """Remember the first reason why the calls do not repeat the work."""
        self.refused = self.refused or why

    def note(self, work: Callable[..., Any], *args: Any) -> None:
        """Add a call."""
        self._calls.append(Noted(work, tuple(map(self._alias, args))))

    def note_call(self, call: Call, args: tuple[Any, ...]) -> None:
        """Add a compiled call.

        It holds raw addresses, so its arrays are kept alive here. Buffers of the plan's own pool
        live as long as the plan anyway.
        """
        self._held += [a for a in args if isinstance(a, np.ndarray) and not self.pool.owns(a)]
        self._calls.append(call)

    def call(self, function: Callable[..., Any], args: Any, options: Any) -> Any:
        """Call a function of arrays, note the call, and return its result in the plan's buffers."""
        with unwarned():
            made = function(*args, **options)
        out = options.get("out")
        if made is None or out is not None:
            written = out[0] if type(out) is tuple else out
            self.note(lambda *given: _again(function, given, options), written, *args)
            return made
        if isinstance(made, np.ndarray | np.generic):
            arrays = [a for a in args if isinstance(a, np.ndarray)]
            if isinstance(made, np.ndarray) and any(np.may_share_memory(a, made) for a in arrays):
                return made  # a view; a repetition writes to its base, so the view needs no call
            return self._made(function, args, options, made)
        if type(made) in (list, tuple):
            views = [a for a in made if isinstance(a, np.ndarray) and a.base is None]
            if views:
                self.refuse(f"{_name(function)} returns several arrays")
        elif isinstance(made, bool) and any(isinstance(a, np.ndarray) for a in args):
            self.refuse(f"{_name(function)} reads arrays to decide something")
        return made

    def _made(self, function: Callable[..., Any], args: Any, options: Any, made: Any) -> Array:
        """Copy a result to an array of the plan, and note the call that writes it there."""
        result = self.empty(made.shape, made.dtype)
        np.copyto(result, made)
        if isinstance(function, np.ufunc) and not options:
            self.note(lambda to, *given: function(*given, out=to), result, *args)
        else:
            self.note(
                lambda to, *given: np.copyto(to, function(*given, **options), casting="same_kind"),
                result,
                *args,
            )
        return result

    def _alias(self, value: Any) -> Any:
        """Return an array over the same memory that does not keep a pooled buffer in use."""
        if not isinstance(value, np.ndarray) or not self.pool.owns(value):
            return value
        root = root_of(value)
        start = value.__array_interface__["data"][0] - address(root.base)
        return np.ndarray(value.shape, value.dtype, root.base, start, value.strides)


def _again(function: Callable[..., Any], given: tuple[Any, ...], options: Any) -> None:
    """Call a function again that writes to `given[0]`, or if that is None, to its arguments."""
    out, *args = given
    function(*args, **(options if out is None else options | {"out": out}))


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))


class NotedFunction:
    """A NumPy function whose calls are noted while this thread records.

    Args:
        function: the function. Calls of its attributes, such as `add.reduce`, are noted as well.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__, self.__doc__ = _name(function), function.__doc__

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function, and note the call if this thread records."""
        plan = recording()
        if plan is None:
            return self._function(*args, **options)
        return plan.call(self._function, args, options)

    def __getattr__(self, name: str) -> Any:
        return _noted(getattr(self._function, name))


class NotedNumpy(ModuleType):
    """NumPy, or a module in it, whose function calls are noted while this thread records."""

    def __init__(self, module: ModuleType = np) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = _noted(getattr(self._module, name))
        setattr(self, name, found)
        return found


def _noted(found: Any) -> Any:
    if isinstance(found, ModuleType):
        return NotedNumpy(found)
    return found if isinstance(found, type) or not callable(found) else NotedFunction(found)
