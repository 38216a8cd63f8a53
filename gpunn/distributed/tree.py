"""Sums in a fixed binary tree, whose bits are the same however many workers add them."""

from __future__ import annotations

from collections.abc import Iterable

from gpunn.backends import Backend
from gpunn.backends.kernel import ADDED
from gpunn.typing import Array

Place = tuple[int, int]
"""The place of a node: its height above the leaves, and its number in its level."""


class Tree:
    """Sums of arrays in the binary tree over the numbers 0, 1, ..., leaves - 1.

    A node without a right sibling is its parent. The order of the additions therefore depends on
    the number of leaves alone, and not on who adds, or when.

    Args:
        b: the backend of the arrays.
        leaves: the number of leaves.

    Attributes:
        nodes: the sums so far, which wait for their siblings, by their places.
    """

    def __init__(self, b: Backend, leaves: int) -> None:
        self.backend, self.leaves = b, leaves
        self.nodes: dict[Place, list[Array]] = {}

    def add(self, place: Place, sums: list[Array]) -> None:
        """Add the sums of a leaf (0, number) or of a node. The tree takes the arrays.

        In place of an array, a right sibling may have None: the array of its left sibling has the
        sum of both already.
        """
        while True:
            height, number = place
            width = -(-self.leaves >> height)
            if width == 1:
                break
            sibling = height, number ^ 1
            if number ^ 1 < width:
                if sibling not in self.nodes:
                    break
                other = self.nodes.pop(sibling)
                sums = self._sum(other, sums) if number % 2 else self._sum(sums, other)
            place = height + 1, number // 2
        self.nodes[place] = sums

    def root(self) -> list[Array]:
        """Return the sums of all leaves, which must have been added."""
        (found,) = self.nodes.values()
        return found

    def _sum(self, left: list[Array], right: list[Array | None]) -> list[Array]:
        launch, pairs = self.backend.launch, zip(left, right, strict=True)
        return [a if c is None else launch(ADDED, a, c, out=a) for a, c in pairs]


def places(leaves: int, mine: Iterable[int]) -> list[Place]:
    """Return the places of the nodes that remain when these leaves have been added.

    They are in the order of their leaves.
    """
    found: set[Place] = set()
    for number in mine:
        place = 0, number
        while (width := -(-leaves >> place[0])) > 1:
            sibling = place[0], place[1] ^ 1
            if sibling[1] < width:
                if sibling not in found:
                    break
                found.remove(sibling)
            place = place[0] + 1, place[1] // 2
        found.add(place)
    return sorted(found, key=lambda place: place[1] << place[0])
