"""Dropout: each unit is zeroed with probability `rate`, by bits that are the same on every device.

A decision takes the fewest of 1, 8 or 16 bits in which its rate is exact; otherwise 16 bits, with
the rate rounded to a multiple of 2**-16 and the scale computed from the rate so realised. Element i
of the flattened array takes bits [i * width, (i + 1) * width) of the stream, lowest first, and is
dropped when that number is below the threshold. What is kept between forward and backward is the
packed words (1/32 of a float32 activation at rate 0.5), never a mask.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, scratch_like
from gpunn.backends.random import Draw
from gpunn.errors import ArgumentError
from gpunn.typing import Array

DROPOUT_PARAMS = "raw uint64 words, int32 width, uint32 threshold, T scale"
KEEP = (
    "(((words[((long long)i * width) >> 6] >> (((long long)i * width) & 63)) "
    "& ((1ull << width) - 1ull)) >= threshold)"
)


class Rate(NamedTuple):
    """A drop rate as bits realise it: dropped when a `width`-bit number is below `threshold`."""

    width: int
    threshold: int

    @classmethod
    def of(cls, rate: float) -> Rate:
        """The realisation of a rate.

        Raises:
            ArgumentError: rate outside [0, 1).
        """
        if not isinstance(rate, int | float | np.floating) or not 0.0 <= rate < 1.0:
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
        """The probability of dropping."""
        return self.threshold / 2.0**self.width

    @property
    def scale(self) -> float:
        """What survivors are multiplied by."""
        return 1.0 / (1.0 - self.realised)

    def word_count(self, size: int) -> int:
        """How many 64-bit words decide over `size` elements."""
        return -(-size * self.width // 64)


@lru_cache(maxsize=16)
def _factors_of_bytes(threshold: int, scale: float, dtype: Any) -> Array:
    """(256, 8): the factors that the eight bits of every byte stand for, lowest bit first."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    return np.where(bits >= threshold, scale, 0.0).astype(dtype)


def keep_factors(words: Array, width: int, threshold: int, scale: float, out: Array) -> None:
    """Write `scale` where the bits keep an element and 0 where they drop it (NumPy)."""
    if width == 1 and out.size % 8 == 0:  # a table of bytes: no pass over single bits
        table = _factors_of_bytes(int(threshold), float(scale), out.dtype)
        numbers = words.view(np.uint8)[: out.size // 8]
        index = scratch_like(numbers, np.intp)  # NumPy would make one at every call
        np.copyto(index, numbers)
        np.take(table, index, axis=0, out=out.reshape(-1, 8), mode="wrap")
        return
    if width == 1:
        numbers = np.unpackbits(words.view(np.uint8), count=out.size, bitorder="little")
    else:
        numbers = words.view(np.uint8 if width == 8 else np.uint16)[: out.size]
    np.greater_equal(numbers.reshape(out.shape), threshold, out=out)
    np.multiply(out, scale, out=out)


def _dropout_body(
    x: Array, words: Array, width: int, threshold: int, scale: float, y: Array
) -> None:
    keep_factors(words, width, threshold, scale, y)
    np.multiply(y, x, out=y)


DROPOUT = Elementwise(
    "dropout",
    f"x, {DROPOUT_PARAMS} -> y",
    numpy=_dropout_body,
    cuda=f"y = {KEEP} ? T(x * scale) : T(0);",
)


def dropout_words(b: Backend, rate: Rate, size: int, draw: Draw) -> Array:
    """The packed random words that decide over `size` elements."""
    return b.random_words(rate.word_count(size), draw)


@op
def dropout(b: Backend, x: Array, *, rate: float, draw: Draw) -> tuple[Array, Backward]:
    """Inverted dropout: y = x * keep / (1 - rate).

    Args:
        x: (...) floats.
        rate: probability that an element is zeroed, 0 <= rate < 1.
        draw: which random bits to use; `RandomStream.draw()` gives the next.

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
    """Dropout as first published: y = x * keep; evaluation multiplies by 1 - rate instead.

    Args:
        x: (...) floats.
        rate: probability that an element is zeroed. (The lecture's p is 1 - rate.)
        draw: which random bits to use.

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
