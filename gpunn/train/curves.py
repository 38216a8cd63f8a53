"""The curves of a fit, as a mapping, a frame, a picture and a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn import html
from gpunn.data.dataset import UNNAMED, Dataset
from gpunn.errors import ArgumentError, MissingExtraError


@dataclass(repr=False)
class History(Mapping[str, list[float]]):
    """The curves of a fit: a mapping from names to lists with one number per epoch.

    The names are "loss", "lr" and "seconds", the wall time of the epoch. With validation data there
    are also "val_loss" and, for classifiers, "val_accuracy". A notebook shows the curves.

    Attributes:
        curves: a dict from names to numbers.
        device: the description of the device.
        stopped: the reason why the fit ended before its last epoch; empty if it did not.
        data: the name of the training data; empty if it has none.
        loss: the name of the loss function.
        rows: the number of examples that were trained on; 0 if it is unknown.
        val_rows: the number of examples that were validated on.

    Example:
        >>> history = History()
        >>> history.append({"loss": 0.5})
        >>> history["loss"]
        [0.5]
        >>> history
        <History of 1 epoch: loss 0.5>
    """

    curves: dict[str, list[float]] = field(default_factory=dict)
    device: str = ""
    stopped: str = ""
    data: str = ""
    loss: str = ""
    rows: int = 0
    val_rows: int = 0

    def append(self, numbers: dict[str, float]) -> None:
        """Add the numbers of an epoch."""
        for name, value in numbers.items():
            self.curves.setdefault(name, []).append(float(value))

    def __getitem__(self, name: str) -> list[float]:
        return self.curves[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.curves)

    def __len__(self) -> int:
        """Return the number of curves. Their length is `epochs`."""
        return len(self.curves)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.last().items())
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        return f"<History of {epochs}{': ' * bool(last)}{last}>"

    def _repr_html_(self) -> str:
        """Return the curves as small pictures, for a notebook."""
        from gpunn.plot.style import TRAINING, VALIDATION

        pictures = ""
        for name in self:
            if name.startswith("val_") and name[4:] in self:
                continue
            data = "validation" if name.startswith("val_") else "training"
            lines = {data: self[name]}
            if f"val_{name}" in self:
                lines["validation"] = self[f"val_{name}"]
            if name not in ("lr", "seconds") and self[name]:
                colors = (TRAINING, VALIDATION) if data == "training" else (VALIDATION,)
                pictures += html.curve(name.removeprefix("val_"), lines, colors)
        facts = [repr(self)[1:-1], self.device, self.stopped]
        return f"<div>{pictures}<p>{'<br>'.join(map(html.text, filter(None, facts)))}</p></div>"

    @property
    def epochs(self) -> int:
        """The number of epochs in the history."""
        return len(self.curves.get("loss", ()))

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, with the smallest loss of the validation data.

        Without validation data it is the smallest loss of the training data. It is 0 without an
        epoch whose loss is a number.
        """
        losses = np.array(self.curves.get("val_loss") or self.curves.get("loss") or [np.nan])
        return 0 if np.isnan(losses).all() else int(np.nanargmin(losses)) + 1

    def last(self) -> dict[str, float]:
        """Return the numbers of the last epoch."""
        return {name: values[-1] for name, values in self.curves.items()}

    def to_frame(self) -> Any:
        """Return a pandas frame with a row for each epoch, counted from 1, and a column a curve.

        Raises:
            MissingExtraError: pandas is not installed.

        Example:
            >>> History({"loss": [0.5, 0.25]}).to_frame()["loss"].loc[2]
            np.float64(0.25)
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("pandas", "notebook", "a frame") from error
        columns = {name: pandas.Series(values) for name, values in self.items()}
        frame = pandas.DataFrame(columns, dtype=np.float64)
        frame.index = pandas.RangeIndex(1, len(frame) + 1, name="epoch")
        return frame

    def plot(self, quantity: str | None = None, ax: Any = None) -> Any:
        """Draw curves, as `gpunn.plot.learning_curve` does.

        Args:
            quantity: a curve such as "loss" or "accuracy"; None for the loss and, if there is one,
                the accuracy beside it.
            ax: matplotlib axes for one quantity; None for a new figure.

        Returns:
            The axes; the figure if `quantity` is None.

        Raises:
            ArgumentError: the history has no such curve, or got `ax` for several.
            MissingExtraError: matplotlib is not installed.

        Example:
            >>> History({"loss": [0.5, 0.25]}).plot("loss").get_xlabel()
            'epoch'
        """
        from gpunn import plot

        if quantity is not None:
            return plot.learning_curve(self, ax, quantity=quantity)
        if ax is not None:
            raise ArgumentError(
                "got axes for several pictures; expected the name of one: pass quantity='loss' too"
            )
        known = [q for q in ("loss", "accuracy") if q in self or f"val_{q}" in self]
        quantities = known or ["loss"]
        figure, axes = plot.figure(1, len(quantities))
        for place, each in zip(np.ravel(axes), quantities, strict=True):
            plot.learning_curve(self, place, quantity=each)
        return figure


def new_history(device: str, loss: str, given: Any, tables: Any, held_out: Any) -> History:
    """Return the empty history of a fit.

    Args:
        device: the description of the device.
        loss: the name of the loss function.
        given: what `fit` was given, whose name a `Dataset` has.
        tables: the arrays that are trained on.
        held_out: the arrays of the validation data, or None.
    """
    data = given.name if isinstance(given, Dataset) and given.name != UNNAMED else ""
    rows, val_rows = (part[0].shape[0] if part else 0 for part in (tables, held_out))
    return History(device=device, data=data, loss=loss, rows=rows, val_rows=val_rows)
