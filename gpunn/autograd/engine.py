"""The nodes of the graph, and the backward walk that computes gradients.

The walk takes nodes from a heap, the newest first. A node therefore runs once, after all its
consumers, for any graph and without recursion. Closures refer to arrays and never to tensors, so
there is no reference cycle. The walk drops the arrays that a node saved after the node has run.
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
    """The buffer that a backward function should write a gradient to. It is passed as a need.

    Attributes:
        array: the buffer.
        adds: whether the gradient may be added to the content of the buffer.
    """

    __slots__ = ("adds", "array")

    def __init__(self, array: Array) -> None:
        self.array, self.adds = array, False


Need: TypeAlias = "bool | Sink"
Backward: TypeAlias = Callable[[Array, tuple[Need, ...]], tuple[Any, ...]]
Recorder: TypeAlias = Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]


def target(need: Need) -> Array | None:
    """Return the array that a backward function should write to; None for a new array."""
    return need.array if type(need) is Sink and not need.adds else None


def product_of(b: Backend, x: Array, y: Array, need: Need) -> Array:
    """Return a matrix product as a gradient: a new array, or the one that the need names."""
    if type(need) is Sink:
        return b.matmul(x, y, out=need.array, adds=need.adds)
    return b.matmul(x, y)


def is_used_once(root: Node | None) -> bool:
    """Return whether each leaf is an input of a single operation of the graph of a result."""
    leaves, seen, ahead = set[Node](), set[Node](), [] if root is None else [root]
    while ahead:
        for parent in ahead.pop().parents:
            if isinstance(parent, Leaf):
                if parent in leaves:
                    return False
                leaves.add(parent)
            elif parent is not None and parent not in seen:
                seen.add(parent)
                ahead.append(parent)
    return True


def is_recording() -> bool | Recorder:
    """Return whether operations are recorded for gradients: True, False or a recorder.

    Inside `recorded`, it is the recorder, which counts as true.
    """
    return _recording.get()


@contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Call `recorder` for every operation inside the block. Operations are recorded for gradients.

    Args:
        recorder: a function of the operation's name, its arguments, its options and its result.
    """
    token = _recording.set(recorder)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record no operations for gradients inside the block."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


class Node:
    """One recorded operation: the nodes of its inputs and its backward function."""

    __slots__ = ("__weakref__", "backward", "name", "parents", "seq")

    def __init__(
        self, name: str, parents: tuple[Node | None, ...], backward: Backward | None
    ) -> None:
        self.seq = next(_created)
        self.name = name
        self.parents = parents
        self.backward = backward

    def __lt__(self, other: Node) -> bool:
        return self.seq > other.seq  # a heap pops its smallest element, so the newest node is it


class Leaf(Node):
    """The node of a tensor that gradients are computed for, an end of the graph.

    An optimizer sets `sink` to a view of its flat buffer, whose address does not change. The
    operation that computes the first gradient of a step writes it directly there.
    """

    __slots__ = ("grad", "shape", "sink")

    def __init__(self, shape: Shape) -> None:
        super().__init__("leaf", (), None)
        self.shape = shape
        self.grad: Array | None = None
        self.sink: Sink | None = None

    def need(self) -> Need:
        """Return the need of this leaf: the sink if it has no gradient yet or adds, else True."""
        sink = self.sink
        if sink is None:
            return True
        has = self.grad is sink.array if sink.adds else self.grad is None
        return sink if has else True

    def add(self, b: Backend, grad: Array) -> None:
        """Add a contribution to the gradient."""
        if self.grad is not None:
            if grad is not self.grad:  # else it was added already
                b.add_to(self.grad, grad)
        elif self.sink is None:
            self.grad = b.empty(grad.shape, grad.dtype)
            b.copy_to(self.grad, grad)
        else:
            self.grad = self.sink.array
            if grad is not self.grad:
                b.copy_to(self.grad, grad)


def run_backward(b: Backend, root: Node, gy: Array, retain_graph: bool) -> None:
    """Walk back from `root`, and add the gradients to all leaves that it was computed from.

    Args:
        b: the backend.
        root: the node to start from.
        gy: the gradient with respect to the root's result.
        retain_graph: whether to keep the saved arrays.

    Raises:
        GraphFreedError: an earlier walk without `retain_graph` has freed a node.
    """
    if isinstance(root, Leaf):
        root.add(b, gy)
        return
    # a gradient, and whether it is our own array, which may be changed
    grads: dict[Node, tuple[Array, bool]] = {root: (gy, False)}
    heap = [root]
    while heap:
        node = heapq.heappop(heap)
        grad, _ = grads.pop(node)
        backward = node.backward
        if backward is None:
            raise GraphFreedError(
                f"got a second backward() through {node.name!r}, whose saved arrays are freed; "
                "expected one backward() per graph: pass retain_graph=True to the first"
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
            elif known[1] and known[0].ndim:  # a 0-d sum may be a NumPy scalar, which is immutable
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
