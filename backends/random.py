"""Counter-based random bits: bits = f(seed, stream, call, index), the same on every device.

The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
`numpy.random.Philox(key=(seed, stream), counter=(0, call, 0, 0))` is the specification: NumPy
counts up before each block of four words, so word w is word w % 4 of the block at counter
(w // 4 + 1, call, 0, 0). `PHILOX_CUDA` computes the same words on a GPU.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.kernel import Elementwise
from gpunn.errors import ArgumentError
from gpunn.fingerprint import Tracked
from gpunn.typing import Array, Shape

PHILOX_CUDA = r"""
__device__ inline unsigned long long philox4x64(
    unsigned long long k0, unsigned long long k1, unsigned long long c0, unsigned long long c1,
    unsigned long long c2, unsigned long long c3, int word) {
  for (int round = 0; round < 10; ++round) {
    const unsigned long long high0 = __umul64hi(0xD2E7470EE14C6C93ull, c0);
    const unsigned long long low0 = 0xD2E7470EE14C6C93ull * c0;
    const unsigned long long high1 = __umul64hi(0xCA5A826395121157ull, c2);
    const unsigned long long low1 = 0xCA5A826395121157ull * c2;
    c0 = high1 ^ c1 ^ k0; c1 = low1; c2 = high0 ^ c3 ^ k1; c3 = low0;
    k0 += 0x9E3779B97F4A7C15ull; k1 += 0xBB67AE8584CAA73Bull;
  }
  return word == 0 ? c0 : word == 1 ? c1 : word == 2 ? c2 : c3;
}
"""


def words(count: int, key: tuple[int, int], call: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """`count` 64-bit words of the stream `key` = (seed, stream), from its start at `call`."""
    return _philox(key, call).random_raw(count)


_own = threading.local()  # .philox, .state: of this thread


def _philox(key: tuple[int, int], call: int) -> np.random.Philox:
    """This thread's generator at the start of a draw: to make one takes 6 us, to set it 1."""
    if not hasattr(_own, "philox"):
        _own.philox = np.random.Philox(key=0, counter=0)
        _own.state = _own.philox.state
    state = _own.state["state"]
    state["key"][:] = key
    state["counter"][1] = call
    _own.philox.state = _own.state
    philox: np.random.Philox = _own.philox
    return philox


def _words_body(seed: int, stream: int, call: int, ahead: int, out: Array) -> None:
    generator = _philox((seed, stream), int(call) + int(ahead))
    for start in range(0, out.size, 512):  # NumPy has no way to draw into an array: 4 KiB at most
        part = out[start : start + 512]
        part[...] = generator.random_raw(part.size)


RANDOM_WORDS = Elementwise(
    "random_words",
    "uint64 seed, uint64 stream, uint64 call, uint64 ahead -> uint64 word",
    numpy=_words_body,
    cuda=(
        "const unsigned long long at = (unsigned long long)i; "
        "word = philox4x64(seed, stream, (at >> 2) + 1ull, call + ahead, 0ull, 0ull, "
        "(int)(at & 3ull));"
    ),
    preamble=PHILOX_CUDA,
    chunkable=False,
)


class Draw(NamedTuple):
    """One use of a stream: enough to compute its bits again.

    Attributes:
        key: seed and stream.
        call: number of the draw; a 0-d array of the device where a captured step counts there.
        ahead: added to it.
    """

    key: tuple[int, int]
    call: int | Array
    ahead: int = 0


class Counter(NamedTuple):
    """Where a device counts the draws of a stream, and what it holds when a graph starts."""

    call: Array
    start: int


@dataclass
class RandomStream(Tracked):
    """A stream of random bits whose whole state is three integers.

    Args:
        seed: 64-bit seed.
        stream: 64-bit number of the stream; two streams of one seed are independent.
        call: how many draws were taken; goes into a checkpoint.
        chosen: whether a user named the seed, so that a Trainer leaves it alone.

    Attributes:
        counter: while a step is captured, where the device counts this stream's draws.
    """

    seed: int
    stream: int = 0
    call: int = 0
    chosen: bool = False
    untracked = frozenset(("call", "counter"))

    def __post_init__(self) -> None:
        for name, value in (("seed", self.seed), ("stream", self.stream), ("call", self.call)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ArgumentError(
                    f"got {name}={value!r}; expected an integer: pass e.g. {name}=0"
                )
            if not 0 <= value < 2**64:
                raise ArgumentError(f"got {name}={value}; expected 0 <= {name} < 2**64")
            setattr(self, name, int(value))  # a NumPy integer would not go into a file

        if not isinstance(self.chosen, bool):
            raise ArgumentError(f"got chosen={self.chosen!r}; expected True or False")
        self.counter: Counter | None = None

    @classmethod
    def of(cls, numbers: Any) -> RandomStream:
        """The stream that `dataclasses.asdict` gave.

        Raises:
            ArgumentError: other names, or a number outside its range.
        """
        names = {"seed", "stream", "call", "chosen"}
        if not isinstance(numbers, dict) or numbers.keys() != names:
            raise ArgumentError(
                f"got a random stream with {str(numbers)[:100]}; expected {sorted(names)}"
            )
        return cls(**numbers)

    def draw(self) -> Draw:
        """The next draw."""
        key, counter = (self.seed, self.stream), self.counter
        if counter is None:
            taken = Draw(key, self.call)
        else:
            taken = Draw(key, counter.call, self.call - counter.start)
        self.call += 1
        return taken


SHUFFLE_STREAM = 2**63  # of the order of rows; layers count from 1


class _Seeds:
    """Where seeds come from when none is named: the operating system, or `manual_seed`."""

    def __init__(self) -> None:
        self.seed: int | None = None
        self.stream = 0
        self.orders = 0

    def next(self) -> RandomStream:
        """A stream that no layer has."""
        if self.seed is None:
            return RandomStream(int.from_bytes(os.urandom(8), "little"))
        self.stream += 1
        return RandomStream(self.seed, self.stream)

    def next_order(self) -> RandomStream:
        """A stream for the order of rows, which no other order has."""
        seed = int.from_bytes(os.urandom(8), "little") if self.seed is None else self.seed
        self.orders += 1
        return RandomStream(seed, SHUFFLE_STREAM + self.orders - 1)


_SEEDS = _Seeds()


def manual_seed(seed: int) -> None:
    """Make every layer that is created from now on draw from `seed`, in order of creation.

    So do the orders of `gpunn.data.batches`, which are counted by themselves.

    The same seed gives the same initial weights and dropout masks on CPU and GPU.

    Raises:
        ArgumentError: not an integer in [0, 2**64).
    """
    _SEEDS.seed, _SEEDS.stream, _SEEDS.orders = RandomStream(seed).seed, 0, 0


@contextmanager
def seeds_kept() -> Iterator[None]:
    """Leave `manual_seed`'s order to other layers than those that are created inside the block."""
    stream = _SEEDS.stream
    try:
        yield
    finally:
        _SEEDS.stream = stream


def new_stream(seed: int | None = None) -> RandomStream:
    """A stream of `seed`, or the next one of `manual_seed`, or one that nobody used before."""
    return _SEEDS.next() if seed is None else RandomStream(seed, chosen=True)


def order_stream(seed: int | None = None) -> RandomStream:
    """The stream of an order of rows; for None, another one at every call, as `new_stream`."""
    return _SEEDS.next_order() if seed is None else RandomStream(seed, SHUFFLE_STREAM)


def uniform(shape: Shape, seed: int, stream: int = 0, call: int = 0) -> np.ndarray[Any, Any]:
    """Float64 host array, uniform in [0, 1): the upper 53 bits of one word each."""
    bits = words(prod(shape), (seed, stream), call)
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(shape)


def normal(shape: Shape, seed: int, stream: int = 0, call: int = 0) -> np.ndarray[Any, Any]:
    """Float64 host array of standard normal numbers, by Box and Muller's transform (1958)."""
    u = uniform((2, (prod(shape) + 1) // 2), seed, stream, call)
    radius = np.sqrt(-2.0 * np.log1p(-u[0]))  # 1 - u is in (0, 1]: no log of zero
    angle = 2.0 * np.pi * u[1]
    pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)))
    return pairs.reshape(-1)[: prod(shape)].reshape(shape)


def permutation(n: int, seed: int, stream: int = 0, call: int = 0) -> np.ndarray[Any, Any]:
    """Int64 host array, a permutation of range(n): the order that sorts n words."""
    return np.argsort(words(n, (seed, stream), call), kind="stable")
