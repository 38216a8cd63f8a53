"""The batches of data on disk: streams of chunks, mixed in windows, read ahead by threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends import Backend
from gpunn.backends.random import SHUFFLE_STREAM, permutation
from gpunn.data.feed import Feed
from gpunn.data.parts import CHUNK_BYTES
from gpunn.data.rows import RowTable
from gpunn.errors import ArgumentError, DataError
from gpunn.examples import edges
from gpunn.log import logger
from gpunn.typing import Array

STREAMS = 8  # of a fit without shards
WINDOW_CHUNKS = 8  # of the usual size, in a window
AHEAD = 2  # batches that are made before they are needed
SORTED = 0.95  # the share of neighbours of the same class from which data count as sorted

Check = Callable[[Array, Array], "tuple[Array, Array]"]


class StreamOrder:
    """The order of the rows of an epoch, of which any part can be computed without the rest.

    The chunks are put into a random order and divided among streams. Stream s fills piece s of
    every batch. It goes through windows of its rows; those of a window are in a random order.

    Args:
        chunks: the number of rows of each chunk.
        batch_size: the rows of a batch.
        streams: the number of streams.
        window: the rows of a window.
        seed: the seed; None for the order of the data, in one stream.
        epoch: the number of the epoch.
    """

    def __init__(
        self,
        chunks: list[int],
        batch_size: int,
        streams: int,
        window: int,
        seed: int | None,
        epoch: int,
    ) -> None:
        lengths = np.asarray(chunks)
        self.seed, self.epoch, self.window = seed, epoch, window
        order = np.arange(len(chunks))
        if seed is not None:
            order = permutation(len(chunks), seed, SHUFFLE_STREAM, epoch)
        self._starts = (np.cumsum(lengths) - lengths)[order]  # of the chunks in the data
        self._ends = np.concatenate([[0], np.cumsum(lengths[order])])  # in the order
        rows = int(self._ends[-1])
        whole, rest = divmod(rows, batch_size)
        self.pieces = np.diff(edges(batch_size, streams))  # rows of a stream in a batch
        each = whole * self.pieces + np.diff(edges(rest, streams))
        self.bounds = np.concatenate([[0], np.cumsum(each)])

    def runs(self, stream: int, number: int) -> list[tuple[int, int]]:
        """Return the rows of a window before it is shuffled, as consecutive runs (start, stop)."""
        begin = int(self.bounds[stream]) + number * self.window
        end = min(begin + self.window, int(self.bounds[stream + 1]))
        found = []
        while begin < end:
            chunk = int(np.searchsorted(self._ends, begin, "right")) - 1
            stop = min(end, int(self._ends[chunk + 1]))
            start = int(self._starts[chunk]) + begin - int(self._ends[chunk])
            found.append((start, start + stop - begin))
            begin = stop
        return found

    def mixed(self, stream: int, number: int, rows: int) -> np.ndarray[Any, Any] | None:
        """Return the order of the rows inside a window; None for that of its runs."""
        if self.seed is None:
            return None
        call = (self.epoch << 32) + number
        return permutation(rows, self.seed, SHUFFLE_STREAM + 1 + stream, call)

    def numbers(self) -> np.ndarray[Any, Any]:
        """Return the row numbers of the whole epoch in their order. This needs 8 bytes a row."""
        streams = []
        for stream, (begin, end) in enumerate(pairwise(self.bounds)):
            windows = [np.empty(0, np.int64)]
            for number in range(-(-int(end - begin) // self.window)):
                runs = self.runs(stream, number)
                rows = np.concatenate([np.arange(*run) for run in runs])
                mixed = self.mixed(stream, number, len(rows))
                windows.append(rows if mixed is None else rows[mixed])
            streams.append(np.concatenate(windows))
        batches, total = [], int(self.bounds[-1])
        for number in range(-(-total // int(self.pieces.sum()))):
            for stream, rows in enumerate(streams):
                each = int(self.pieces[stream])
                batches.append(rows[number * each : (number + 1) * each] if each else rows[:0])
        found = np.concatenate(batches)
        assert len(found) == total
        return found


class _Window(NamedTuple):
    """Rows of a window, and their order; None for the order in which they were read."""

    x: Array
    y: Array
    mixed: Array | None


class RowsFeed(Feed):
    """Batches of rows on disk. Threads read them and make them before they are needed.

    Args:
        b: the backend of the device that the batches are moved to.
        tables: the examples and their targets.
        batch_size: the rows of a batch.
        streams: the number of streams; see `StreamOrder`.
        mine: the streams that this worker needs. Rows of the others are 0 in whole batches.
        check: checks rows as they are read, and converts them.
    """

    def __init__(
        self,
        b: Backend,
        tables: tuple[RowTable, RowTable],
        batch_size: int,
        streams: int,
        mine: range,
        check: Check,
    ) -> None:
        self.backend, self.batch_size = b, batch_size
        self.tables, self.x = tables, tables[0]
        self.total = b.zeros((), np.float64)
        self._streams, self._needed, self._check = streams, mine, check
        each = max(1, prod(self.x.shape[1:]) * self.x.dtype.itemsize)
        self._window = max(WINDOW_CHUNKS, WINDOW_CHUNKS * CHUNK_BYTES // each)
        self._order: StreamOrder | None = None
        self._readers = ThreadPoolExecutor(2, "gpunn-read")
        self._makers = ThreadPoolExecutor(1, "gpunn-batch")
        self._warned = False

    def shuffled(self, seed: int, epoch: int) -> StreamOrder:
        """Return a random order of the rows."""
        sizes = self.x.chunks, self.batch_size, self._streams, self._window
        return StreamOrder(*sizes, seed, epoch)

    def in_order(self) -> None:
        """Return the order of the data."""

    def begin(self, order: Any, first: int = 0, total: float = 0.0) -> None:
        """Start an epoch, with the batch that a resumed one has come to."""
        if order is None:
            order = StreamOrder(self.x.chunks, self.batch_size, 1, self._window, None, 0)
        if not isinstance(order, StreamOrder):
            raise ArgumentError(
                "got a function as shuffle for rows on disk; expected True or False: single rows "
                "in any order take too long to read"
            )
        self.total.fill(total)
        self._order = order
        self._windows: dict[tuple[int, int], Future[_Window]] = {}
        self._made: dict[int, Future[tuple[Array, Array]]] = {}
        self._ask(first)

    def batch(self, number: int) -> tuple[Array, ...]:
        """Return batch `number` of the epoch on the device."""
        made = self._taken(number)
        return made if self.backend.on_host else tuple(map(self.backend.upload, made))

    def batch_at(self, tick: Array, ahead: int) -> tuple[Array, ...]:
        """Return batch number `tick + ahead`, on the host. A repetition reads the next one."""
        return self.backend.host(partial(self._at, ahead), tick)

    def _at(self, ahead: int, tick: Array) -> tuple[Array, Array]:
        return self._taken(int(tick) + ahead)

    def _taken(self, number: int) -> tuple[Array, Array]:
        self._ask(number)
        made = self._made.pop(number).result()
        for old in [known for known in self._made if known < number]:
            del self._made[old]
        return made

    def _ask(self, number: int) -> None:
        """Let a thread make a batch and the next ones, unless it does already."""
        order = self._order
        assert order is not None
        for each in range(number, min(number + 1 + AHEAD, self.steps)):
            if each not in self._made:
                self._made[each] = self._makers.submit(self._make, order, each)

    # in the thread that makes batches ---------------------------------------------------------

    def _make(self, order: StreamOrder, number: int) -> tuple[Array, Array]:
        """Make a batch: a piece of each stream."""
        rows, streams = self.rows(number), len(order.pieces)
        ends = edges(rows, streams)
        needed = self._needed if streams == self._streams and number < self.whole_steps else None
        made: list[Array] = []
        for stream in range(streams):
            if needed is not None and stream not in needed:
                continue
            at = number * int(order.pieces[stream])
            place = slice(ends[stream], ends[stream + 1])
            for x, y in self._pieces(order, stream, at, at + place.stop - place.start):
                if not made:
                    made = [np.zeros((rows, *a.shape[1:]), a.dtype) for a in (x, y)]
                stop = place.start + len(x)
                made[0][place.start : stop], made[1][place.start : stop] = x, y
                place = slice(stop, place.stop)
        return made[0], made[1]

    def _pieces(self, order: StreamOrder, stream: int, begin: int, end: int) -> Any:
        """Yield rows of a stream from its windows."""
        while begin < end:
            number, offset = divmod(begin, order.window)
            window = self._windowed(order, stream, number)
            taken = min(end - begin, len(window.x) - offset)
            rows: Any = slice(offset, offset + taken)
            rows = rows if window.mixed is None else window.mixed[rows]
            yield window.x[rows], window.y[rows]
            begin += taken

    def _windowed(self, order: StreamOrder, stream: int, number: int) -> _Window:
        """Return a window, and let a thread read the next one of the stream."""
        length = int(order.bounds[stream + 1] - order.bounds[stream])
        for each in (number, number + 1):
            if (stream, each) not in self._windows and each * order.window < length:
                job = self._readers.submit(self._read, order, stream, each)
                self._windows[stream, each] = job
        self._windows.pop((stream, number - 1), None)
        return self._windows[stream, number].result()

    # in the threads that read -----------------------------------------------------------------

    def _read(self, order: StreamOrder, stream: int, number: int) -> _Window:
        """Read and check a window."""
        runs = order.runs(stream, number)
        examples, targets = ([table[a:b] for a, b in runs] for table in self.tables)
        try:
            x, y = self._check(np.concatenate(examples), np.concatenate(targets))
        except DataError:
            for (start, stop), *rows in zip(runs, examples, targets, strict=True):
                self._check_run(start, stop, *rows)
            raise
        if not self._warned and order.seed is not None:
            self._look(y, targets)
        return _Window(x, y, order.mixed(stream, number, len(x)))

    def _check_run(self, start: int, stop: int, x: Array, y: Array) -> None:
        """Check rows that follow each other, and say where they are."""
        try:
            self._check(x, y)
        except DataError as error:
            raise DataError(f"{error} (in rows {start} to {stop - 1} of all)") from error

    def _look(self, y: Array, runs: list[Array]) -> None:
        """Warn of data that are sorted by class: a window then mixes few of them."""
        if y.ndim != 1 or y.dtype.kind not in "iu":
            return
        long = [run for run in runs if len(run) > 1]
        same = [bool((run[1:] == run[:-1]).mean() >= SORTED) for run in long]
        if len(long) > 1 and all(same) and len(np.unique(y)) > 1:
            self._warned = True
            logger.warning(
                "the rows lie sorted by class: a batch mixes only %d pieces of the data; shuffle "
                "them once before they are written",
                self._streams * len(runs),
            )
