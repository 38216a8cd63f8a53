"""The training step whose bits are the same for any number of workers: shards and their sums."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gpunn.autograd import is_used_once
from gpunn.backends import Backend, RandomStream
from gpunn.data.feed import on_device
from gpunn.data.rows import RowTable
from gpunn.distributed import ALONE, Alone, Group, Tree, entered, gathered, shards_of
from gpunn.examples import edges
from gpunn.log import logger
from gpunn.ops import identity
from gpunn.ops.loss_reduction import SCALED
from gpunn.optim.flat import Spare
from gpunn.train.inputs import rows_check
from gpunn.train.steps.step import EagerStep, counted
from gpunn.train.training import Training
from gpunn.typing import Array

LEAST_ROWS = 2  # of a shard, because batch norm needs a variance


class _Batch(NamedTuple):
    """A batch in shards.

    Attributes:
        tables: examples, targets, and weights or None.
        parts: the rows of each shard.
        shares: the factor of each shard: 1 for shards of equal weight, and their number in all.
        streams: the random streams of the model.
        calls: their numbers of draws before the batch.
    """

    tables: tuple[Array, Array, Array | None]
    parts: list[slice]
    shares: Sequence[float | Array]
    streams: list[RandomStream]
    calls: list[int]


class ShardedStep(EagerStep):
    """A step that computes `shards` pieces of the batch one by one, each at its own shape.

    The loss, the gradients and the running values of the pieces are added in a `Tree`. Their bits
    are a function of the number of shards, and never of the number of workers that compute them.
    With one shard they are those of `EagerStep`.

    Each shard has its own bits of dropout, and batch norm takes the statistics of the shard. The
    running values become the mean of those that each shard would have left.

    Attributes:
        shards: the number of pieces; 1 until `divide` sets it. A batch with few rows has fewer
            pieces, of at least `LEAST_ROWS` rows.

    Reference:
        Li et al. (2023), "EasyScale: elastic training with consistent accuracy".
    """

    shards = 1
    group: Group = Alone()
    untracked = frozenset(("_spares", "group"))

    def divide(self, shards: int, group: Group) -> None:
        """Set the number of pieces, and the workers that share them."""
        self.shards, self.group = shards, group
        if shards > 1:
            logger.info("training in %d shards, %d at the same time", shards, self.lanes)
        self._spares: dict[int, list[Spare]] = {}
        self.look()

    @property
    def is_whole(self) -> bool:
        """Whether the batch is computed in one piece."""
        return self.shards == 1

    @property
    def keeps(self) -> bool:
        """Whether the step keeps the buffers' values: each shard starts from the same."""
        return self.shards > 1 or super().keeps

    @property
    def lanes(self) -> int:
        """The number of parts of the step that are done at the same time."""
        mine = shards_of(self.group.rank, self.group.size, self.shards)
        return max(1, min(self.optimizer.bound.backend.threads, len(mine)))

    def sums(self, x: Array, y: Array, weights: Array | None) -> Array:
        """Return the loss of a batch without penalties, and compute its gradients, by shards."""
        count, group = min(self.shards, x.shape[0] // LEAST_ROWS), self.group
        if count <= 1:
            return super().sums(x, y, weights)
        flat, kept = self.optimizer.bound, self.kept
        b, ends = flat.backend, edges(x.shape[0], count)
        parts = [slice(start, end) for start, end in pairwise(ends)]
        streams = self.model.streams()
        calls = [stream.call for stream in streams]
        shares = self._shares(b, parts, counted(self.loss, b, y, weights))
        batch = _Batch((x, y, weights), parts, shares, streams, calls)
        if group.size > 1:
            self._use(entered(group, b, flat.grad))
        if count < group.size:  # each worker computes all of a small batch
            group = ALONE
        mine = shards_of(group.rank, group.size, count)
        lanes = [mine[i:j] for i, j in pairwise(edges(len(mine), min(b.threads, len(mine))))]
        works = [partial(self._lane, batch, number, lane) for number, lane in enumerate(lanes)]
        tree = Tree(b, count)
        for own in b.apart(works):
            for place, sums in own.nodes.items():
                tree.add(place, sums)
        value, gradient, *moved = gathered(group, tree) if group.size > 1 else tree.root()
        b.launch(SCALED, b.one(flat.dtype), gradient, 1.0 / count, out=flat.grad)
        if kept is not None:
            kept.move(moved, 1.0 / count)
        value = b.launch(SCALED, b.one(value.dtype), value, 1.0 / count)
        self._check(x, value)
        return value

    def _lane(self, batch: _Batch, number: int, shards: range) -> Tree:
        """Add up some shards, in arrays that no other lane uses.

        Args:
            batch: the batch.
            number: the number of the lane.
            shards: the numbers of its shards, which follow each other.
        """
        flat, kept = self.optimizer.bound, self.kept
        b, streams = flat.backend, batch.streams
        tree, left = Tree(b, len(batch.parts)), None
        for shard in shards:
            for stream, call in zip(streams, batch.calls, strict=True):
                stream.call = call
            part, share = batch.parts[shard], batch.shares[shard]
            moves: AbstractContextManager[list[Array]] = nullcontext([])
            moves = moves if kept is None else kept.elsewhere(number)
            with RandomStream.piece(streams, shard), moves as moved:
                x, y, weights = (None if a is None else a[part] for a in batch.tables)
                loss = self.loss_at(x, y, weights)
                # A right sibling adds its gradients to those of the left one as they are computed.
                # With two parts of one gradient this would be another order of the sums.
                once = b.on_host and is_used_once(loss.node)
                adds = once and shard % 2 == 1 and left is not None
                # The nodes that wait have the first buffers, and a sum is in that of its left.
                spare = left if adds and left else self._spare(number, len(tree.nodes))
                with flat.writing_to(spare, adds=adds):
                    self.differentiate(loss, share, adds=adds)
                value, *numbers = [b.launch(SCALED, share, a, 1.0) for a in (loss.data, *moved)]
            left = spare if once and shard % 2 == 0 else None
            tree.add((0, shard), [value, None if adds else spare.array, *numbers])
        return tree

    def _use(self, memory: Array | None) -> None:
        """Put the gradients of the first lane's first node into memory."""
        known = self._spares.setdefault(0, [])
        if memory is not None and (not known or known[0].array.ctypes.data != memory.ctypes.data):
            known[:1] = [self.optimizer.bound.spare(memory)]

    def _spare(self, lane: int, number: int) -> Spare:
        """Return a buffer for the gradients of a shard."""
        known = self._spares.setdefault(lane, [])
        while len(known) <= number:
            known.append(self.optimizer.bound.spare())
        return known[number]

    def _shares(
        self, b: Backend, parts: list[slice], weights: Array | None
    ) -> list[float] | list[Array]:
        """Return the factor of each shard: 1 for shards of equal weight, and count on average."""
        count, rows = len(parts), parts[-1].stop
        if weights is None:
            return [(part.stop - part.start) * count / rows for part in parts]
        masses = [b.xp.sum(weights[part]) for part in parts]
        tree = Tree(b, count)
        for shard, mass in enumerate(masses):
            tree.add((0, shard), [b.launch(identity.kernel, mass, out=b.empty_like(mass))])
        (whole,) = tree.root()
        whole = b.xp.maximum(whole, np.finfo(whole.dtype).tiny)  # a batch may have no weight
        shares = [b.xp.divide(b.xp.multiply(mass, float(count)), whole) for mass in masses]
        return [b.cast(share, self.optimizer.bound.dtype) for share in shares]


def sign_of_kernels(training: Training, tables: Sequence[Array], batch_size: int) -> str:
    """Return a checksum of a loss and its gradients, which shows the bits that kernels compute.

    Args:
        training: the training, whose model keeps its numbers.
        tables: examples and targets.
        batch_size: the examples of a step. A shard of it is computed.
    """
    model = copy.deepcopy(training.model)
    model.train()
    rows = max(LEAST_ROWS, batch_size // (training.shards or 1))
    x, y = (table[:rows] for table in tables[:2])
    if isinstance(tables[0], RowTable):
        x, y = rows_check(model, training.loss, *tables)(x, y)
    x, y = on_device(model.backend, x), on_device(model.backend, y)
    loss = training.loss(model(x.astype(model.dtype)), y)
    loss.backward()
    found = hashlib.sha256(loss.numpy().tobytes())
    for parameter in model.parameters():
        if parameter.grad is not None:
            found.update(model.backend.download(parameter.grad).tobytes())
    return found.hexdigest()[:16]
