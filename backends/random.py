"""Counter-based random bits: bits = f(seed, stream, call, index), the same on every device.

The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
`numpy.random.Philox(key=(seed, stream), counter=(0, call, shard, 0))` is the specification: NumPy
counts up before each block of four words, so word w is word w % 4 of the block at counter
(w // 4 + 1, call, shard, 0). `PHILOX_CUDA` computes the same words on a GPU.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
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

WORDS_CUDA = f"""{PHILOX_CUDA}
// The random words of a draw, computed where they are read. Neighbouring elements share a word.
struct Words {{
  unsigned long long k0, k1, call, shard;
  long long at;  // the number of the last word, or -1
  unsigned long long word;
  __device__ inline unsigned long long operator[](long long w) {{
    if (w != at) {{
      at = w;
      const unsigned long long block = ((unsigned long long)w >> 2) + 1ull;
      word = philox4x64(k0, k1, block, call, shard, 0ull, (int)(w & 3));
    }}
    return word;
  }}
}};
"""


def words(count: int, key: tuple[int, int], call: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return the first `count` 64-bit words of draw number `call` of the stream.

    Args:
        count: the number of words.
        key: (seed, stream).
        call: the number of the draw.
    """
    return _philox(key, call).random_raw(count)


_own = threading.local()  # this thread's generator and its state


def _philox(key: tuple[int, int], call: int, shard: int = 0) -> np.random.Philox:
    """Set this thread's generator to the start of a draw. Making a new one would be slower."""
    if not hasattr(_own, "philox"):
        _own.philox = np.random.Philox(key=0, counter=0)
        _own.state = _own.philox.state
    state = _own.state["state"]
    state["key"][:] = key
    state["counter"][1:3] = call, shard
    _own.philox.state = _own.state
    philox: np.random.Philox = _own.philox
    return philox


def _words_body(seed: int, stream: int, call: int, ahead: int, shard: int, out: Array) -> None:
    generator = _philox((seed, stream), int(call) + int(ahead), int(shard))
    for start in range(0, out.size, 512):  # NumPy cannot draw into an array; copy 4 KiB at a time
        part = out[start : start + 512]
        part[...] = generator.random_raw(part.size)


RANDOM_WORDS = Elementwise(
    "random_words",
    "uint64 seed, uint64 stream, uint64 call, uint64 ahead, uint64 shard -> uint64 word",
    numpy=_words_body,
    cuda=(
        "const unsigned long long at = (unsigned long long)i; "
        "word = philox4x64(seed, stream, (at >> 2) + 1ull, call + ahead, shard, 0ull, "
        "(int)(at & 3ull));"
    ),
    preamble=PHILOX_CUDA,
    chunkable=False,
)


class Draw(NamedTuple):
    """One draw from a stream. It determines the bits, so they can be computed again.

    Attributes:
        key: (seed, stream).
        call: the number of the draw, or in a captured step the device's counter, a 0-d array.
        ahead: a number that is added to `call`.
        shard: the piece of the batch that the bits are for.
    """

    key: tuple[int, int]
    call: int | Array
    ahead: int = 0
    shard: int = 0


class Words(NamedTuple):
    """The random words of a draw. A kernel gets them in place of an array, and computes them.

    Attributes:
        key: (seed, stream).
        call: the number of the draw, a 0-d int64 array of the device.
        ahead: a number that is added to `call`.
        shard: the piece of the batch that the bits are for.
    """

    key: tuple[int, int]
    call: Array
    ahead: int
    shard: int

    @classmethod
    def of(cls, draw: Draw, zero: Array) -> Words:
        """Return the words of a draw.

        Args:
            draw: the draw.
            zero: the device's integer 0, a 0-d array.
        """
        if hasattr(draw.call, "shape"):
            return cls(*draw)
        return cls(draw.key, zero, int(draw.call) + draw.ahead, draw.shard)

    @staticmethod
    def parameters(name: str) -> tuple[str, ...]:
        """Return the parameters of a CUDA function for the words of this name."""
        wide = "unsigned long long"
        parts = (f"{wide} {name}_k0", f"{wide} {name}_k1", f"const long long* {name}_call")
        return (*parts, f"{wide} {name}_ahead", f"{wide} {name}_shard")

    @staticmethod
    def value(name: str) -> str:
        """Return the CUDA code that makes a `Words` of these parameters."""
        call = f"(unsigned long long)*{name}_call + {name}_ahead"
        return f"{{{name}_k0, {name}_k1, {call}, {name}_shard, -1, 0}}"

    def arguments(self) -> tuple[Any, ...]:
        """Return the arguments for `parameters`."""
        k0, k1, ahead, shard = map(np.uint64, (*self.key, self.ahead, self.shard))
        return k0, k1, self.call, ahead, shard


class Counter(NamedTuple):
    """A device's counter of the draws from a stream.

    Attributes:
        call: the counter, a 0-d array of the device.
        start: the content of the counter when the captured work starts.
    """

    call: Array
    start: int


@dataclass
class RandomStream(Tracked):
    """A stream of random bits. Three integers are its whole state.

    Args:
        seed: a 64-bit seed.
        stream: the 64-bit number of the stream. Streams of the same seed are independent.
        call: the number of draws so far; saved in checkpoints.
        chosen: whether the user chose the seed. A Trainer does not change such a seed.

    Attributes:
        counter: the device's counter of this stream's draws while a step is captured, else None.
    """

    seed: int
    stream: int = 0
    call: int = 0
    chosen: bool = False
    untracked = frozenset(("call", "counter", "_shard"))
    _shard = 0  # a recording is made of its numbers, so only `piece` sets it

    def __post_init__(self) -> None:
        for name, value in (("seed", self.seed), ("stream", self.stream), ("call", self.call)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ArgumentError(
                    f"got {name}={value!r}; expected an integer: pass e.g. {name}=0"
                )
            if not 0 <= value < 2**64:
                raise ArgumentError(f"got {name}={value}; expected 0 <= {name} < 2**64")
            setattr(self, name, int(value))  # a NumPy integer cannot be saved as JSON

        if not isinstance(self.chosen, bool):
            raise ArgumentError(f"got chosen={self.chosen!r}; expected True or False")
        self.counter: Counter | None = None

    def __identity__(self) -> dict[str, Any]:
        return {"seed": self.seed, "stream": self.stream}

    @classmethod
    def of(cls, numbers: Any) -> RandomStream:
        """Make a stream from the dict that `dataclasses.asdict` made of it.

        Raises:
            ArgumentError: the dict has other keys, or a number is outside its range.
        """
        names = {"seed", "stream", "call", "chosen"}
        if not isinstance(numbers, dict) or numbers.keys() != names:
            raise ArgumentError(
                f"got a random stream with {str(numbers)[:100]}; expected {sorted(names)}"
            )
        return cls(**numbers)

    @staticmethod
    @contextmanager
    def piece(streams: Sequence[RandomStream], shard: int) -> Iterator[None]:
        """Draw for piece `shard` of the batch, which has bits of its own, inside the block."""
        try:
            for stream in streams:
                stream._shard = shard
            yield
        finally:
            for stream in streams:
                stream._shard = 0

    def draw(self) -> Draw:
        """Take the next draw."""
        key, counter = (self.seed, self.stream), self.counter
        if counter is None:
            taken = Draw(key, self.call, 0, self._shard)
        else:
            taken = Draw(key, counter.call, self.call - counter.start, self._shard)
        self.call += 1
        return taken


SHUFFLE_STREAM = 2**63  # the first stream for orders of rows; the streams of layers start at 1


class _Seeds:
    """The source of seeds if none is given: the operating system, or `manual_seed`."""

    def __init__(self) -> None:
        self.seed: int | None = None
        self.stream = 0
        self.orders = 0

    def next(self) -> RandomStream:
        """Return a stream that no other layer uses."""
        if self.seed is None:
            return RandomStream(int.from_bytes(os.urandom(8), "little"))
        self.stream += 1
        return RandomStream(self.seed, self.stream)

    def next_order(self) -> RandomStream:
        """Return a stream for an order of rows that no other order uses."""
        seed = int.from_bytes(os.urandom(8), "little") if self.seed is None else self.seed
        self.orders += 1
        return RandomStream(seed, SHUFFLE_STREAM + self.orders - 1)


_SEEDS = _Seeds()


def manual_seed(seed: int) -> None:
    """Derive the random streams of everything that is created after this call from `seed`.

    Layers get their streams in the order of their creation. The orders of rows that
    `gpunn.data.batches` shuffles are counted separately.

    The same seed gives the same initial weights and dropout masks on CPU and GPU.

    Raises:
        ArgumentError: `seed` is not an integer in [0, 2**64).
    """
    _SEEDS.seed, _SEEDS.stream, _SEEDS.orders = RandomStream(seed).seed, 0, 0


@contextmanager
def seeds_kept() -> Iterator[None]:
    """Let the layers that are created inside the block use up no streams of `manual_seed`."""
    stream = _SEEDS.stream
    try:
        yield
    finally:
        _SEEDS.stream = stream


def new_stream(seed: int | None = None) -> RandomStream:
    """Return a stream of `seed`; for None, the next one of `manual_seed` or one with a new seed."""
    return _SEEDS.next() if seed is None else RandomStream(seed, chosen=True)


def is_by_chance(seed: int | None) -> bool:
    """Return whether `new_stream(seed)` has another seed in every run of a program."""
    return seed is None and _SEEDS.seed is None


def order_stream(seed: int | None = None) -> RandomStream:
    """Return the stream of an order of rows; for None, a different one at every call."""
    return _SEEDS.next_order() if seed is None else RandomStream(seed, SHUFFLE_STREAM)


def uniform(shape: Shape, seed: int, stream: int = 0, call: int = 0) -> np.ndarray[Any, Any]:
    """Return a float64 host array, uniform in [0, 1). A number is the upper 53 bits of one word."""
    bits = words(prod(shape), (seed, stream), call)
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(shape)


def normal(shape: Shape, seed: int, stream: int = 0, call: int = 0) -> np.ndarray[Any, Any]:
    """Return a float64 host array of standard normal numbers.

    Reference: Box and Muller (1958), "A note on the generation of random normal deviates".
    """
    u = uniform((2, (prod(shape) + 1) // 2), seed, stream, call)
    radius = np.sqrt(-2.0 * np.log1p(-u[0]))  # 1 - u is in (0, 1]: no log of zero
    angle = 2.0 * np.pi * u[1]
    pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)))
    return pairs.reshape(-1)[: prod(shape)].reshape(shape)


def permutation(n: int, seed: int, stream: int = 0, call: int = 0) -> np.ndarray[Any, Any]:
    """Return a permutation of range(n) as an int64 host array: the order that sorts n words."""
    return np.argsort(words(n, (seed, stream), call), kind="stable")
