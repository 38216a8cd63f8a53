"""Sums in a fixed binary tree, whose bits are the same however many workers add them."""

from __future__ import annotations

from gpunn.backends import Backend
from gpunn.typing import Array


def edges(rows: int, shards: int) -> list[int]:
    """Return where each shard of a batch starts, and the number of rows: shards + 1 numbers."""
    return [shard * rows // shards for shard in range(shards + 1)]


class Tree:
    """Sums of arrays in a binary tree over their numbers 0, 1, 2, ...

    A node without a right sibling is its only child. The order of the additions therefore depends
    on the number of leaves alone, and not on who computes them.

    Args:
        b: the backend of the arrays.
    """

    def __init__(self, b: Backend) -> None:
        self.backend = b
        self._nodes: list[tuple[int, list[Array]]] = []  # height, sums

    def add(self, leaf: list[Array]) -> None:
        """Add the next leaf, a list of arrays. The tree takes them: they are changed."""
        height = 0
        while self._nodes and self._nodes[-1][0] == height:
            leaf = self._sum(self._nodes.pop()[1], leaf)
            height += 1
        self._nodes.append((height, leaf))

    def root(self) -> list[Array]:
        """Return the sums of all leaves."""
        found = self._nodes.pop()[1]
        while self._nodes:
            found = self._sum(self._nodes.pop()[1], found)
        return found

    def _sum(self, left: list[Array], right: list[Array]) -> list[Array]:
        add = self.backend.xp.add
        return [add(a, c, out=a) for a, c in zip(left, right, strict=True)]
