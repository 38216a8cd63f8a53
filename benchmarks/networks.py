"""The networks whose training steps are measured, on every device and in every framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Network:
    """A network and a batch.

    Attributes:
        name: the name in tables.
        sizes: the sizes of the input, the hidden layers and the output.
        batch: the number of examples of a step.
        rate: the rate at which hidden units are dropped.
        activation: the activation of the hidden layers, "relu" or "sigmoid".
        loss: "softmax_cross_entropy" of labels, or "squared_error" of targets.
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    rate: float = 0.0
    activation: str = "relu"
    loss: str = "softmax_cross_entropy"

    @property
    def hidden(self) -> list[tuple[int, int]]:
        """The numbers of inputs and outputs of every hidden layer."""
        return list(zip(self.sizes[:-2], self.sizes[1:-1], strict=True))

    @property
    def layers(self) -> list[tuple[int, int]]:
        """The numbers of inputs and outputs of every layer."""
        return list(zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def classifies(self) -> bool:
        """Whether the targets are labels."""
        return self.loss == "softmax_cross_entropy"

    def examples(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return a batch on the host, the same on every call: (N, D) float32 and its targets."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch, self.sizes[0]), dtype=np.float32)
        if self.classifies:
            return x, rng.integers(0, self.sizes[-1], self.batch)
        return x, rng.standard_normal((self.batch, self.sizes[-1]), dtype=np.float32)


NETWORKS = {
    network.name: network
    for network in (
        Network("tiny", (2, 8, 8, 2), 32),
        Network("lecture", (1000, 100, 10), 64, activation="sigmoid", loss="squared_error"),
        Network("mnist-small", (784, 50, 10), 64),
        Network("mnist-mid", (784, 256, 256, 10), 128),
        Network("mnist-mid + dropout", (784, 256, 256, 10), 128, 0.5),
        Network("dropout-paper", (784, 1024, 1024, 1024, 10), 128, 0.5),
        Network("wide", (1024, 4096, 4096, 10), 1024),
    )
}
RULES = ("sgd", "adam")
"""SGD with momentum 0.9, and Adam, both at a learning rate at which no network diverges."""
LR, MOMENTUM = 1e-3, 0.9
