"""The progress bar of a fit."""

from __future__ import annotations

from typing import Any

from gpunn.progress_bar import NUMBERS_FIRST, progress_bar
from gpunn.train.training import Training


class Bar:
    """A progress bar that shows nothing. Without a visible bar, tqdm is not imported."""

    def begin(self, number: int, epochs: int, count: int, training: Training) -> None:
        """Begin epoch `number` of `epochs`. Each epoch has `count` steps."""

    def update(self, steps: int) -> None:
        """Add steps to the progress."""

    def end(self, numbers: dict[str, float]) -> None:
        """Show the numbers of an epoch that has ended."""

    def close(self) -> None:
        """End the progress bar."""


class ShownBar(Bar):
    """A progress bar of tqdm."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, number: int, epochs: int, count: int, training: Training) -> None:
        """Begin epoch `number` of `epochs`. The bar is made before the first."""
        if self._bar is None:
            at = training.position
            self._bar = progress_bar(epochs * count, "step", form=NUMBERS_FIRST)
            if at.steps > at.start:  # the fit is resumed
                self._bar.update(at.steps - at.start)
        self._bar.set_description_str(f"epoch {number}/{epochs}", False)

    def update(self, steps: int) -> None:
        """Add steps to the progress."""
        self._bar.update(steps)

    def end(self, numbers: dict[str, float]) -> None:
        """Show the numbers of an epoch after the bar."""
        names = sorted(numbers, key=lambda name: name == "lr")  # what a terminal may cut is last
        self._bar.set_postfix({name: f"{numbers[name]:.4g}" for name in names}, refresh=False)

    def close(self) -> None:
        """End the progress bar. It stays visible."""
        if self._bar is not None:
            self._bar.close()
