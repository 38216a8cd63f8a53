"""The order of the rows, shuffled in the way of scikit-learn, and the weights of its batches."""

from __future__ import annotations

from typing import Any

import numpy as np


class WeightedBatches:
    """The weights of examples, and the number of examples in a batch.

    Args:
        weights: (N,) weights, or None.
        size: the number of examples in a batch.
    """

    def __init__(self, weights: np.ndarray | None, size: int) -> None:
        self.weights, self.size = weights, size

    def check(self, order: np.ndarray | slice = slice(None)) -> None:
        """Check that no batch of an order has weights whose sum is 0.

        Raises:
            ZeroDivisionError: there is such a batch. NumPy's `average`, which scikit-learn calls,
                raises the same.
        """
        if self.weights is None:
            return
        w = self.weights[order]
        for start in range(0, len(w), self.size):
            if not w[start : start + self.size].sum():
                raise ZeroDivisionError("Weights sum to zero, can't be normalized")


class CumulativeShuffle:
    """Orders of rows in which every epoch shuffles the order of the epoch before.

    Args:
        random_state: the random generator. It makes one shuffle per epoch.
        batches: what is checked of each order.
    """

    def __init__(self, random_state: np.random.RandomState, batches: WeightedBatches) -> None:
        self.random_state, self.batches = random_state, batches
        self._order: np.ndarray | None = None
        self._epoch = 0

    def __call__(self, epoch: int, rows: int) -> np.ndarray:
        """Return the row numbers of an epoch. A second call for an epoch returns the same order."""
        if self._order is None:
            self._order = np.arange(rows)
        elif epoch == self._epoch:  # a resumed fit goes on in the middle of the epoch
            return self._order
        chosen = np.arange(rows)
        self.random_state.shuffle(chosen)
        self._order, self._epoch = self._order[chosen], epoch
        self.batches.check(self._order)
        return self._order

    def __identity__(self) -> str:
        return "shuffled as in scikit-learn"  # by `random_state`, which the estimator names

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the state as arrays and JSON values, for `restore`."""
        found: Any = self.random_state.get_state()
        name, key, at, *gauss = found
        arrays = {"key": np.asarray(key)}
        if self._order is not None:
            arrays["order"] = self._order
        return arrays, {"name": name, "at": at, "gauss": gauss, "epoch": self._epoch}

    def restore(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.random_state.set_state((state["name"], arrays["key"], state["at"], *state["gauss"]))
        self._order, self._epoch = arrays.get("order"), state["epoch"]
