"""Networks that answer together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunn.arguments import in_range, lookup
from gpunn.autograd import Tensor
from gpunn.errors import ArgumentError
from gpunn.nn.module import Module
from gpunn.ops import add, log, multiply, softmax

AVERAGES = ("outputs", "probabilities")
LEAST = 1e-30  # so that the logarithm of a probability of 0 is finite


class Ensemble(Module):
    """The mean of the answers of several networks.

    Args:
        members: networks with outputs of the same shape.
        average: "outputs" for y = sum_k member_k(x) / K. "probabilities" for the scores
            y = log(sum_k softmax(member_k(x)) / K) / temperature, whose softmax is the mean of the
            members' probabilities if the temperature is 1.
        temperature: above 1 for less certain probabilities, below 1 for more certain ones.

    Raises:
        ArgumentError: there are no members, or the temperature is not above 0.
        UnknownNameError: the average is unknown.

    Example:
        >>> import numpy as np
        >>> from gpunn import nn
        >>> both = nn.Ensemble([nn.Linear(4, 3, seed=1), nn.Linear(4, 3, seed=2)])
        >>> both(np.ones((2, 4), np.float32)).shape
        (2, 3)
    """

    def __init__(
        self, members: list[Module], average: str = "outputs", temperature: float = 1.0
    ) -> None:
        lookup("average", average, dict.fromkeys(AVERAGES))
        self.members, self.average = list(members), average
        if not self.members or not all(isinstance(each, Module) for each in self.members):
            raise ArgumentError(
                "got an ensemble without members, or of other objects; expected modules: pass a "
                "list of networks"
            )
        self.temperature = in_range("temperature", temperature, 1e-3, 1e3)

    def forward(self, x: Any) -> Tensor:
        """Return the mean answer, in the shape of one member's outputs."""
        chances = self.average == "probabilities"
        total: Any = None
        for member in self.members:
            y = softmax(member(x)) if chances else member(x)
            total = y if total is None else add(total, y)
        mean = multiply(total, 1.0 / len(self.members))
        return multiply(log(add(mean, LEAST)), 1.0 / self.temperature) if chances else mean

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the members, named by their positions."""
        yield from ((str(position), member) for position, member in enumerate(self.members))

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Module:
        return self.members[index]

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "members": self.members,
            "average": self.average,
            "temperature": self.temperature,
        }
