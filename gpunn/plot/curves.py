"""Learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunn.errors import MissingExtraError, OutputError

if TYPE_CHECKING:
    from gpunn.train import History

TRAINING, VALIDATION = "#3b6fb6", "#d1603d"


def learning_curve(history: History, path: str | Path, *, title: str = "") -> None:
    """Draw loss and accuracy over the epochs into a picture.

    Args:
        history: of a fit.
        path: the file; its ending chooses the format (.png, .pdf, .svg).
        title: above the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "the picture of a learning curve") from error

    epochs = range(1, len(history) + 1)
    marks = {"marker": "o" if len(history) <= 10 else ""}
    panels = 2 if "val_accuracy" in history else 1
    figure = Figure(figsize=(4.8 * panels, 3.6), layout="constrained")
    axes: Any = figure.subplots(1, panels, squeeze=False)[0]
    axes[0].semilogy(epochs, history["loss"], color=TRAINING, **marks, label="training")
    if "val_loss" in history:
        axes[0].semilogy(epochs, history["val_loss"], color=VALIDATION, **marks, label="validation")
    axes[0].set(xlabel="epoch", ylabel="loss")
    if panels == 2:
        percent = [100 * value for value in history["val_accuracy"]]
        axes[1].plot(epochs, percent, color=VALIDATION, **marks, label="validation")
        axes[1].set(xlabel="epoch", ylabel="accuracy (%)")
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis is axes[0]:
            axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if title:
        figure.suptitle(title)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OutputError(f"got {path} for the picture; it cannot be written: {error}") from error
