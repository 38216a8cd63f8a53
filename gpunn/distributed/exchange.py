"""The exchange of the sums of a step between the workers of a group.

Each worker adds up its slice of all long arrays, and then sends the sums of its slice to the
others. In a window of shared memory nothing is sent. Otherwise each worker sends its arrays once,
and the sums once, however many workers there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gpunn.backends import Backend, backend
from gpunn.distributed.group import Group, shards_of
from gpunn.distributed.tree import Place, Tree, places
from gpunn.distributed.window import Window
from gpunn.examples import edges
from gpunn.typing import Array, Message

SLICED = 4096  # elements; each worker adds up its slice of longer arrays only
Nodes = list[tuple[Place, list[Array]]]


def gathered(group: Group, tree: Tree) -> list[Array]:
    """Return the root of a tree whose leaves the workers of a group have added in parts.

    In an exchange through the host, the workers also agree on whether to stop: `agreed` becomes
    whether one of them had the `wish`. From device to device, `Group.meet` does this.

    Args:
        group: the workers.
        tree: the tree with the nodes of this worker.
    """
    owned = [places(tree.leaves, shards_of(r, group.size, tree.leaves)) for r in range(group.size)]
    mine = [array for place in owned[group.rank] for array in tree.nodes[place]]
    if group.reaches(tree.backend) and not tree.backend.on_host:
        return _swapped(group, tree.backend, owned, tree.leaves, mine, [], [])
    return list(tree.backend.host(partial(_through_host, group, owned, tree.leaves), *mine))


def _through_host(group: Group, owned: list[list[Place]], leaves: int, *arrays: Any) -> list[Array]:
    """Return the root, from the arrays of this worker's nodes, one node after another.

    Args:
        group: the workers.
        owned: the places of the nodes of each worker.
        leaves: the number of leaves.
        arrays: the arrays of this worker.
    """
    found = [np.asarray(array, order="C") for array in arrays]
    kinds = found[: len(found) // len(owned[group.rank])]
    wish = np.array([group.wish])
    sizes = [_bytes([wish, *kinds * len(nodes)]) for nodes in owned]
    window = group.window(2 * max(sizes))
    if window is not None:
        return _shared(group, window, owned, leaves, [wish, *found], sizes)
    others = [peer for peer in range(group.size) if peer != group.rank]
    wishes: list[Message] = [(peer, np.empty_like(wish)) for peer in others]
    told: list[Message] = [(peer, wish) for peer in others]
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


def _shared(
    group: Group,
    window: Window,
    owned: list[list[Place]],
    leaves: int,
    sent: list[Array],
    sizes: list[int],
) -> list[Array]:
    """Return the root, through memory that all workers share.

    Args:
        group: the workers.
        window: the memory.
        owned: the places of the nodes of each worker.
        leaves: the number of leaves.
        sent: the wish of this worker, and its arrays.
        sizes: the bytes of each worker.
    """
    window.turn = not window.turn  # two halves take turns: a slow worker still reads the last one
    start = window.parts[0].size // 2 * window.turn
    parts = [part[start : start + size] for part, size in zip(window.parts, sizes, strict=True)]
    _write(parts[group.rank], sent)
    window.meet()
    wish, each = sent[0], (len(sent) - 1) // len(owned[group.rank])
    nodes: Nodes = []
    group.agreed = False
    for part, there in zip(parts, owned, strict=True):
        flag, *laid_out = _laid_out(part, [wish, *sent[1 : 1 + each] * len(there)])
        group.agreed |= bool(flag[0])
        for k, place in enumerate(there):
            nodes.append((place, laid_out[k * each : (k + 1) * each]))
    tree = Tree(backend("cpu"), leaves)
    cuts = [_cuts(array, group.size) for array in nodes[0][1]]
    slices = [None if cut is None else slice(*cut[group.rank :][:2]) for cut in cuts]
    for place, sums in nodes:  # a worker adds up its slice of long arrays in place
        own = [a.copy() if s is None else a[s] for a, s in zip(sums, slices, strict=True)]
        tree.add(place, own)
    root = tree.root()
    window.meet()
    # A sum lies in the place of its left operand, so the root is where the first leaf is.
    _, first = next(node for node in nodes if not node[0][1])
    return [s if cut is None else a for a, s, cut in zip(first, root, cuts, strict=True)]


def _cuts(array: Array, size: int) -> list[int] | None:
    """Return where an array is cut into slices for workers; None for a short one."""
    return edges(array.size, size) if array.ndim == 1 and array.size >= SLICED else None


def _write(memory: Array, arrays: Sequence[Array]) -> None:
    for place, array in zip(_laid_out(memory, arrays), arrays, strict=True):
        place[...] = array


def _bytes(arrays: Sequence[Array]) -> int:
    return sum(-(-array.nbytes // 64) * 64 for array in arrays)


def _laid_out(memory: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return views of the memory with the shapes and dtypes of arrays, one after another."""
    views, start = [], 0
    for array in arrays:
        part = memory[start : start + array.nbytes]
        views.append(part.view(array.dtype).reshape(array.shape))
        start += -(-array.nbytes // 64) * 64
    return views
