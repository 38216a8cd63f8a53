"""A training step over shards of a batch, whose sums are added in one fixed tree."""

from __future__ import annotations

from itertools import pairwise

from gpunn.backends import Backend
from gpunn.ops import identity
from gpunn.ops.elementwise_losses import SCALED
from gpunn.train.step import EagerStep
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


class ShardedStep(EagerStep):
    """A step that computes `shards` pieces of the batch one by one, each at its own shape.

    The loss, the gradients and the running values of the pieces are added in a `Tree`. Their bits
    are a function of the number of shards, and never of the number of workers that compute them.
    With one shard they are those of `EagerStep`.

    Each shard has its own draws of dropout, and batch norm takes the statistics of the shard. The
    running values become the mean of those that each shard would have left.

    Attributes:
        shards: the number of pieces; 1 until `divide` sets it. A batch with fewer rows has a piece
            for each row.

    Reference:
        Li et al. (2023), "EasyScale: elastic training with consistent accuracy".
    """

    shards = 1

    def divide(self, shards: int) -> None:
        """Set the number of pieces."""
        self.shards = shards
        self.look()

    @property
    def keeps(self) -> bool:
        """Whether the step keeps the buffers' values: each shard starts from the same."""
        return self.shards > 1 or super().keeps

    def sums(self, x: Array, y: Array, weights: Array | None) -> Array:
        """Return the loss of a batch without penalties, and compute its gradients, by shards."""
        count = min(self.shards, x.shape[0])
        if count <= 1:
            return super().sums(x, y, weights)
        flat, kept = self.optimizer.bound, self.kept
        b, tree = flat.backend, Tree(flat.backend)
        ends = edges(x.shape[0], count)
        parts = [slice(start, end) for start, end in pairwise(ends)]
        for part, share in zip(parts, self._shares(b, parts, weights), strict=True):
            given = None if weights is None else weights[part]
            value = self.piece(x[part], y[part], given, share)
            leaf = [b.launch(SCALED, share, value, 1.0), copied(b, flat.grad)]
            if kept is not None:
                leaf += [b.launch(SCALED, share, now, 1.0) for now in kept.moved()]
                kept.set_back()
            tree.add(leaf)
        value, gradient, *moved = tree.root()
        one = b.one(flat.dtype)
        b.launch(SCALED, one, gradient, 1.0 / count, out=flat.grad)
        if kept is not None:
            kept.move(moved, 1.0 / count)
        return b.launch(SCALED, b.one(value.dtype), value, 1.0 / count)

    def _shares(
        self, b: Backend, parts: list[slice], weights: Array | None
    ) -> list[float] | list[Array]:
        """Return the factor of each shard: 1 for shards of equal weight, and count on average."""
        count, rows = len(parts), parts[-1].stop
        if weights is None:
            return [(part.stop - part.start) * count / rows for part in parts]
        masses = [b.xp.sum(weights[part]) for part in parts]
        tree = Tree(b)
        for mass in masses:
            tree.add([copied(b, mass)])
        (whole,) = tree.root()
        return [b.xp.divide(b.xp.multiply(mass, float(count)), whole) for mass in masses]


def copied(b: Backend, array: Array) -> Array:
    """Return a copy of an array, made by a kernel."""
    return b.launch(identity.kernel, array, out=b.empty_like(array))
