"""What a run recorded, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass
class History(Mapping[str, list[float]]):
    """The curves of a fit: a mapping from names to lists of one number an epoch.

    Names are "loss" and "lr", "seconds" for the wall time of the epoch, and, with validation
    data, "val_loss" and (for classifiers) "val_accuracy".

    Attributes:
        curves: name -> numbers.
        device: the device in words.
        stopped: why the fit ended before its last epoch; empty when it did not.

    Example:
        >>> history = History()
        >>> history.record({"loss": 0.5})
        >>> history["loss"]
        [0.5]
    """

    curves: dict[str, list[float]] = field(default_factory=dict)
    device: str = ""
    stopped: str = ""

    def record(self, numbers: dict[str, float]) -> None:
        """Add an epoch."""
        for name, value in numbers.items():
            self.curves.setdefault(name, []).append(float(value))

    def __getitem__(self, name: str) -> list[float]:
        return self.curves[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.curves)

    def __len__(self) -> int:
        """The number of curves; `epochs` is their length."""
        return len(self.curves)

    @property
    def epochs(self) -> int:
        """How many epochs are recorded."""
        return len(self.curves.get("loss", ()))

    def last(self) -> dict[str, float]:
        """The numbers of the newest epoch."""
        return {name: values[-1] for name, values in self.curves.items()}
