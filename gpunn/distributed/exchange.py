"""The exchange of the sums of a step between the workers of a group.

Each worker adds up its slice of all long arrays, and then sends the sums of its slice to the
others. In a window of shared memory nothing is sent. Otherwise each worker sends its arrays once,
and the sums once, however many workers there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from gpunn.backends import Backend, backend
from gpunn.distributed.group import Group, shards_of
from gpunn.distributed.tree import Place, Tree, places
from gpunn.distributed.window import Window
from gpunn.examples import edges
from gpunn.typing import Array, Message

SLICED = 4096  # elements; each worker adds up its slice of longer arrays only
ALIGNED = 64  # bytes
Nodes = list[tuple[Place, list[Array]]]


def gathered(group: Group, tree: Tree) -> list[Array]:
    """Return the root of a tree whose leaves the workers of a group have added in parts.

    In an exchange through the host, the workers also agree on whether to stop: `agreed` becomes
    whether one of them had the `wish`. From device to device, `Group.meet` does this.

    On the host, long sums may lie in memory that the workers share, until the next `entered`.

    Args:
        group: the workers.
        tree: the tree with the nodes of this worker.
    """
    b, size, leaves = tree.backend, group.size, tree.leaves
    owned = [places(leaves, shards_of(rank, size, leaves)) for rank in range(size)]
    mine = [array for place in owned[group.rank] for array in tree.nodes[place]]
    if not b.on_host and group.reaches(b):
        return _swapped(group, b, owned, leaves, mine, [], [])
    each = len(mine) // len(owned[group.rank])
    lengths = [_bytes([np.empty(1, bool), *mine[:each] * len(nodes)]) for nodes in owned]
    window = group.window(max(lengths))
    if window is None:
        return list(b.host(partial(_through_messages, group, owned, leaves), *mine))
    shared = _Shared(group, window, owned, leaves, mine[:each])
    if not b.on_host:
        return list(b.host(shared, *mine))
    short = iter(b.host(shared.short, *mine))  # what is long stays where it is
    return [next(short) if a is None else a for a in shared.long]


def entered(group: Group, b: Backend, grad: Array) -> Array | None:
    """Wait until all workers have read the sums of the last step, so that they may be overwritten.

    Args:
        group: the workers.
        b: the backend of the arrays.
        grad: an array like the gradients, which are the second array of each node.

    Returns:
        Memory like `grad`, from which the exchange need not copy the gradients of a first node;
        None if there is none.
    """
    window = None if group.reaches(b) and not b.on_host else group.window(0)
    if window is None:
        return None
    b.host(partial(_met, window))
    start = 2 * ALIGNED  # behind the wish and the value
    place = window.parts[group.rank][start : start + grad.nbytes]
    return place.view(grad.dtype) if b.on_host and place.nbytes == grad.nbytes else None


def _met(window: Window) -> tuple[Array, ...]:
    window.meet()
    return ()


def _through_messages(
    group: Group, owned: list[list[Place]], leaves: int, *arrays: Array
) -> list[Array]:
    """Return the root, from the arrays of this worker on the host."""
    wish = np.array([group.wish])
    others = [peer for peer in range(group.size) if peer != group.rank]
    wishes: list[Message] = [(peer, np.empty_like(wish)) for peer in others]
    told: list[Message] = [(peer, wish) for peer in others]
    found = [np.asarray(array, order="C") for array in arrays]
    root = _swapped(group, backend("cpu"), owned, leaves, found, told, wishes)
    group.agreed = group.wish or any(bool(there[0]) for _, there in wishes)
    return root


def _swapped(
    group: Group,
    b: Backend,
    owned: list[list[Place]],
    leaves: int,
    arrays: list[Array],
    sent: list[Message],
    received: list[Message],
) -> list[Array]:
    """Return the root, through messages.

    Args:
        group: the workers.
        b: the backend of the arrays.
        owned: the places of the nodes of each worker.
        leaves: the number of leaves.
        arrays: the arrays of this worker's nodes, one node after another.
        sent: messages that go before those with sums.
        received: messages that come before those with sums.
    """
    others = [peer for peer in range(group.size) if peer != group.rank]
    each = len(arrays) // len(owned[group.rank])
    cuts = [_cuts(array, group.size) for array in arrays[:each]]

    def piece(array: Array, k: int, worker: int) -> Array:
        cut = cuts[k]
        return array if cut is None else array[cut[worker] : cut[worker + 1]]

    numbered = [(k % each, array) for k, array in enumerate(arrays)]
    pieces = [(peer, piece(array, k, peer)) for peer in others for k, array in numbered]
    own = [piece(array, k, group.rank) for k, array in numbered]
    places_for: list[Message] = []
    nodes: Nodes = []
    for worker, there in enumerate(owned):
        for number, place in enumerate(there):
            start = number * each
            sums = own[start : start + each]
            if worker != group.rank:
                sums = [b.empty(a.shape, a.dtype) for a in own[:each]]
                places_for += [(worker, a) for a in sums]
            nodes.append((place, sums))
    group.swap([*sent, *pieces], [*received, *places_for])
    tree = Tree(b, leaves)
    for place, sums in nodes:
        tree.add(place, sums)
    root = tree.root()
    sent, received = [], []
    for k, cut in enumerate(cuts):
        if cut is not None:
            whole = b.empty(arrays[k].shape, arrays[k].dtype)
            piece(whole, k, group.rank)[...] = root[k]
            sent += [(peer, root[k]) for peer in others]
            received += [(peer, piece(whole, k, peer)) for peer in others]
            root[k] = whole
    group.swap(sent, received)
    return root


class _Shared:
    """The exchange through memory that all workers share.

    Args:
        group: the workers.
        window: the memory. Nobody reads it any more.
        owned: the places of the nodes of each worker.
        leaves: the number of leaves.
        kinds: arrays like those of a node.

    Attributes:
        long: where the long sums are after a call; None for the other sums.
    """

    def __init__(
        self,
        group: Group,
        window: Window,
        owned: list[list[Place]],
        leaves: int,
        kinds: list[Array],
    ) -> None:
        self._group, self._window, self._leaves = group, window, leaves
        wish, self._wishes, self._nodes = np.array([False]), [], []
        for part, there in zip(window.parts, owned, strict=True):
            flag, *arrays = _laid_out(part, [wish, *kinds * len(there)])
            self._wishes.append(flag)
            for k, place in enumerate(there):
                self._nodes.append((place, arrays[k * len(kinds) : (k + 1) * len(kinds)]))
        before = sum(map(len, owned[: group.rank]))
        own = self._nodes[before : before + len(owned[group.rank])]
        self._mine = [array for _, sums in own for array in sums]
        cuts = [_cuts(array, group.size) for array in kinds]
        self._slices = [None if cut is None else slice(*cut[group.rank :][:2]) for cut in cuts]
        # A sum lies in the place of its left operand, so the root is where the first leaf is.
        _, first = next(node for node in self._nodes if not node[0][1])
        self.long = [None if cut is None else a for a, cut in zip(first, cuts, strict=True)]

    def short(self, *arrays: Array) -> list[Array]:
        """Add up the nodes of all workers, and return the sums that are not long.

        Args:
            arrays: the arrays of this worker's nodes, one node after another.
        """
        for place, array in zip(self._mine, arrays, strict=True):
            if place.ctypes.data != array.ctypes.data:
                place[...] = array
        self._wishes[self._group.rank].fill(self._group.wish)
        self._window.meet()
        self._group.agreed = any(bool(flag[0]) for flag in self._wishes)
        tree = Tree(backend("cpu"), self._leaves)
        for place, sums in self._nodes:  # a worker adds up its slice of long arrays in place
            pairs = zip(sums, self._slices, strict=True)
            tree.add(place, [a.copy() if part is None else a[part] for a, part in pairs])
        root = tree.root()
        self._window.meet()
        return [a for a, part in zip(root, self._slices, strict=True) if part is None]

    def __call__(self, *arrays: Array) -> list[Array]:
        """Add up the nodes of all workers, and return all sums."""
        short = iter(self.short(*arrays))
        return [next(short) if a is None else a for a in self.long]


def _cuts(array: Array, size: int) -> list[int] | None:
    """Return where an array is cut into slices for workers; None for a short one."""
    return edges(array.size, size) if array.ndim == 1 and array.size >= SLICED else None


def _bytes(arrays: Sequence[Array]) -> int:
    return sum(-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays)


def _laid_out(memory: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return views of the memory with the shapes and dtypes of arrays, one after another."""
    views, start = [], 0
    for array in arrays:
        part = memory[start : start + array.nbytes]
        views.append(part.view(array.dtype).reshape(array.shape))
        start += -(-array.nbytes // ALIGNED) * ALIGNED
    return views
