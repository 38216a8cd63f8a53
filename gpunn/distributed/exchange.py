"""The exchange of the sums of a step between the workers of a group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gpunn.backends import backend
from gpunn.distributed.group import Group, shards_of
from gpunn.distributed.tree import Place, Tree, places
from gpunn.distributed.window import Window
from gpunn.examples import edges
from gpunn.typing import Array

SLICED = 4096  # elements; each worker adds up its slice of longer arrays only


def gathered(group: Group, tree: Tree) -> list[Array]:
    """Return the root of a tree whose leaves the workers of a group have added in parts.

    The workers also agree on whether to stop: `agreed` becomes whether one of them had the `wish`.

    Args:
        group: the workers.
        tree: the tree with the nodes of this worker.
    """
    owned = [places(tree.leaves, shards_of(r, group.size, tree.leaves)) for r in range(group.size)]
    mine = [array for place in owned[group.rank] for array in tree.nodes[place]]
    each = len(mine) // len(owned[group.rank])  # arrays of a node
    return list(tree.backend.host(partial(_exchanged, group, owned, tree.leaves, each), *mine))


def _exchanged(
    group: Group, owned: list[list[Place]], leaves: int, each: int, *arrays: Any
) -> list[Array]:
    """Return the root, from the arrays of this worker's nodes.

    Args:
        group: the workers.
        owned: the places of the nodes of each worker.
        leaves: the number of leaves.
        each: the number of arrays of a node.
        arrays: the arrays of the nodes of this worker, one node after another.
    """
    found = [np.asarray(array, order="C") for array in arrays]
    kinds = found[:each]
    wish = np.array([group.wish])
    sent = [wish, *found]
    sizes = [_bytes([wish, *kinds * len(nodes)]) for nodes in owned]
    window = group.window(2 * max(sizes))
    if window is None:
        memory = np.empty(sizes[group.rank], np.uint8)
        _write(memory, sent)
        parts = group.allgather(memory, sizes)
    else:  # two halves take turns: a slow worker still reads the last one
        window.turn = not window.turn
        start = window.parts[0].size // 2 * window.turn
        parts = [part[start : start + size] for part, size in zip(window.parts, sizes, strict=True)]
        _write(parts[group.rank], sent)
        window.meet()
    nodes: list[tuple[Place, list[Array]]] = []
    group.agreed = False
    for part, there in zip(parts, owned, strict=True):
        flag, *laid_out = _laid_out(part, [wish, *kinds * len(there)])
        group.agreed |= bool(flag[0])
        for k, place in enumerate(there):
            nodes.append((place, laid_out[k * each : (k + 1) * each]))
    return _root(nodes, leaves, window, group.rank)


def _root(
    nodes: list[tuple[Place, list[Array]]], leaves: int, window: Window | None, rank: int
) -> list[Array]:
    """Add up the nodes. In a window each worker adds its slice of long arrays, in place."""
    tree = Tree(backend("cpu"), leaves)
    slices = [slice(None) for _ in nodes[0][1]]
    if window is not None:
        for k, array in enumerate(nodes[0][1]):
            if array.ndim == 1 and array.size >= SLICED:
                ends = edges(array.size, window.size)
                slices[k] = slice(ends[rank], ends[rank + 1])
    for place, sums in nodes:
        own = [a[part] if part.stop else a.copy() for a, part in zip(sums, slices, strict=True)]
        tree.add(place, own)
    root = tree.root()
    if window is None:
        return root
    window.meet()
    # A sum lies in the place of its left operand, so the root is where the first leaf is.
    _, first = next(node for node in nodes if not node[0][1])
    return [a if part.stop else s for a, s, part in zip(first, root, slices, strict=True)]


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
