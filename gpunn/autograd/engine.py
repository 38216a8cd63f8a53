"""The nodes of the graph and the walk that carries gradients back through them.

The walk goes by creation number, newest first, through a heap: a node runs once, after all of its
consumers, whatever the shape of the graph and without recursion. Closures hold arrays and never
tensors, so there is no reference cycle, and what a node saved is dropped as the walk passes it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from gpunn.backends import Backend
from gpunn.errors import GraphFreedError
from gpunn.typing import Array, Shape

_created = itertools.count()
_recording: ContextVar[bool | Recorder] = ContextVar("gpunn_recording", default=True)


class Sink:
    """The buffer that a gradient should be written into, given to a backward in place of True."""

    __slots__ = ("array",)

    def __init__(self, array: Array) -> None:
        self.array = array


Need: TypeAlias = "bool | Sink"
Backward: TypeAlias = Callable[[Array, tuple[Need, ...]], tuple[Any, ...]]
Recorder: TypeAlias = Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]


def target(need: Need) -> Array | None:
    """Where a backward should write: the sink's buffer, or None for an array of its own."""
    return need.array if type(need) is Sink else None


def is_recording() -> bool | Recorder:
    """Whether operations on tensors that require a gradient are recorded, and who looks on."""
    return _recording.get()


@contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Tell `recorder` of every operation inside the block; gradients are recorded there.

    Args:
        recorder: called with the operation's name, its arguments and options, and its result.
    """
    token = _recording.set(recorder)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside the block."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


class Node:
    """One recorded operation: who its inputs were and how a gradient passes through it."""

    __slots__ = ("__weakref__", "backward", "name", "parents", "seq")

    def __init__(
        self, name: str, parents: tuple[Node | None, ...], backward: Backward | None
    ) -> None:
        self.seq = next(_created)
        self.name = name
        self.parents = parents
        self.backward = backward

    def __lt__(self, other: Node) -> bool:
        return self.seq > other.seq  # a heap pops its smallest: the newest node


class Leaf(Node):
    """Where gradients arrive: the graph's end for one tensor that requires them.

    `sink`, when an optimizer set it, is a view of its flat buffer with a stable address; the first
    gradient of a step is written there at once by the operation that computes it.
    """

    __slots__ = ("grad", "shape", "sink")

    def __init__(self, shape: Shape) -> None:
        super().__init__("leaf", (), None)
        self.shape = shape
        self.grad: Array | None = None
        self.sink: Sink | None = None

    def need(self) -> Need:
        """What to ask a backward for: the sink while it is empty."""
        return self.sink if self.sink is not None and self.grad is None else True

    def add(self, b: Backend, grad: Array) -> None:
        """Accumulate one contribution."""
        if self.grad is not None:
            b.add_to(self.grad, grad)
        elif self.sink is None:
            self.grad = b.empty(grad.shape, grad.dtype)
            b.copy_to(self.grad, grad)
        else:
            self.grad = self.sink.array
            if grad is not self.grad:
                b.copy_to(self.grad, grad)


def run_backward(b: Backend, root: Node, gy: Array, retain_graph: bool) -> None:
    """Carry `gy` from `root` to every leaf below it.

    Raises:
        GraphFreedError: a node ran before without `retain_graph`.
    """
    if isinstance(root, Leaf):
        root.add(b, gy)
        return
    grads: dict[Node, tuple[Array, bool]] = {root: (gy, False)}  # a gradient, and do we own it?
    heap = [root]
    while heap:
        node = heapq.heappop(heap)
        grad, _ = grads.pop(node)
        backward = node.backward
        if backward is None:
            raise GraphFreedError(
                f"got a second backward() through {node.name!r}, whose saved arrays are freed; "
                "expected one backward() a graph: pass retain_graph=True to the first"
            )
        contributions = backward(grad, _needs(node.parents))
        if not retain_graph:
            node.backward = None
        del backward
        for parent, contribution in zip(node.parents, contributions, strict=True):
            if parent is None or contribution is None:
                continue
            if isinstance(parent, Leaf):
                parent.add(b, contribution)
                continue
            known = grads.get(parent)
            if known is None:
                grads[parent] = (contribution, False)
                heapq.heappush(heap, parent)
            elif known[1] and known[0].ndim:  # a 0-d sum may be a NumPy scalar: no place to add to
                b.add_to(known[0], contribution)
            else:
                grads[parent] = (b.xp.add(known[0], contribution), True)


def _needs(parents: tuple[Node | None, ...]) -> tuple[Need, ...]:
    needs: list[Need] = []
    for i, parent in enumerate(parents):
        if parent is None:
            needs.append(False)
        elif isinstance(parent, Leaf) and parent not in parents[:i]:
            needs.append(parent.need())
        else:
            needs.append(True)
    return tuple(needs)
