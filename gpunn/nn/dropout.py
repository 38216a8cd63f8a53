"""Dropout layers."""

from __future__ import annotations

from typing import Any

from gpunn.autograd import Tensor
from gpunn.backends.random import new_stream
from gpunn.guesses import answers
from gpunn.nn.module import Module
from gpunn.ops import dropout, multiply, vanilla_dropout
from gpunn.ops.dropout import Rate


class Dropout(Module):
    """Zero each unit with probability `rate` in training; do nothing in evaluation.

    Inverted dropout: survivors are multiplied by 1 / (1 - rate) in training, so that the expected
    output equals the input and evaluation needs no scaling.

    Args:
        rate: probability that a unit is zeroed, 0 <= rate < 1. (Not the probability of keeping.)
            A rate that is not a multiple of 1/256 is rounded to a multiple of 2**-16.
        seed: 64-bit seed; the same seed gives the same masks on CPU and GPU.

    Attributes:
        stream: the random stream; its three integers are the layer's whole random state.

    Raises:
        ArgumentError: the rate is outside [0, 1).

    Gradient:
        gx = gy * keep / (1 - rate), from the same bits.

    Reference:
        Srivastava et al. (2014), JMLR 15, section 10; lecture 001, "Inverted Dropout".
    """

    @answers
    def __init__(self, rate: float = 0.5, *, seed: int | None = None) -> None:
        Rate.of(rate)
        self.rate = float(rate)
        self.stream = new_stream(seed)

    def forward(self, x: Any) -> Tensor:
        """Return x with units dropped in training, x itself in evaluation."""
        if not (self.training and self.rate):
            return x if isinstance(x, Tensor) else Tensor(x)
        return dropout(x, rate=self.rate, draw=self.stream.draw())

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"rate": self.rate}


class VanillaDropout(Dropout):
    """Zero each unit with probability `rate` in training; multiply by 1 - rate in evaluation.

    Args:
        rate: probability that a unit is zeroed. The p of lecture 001's code is 1 - rate.
        seed: 64-bit seed; the same seed gives the same masks on CPU and GPU.

    Raises:
        ArgumentError: the rate is outside [0, 1).

    Reference:
        Hinton et al. (2012); lecture 001, "Vanilla Dropout".
    """

    def forward(self, x: Any) -> Tensor:
        """Return x with units dropped in training, the scaled x in evaluation."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        if not self.training:
            return multiply(x, 1.0 - Rate.of(self.rate).realised)
        return vanilla_dropout(x, rate=self.rate, draw=self.stream.draw())
