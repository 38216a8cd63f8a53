"""The exchange of the sums of a step between the workers of a group."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import backend
from gpunn.distributed.group import Group, shards_of
from gpunn.distributed.tree import Tree, places
from gpunn.typing import Array


def gathered(group: Group, tree: Tree) -> list[Array]:
    """Return the root of a tree whose leaves the workers of a group have added in parts.

    Every worker sends its nodes to all others, and adds them in the tree.

    Args:
        group: the workers.
        tree: the tree with the leaves of this worker.
    """
    b = tree.backend
    owned = [places(tree.leaves, shards_of(r, group.size, tree.leaves)) for r in range(group.size)]
    mine = [array for place in owned[group.rank] for array in tree.nodes[place]]
    each = len(mine) // len(owned[group.rank])  # arrays of a node

    def exchange(*arrays: Any) -> tuple[Any, ...]:
        kinds = [(a.shape, a.dtype, a.nbytes) for a in map(np.asarray, arrays[:each])]
        node_bytes = sum(size for _, _, size in kinds)
        sent = [np.frombuffer(np.ascontiguousarray(a).tobytes(), np.uint8) for a in arrays]
        sizes = [len(nodes) * node_bytes for nodes in owned]
        whole = Tree(backend("cpu"), tree.leaves)
        for nodes, content in zip(owned, group.allgather(np.concatenate(sent), sizes), strict=True):
            at = 0
            for place in nodes:
                sums = []
                for shape, dtype, size in kinds:
                    part = content[at : at + size].view(dtype).reshape(shape)
                    sums.append(part.copy())
                    at += size
                whole.add(place, sums)
        return tuple(whole.root())

    return list(b.host(exchange, *mine))
