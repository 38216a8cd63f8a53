"""The CPU backend. It runs kernels as NumPy bodies or compiled code, and pools its buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from gpunn.backends.base import Backend, Result, check_product
from gpunn.backends.cpu.blas import one_thread
from gpunn.backends.cpu.compiled import Call, Native, find_compiler
from gpunn.backends.cpu.pool import OWN, widened
from gpunn.backends.cpu.recording import NotedNumpy, Plan, recording
from gpunn.backends.cpu.threads import get_num_threads
from gpunn.backends.device import Device
from gpunn.backends.diagnosis import Diagnosis, Rung
from gpunn.backends.dtypes import FLOATS
from gpunn.backends.kernel import Elementwise, RowKernel
from gpunn.backends.random import RANDOM_WORDS, Draw
from gpunn.typing import Array, DType, Shape

COUNT = Elementwise(
    "count",
    "int64 known -> int64 same",
    numpy=lambda known, same: np.copyto(same, known),
    cuda="same = known;",
)
"""A copy of a count."""
LEAST_DIVIDED = 32_768  # elements; threads need about as long to begin as a kernel for these
PIECE = 64  # a piece of a divided array has a multiple of so many elements, which vectors fill
CHUNK = 65_536  # elements; several passes over a chunk stay in a core's L2 (measured 2026-11, EPYC)


class NumpyBackend(Backend):
    """NumPy on the CPU."""

    kind = "cpu"

    synchronous = True
    on_host = True
    xp = NotedNumpy()

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._native = Native(find_compiler()) if find_compiler().command else None

    @classmethod
    def diagnose(cls) -> Diagnosis:
        """Report NumPy's version; the CPU can always be used."""
        return Diagnosis((Rung("package", True, f"NumPy {np.__version__}"),))

    @classmethod
    def device_of(cls, array: Any) -> Device | None:
        """Return the CPU for a NumPy array or scalar, None for anything else."""
        return Device("cpu") if isinstance(array, np.ndarray | np.generic) else None

    @contextmanager
    def numpy_alone(self) -> Iterator[None]:
        """Use no compiled kernels inside the block. Recordings made in it keep to NumPy as well."""
        native, self._native = self._native, None
        try:
            yield
        finally:
            self._native = native

    def describe(self) -> str:
        """Describe the device in words."""
        return f"CPU (NumPy {np.__version__})"

    def empty(self, shape: Shape, dtype: DType) -> Array:
        """Return an array with undefined content, from the pool."""
        plan = recording()
        return OWN.pool.empty(shape, np.dtype(dtype)) if plan is None else plan.empty(shape, dtype)

    def kept(self, array: Array) -> Array:
        """Take the array's buffer out of the pool, or copy a small part of a buffer."""
        return OWN.pool.forget(array)

    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """Copy the array."""
        return np.array(array, order="C")

    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy the array, so that the result does not keep a pooled buffer in use.

        A recording of this call is refused, because it cannot know how the numbers are used.
        """
        plan = recording()
        if plan is not None:
            plan.refuse("an array is copied to the host")
        return np.array(array, order="C")

    def write(self, array: Array, content: np.ndarray[Any, Any]) -> None:
        """Copy `content` into `array`. A recording of this call is refused."""
        plan = recording()
        if plan is not None:
            plan.refuse("an array is copied in")
        array[...] = content

    def copy_to(self, to: Array, array: Array) -> None:
        """Copy the content of `array` into `to`."""
        _do(_copy_to, to, array)

    def host(self, function: Callable[..., Any], *args: Any) -> tuple[Array, ...]:
        """Call a function of NumPy arrays. A recording calls it again at every repetition."""
        plan = recording()
        with nullcontext() if plan is None else plan.closed():
            made = function(*args)
        if plan is None:
            return tuple(map(np.asarray, made))
        results = tuple(plan.empty(np.shape(a), np.asarray(a).dtype) for a in made)
        count = len(results)

        def write(contents: tuple[Any, ...], places: tuple[Array, ...]) -> None:
            for place, content in zip(places, contents, strict=True):
                place[...] = content

        write(made, results)
        plan.note(lambda *a: write(function(*a[count:]), a[:count]), *results, *args)
        return results

    @property
    def threads(self) -> int:
        """The number of threads; see `gpunn.set_num_threads`."""
        return get_num_threads()

    def apart(self, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """Do pieces of work that do not depend on each other. A recording repeats them on threads.

        Otherwise they are done one after another, because Python runs one thread at a time.
        """
        plan = recording()
        if plan is None or len(works) == 1:
            return [work() for work in works]
        return plan.apart(works)

    def single_threaded(self) -> AbstractContextManager[None]:
        """Let every matrix product use one thread, and the kernel that is chosen for one thread."""
        return one_thread()

    def launch(self, kernel: Elementwise, *inputs: Any, out: Any = None) -> Any:
        """Run the compiled kernel if there is one, else the NumPy body, in chunks if need be."""
        outputs = self._outputs(kernel, inputs) if out is None else out
        if type(outputs) is not tuple:
            outputs = (outputs,)
        plan = recording()
        if plan is not None and plan.pieces > 1 and _is_divisible(kernel, inputs, outputs):
            self._launch_divided(plan.pieces, kernel, (*inputs, *outputs))
            return outputs[0] if len(outputs) == 1 else outputs
        if self._native is not None:
            call = self._native.elementwise(kernel, inputs, outputs)
            if call is not None:
                _call(call, (*inputs, *outputs))
                return outputs[0] if len(outputs) == 1 else outputs
        body, once = kernel.numpy, kernel.numpy_once
        args = [*inputs, *outputs]
        places = [len(inputs) + kernel.outputs.index(param) for param in kernel.sums]
        totals = np.zeros(len(places))  # a float is too short for a long sum
        for k, place in enumerate(places):
            args[place] = totals[k : k + 1].reshape(())
        if kernel.widens and any(map(_is_narrow, args)):
            body = _in_float32(kernel, body)
            once = None if once is None else _in_float32(kernel, once)
        if places:
            _do(np.ndarray.fill, totals, 0)
        first = outputs[0] if kernel.outputs[0].role == "each" else inputs[0]
        if kernel.chunkable and first.size > 2 * CHUNK and first.ndim:
            _by_chunks(body, first.shape, tuple(args))
        else:
            _do(body, *args)
        if once is not None:
            _do(once, *args)
        for place in places:
            _do(_round_to, outputs[place - len(inputs)], args[place])
        return outputs[0] if len(outputs) == 1 else outputs

    def _launch_divided(self, count: int, kernel: Elementwise, args: tuple[Any, ...]) -> None:
        """Run an elementwise kernel on long vectors in pieces, each of which a thread repeats."""
        first, size = len(kernel.inputs), max(getattr(a, "size", 1) for a in args)
        length = -(-size // (count * PIECE)) * PIECE
        works = []
        for start in range(0, size, length):
            piece = [a[start : start + length] if np.ndim(a) else a for a in args]
            if start:  # only the first piece changes a count that the kernel keeps
                piece[first:] = [a if a.ndim else self.launch(COUNT, a) for a in piece[first:]]
            works.append(partial(self.launch, kernel, *piece[:first], out=tuple(piece[first:])))
        self.apart(works)

    def launch_rows(
        self,
        kernel: RowKernel,
        blocks: int,
        dtype: DType,
        *args: Any,
        threads: int | None = None,
        columns: int | None = None,
    ) -> None:
        """Run the NumPy body on all rows.

        While work is recorded, the compiled kernel runs instead, if there is one. It raises no
        exceptions.
        """
        plan, calls = recording(), list[Call]()
        if self._native is not None and plan is not None:
            kind = np.dtype(dtype).name
            calls = self._native.blocks(kernel, blocks, kind, args, plan.pieces)
        if len(calls) > 1:
            self.apart([partial(_call, call, args) for call in calls])
        else:
            _call_or_do(calls[0] if calls else None, kernel.numpy, args)

    def launch_matrix(self, kernel: RowKernel, shape: Shape, dtype: DType, *args: Any) -> None:
        """Run the compiled kernel on a float32 matrix if there is one, else the NumPy body."""
        args = (*args, shape[-1], math.prod(shape[:-1]))
        call = None
        if self._native is not None and dtype == np.float32:
            call = self._native.rows(kernel, args)
        _call_or_do(call, kernel.numpy, args)

    def matmul(self, a: Array, b: Array, out: Array | None = None, *, adds: bool = False) -> Array:
        """Compute the matrix product, with a compiled kernel if it is small, else with BLAS."""
        check_product(a, b)
        if adds and out is not None:
            native = self._native
            call = None if native is None else native.product(a, b, out, adds=True)
            if call is None:
                self.add_to(out, self.matmul(a, b))
            else:
                _call(call, (a, b, out))
            return out
        if not isinstance(a, np.ndarray):  # SciPy's sparse rows; NumPy cannot multiply them
            plan = recording()
            if plan is not None:
                plan.refuse("SciPy computes the products of sparse rows")
            product = a @ b
            if out is None:
                return product
            out[...] = product
            return out
        if out is None and a.ndim == 2 and b.ndim == 2:
            out = self.empty((a.shape[0], b.shape[1]), a.dtype)
        if self._native is not None and out is not None and a.ndim == b.ndim == 2:
            call = self._native.product(a, b, out)
            if call is not None:
                _call(call, (a, b, out))
                return out
        if out is None:
            return self.xp.matmul(a, b)
        _do(np.matmul, a, b, out)
        return out

    def random_words(self, count: int, draw: Draw) -> Array:
        """Return words of the compiled generator if there is one, else of NumPy's own Philox."""
        out = self.empty((count,), np.uint64)
        call = None if self._native is None else self._native.words(draw, out)
        args = (*draw.key, draw.call, draw.ahead, draw.shard, out)
        _call_or_do(call, RANDOM_WORDS.numpy, args)
        return out

    def why_no_capture(self) -> str:
        """Return an empty text, because work on the CPU can always be recorded."""
        return ""

    def record(self, work: Callable[[], Any], pieces: int = 1) -> Plan:
        """Do the work and note its calls and the buffers that they use."""
        self.zero()
        for dtype in FLOATS:  # make the constants now, so that the recording does not make them
            self.one(dtype)
        plan = Plan(pieces)
        with plan.open():
            plan.kept = work()
        if self._native is not None:
            plan.join(self._native.chain, self._native.fork)
        return plan

    def full(self, shape: Shape, value: float, dtype: DType) -> Array:
        """Return an array filled with one value."""
        array = self.empty(shape, dtype)
        _do(np.ndarray.fill, array, value)
        return array

    def synchronize(self) -> None:
        """Return at once, because the CPU backend finishes every call before it returns."""

    def memory_bytes(self) -> int:
        """Return the bytes of this thread's pool."""
        return OWN.pool.size_bytes()

    def free_memory(self) -> None:
        """Drop this thread's idle buffers."""
        OWN.pool.free()


def _is_narrow(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.name in ("float16", "bfloat16")


def _in_float32(kernel: Elementwise, body: Callable[..., Any]) -> Callable[..., Any]:
    """Return a body that computes in float32 for narrow arrays and rounds the outputs once."""
    params = (*kernel.inputs, *kernel.outputs)
    first = len(kernel.inputs)

    def widening(*args: Any) -> None:
        wide = [
            widened(a, np.float32) if p.type == "T" and _is_narrow(a) else a
            for p, a in zip(params, args, strict=True)
        ]
        body(*wide)
        for out, found in zip(args[first:], wide[first:], strict=True):
            if found is not out:
                _round_to(out, found)

    return widening


def _round_to(to: Array, array: Array) -> None:
    """Copy to a narrower array. A number that is too large becomes infinite, as in CUDA."""
    with np.errstate(over="ignore"):
        to[...] = array


def _is_divisible(kernel: Elementwise, inputs: Sequence[Any], outputs: tuple[Array, ...]) -> bool:
    """Return whether a kernel may run on pieces of its arguments at the same time."""
    shape = outputs[0].shape
    if len(shape) != 1 or shape[0] < LEAST_DIVIDED or kernel.sums or not kernel.chunkable:
        return False
    counts = [value for value in outputs if not value.ndim]
    known = all(np.shape(value) in ((), shape) for value in (*inputs, *outputs))
    return known and all(count.dtype == np.int64 for count in counts)


def _by_chunks(body: Callable[..., Any], shape: Shape, args: tuple[Any, ...]) -> None:
    """Call a body on consecutive slices of axis 0, so that its passes stay in the cache."""
    ndim, length = len(shape), shape[0]
    rows = max(1, CHUNK * length // math.prod(shape))
    sliced = [getattr(a, "ndim", 0) == ndim and a.shape[0] == length for a in args]
    for start in range(0, length, rows):
        part = slice(start, start + rows)
        _do(body, *[a[part] if cut else a for a, cut in zip(args, sliced, strict=True)])


def _copy_to(to: Array, array: Array) -> None:
    to[...] = array


def _do(work: Callable[..., Any], *args: Any) -> None:
    """Call a function, and note the call if this thread records."""
    work(*args)
    plan = recording()
    if plan is not None:
        plan.note(work, *args)


def _call(call: Call, args: tuple[Any, ...]) -> None:
    """Make a compiled call, and note it with its arrays if this thread records."""
    call.run(*call.args)
    plan = recording()
    if plan is not None:
        plan.note_call(call, args)


def _call_or_do(call: Call | None, body: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Make the compiled call, or call the NumPy body if there is none."""
    if call is None:
        _do(body, *args)
    else:
        _call(call, args)
