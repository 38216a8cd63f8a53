"""The order of the rows, as scikit-learn shuffles them."""

from __future__ import annotations

from typing import Any

import numpy as np


class CumulativeShuffle:
    """Every epoch shuffles the order of the one before it.

    Args:
        random_state: what the orders are drawn from; it moves by one shuffle an epoch.
    """

    def __init__(self, random_state: np.random.RandomState) -> None:
        self.random_state = random_state
        self._order: np.ndarray | None = None
        self._epoch = 0

    def __call__(self, epoch: int, rows: int) -> np.ndarray:
        """The row numbers of an epoch; the same again until the next epoch."""
        if self._order is None:
            self._order = np.arange(rows)
        elif epoch == self._epoch:  # goes on in the middle of it
            return self._order
        chosen = np.arange(rows)
        self.random_state.shuffle(chosen)
        self._order, self._epoch = self._order[chosen], epoch
        return self._order

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON values from which `restore` goes on."""
        found: Any = self.random_state.get_state()
        name, key, at, *gauss = found
        arrays = {"key": np.asarray(key)}
        if self._order is not None:
            arrays["order"] = self._order
        return arrays, {"name": name, "at": at, "gauss": gauss, "epoch": self._epoch}

    def restore(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.random_state.set_state((state["name"], arrays["key"], state["at"], *state["gauss"]))
        self._order, self._epoch = arrays.get("order"), state["epoch"]
