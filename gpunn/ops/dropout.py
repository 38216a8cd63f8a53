"""Dropout: zero each unit with probability `rate`. The random bits are the same on every device.

A decision takes 1 or 8 bits if they represent the rate exactly. Otherwise it takes 16 bits: the
rate is rounded to a multiple of 2**-16, and the scale is computed from the rounded rate. Element i
of the flattened array takes bits [i * width, (i + 1) * width) of the stream, lowest first. It is
dropped if that number is below the threshold. The forward pass keeps only the packed words for the
backward pass (1/32 of the size of a float32 activation at rate 0.5), never a mask. On a GPU the
kernels of both passes compute the words of a small activation themselves, and nothing is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpunn.arguments import is_number
from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, scratch_like
from gpunn.backends.random import Draw, Words
from gpunn.errors import ArgumentError
from gpunn.typing import Array

MOST_COMPUTED = 2**20
"""The most elements for which a kernel computes the random words itself: about 300 instructions
for each pack of elements, which for more elements take longer than a launch, by an estimate."""

DROPOUT_PARAMS = "raw uint64 words, int32 width, uint32 threshold, T scale"
KEEP = (
    "(((words[((long long)i * width) >> 6] >> (((long long)i * width) & 63)) "
    "& ((1ull << width) - 1ull)) >= threshold)"
)


class Rate(NamedTuple):
    """A drop rate in bits: an element is dropped if a `width`-bit number is below `threshold`."""

    width: int
    threshold: int

    @classmethod
    def of(cls, rate: float) -> Rate:
        """Return the width and threshold that realise a rate.

        Raises:
            ArgumentError: the rate is outside [0, 1).
        """
        if not is_number(rate) or not 0.0 <= rate < 1.0:
            raise ArgumentError(
                f"got rate={rate!r}; expected the probability of dropping, 0 <= rate < 1: pass "
                "e.g. rate=0.5"
            )
        rate = float(rate)
        for width in (1, 8):
            if (rate * 2**width).is_integer():
                return cls(width, int(rate * 2**width))
        return cls(16, min(round(rate * 2**16), 2**16 - 1))

    @property
    def realised(self) -> float:
        """The probability that an element is dropped."""
        return self.threshold / 2.0**self.width

    @property
    def scale(self) -> float:
        """The factor for the elements that are kept."""
        return 1.0 / (1.0 - self.realised)

    def word_count(self, size: int) -> int:
        """Return the number of 64-bit words that decide over `size` elements."""
        return -(-size * self.width // 64)


@lru_cache(maxsize=16)
def _factors_of_bytes(threshold: int, scale: float, dtype: Any) -> Array:
    """Return the (256, 8) factors for the eight bits of every byte, lowest bit first."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    return np.where(bits >= threshold, scale, 0.0).astype(dtype)


def keep_factors(words: Array, width: int, threshold: int, scale: float, out: Array) -> None:
    """Write `scale` where the bits keep an element and 0 where they drop it (NumPy)."""
    if width == 1 and out.size % 8 == 0:  # looking up whole bytes saves a pass over single bits
        table = _factors_of_bytes(int(threshold), float(scale), out.dtype)
        numbers = words.view(np.uint8)[: out.size // 8]
        index = scratch_like(numbers, np.intp)  # otherwise NumPy makes an index array at every call
        np.copyto(index, numbers)
        np.take(table, index, axis=0, out=out.reshape(-1, 8), mode="wrap")
        return
    if width == 1:
        numbers = np.unpackbits(words.view(np.uint8), count=out.size, bitorder="little")
    else:
        numbers = words.view(np.uint8 if width == 8 else np.uint16)[: out.size]
    np.greater_equal(numbers.reshape(out.shape), threshold, out=out)
    np.multiply(out, scale, out=out)


def dropped(x: Array, words: Array, width: int, threshold: int, scale: float, out: Array) -> None:
    """Write x * scale where the bits keep an element, and 0 where they drop it (NumPy)."""
    factors = scratch_like(out)
    keep_factors(words, width, threshold, scale, factors)
    with np.errstate(invalid="ignore"):
        np.multiply(factors, x, out=out)
        if np.isnan(np.add.reduce(out, axis=None)):  # 0 times infinity, or NaN that is dropped
            np.copyto(out, 0, where=factors == 0)


DROPOUT = Elementwise(
    "dropout",
    f"x, {DROPOUT_PARAMS} -> y",
    numpy=dropped,
    cuda=f"y = {KEEP} ? T(x * scale) : T(0);",
)


def dropout_words(b: Backend, rate: Rate, size: int, draw: Draw) -> Array | Words:
    """Return the packed random words that decide over `size` elements.

    Few words are computed in the kernels that use them, forward and backward, if the device can.
    """
    if b.fuses and size <= MOST_COMPUTED:
        return Words.of(draw, b.zero())
    return b.random_words(rate.word_count(size), draw)


@op
def dropout(b: Backend, x: Array, *, rate: float, draw: Draw) -> tuple[Array, Backward]:
    """y = x * keep / (1 - rate), inverted dropout.

    Args:
        x: (...) floats.
        rate: probability that an element is zeroed, 0 <= rate < 1.
        draw: the random bits to use; `RandomStream.draw()` gives the next.

    Gradient:
        gx = gy * keep / (1 - rate), from the same bits.

    Reference:
        Srivastava et al. (2014), JMLR 15, section 10; lecture 001, "Inverted Dropout".
    """
    realised = Rate.of(rate)
    words = dropout_words(b, realised, x.size, draw)

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        return (b.launch(DROPOUT, gy, words, *realised, realised.scale),)

    return b.launch(DROPOUT, x, words, *realised, realised.scale), backward


@op
def vanilla_dropout(b: Backend, x: Array, *, rate: float, draw: Draw) -> tuple[Array, Backward]:
    """y = x * keep, dropout as first published. In evaluation, multiply by 1 - rate instead.

    Args:
        x: (...) floats.
        rate: probability that an element is zeroed. (The lecture's p is 1 - rate.)
        draw: the random bits to use.

    Gradient:
        gx = gy * keep, from the same bits.

    Reference:
        Lecture 001, "Vanilla Dropout".
    """
    realised = Rate.of(rate)
    words = dropout_words(b, realised, x.size, draw)

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        return (b.launch(DROPOUT, gy, words, *realised, 1.0),)

    return b.launch(DROPOUT, x, words, *realised, 1.0), backward
